"""The rows of a source in windows of a fixed size, for models of any framework."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.errors import DataError
from streamrnn.stream.scoring.labels import BoundTarget, LabelReader
from streamrnn.stream.scoring.scorer import Scorer
from streamrnn.stream.sources import Rows, SourceBatch
from streamrnn.stream.windows import Inputs, Labels, StreamBatch, place, sequences_of


@dataclass(frozen=True)
class SourceWindow:
    """B lanes x T steps, the same B and T in all windows.

    Lane b continues lane b of the previous window, unless `reset` says otherwise.

    `inputs`: one array per input, in the model's order: (B, T, F) float32, or (B, T) float32, int64
    or strings; zeros, or "", after the last step of a lane.
    `lengths` (B,) int64: steps of each lane; 0 for a lane without a stream.
    `keys`: key columns of the B streams; null for a lane without a stream.
    `reset` (B,) bool: the lane does not continue the previous window, as another stream begins, or
    the same stream after a reset.
    `resumes` (B,) bool: the lane has `reset`, and begins with the stream's state in
    `Pipeline.state` (`states.to_layer(pipeline.state, layer, window.keys, missing="initial")`).
    Other lanes with `reset` begin with the initial state of the model.
    `rows` (B, T) int64: the number of each step's row in the source, from 0; -1 after the last step
    of a lane.
    `y` (B, T, K) float32, with `[target]`: the labels of the step, one per target column and
    horizon; NaN for none. None without `[target]`.
    `weight` (B, T) float32, with `[target]`: the weight of the step; 0 if one of its labels is
    missing, and after the last step of a lane.
    """

    inputs: Inputs
    lengths: Ints
    keys: pa.RecordBatch
    reset: Bools
    resumes: Bools
    rows: Ints
    y: Floats | None = None
    weight: Floats | None = None


class SourceWindows(Iterator[SourceWindow]):
    """Iterator over the windows of a source.

    All steps are read when the first window is requested. Raises DataError then for invalid rows,
    and for a label or weight that float32 cannot hold.

    `counts`, complete from then on, has counts by their names in a Summary: of rows that are in no
    window ("rejected", "skipped", "dropped_late"), of values ("filled", "clipped", "out_of_range"),
    and others.
    """

    def __init__(
        self, scorer: Scorer, batches: Iterator[SourceBatch], target: BoundTarget | None = None
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._windows = self._all(scorer, batches, target)

    def __next__(self) -> SourceWindow:
        return next(self._windows)

    def _all(
        self, scorer: Scorer, batches: Iterator[SourceBatch], target: BoundTarget | None
    ) -> Iterator[SourceWindow]:
        table, loaded = scorer.table, scorer.bound.loaded
        size, staged = loaded.config.window, _Staged(table.streams, target)
        for batch in batches:
            rows = loaded.contract.read(batch.batch, batch.origin)
            by_stream = scorer.sort(rows)
            staged.add(rows, by_stream, loaded.inputs.of(by_stream))
            self.counts.update(by_stream.counts)
        keys = pa.RecordBatch.from_arrays(table.key_arrays(), schema=pa.schema(table.layout.keys))
        yield from staged.windows(keys, size.lanes, size.steps)


class _Staged:
    """The steps of successive record batches.

    The first `stored` streams resume from their state in the table, unless they are reset at their
    first step or at a skipped row before it.
    """

    def __init__(self, stored: int, target: BoundTarget | None) -> None:
        self._resumes = np.ones(stored, bool)
        self._started = np.zeros(stored, bool)
        self._inputs: list[Inputs] = []
        self._slots: list[Ints] = []
        self._steps: list[Ints] = []
        self._rows: list[Ints] = []
        self._read = 0
        self._reader = None if target is None else LabelReader(target)
        self._names = () if target is None else target.names
        self._target = target
        self._labels: list[tuple[Ints, Floats, Floats]] = []  # rows, labels, weights

    def add(self, rows: Rows, by_stream: StreamBatch, inputs: Inputs) -> None:
        """Add the steps of a record batch, and the labels that are known by now."""
        self._inputs.append(inputs)
        self._slots.append(np.repeat(by_stream.slot, by_stream.length))
        self._steps.append(by_stream.step_M)
        self._rows.append(by_stream.row_M + self._read)
        self._read += len(rows)
        if self._reader is not None:
            self._keep(self._reader.add(rows, by_stream))
        slots, reset, length = by_stream.slot, by_stream.reset, by_stream.length
        stored = np.flatnonzero(slots < len(self._started))
        for i in stored[~self._started[slots[stored]]].tolist():
            if not self._started[slots[i]]:
                self._resumes[slots[i]] &= not reset[i]
                self._started[slots[i]] = length[i] > 0

    def windows(self, keys: pa.RecordBatch, lanes: int, steps: int) -> Iterator[SourceWindow]:
        """Yield all windows; `keys` has the keys by slot."""
        slots, step, rows = (
            np.concatenate([np.zeros(0, np.int64), *arrays])
            for arrays in (self._slots, self._steps, self._rows)
        )
        sequences = sequences_of(slots, step)
        inputs, rows = [], rows[sequences.order]
        for i in range(len(self._inputs[0]) if self._inputs else 0):
            arrays = [batch_inputs[i] for batch_inputs in self._inputs]
            inputs.append(np.concatenate(arrays)[sequences.order])
        of_rows = None if self._reader is None else self._labels_of(rows, self._reader)
        for sequence, begin, length, first in place(sequences, lanes, steps):
            number, slot_of = np.maximum(sequence, 0), sequences.slot
            slot = np.where(sequence < 0, -1, slot_of[sequence])
            begins_stream = (number == 0) | (slot_of[number] != slot_of[number - 1])
            resumes = np.zeros(len(slot), bool)
            stored = (slot >= 0) & (slot < len(self._resumes))
            resumes[stored] = self._resumes[slot[stored]]
            valid = np.arange(steps) < length[:, np.newaxis]
            index = np.where(valid, begin[:, np.newaxis] + np.arange(steps), 0)
            y = weight = None
            if of_rows is not None:
                y = _taken(of_rows[0], index, valid, blank=np.nan)
                weight = _taken(of_rows[1], index, valid)
            yield SourceWindow(
                inputs=[_taken(array, index, valid) for array in inputs],
                lengths=length,
                keys=keys.take(pa.array(slot, mask=slot < 0)),
                reset=first,
                resumes=first & begins_stream & resumes,
                rows=np.where(valid, rows[index], -1),
                y=y,
                weight=weight,
            )

    def _keep(self, labels: Labels) -> None:
        """Keep labels and weights as float32. Raises DataError for one that float32 cannot hold."""
        assert self._target is not None
        learned, rows = self._target.learned(labels), labels.rows.row
        values = np.column_stack([learned, labels.rows.weight])
        with np.errstate(over="ignore"):
            kept = values.astype(np.float32)
        if len(beyond := np.argwhere(np.isinf(kept))):
            row, column = beyond[0]
            name = [*self._names, "weight"][column]
            raise DataError(
                f"[target]: {name!r} of row {rows[row]} (from 0): expected a number within the "
                f"range of float32, received {values[row, column]:g}"
            )
        self._labels.append((rows, kept[:, :-1], kept[:, -1]))

    def _labels_of(self, rows: Ints, reader: LabelReader) -> tuple[Floats, Floats]:
        """Return labels (M, K) and weights (M,) of `rows` (M,), numbers of rows that were read."""
        if (rest := reader.finish()) is not None:
            self._keep(rest)
        y = np.full((self._read, len(self._names)), np.nan, np.float32)
        weight = np.zeros(self._read, np.float32)
        for row, label, weights in self._labels:
            y[row], weight[row] = label, weights
        weight[np.isnan(y).any(axis=1)] = 0
        return y[rows], weight[rows]


def _taken(array: Array, index: Ints, valid: Bools, blank: float = 0) -> Array:
    """Take rows (B, T, …) of an array (M, …); those not `valid` become `blank`, strings ""."""
    values = np.take(array, index, axis=0)
    values[~valid] = "" if values.dtype == object else blank
    return values
