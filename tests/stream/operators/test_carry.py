"""Kind carry: streams never meet, and a batch that fails leaves the table as it was."""

from collections.abc import Callable
from typing import Any

import logs
import numpy as np
import pyarrow as pa

from streamrnn.models import StepRunner
from streamrnn.states import Layout, StateTable
from streamrnn.stream.operators import CarryOperator, WindowSize, Workers, plan_inputs
from streamrnn.stream.sources import Contract, Feature, Origin
from streamrnn.stream.windows import RowPolicy, sort_by_stream

CONTRACT = Contract(("k",), None, (Feature("a", nulls="skip"), Feature("b")), (), "r")
STREAM = StepRunner(logs.small_model("LSTM"))


def _operator(lanes: int = 4, steps: int = 3, threads: int = 1) -> CarryOperator:
    plan = plan_inputs([("x", (None, 2), "float32")], {"x": ["a", "b"]}, ["a", "b"])
    return CarryOperator(STREAM, plan, WindowSize(lanes, steps, steps), Workers(threads))


def _table() -> StateTable:
    initial = {n: a[0] for n, a in STREAM.initial_state(1).items()}
    return StateTable(Layout((pa.field("k", pa.int64()),), None, STREAM.state_spec), initial)


def _rows(count: int, streams: int, resets: float = 0.05) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    return {
        "k": rng.integers(0, streams, count),
        "a": rng.normal(size=count),
        "b": rng.normal(size=count),
        "r": rng.random(count) < resets,
    }


def _score(
    columns: dict[str, Any], operator: CarryOperator, table: StateTable, commit_states: bool = True
) -> np.ndarray:
    """One value a row, NaN where there is none."""
    arrays = {n: pa.array(v) for n, v in columns.items()}
    batch = pa.RecordBatch.from_pydict(arrays)
    rows = CONTRACT.read(batch, Origin.consecutive("f", 0, len(batch)))
    slots = table.find(rows.keys)
    by_stream = sort_by_stream(rows, slots, table, RowPolicy(float_names=("a", "b")))
    computed = operator.process(by_stream, table)
    values = np.full(len(slots), np.nan, np.float32)
    values[computed.row_K] = computed.values_KU[:, 0]
    if commit_states:
        computed.commit_states()
        table.advance(*by_stream.update())
    return values


def _each(columns: dict[str, Any], keep: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
    chosen = keep(np.asarray(columns["k"]))
    return {n: np.asarray(v)[chosen] for n, v in columns.items()}


def test_lanes_steps_and_threads_change_no_bit() -> None:
    """Outputs and states with ==, for any way to cut the work."""
    columns = _rows(300, 9)
    first = _table()
    expected = _score(columns, _operator(1, 1), first)
    for lanes, steps, threads in ((3, 2, 1), (64, 128, 1), (2, 5, 2), (64, 4, 3)):
        table = _table()
        got = _score(columns, _operator(lanes, steps, threads), table)
        np.testing.assert_array_equal(got, expected)
        assert table.to_arrow().equals(first.to_arrow())


def test_a_stream_is_scored_as_if_it_were_alone() -> None:
    """Whatever shares its windows: another stream's reset, and values of any size."""
    columns = _rows(200, 5)
    columns["a"] = np.where(columns["k"] == 3, 1e30, columns["a"])
    together = _score(columns, _operator(), _table())
    for stream in range(5):
        alone = _score(_each(columns, lambda k, s=stream: k == s), _operator(), _table())
        np.testing.assert_array_equal(together[columns["k"] == stream], alone)


def test_buffers_that_are_used_again_leave_no_trace() -> None:
    """A large record batch, then a small one, with one operator and with a new one each."""
    batches = [_rows(400, 50), _rows(10, 3), _rows(500, 80)]
    used, one = _table(), _operator()
    fresh = _table()
    for columns in batches:
        np.testing.assert_array_equal(
            _score(columns, one, used), _score(columns, _operator(), fresh)
        )
    assert used.to_arrow().equals(fresh.to_arrow())


def test_the_table_is_as_it_was_until_settled() -> None:
    """An error on the way (a value that is not finite, say) costs nothing."""
    table, operator = _table(), _operator()
    _score(_rows(50, 5), operator, table)
    before = table.to_arrow()
    first = _score(_rows(30, 5, resets=0.5), operator, table, commit_states=False)
    assert table.to_arrow().equals(before)
    np.testing.assert_array_equal(_score(_rows(30, 5, resets=0.5), operator, table), first)


def test_a_reset_on_a_skipped_row_is_the_initial_state() -> None:
    """The stream began fresh and had no step since."""
    table, operator = _table(), _operator()
    _score({"k": [0, 1], "a": [1.0, 1.0], "b": [1.0, 1.0], "r": [False, False]}, operator, table)
    assert table.states("rnn/h").any(axis=1).all()
    nothing = pa.array([None], pa.float64())
    got = _score({"k": [0], "a": nothing, "b": [1.0], "r": [True]}, operator, table)
    assert np.isnan(got).all()
    assert table.states("rnn/h").any(axis=1).tolist() == [False, True]
    assert table.steps(np.arange(2)).tolist() == [0, 1]
