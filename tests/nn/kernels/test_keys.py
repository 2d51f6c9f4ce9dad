"""The hash table of keys: numbers in the order of appearance, whatever interrupts it."""

import numpy as np
import pytest
from selection import first_quick

from streamrnn.nn.kernels import rows as keys


def words(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = np.array([len(text) for text in texts])
    padded = np.frombuffer(b"".join(texts) + bytes(8), np.uint8)
    every = np.ndarray(len(padded) - 7, "<u8", padded.copy(), strides=(1,))
    return every, np.cumsum(size) - size, size


def texts(count: int, seed: int = 0) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [b"k%d" % i * (1 + i % 4) for i in rng.integers(0, count, 2 * count)]


def test_equal_strings_have_one_number() -> None:
    table, numbers = keys.StringIndex(), {}
    for seed in range(5):
        some = texts(700, seed)
        found, added = table.find(*words(some), True)
        first = [row for row, text in enumerate(some) if text not in numbers]
        wanted = [numbers.setdefault(text, len(numbers)) for text in some]
        assert found.tolist() == wanted
        new = {some[row]: row for row in reversed(first)}
        assert added.tolist() == sorted(new.values())
    known, _ = table.find(*words([some[0], b"nobody"]), False)
    assert known.tolist() == [numbers[some[0]], -1]


@pytest.mark.parametrize("place", range(8))
def test_an_interrupt_while_it_grows_leaves_a_sound_table(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the arrays that grow some have then grown and others have not: none is written beyond."""
    table, some = keys.StringIndex(), texts(3000)
    left = [place]

    def interrupted(original):
        def call(*arguments):
            left[0] -= 1
            if left[0] == -1:
                raise KeyboardInterrupt
            return original(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(keys, "grown", interrupted(keys.grown))
        with pytest.raises(KeyboardInterrupt):
            table.find(*words(some), True)
    table.truncate(0)
    numbers: dict[bytes, int] = {}
    wanted = [numbers.setdefault(text, len(numbers)) for text in some]
    assert table.find(*words(some), True)[0].tolist() == wanted
    assert len(table) == len(numbers)


def test_what_was_forgotten_gets_its_number_anew() -> None:
    table, some = keys.StringIndex(), texts(900)
    table.find(*words(some), True)
    table.truncate(100)
    numbers: dict[bytes, int] = {}
    for text in some:
        numbers.setdefault(text, len(numbers))
    kept = [text for text, number in numbers.items() if number < 100]
    assert table.find(*words(kept), False)[0].tolist() == list(range(100))
    assert len(table) == 100
    later = [text for text, number in numbers.items() if number >= 100][::-1]
    assert table.find(*words(later), True)[0].tolist() == list(range(100, len(numbers)))


def drop(table: keys.StringIndex, numbers: dict[bytes, int], slots: np.ndarray) -> None:
    """Remove the strings with these numbers; the last ones get them."""
    size = len(numbers) - len(slots)
    source = np.setdiff1d(np.arange(size, len(numbers)), slots)
    to = slots[: len(source)]
    move = table.moving(source, to, size)
    for _ in range(2):  # as after an interrupt
        move()
    moved = dict(zip(source.tolist(), to.tolist(), strict=True))
    gone = set(slots.tolist())
    left = {text: moved.get(n, n) for text, n in numbers.items() if n not in gone}
    numbers.clear()
    numbers |= dict(sorted(left.items(), key=lambda item: item[1]))


@pytest.mark.parametrize("seed", first_quick(range(4)))
def test_calls_of_any_size_find_what_a_dict_finds(seed: int) -> None:
    """While what is in the cells is moved, too, and after some of it was removed: by an oracle.

    Slow: more draws.
    """
    rng, table = np.random.default_rng(seed), keys.StringIndex()
    numbers: dict[bytes, int] = {}
    moving = least = 0
    for _ in range(600):
        some = [b"%d" % n for n in rng.integers(0, 9000, rng.choice([1, 2, 40, 300]))]
        if rng.random() < 0.1:
            size = max(least, len(numbers) - int(rng.integers(0, 60)))
            table.truncate(size)
            numbers = {text: number for text, number in numbers.items() if number < size}
        if rng.random() < 0.1:
            slots = rng.permutation(len(numbers))[: int(rng.integers(0, 300))]
            drop(table, numbers, np.sort(slots))
            least = len(numbers)
        add = bool(rng.random() < 0.7)
        wanted = [
            numbers.setdefault(text, len(numbers)) if add else numbers.get(text, -1)
            for text in some
        ]
        assert table.find(*words(some), add)[0].tolist() == wanted
        assert len(table) == len(numbers)
        moving += len(table._older) > 0
    assert moving > 20
    table.rebuild()
    assert table.find(*words(list(numbers)), False)[0].tolist() == list(numbers.values())


def test_no_call_moves_more_than_its_share() -> None:
    """The table doubles, again and again, and a call with one string does little of it."""
    table, before, moves = keys.StringIndex(), 0, 0
    for number in range(10_000):
        cells = len(table._cells)
        table.find(*words([b"%d" % number]), True)
        filled = int(table._counts[keys.FILLED])
        if len(table._cells) == cells:
            assert 1 <= filled - before <= 1 + 4 + 64
            moves += filled - before > 1
        before = filled
    assert moves > 40


def test_removed_strings_do_not_fill_the_table() -> None:
    """A client whose calls fail, over and over, each with new keys."""
    table = keys.StringIndex()
    table.find(*words([b"kept-%d" % n for n in range(100)]), True)
    for call in range(300):
        table.find(*words([b"%d-%d" % (call, n) for n in range(50)]), True)
        table.truncate(100)
    assert len(table._cells) <= 2048
    assert table.find(*words([b"kept-7", b"3-3"]), False)[0].tolist() == [7, -1]


@pytest.mark.parametrize("add", [True, False])
def test_strings_in_turns_and_out_of_turn(add: bool) -> None:
    """A key is first taken for the one that came after the key before it."""
    table, known = keys.StringIndex(), [b"key-%d" % i for i in range(300)]
    table.find(*words(known), True)
    turns = known + known[:100] + [b"new"] + known[50:] + [b"key-7", b"key-8\0", b"key-9", b"new"]
    numbers = {text: number for number, text in enumerate(known)}
    wanted = [numbers.setdefault(text, len(numbers)) if add else numbers.get(text, -1)
              for text in turns]  # fmt: skip
    assert table.find(*words(turns), add)[0].tolist() == wanted
