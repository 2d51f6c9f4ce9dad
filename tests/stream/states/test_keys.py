"""Keys of every Arrow type with equality, judged by a dict of Python values."""

import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn.errors import StateError
from streamrnn.stream.states import KeyIndex

D = decimal.Decimal
VALUES: dict[str, pa.Array] = {
    "bool": pa.array([True, False]),
    "int8": pa.array([-128, 127, 0], pa.int8()),
    "uint64": pa.array([2**64 - 1, 0, 2**63], pa.uint64()),
    "string": pa.array(["a", "", "a\0", "ab", "abcdefgh", "abcdefghi", "\0", "é"]),
    "large_string": pa.array(["a", "", "b" * 100], pa.large_string()),
    "binary": pa.array([b"a", b"", b"\0", b"\0\0", b"a\0\0\0\0\0\0\0"]),
    "fixed_size_binary": pa.array([b"ab", b"cd"], pa.binary(2)),
    "date32": pa.array([0, -1, 20000], pa.date32()),
    "date64": pa.array([0, 86_400_000], pa.date64()),
    "timestamp[ns]": pa.array([0, 1, 2], pa.timestamp("ns")),
    "timestamp[s]": pa.array([0, 1, -1], pa.timestamp("s", "Europe/Berlin")),
    "time32": pa.array([0, 1], pa.time32("s")),
    "time64": pa.array([0, 1], pa.time64("ns")),
    "duration": pa.array([0, 1], pa.duration("ns")),
    "decimal128": pa.array([D("1.0"), D("2.5"), D("-1.0")]),
    "decimal256": pa.array([D("1.0"), D("2.5")], pa.decimal256(60, 1)),
}
SHUFFLED = [0, 1, 0, -1, 1, 0, -1]


def _index(*arrays: pa.Array) -> KeyIndex:
    return KeyIndex([pa.field(str(i), array.type) for i, array in enumerate(arrays)])


def _by_dict(rows: list[Any], known: dict[Any, int]) -> list[int]:
    return [known.setdefault(row, len(known)) for row in rows]


@pytest.mark.parametrize("kind", VALUES)
def test_equal_values_are_one_stream(kind: str) -> None:
    """Slots count first appearances, within a call and over calls; the keys come back as given."""
    values = VALUES[kind]
    index = _index(values)
    assert index.find([values]).tolist() == list(range(len(values)))
    again = values.take(pa.array([i % len(values) for i in SHUFFLED]))
    assert index.find([again]).tolist() == [i % len(values) for i in SHUFFLED]
    assert index.find([again.dictionary_encode()]).tolist() == [i % len(values) for i in SHUFFLED]
    assert index.arrays()[0].equals(values)


def test_uuids_and_small_decimals_are_keys() -> None:
    """Types that Arrow itself cannot encode."""
    ids = pa.array([b"0" * 16, b"1" * 16, b"0" * 16], pa.binary(16)).cast(pa.uuid())
    amounts = pa.array([D("1.0"), D("2.5"), D("1.0")], pa.decimal32(5, 1))
    for values in (ids, amounts):
        index = _index(values)
        assert index.find([values]).tolist() == [0, 1, 0]
        assert index.arrays()[0].equals(values.take(pa.array([0, 1])))


TEXT = st.text(alphabet="ab\0é", max_size=9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(TEXT, st.integers(0, 3)), max_size=12), max_size=4))
def test_compound_keys_are_found_as_in_a_dict(batches: list[list[tuple[str, int]]]) -> None:
    """("a", 12) is not ("a1", 2): columns never run together, whatever came in which batch."""
    index = KeyIndex([pa.field("a", pa.string()), pa.field("b", pa.int64())])
    known: dict[Any, int] = {}
    for batch in batches:
        arrays = [pa.array([a for a, _ in batch], pa.string()), pa.array([b for _, b in batch])]
        arrays[1] = arrays[1].cast(pa.int64())
        assert index.find(arrays, add=False).tolist() == [known.get(row, -1) for row in batch]
        assert index.find(arrays).tolist() == _by_dict(batch, known)
    assert list(zip(*(a.to_pylist() for a in index.arrays()), strict=True)) == list(known)


def _with_one_hash(count: int) -> list[int]:
    """Integers whose hashes differ only in bits 10 to 31: one cell of a small table, one tag."""
    factor = 0xFF51AFD7ED558CCD
    back, size = pow(factor, -1, 2**64), 8 * factor
    mixed = [(0x12345678 << 32) | (i << 10) for i in range(count)]
    return [((m * back) ^ size) % 2**64 for m in mixed]


