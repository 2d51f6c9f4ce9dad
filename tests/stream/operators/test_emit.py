"""Which rows come out, in which order, and where they are null."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from streamrnn.errors import ConfigError
from streamrnn.states import Layout, StateTable
from streamrnn.stream.operators import Emitter, ModelOutput
from streamrnn.stream.sources import Contract, Feature, Origin
from streamrnn.stream.windows import RowPolicy, StreamBatch, sort_by_stream

CONTRACT = Contract(("k",), None, (Feature("x", nulls="skip"),))
FIELDS = (pa.field("k", pa.string()), pa.field("x", pa.float32()))


class Lab:
    """A table, and an operator that gives each step its own number."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        key = (pa.field("k", pa.string()),)
        self.table = StateTable(Layout(key, None, {}, pending=emitter.pending_fields()))

    def score(self, keys: str, values: list[float | None]) -> tuple[Any, StreamBatch, ModelOutput]:
        batch = pa.RecordBatch.from_arrays(
            [pa.array(list(keys)), pa.array(values, pa.float32())], names=["k", "x"]
        )
        rows = CONTRACT.read(batch, Origin.consecutive("f", 0, len(batch)))
        table = self.table
        slots = table.find(rows.keys)
        by_stream = sort_by_stream(rows, slots, table, RowPolicy(float_names=("x",)))
        table.advance(*by_stream.update())
        computed = ModelOutput(
            by_stream.row_M, by_stream.step_M, by_stream.step_M[:, None].astype(np.float32)
        )
        return batch, by_stream, computed

    def rows(self, keys: str, values: list[float | None]) -> list[tuple[Any, ...]]:
        batch, by_stream, computed = self.score(keys, values)
        out = self.emitter.rows(batch, by_stream.kept, computed)
        assert out.schema == self.emitter.schema
        return [tuple(row.values()) for row in out.to_pylist()]

    def hold(self, keys: str, values: list[float | None], first_row: int) -> None:
        numbers = np.arange(len(values)) + first_row
        self.table.hold(self.emitter.held(*self.score(keys, values), self.table, numbers))

    def final(self) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self.emitter.final(self.table).to_pylist()]


def test_every_row_comes_out_in_the_order_of_the_input() -> None:
    """Skipped rows are null, and so are the first steps of a stream under warmup."""
    lab = Lab(Emitter(FIELDS, ("y",)))
    assert lab.rows("bab", [1, 2, None]) == [("b", 1, 1), ("a", 2, 1), ("b", None, None)]
    lab = Lab(Emitter(FIELDS, ("y",), warmup=1))
    assert lab.rows("bab", [1, 2, 3]) == [("b", 1, None), ("a", 2, None), ("b", 3, 2)]


def test_last_counts_the_steps_of_each_stream_over_batches() -> None:
    """Every second step; a skipped row is none."""
    lab = Lab(Emitter(FIELDS, ("y",), "last", 2))
    assert lab.rows("aab", [1, None, 3]) == []
    assert lab.rows("bca", [4, 5, 6]) == [("b", 4, 2), ("a", 6, 2)]


def test_final_is_the_last_row_with_a_value_in_the_order_of_last_rows() -> None:
    """A row without a value stands only where the stream has none at all."""
    lab = Lab(Emitter(FIELDS, ("y",), "final", warmup=1))
    lab.hold("abcd", [1, 2, None, 4], 0)
    lab.hold("dab", [7, 5, 6], 4)
    lab.hold("bac", [8, None, None], 7)
    assert lab.final() == [("d", 7, 2), ("a", 5, 2), ("b", 8, 3), ("c", None, None)]
    assert lab.final() == []
    lab.hold("a", [9], 0)
    assert lab.final() == [("a", 9, 3)]


def test_outputs_that_a_row_lacks_are_null_unit_by_unit() -> None:
    """Kind whole: one output for each step, another for the sequence."""
    lab = Lab(Emitter(FIELDS[:1], ("y", "z")))
    batch, by_stream, computed = lab.score("aa", [1, 2])
    computed.values_KU = np.array([[1, 0], [2, 3]], np.float32)
    computed.valid_KU = np.array([[True, False], [True, True]])
    out = lab.emitter.rows(batch, by_stream.kept, computed).to_pydict()
    assert out == {"k": ["a", "a"], "y": [1, 2], "z": [None, 3]}


def test_names_that_final_needs_for_itself_are_refused() -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match="uses the name '_row' internally"):
        Emitter((pa.field("_row", pa.int64()),), ("y",), "final")
