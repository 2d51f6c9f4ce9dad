"""Sequences on lanes: each step once, in its order; lanes continue until their stream ends."""

import numpy as np
import pytest

from streamrnn.stream.windows import place, sequences_of


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Streams and step numbers of interleaved rows; some streams go on from earlier steps."""
    rng = np.random.default_rng(seed)
    slot = rng.zipf(1.5, int(rng.integers(0, 200))) % int(rng.integers(1, 20))
    step, last = np.zeros(len(slot), np.int64), {}
    for i, s in enumerate(slot.tolist()):
        began = last.setdefault(s, int(rng.integers(0, 3)))
        last[s] = step[i] = 1 if rng.random() < 0.1 else began + 1
    return slot, step


def naive_sequences(slot: np.ndarray, step: np.ndarray) -> list[tuple[int, list[int]]]:
    """(stream, its rows from one reset to the next), by stream."""
    found: dict[int, list[list[int]]] = {}
    for i, s in enumerate(slot.tolist()):
        mine = found.setdefault(s, [])
        if not mine or step[i] == 1:
            mine.append([])
        mine[-1].append(i)
    return [(s, rows) for s in sorted(found) for rows in found[s]]


@pytest.mark.parametrize("seed", range(20))
def test_sequences_are_those_between_resets(seed: int) -> None:
    slot, step = drawn(seed)
    order, start, length, of = sequences_of(slot, step)
    found = [
        (int(s), order[at : at + n].tolist()) for s, at, n in zip(of, start, length, strict=True)
    ]
    assert found == naive_sequences(slot, step)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("lanes", "steps"), [(1, 1), (3, 4), (7, 2), (50, 100)])
def test_lanes_follow_their_streams(seed: int, lanes: int, steps: int) -> None:
    """Against lanes in plain Python that take rows one window after another."""
    slot, step = drawn(seed)
    sequences = sequences_of(slot, step)
    waiting = naive_sequences(slot, step)
    lane_rows: list[list[int]] = [[] for _ in range(lanes)]
    lane_stream: list[int | None] = [None] * lanes
    windows = list(place(sequences, lanes, steps))
    for sequence, begin, length, first in windows:
        for lane in range(lanes):
            new = not lane_rows[lane]
            if new:
                own = [i for i, (s, _) in enumerate(waiting) if s == lane_stream[lane]]
                taken = {s for s in lane_stream if s is not None}
                free = [i for i, (s, _) in enumerate(waiting) if s not in taken]
                if own or free:
                    lane_stream[lane], lane_rows[lane] = waiting.pop((own or free)[0])
                else:
                    lane_stream[lane] = None
            rows, lane_rows[lane] = lane_rows[lane][:steps], lane_rows[lane][steps:]
            at = int(begin[lane])
            assert sequences.order[at : at + length[lane]].tolist() == rows
            assert bool(first[lane]) == (new and bool(rows))
            assert (sequence[lane] >= 0) == bool(rows)
    assert not waiting
    assert not any(lane_rows)
    assert all(window.length_B.any() for window in windows)