def test_keys_with_one_hash_are_told_apart() -> None:
    """Hashes only find a slot: the keys themselves decide."""
    index = KeyIndex([pa.field("a", pa.uint64())])
    known: dict[Any, int] = {}
    keys = _with_one_hash(40)
    for first in (0, 5, 3, 25):
        rows = keys[first : first + 10]
        assert index.find([pa.array(rows, pa.uint64())]).tolist() == _by_dict(rows, known)
    assert index.find([pa.array(keys[38:], pa.uint64())], add=False).tolist() == [-1, -1]
    index.truncate(7)
    assert index.find([pa.array(keys[5:9], pa.uint64())]).tolist() == [5, 6, 7, 8]


def test_truncate_forgets_what_was_added_last() -> None:
    """After an error the table is as it was: the streams come anew, in whatever order."""
    index = KeyIndex([pa.field("a", pa.string())])
    index.find([pa.array(["a", "b"])])
    index.find([pa.array(["c", "d"])])
    index.truncate(2)
    assert len(index) == 2
    assert index.find([pa.array(["d", "a", "c", "b"])]).tolist() == [2, 0, 3, 1]
    assert index.arrays()[0].to_pylist() == ["a", "b", "d", "c"]


def test_keys_that_come_one_by_one_are_kept_in_few_pieces() -> None:
    """To join thousands of pieces would stall a commit; some are removed on the way."""
    index = KeyIndex([pa.field("a", pa.string())])
    for number in range(3000):
        index.find([pa.array([f"key {number}"])])
        if number % 100 == 0:
            index.truncate(number - number // 300)
            index.find([pa.array([f"key {n}" for n in range(number + 1)])])
        assert len(index._keys[0]) <= 16
    assert index.arrays()[0].to_pylist() == [f"key {number}" for number in range(3000)]


def test_a_dictionary_with_unused_and_unordered_values_is_one_like_any_other() -> None:
    """Rows taken out of an encoded column leave such dictionaries."""
    index = KeyIndex([pa.field("a", pa.string())])
    values = pa.array(["x", "c", "b", "a"]).dictionary_encode().take(pa.array([3, 2, 3]))
    assert index.find([values]).tolist() == [0, 1, 0]
    views = pa.DictionaryArray.from_arrays(values.indices, values.dictionary.cast(pa.string_view()))
    assert index.find([views]).tolist() == [0, 1, 0]
    assert index.arrays()[0].to_pylist() == ["a", "b"]


def test_slices_are_read_from_where_they_begin() -> None:
    """An offset into a column moves nothing."""
    whole = pa.array(["zz", "a", "b", "a"])
    index = KeyIndex([pa.field("a", pa.string())])
    assert index.find([whole.slice(1)]).tolist() == [0, 1, 0]
    assert index.find([whole]).tolist() == [2, 0, 1, 0]


def test_no_rows_and_many_rows() -> None:
    """No key is no slot; 300,000 keys are found again after the table has grown under them."""
    index = KeyIndex([pa.field("a", pa.date32())])
    assert index.find([pa.array([], pa.date32())]).tolist() == []
    many = pa.array(np.random.default_rng(7).permutation(300_000).astype(np.int32)).cast(
        pa.date32()
    )
    for at in range(0, 300_000, 100_000):
        index.find([many.slice(at, 100_000)])
    assert index.find([many]).tolist() == list(range(300_000))
    assert index.arrays()[0][0].as_py() > datetime.date(1970, 1, 1)


def test_more_keys_than_their_type_can_hold_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """2 GiB of them, as Arrow says it; the message says what to do."""
    index = KeyIndex([pa.field("device", pa.string())])
    for each in (["a", "b"], ["c"]):
        index.find([pa.array(each)])

    def full(arrays: list[pa.Array]) -> pa.Array:
        raise pa.ArrowInvalid("offset overflow while concatenating arrays")

    with monkeypatch.context() as patch:
        patch.setattr(pa, "concat_arrays", full)
        with pytest.raises(
            StateError, match=r"'device': the keys take more than 2 GiB.*large_string"
        ):
            index.arrays()
    assert index.arrays()[0].to_pylist() == ["a", "b", "c"]
