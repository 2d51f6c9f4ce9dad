"""Independent windows, judged by slicing lists: any batches, strides and resets."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn.errors import StateError
from streamrnn.states import Layout, StateTable
from streamrnn.stream.operators import IndependentOperator, WindowSize, Workers, plan_inputs
from streamrnn.stream.sources import Contract, Feature, Origin
from streamrnn.stream.states import MATRIX
from streamrnn.stream.windows import RowPolicy, sort_by_stream

CONTRACT = Contract(("k",), None, (Feature("x", nulls="skip"),), (), "r")


class Echo:
    """In place of a model: a window's value is its rows, so that a wrong one shows."""

    def __init__(self, steps: int) -> None:
        self.outputs = [("echo", steps)]

    def run(self, inputs: list[Any], lengths_B: Any) -> list[Any]:
        return [np.ascontiguousarray(inputs[0][:, :, 0])]


def _operator(steps: int, stride: int, lanes: int = 3) -> IndependentOperator:
    plan = plan_inputs([("x", (None, 1), "float32")], {"x": ["x"]}, ["x"])
    echo: Any = Echo(steps)
    return IndependentOperator(echo, plan, WindowSize(lanes, steps, stride), Workers(1))


def _table(steps: int) -> StateTable:
    waiting = {MATRIX: pa.list_(pa.float32(), 1)}
    key = (pa.field("k", pa.int64()),)
    return StateTable(Layout(key, None, {}, waiting=waiting, waiting_rows=steps - 1))


Row = tuple[int, float | None, bool]


def _process(
    rows: list[Row], operator: IndependentOperator, table: StateTable
) -> dict[int, tuple[int, list[float]]]:
    """Row -> (step, the rows of the window that it completes)."""
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array([k for k, _, _ in rows], pa.int64()),
            pa.array([x for _, x, _ in rows], pa.float32()),
            pa.array([r for _, _, r in rows], pa.bool_()),
        ],
        names=["k", "x", "r"],
    )
    read = CONTRACT.read(batch, Origin.consecutive("f", 0, len(batch)))
    slots = table.find(read.keys)
    by_stream = sort_by_stream(read, slots, table, RowPolicy(float_names=("x",)))
    computed = operator.process(by_stream, table)
    computed.commit_states()
    table.advance(*by_stream.update())
    found = zip(computed.row_K, computed.step_K, computed.values_KU, strict=True)
    return {int(row): (int(step), values.tolist()) for row, step, values in found}


def _oracle(
    rows: list[Row], streams: dict[int, list[float]], steps: int, stride: int
) -> dict[int, tuple[int, list[float]]]:
    out = {}
    for i, (key, x, reset) in enumerate(rows):
        if reset:
            streams[key] = []
        seen = streams.setdefault(key, [])
        if x is None:
            continue
        seen.append(x)
        if len(seen) >= steps and (len(seen) - steps) % stride == 0:
            out[i] = (len(seen), seen[-steps:])
    return out


ROW = st.tuples(
    st.integers(0, 2),
    st.none() | st.integers(0, 99).map(float),
    st.integers(0, 11).map(lambda n: n == 0),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(ROW, max_size=40), st.integers(1, 5), st.integers(1, 7), st.integers(1, 9))
def test_each_window_holds_its_rows_and_belongs_to_the_row_that_completes_it(
    rows: list[Row], steps: int, stride: int, cut: int
) -> None:
    """Strides below and above the length, resets, skipped rows, batches of any size."""
    operator, table = _operator(steps, stride), _table(steps)
    streams: dict[int, list[float]] = {}
    for first in range(0, len(rows), cut):
        piece = rows[first : first + cut]
        assert _process(piece, operator, table) == _oracle(piece, streams, steps, stride)


def test_a_batch_of_skipped_rows_only_leaves_what_waits() -> None:
    """No step at all in it: nothing comes out, nothing is lost, a reset still counts."""
    operator, table = _operator(3, 3), _table(3)
    assert _process([(0, 1.0, False), (0, 2.0, False)], operator, table) == {}
    assert _process([(0, None, False)], operator, table) == {}
    assert _process([(0, 3.0, False)], operator, table) == {0: (3, [1, 2, 3])}
    _process([(0, 4.0, False)], operator, table)
    assert _process([(0, None, True)], operator, table) == {}
    assert table.waiting_counts(np.array([0])) == [0]


def test_state_of_other_windows_is_refused() -> None:
    """Its waiting rows would make windows of rows that do not follow each other."""
    table = _table(5)
    _process([(0, float(i), False) for i in range(7)], _operator(5, 5), table)
    with pytest.raises(StateError, match=r"saved with windows other than .* steps = 5, stride = 1"):
        _process([(0, 1.0, False)], _operator(5, 1), table)
