"""Segments packed into windows: every step once, in order, the live lanes a prefix."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn.stream.windows import pack_lanes

SIZES = st.lists(st.integers(0, 40), max_size=25)


@settings(max_examples=200, deadline=None)
@given(SIZES, st.integers(1, 9), st.integers(1, 12) | st.integers(30, 40), st.integers(1, 3))
def test_every_step_is_in_one_window_and_its_output_comes_back(
    lengths: list[int], lanes: int, steps: int, groups: int
) -> None:
    """Any lengths; lanes hold no more cells than asked for, unless one segment is longer."""
    length = np.array(lengths, np.int64)
    start = np.cumsum(length) - length
    total = int(length.sum())
    x_MF = np.arange(total * 2, dtype=np.float32).reshape(total, 2)
    ids_M = np.arange(total)
    out_MU = np.full((total, 1), -1, np.float32)
    seen: list[int] = []
    for packed in pack_lanes(start, length, lanes, steps, groups):
        assert packed.length.tolist() == sorted(packed.length, reverse=True)
        assert len(packed.segment) <= max(lanes, lanes * steps // int(packed.length[0]))
        seen += packed.segment.tolist()
        done = np.zeros(len(packed.segment), np.int64)
        for window in packed.windows([x_MF, ids_M], steps):
            live = len(window.length_B)
            assert window.rows().shape[1] == window.length_B[0] <= steps
            assert (window.length_B > 0).all()
            for b in range(live):
                n = int(window.length_B[b])
                rows = packed.start[b] + done[b] + np.arange(n)
                assert window.inputs[0][b, :n].tolist() == x_MF[rows].tolist()
                assert window.inputs[1][b, :n].tolist() == rows.tolist()
            done[:live] += window.length_B
            window.scatter(window.inputs[1][:, :, None].astype(np.float32), out_MU)
        assert done.tolist() == packed.length.tolist()
    assert sorted(seen) == np.flatnonzero(length).tolist()
    assert out_MU[:, 0].tolist() == list(range(total))


def test_short_streams_share_windows_and_threads_share_segments() -> None:
    """1,000 streams of one step are one window of 1,000 lanes; two threads get half each."""
    ones = np.ones(1000, np.int64)
    start = np.arange(1000)
    assert [len(p.segment) for p in pack_lanes(start, ones, 16, 64)] == [1000]
    assert [len(p.segment) for p in pack_lanes(start, ones, 16, 64, groups=2)] == [500, 500]
    assert pack_lanes(start[:0], ones[:0], 16, 64) == []
