"""The rows of a source with their labels, sorted by stream, in files that are mapped."""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.base.storage import sink_errors
from streamrnn.errors import UnsupportedError
from streamrnn.stream.scoring import BoundTarget, LabelReader, Scorer
from streamrnn.stream.sources import (
    LookedUp,
    SourceBatch,
    add_looked_up,
    parse_time,
    refuse_all_unknown,
)
from streamrnn.stream.windows import Labels, StreamBatch


class ArrayFile:
    """An array (N, *shape) in a file, to which rows are appended; `map` maps it into memory."""

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, ...] = ()) -> None:
        self.path = path
        self._dtype, self._shape = np.dtype(dtype), shape
        self._rows = 0
        with sink_errors("write", str(path)):
            self._file = path.open("wb")

    def append(self, rows: Array) -> None:
        """Add rows; what float32 cannot hold becomes infinite. Raises SinkError."""
        with np.errstate(over="ignore"):
            data = np.ascontiguousarray(rows, self._dtype).data
        with sink_errors("write", str(self.path)):
            self._file.write(data)
        self._rows += len(rows)

    def close(self) -> None:
        """Close the file; rows can no longer be added."""
        with sink_errors("write", str(self.path)):
            self._file.close()

    def map(self) -> Array:
        """Close the file, and map all rows for reading."""
        self.close()
        return mapped(self.path, self._dtype, (self._rows, *self._shape), "r")


def mapped(path: Path, dtype: Any, shape: tuple[int, ...], mode: Any = "w+") -> Array:
    """Map an array on disk, by default a new one of zeros; an empty array is in memory."""
    if 0 in shape:
        return np.zeros(shape, dtype)
    with sink_errors("write", str(path)):
        if mode == "w+":
            size = np.dtype(dtype).itemsize * math.prod(shape)
            with path.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
            mode = "r+"
        values = np.memmap(path, dtype, mode, shape=shape)
    # The same memory as a plain array: slices of a memmap take 2 µs each, 10 times as long.
    return np.asarray(values)


_BLOCK = 1 << 16


@dataclass
class Reader:
    """Reads the rows of a source before [train] until, at most `most` rows, in each of its passes.

    After a pass, `rows` is the number of rows read, `left` the file and row of the first row that
    was left out (None if there was none), and `mixed` whether a row after that was read.
    """

    scorer: Scorer
    target: BoundTarget
    most: int | None = None
    rows: int = 0
    left: tuple[str, int] | None = None
    mixed: bool = False

    def batches(self, batches: Iterator[SourceBatch]) -> Iterator[SourceBatch]:
        """Yield the record batches without the rows that are left out."""
        self.rows, self.left, self.mixed = 0, None, False
        config = self.scorer.bound.loaded.config
        for batch in batches:
            keep = np.ones(batch.batch.num_rows, bool)
            if (until := config.train.until) is not None:
                values = batch.batch.column(str(config.source.time))
                ticks = parse_time(until, values.type, "[train] until", config.source.time_zone)
                # A null is read: the contract reports it.
                earlier = pc.fill_null(pc.less(values, pa.scalar(ticks, values.type)), True)
                keep = earlier.to_numpy(zero_copy_only=False)
            if self.most is not None:
                keep = keep & (np.cumsum(keep) <= self.most - self.rows)
            if self.left is not None:
                self.mixed |= bool(keep.any())
            elif not keep.all():
                first, origin = int(np.argmin(keep)), batch.origin
                self.left = origin.file(first), int(origin.row_N[first])
                self.mixed = bool(keep[first:].any())
            kept = batch.kept(keep)
            self.rows += kept.batch.num_rows
            yield kept
            if self.most is not None and self.rows >= self.most:
                return

    def place(self, batches: Iterator[SourceBatch], row: int) -> str:
        """Read up to the row with this number, and return its location for a message."""
        begin = 0
        for batch in self.batches(batches):
            if row < begin + batch.batch.num_rows:
                return batch.origin.place(row - begin)
            begin += batch.batch.num_rows
        raise AssertionError(f"row {row} was read before, and is missing now")


@dataclass(frozen=True)
class Staged:
    """All M steps of S streams: each stream's steps in order, the streams by their first rows.

    `inputs`: one array per model input, (M, F) float32 or (M,) int64. `labels` (M, 2 K + 1) float32
    has the labels, the values of the target columns at the step itself (NaN for none), and the
    weight, 0 without a label. `at` (M, H): times of the labels, in ticks; label k has time k % H.
    `row` (M,): number of the row, as read. `time` (M,): time of the row, in ticks. Sequence q has
    the steps of stream `stream_Q[q]` between two resets: `length_Q[q]` steps from `start_Q[q]`;
    `fresh_Q`: whether it starts from the initial state of the model, not from a state in a table;
    `before_Q`: number of steps of the stream before it, since the last reset. `keys`: key columns,
    by stream. `slot_S`: number of each stream in the state table. `change`: the labels are changes
    from the values at the steps.
    """

    inputs: list[Array]
    labels: Floats
    at: Ints
    row: Ints
    time: Ints
    start_Q: Ints
    length_Q: Ints
    stream_Q: Ints
    fresh_Q: Bools
    before_Q: Ints
    slot_S: Ints
    keys: list[pa.Array]
    rows: int
    counts: Counter[str] = field(default_factory=Counter)
    change: bool = False

    def persistence(self, now: Floats) -> Floats:
        """Return what labels are if the values at their steps (N, K) last; NaN for none."""
        return now - now if self.change else now

    @property
    def steps(self) -> int:
        """The number of all steps."""
        return len(self.row)

    @property
    def targets(self) -> int:
        """K, the number of labels of a step."""
        return int(self.labels.shape[1] - 1) // 2

    @property
    def weight(self) -> Floats:
        """The weights (M,), a view."""
        return self.labels[:, -1]

    def origin(self, step: int) -> tuple[int, int]:
        """Return the number of the row of a step, as read, and the number of its stream."""
        sequence = np.searchsorted(self.start_Q, step, side="right") - 1
        return int(self.row[step]), int(self.stream_Q[sequence])

    def digest(self) -> str:
        """Return a hash of everything that training depends on."""
        total = hashlib.sha256()
        arrays: list[Array] = [*self.inputs, self.labels, self.time]
        for array in [*arrays, self.start_Q, self.stream_Q, self.fresh_Q]:
            total.update(f"{array.dtype}{array.shape}".encode())
            for begin in range(0, len(array), _BLOCK):
                total.update(np.ascontiguousarray(array[begin : begin + _BLOCK]).data)
        return total.hexdigest()


def stage(reader: Reader, batches: Iterator[SourceBatch], folder: Path) -> Staged:
    """Read all rows up to the reader's limit into `folder`, which exists and is empty.

    Only a record batch, and some numbers for each stream, are held in memory. Raises DataError,
    including for a feature with 100 or more values that are all unknown; UnsupportedError for a
    model that reads strings; SinkError.
    """
    with ExitStack() as stack:
        staged_rows = _Rows(reader, folder, stack)
        for batch in reader.batches(batches):
            staged_rows.add(batch)
        refuse_all_unknown(reader.scorer.bound.loaded.contract.vocabularies, staged_rows.looked_up)
        return staged_rows.sorted()


class _Rows:
    """The steps and labels of successive record batches, in files."""

    def __init__(self, reader: Reader, folder: Path, stack: ExitStack) -> None:
        self._reader = reader
        self._folder, self._stack = folder, stack
        self._labels = LabelReader(reader.target)
        self._stored_streams = reader.scorer.table.streams
        targets = len(reader.target.names)
        names = ("stream", "begins", "row", "time")
        self._steps = {name: self._file(name, np.int64) for name in names}
        self._label_row = self._file("label_row", np.int64)
        self._label = self._file("label", np.float32, (2 * targets + 1,))
        self._label_at = self._file("label_at", np.int64, (max(1, len(reader.target.horizons)),))
        self._inputs: list[ArrayFile] = []
        self._sizes: list[int] = []
        self._count = np.zeros(self._stored_streams, np.int64)
        self._first_row = np.full(self._stored_streams, np.iinfo(np.int64).max)
        self._before = np.array(reader.scorer.table.steps(np.arange(self._stored_streams)))
        self._resumes = np.ones(self._stored_streams, bool)
        self._begun = np.zeros(self._stored_streams, bool)
        self._read = 0
        self.counts: Counter[str] = Counter()
        self.looked_up: dict[str, LookedUp] = {}

    def add(self, batch: SourceBatch) -> None:
        scorer, loaded = self._reader.scorer, self._reader.scorer.bound.loaded
        rows = loaded.contract.read(batch.batch, batch.origin)
        by_stream = scorer.sort(rows)
        self._add_labels(self._labels.add(rows, by_stream))
        stream = np.repeat(by_stream.slot, by_stream.length)
        row = by_stream.row_M + self._read
        time = np.zeros(len(row), np.int64) if rows.time is None else rows.time[by_stream.row_M]
        of_steps = {"stream": stream, "begins": by_stream.step_M == 1, "row": row, "time": time}
        for name, values in of_steps.items():
            self._steps[name].append(values)
        for number, array in enumerate(loaded.inputs.of(by_stream)):
            if array.dtype == object:
                name = loaded.model.input_specs[number][0]
                raise UnsupportedError(
                    f"fit: the input {name!r} of the model reads strings, which cannot be trained "
                    "on. Give the feature a vocabulary, so that the model reads ids"
                )
            if number == len(self._inputs):
                self._inputs.append(self._file(f"input_{number}", array.dtype, array.shape[1:]))
            self._inputs[number].append(array)
        self._sizes.append(len(row))
        self._note_resets(by_stream)
        if (more := scorer.table.streams - len(self._count)) > 0:
            more = max(more, len(self._count))
            self._count = np.append(self._count, np.zeros(more, np.int64))
            self._first_row = np.append(self._first_row, np.full(more, np.iinfo(np.int64).max))
        self._count += np.bincount(stream, minlength=len(self._count))
        np.minimum.at(self._first_row, stream, row)
        self._read += len(rows)
        self.counts.update(by_stream.counts)
        add_looked_up(self.looked_up, rows.looked_up)

    def _file(self, name: str, dtype: Any, shape: tuple[int, ...] = ()) -> ArrayFile:
        file = ArrayFile(self._folder / f"raw.{name}", dtype, shape)
        self._stack.callback(file.close)
        return file

    def _add_labels(self, labels: Labels) -> None:
        rows = labels.rows
        self._label_row.append(rows.row)
        label = self._reader.target.learned(labels)
        weight = np.where(np.isnan(label).any(axis=1), 0.0, rows.weight)
        self._label.append(np.concatenate([label, rows.value, weight[:, None]], axis=1))
        self._label_at.append(labels.at)

    def _note_resets(self, by_stream: StreamBatch) -> None:
        """Record which streams with a state are reset at or before their first step."""
        slots, reset, length = by_stream.slot, by_stream.reset, by_stream.length
        resuming = np.flatnonzero(slots < self._stored_streams)
        for i in resuming[~self._begun[slots[resuming]]].tolist():
            if not self._begun[slots[i]]:
                self._resumes[slots[i]] &= not reset[i]
                self._begun[slots[i]] = length[i] > 0

    def sorted(self) -> Staged:
        """Return all steps by stream, with their labels."""
        if (rest := self._labels.finish()) is not None:
            self._add_labels(rest)
        streams = np.flatnonzero(self._count)
        streams = streams[np.argsort(self._first_row[streams], kind="stable")]
        offset = np.zeros(len(self._count), np.int64)
        ends = np.cumsum(self._count[streams])
        offset[streams] = ends - self._count[streams]
        stream, begins, row, time = (file.map() for file in self._steps.values())
        sources: list[Array] = [*(file.map() for file in self._inputs), row, time, begins]
        labels, at = self._labels_by_row()
        steps = sum(self._sizes)
        columns = [
            mapped(self._folder / f"sorted_{n}", source.dtype, (steps, *source.shape[1:]))
            for n, source in enumerate([*sources, labels, at])
        ]
        for begin, size in zip(np.cumsum([0, *self._sizes]), self._sizes, strict=False):
            cut = slice(begin, begin + size)
            place = _places(np.asarray(stream[cut]), offset)
            for source, target in zip(sources, columns, strict=False):
                target[place] = source[cut]
            columns[-2][place], columns[-1][place] = labels[row[cut]], at[row[cut]]
        for path in self._folder.glob("raw.*"):
            path.unlink()
        return self._staged(columns, streams, ends)

    def _labels_by_row(self) -> tuple[Floats, Ints]:
        """Return labels, values and weights, and the times of labels, by the number of the row."""
        rows, labels, times = (of.map() for of in (self._label_row, self._label, self._label_at))
        shape = (self._read, labels.shape[1])
        by_row = mapped(self._folder / "raw.by_row", np.float32, shape)
        at = mapped(self._folder / "raw.at_by_row", np.int64, (self._read, times.shape[1]))
        for begin in range(0, self._read, _BLOCK):
            by_row[begin : begin + _BLOCK, :-1] = np.nan
        for begin in range(0, len(rows), _BLOCK):
            cut = slice(begin, begin + _BLOCK)
            by_row[rows[cut]], at[rows[cut]] = labels[cut], times[cut]
        return by_row, at

    def _staged(self, columns: list[Array], streams: Ints, ends: Ints) -> Staged:
        *inputs, row, time, begins, labels, at = columns
        resets = np.concatenate(
            [np.zeros(0, np.int64)]
            + [i + np.flatnonzero(begins[i : i + _BLOCK]) for i in range(0, len(begins), _BLOCK)]
        )
        start = np.union1d(resets, ends - self._count[streams])
        fresh = np.isin(start, resets)  # a reset begins the sequence
        head = np.searchsorted(ends, start, side="right")
        resumes = np.append(self._resumes, np.zeros(len(self._count) - self._stored_streams, bool))
        fresh |= ~resumes[streams[head]]
        before = np.zeros(len(start), np.int64)
        before[~fresh] = self._before[streams[head[~fresh]]]
        return Staged(
            inputs=inputs,
            labels=labels,
            at=at,
            row=row,
            time=time,
            start_Q=start,
            length_Q=np.diff(np.append(start, len(row))),
            stream_Q=head,
            fresh_Q=fresh,
            before_Q=before,
            slot_S=streams,
            keys=[key.take(pa.array(streams)) for key in self._reader.scorer.table.key_arrays()],
            rows=self._read,
            counts=self.counts,
            change=self._reader.target.change,
        )


def _places(stream: Ints, offset: Ints) -> Ints:
    """Return the place of each step among all sorted steps; advance `offset`, in place.

    `offset` has the next place of each stream. The steps of a stream are together in `stream`.
    """
    begins = np.ones(len(stream), bool)
    np.not_equal(stream[1:], stream[:-1], out=begins[1:])
    begin = np.flatnonzero(begins)
    length = np.diff(np.append(begin, len(stream)))
    place: Ints = offset[stream] + np.arange(len(stream)) - np.repeat(begin, length)
    offset[stream[begin]] += length
    return place
