"""Labels: values of later rows of a stream, or of the row itself; and their seasonal forecasts."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Bools, Doubles, Ints
from streamrnn.stream.windows.sorted_rows import (
    before_each,
    run_ends,
    running_maximum,
    stream_begins,
)

_LATEST = np.iinfo(np.int64).max


class TargetRows(NamedTuple):
    """N rows with the values of K targets; the rows of each stream are in order.

    `row` is the number of a row in the source, `slot` its stream, `time` is in ticks (any constant
    without a time column), `reset`: the stream is reset before the row; `value` (N, K) is NaN for
    null, `weight` (N,) 0 for null.
    """

    row: Ints
    slot: Ints
    time: Ints
    reset: Bools
    value: Doubles
    weight: Doubles

    def take(self, index: Array) -> "TargetRows":
        """Return the rows that an index or a mask selects."""
        return TargetRows._make(array[index] for array in self)

    @classmethod
    def joined(cls, several: Iterable["TargetRows"]) -> "TargetRows":
        """Concatenate rows."""
        return cls._make(map(np.concatenate, zip(*several, strict=True)))


class Labels(NamedTuple):
    """N rows with their labels (N, K), NaN for none, and `at` (N, H), the times of the labels.

    The rows of each stream are in order. Column k % H of `at` has the time of label k; the time is
    undefined if there is no label.
    """

    rows: TargetRows
    label: Doubles
    at: Ints


class _Waiting(NamedTuple):
    """Rows whose labels are not known yet; `clock` is the stream's latest time up to each row."""

    rows: TargetRows
    clock: Ints

    def take(self, index: Array) -> "_Waiting":
        return _Waiting(self.rows.take(index), self.clock[index])


class LabelJoin:
    """Joins each row with the row of its stream that is a horizon in ticks, or `rows` rows, later.

    With H `horizons`, label k of a row has horizon k % H: it is value k of the first later row at
    which the stream's time is exactly the time of the row plus the horizon. There is no label if
    the stream jumps over this time, is reset, or has a gap longer than `max_gap` on the way. Late
    rows that are applied get their labels in the same way: a stream's time at a row is the latest
    one up to that row. With neither horizons nor `rows`, the label is the row's own value.

    Rows wait for their labels: in each stream, at most the rows within the longest horizon.
    """

    def __init__(
        self, horizons: Sequence[int] = (), rows: int = 0, max_gap: int | None = None
    ) -> None:
        self._horizons = horizons
        self._rows = rows
        self._max_gap = max_gap
        self._waiting: _Waiting | None = None
        self._clock = np.zeros(0, np.int64)
        self._seen = np.zeros(0, bool)

    def add(self, rows: TargetRows) -> Labels:
        """Add the next rows of some streams; return the rows that need not wait for later ones."""
        rows = rows.take(np.argsort(rows.slot, kind="stable"))
        new = self._with_clock(rows)
        if not (self._horizons or self._rows):
            return Labels(new.rows, new.rows.value, new.rows.time[:, np.newaxis])
        before = self._waiting
        if before is None:
            return self._resolve(new, None)
        present = np.zeros(len(self._seen), bool)
        present[rows.slot] = True
        involved = present[before.rows.slot]
        both = _by_stream(_joined(before.take(involved), new))
        return self._resolve(both, before.take(~involved))

    def finish(self) -> Labels | None:
        """Return the rows that still wait, with the labels that they have; may return None."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return None
        waiting = _by_stream(waiting)
        label, at, _ = self._labels(waiting)
        return Labels(waiting.rows, label, at)

    def _with_clock(self, rows: TargetRows) -> _Waiting:
        """Return rows, sorted by stream, with their clocks; a long gap counts as a reset."""
        missing = int(rows.slot.max(initial=-1)) + 1 - len(self._seen)
        if missing > 0:
            size = max(missing, len(self._seen))
            self._clock = np.concatenate([self._clock, np.zeros(size, np.int64)])
            self._seen = np.concatenate([self._seen, np.zeros(size, bool)])
        begin = stream_begins(rows.slot)
        first = np.flatnonzero(begin)
        slots = rows.slot[first]
        seen, carried = self._seen[slots], self._clock[slots]
        clock = rows.time.copy()
        clock[first] = np.where(seen, np.maximum(clock[first], carried), clock[first])
        if (clock[1:] < clock[:-1])[~begin[1:]].any():
            clock = running_maximum(clock, begin)
        reset = rows.reset
        if self._max_gap is not None and len(clock):
            before = before_each(clock, first, np.where(seen, carried, clock[first]))
            # The difference is never negative, and as unsigned it cannot overflow.
            reset = reset | ((clock - before).view(np.uint64) > self._max_gap)
        self._clock[slots], self._seen[slots] = clock[run_ends(first, len(clock)) - 1], True
        return _Waiting(rows._replace(reset=reset), clock)

    def _resolve(self, both: _Waiting, others: _Waiting | None) -> Labels:
        """Return the rows that need not wait for later ones; the rest waits, with the `others`."""
        label, at, settled = self._labels(both)
        # In order: a row is held back while an earlier one of its stream waits.
        held = np.cumsum(~settled)
        begin = np.flatnonzero(stream_begins(both.rows.slot))
        sizes = run_ends(begin, len(held)) - begin
        before: Ints = np.repeat((held - ~settled)[begin], sizes)
        ready = held == before
        rest = both.take(~ready)
        self._waiting = rest if others is None else _joined(others, rest)
        return Labels(both.rows.take(ready), label[ready], at[ready])

    def _labels(self, both: _Waiting) -> tuple[Doubles, Ints, Bools]:
        """Return labels, NaN for none, their times, and which rows need not wait for later ones."""
        stream = stream_begins(both.rows.slot)
        begin = stream | both.rows.reset
        start, segment = np.flatnonzero(begin), np.cumsum(begin) - 1
        end = run_ends(start, len(begin))[segment]
        is_open = np.append(stream[start[1:]], True)[: len(start)][segment]  # it may grow
        count = max(1, len(self._horizons))
        label = np.full(both.rows.value.shape, np.nan)
        at = np.repeat(both.rows.time[:, np.newaxis], count, axis=1)
        settled = np.ones(len(segment), bool)
        number = np.arange(len(segment))
        # For each horizon, the row that may have the label, and whether it has it.
        places: Iterable[tuple[Ints, Bools]]
        places = (self._at_time(both, segment, number, horizon) for horizon in self._horizons)
        if self._rows:
            places = [(number + self._rows, np.ones(len(number), bool))]
        for h, (later, hit) in enumerate(places):
            hit &= later < end
            label[hit, h::count] = both.rows.value[later[hit], h::count]
            at[hit, h] = both.rows.time[later[hit]]
            settled &= ~is_open | (later < end)
        return label, at, settled

    @staticmethod
    def _at_time(both: _Waiting, segment: Ints, number: Ints, horizon: int) -> tuple[Ints, Bools]:
        """Return the first row that is a horizon later or more, and whether it is exactly that.

        There is one result for each row: the end of its segment if that has no such row.
        """
        with np.errstate(over="ignore"):
            wanted = both.rows.time + horizon
        beyond = wanted < both.rows.time  # more than int64 holds
        wanted[beyond] = _LATEST
        _, rank = np.unique(np.concatenate([both.clock, wanted]), return_inverse=True)
        base = segment * len(rank)
        clocks = base + rank[: len(number)]
        place = np.searchsorted(clocks, base + rank[len(number) :])
        row = np.minimum(place, len(number) - 1)
        hit = (place > number) & (both.rows.time[row] == wanted) & ~beyond
        return place, hit


def _by_stream(waiting: _Waiting) -> _Waiting:
    return waiting.take(np.argsort(waiting.rows.slot, kind="stable"))


def _joined(a: _Waiting, b: _Waiting) -> _Waiting:
    return _Waiting(TargetRows.joined([a.rows, b.rows]), np.concatenate([a.clock, b.clock]))


class SeasonalLabels(NamedTuple):
    """N rows with their labels, and seasonal naive forecasts (N, K) of them, NaN for none."""

    labels: Labels
    seasonal: Doubles


class SeasonJoin:
    """Joins each row with the row of its stream a whole number of seasons before its label.

    The number of seasons is the smallest, 1 or more, that does not lead beyond the row itself: the
    forecast uses nothing that comes later. Of several rows at the resulting time, the first counts.
    Resets and gaps do not matter. There is no forecast if no row has exactly this time, if the
    value is null, or if the time is more than a season before the latest time of the stream, as
    only the rows of the last season are kept.
    """

    def __init__(self, season: int) -> None:
        self._season = season
        self._past: TargetRows | None = None

    @property
    def kept(self) -> int:
        """Number of rows that are kept for later rows."""
        return 0 if self._past is None else len(self._past.slot)

    def add(self, labels: Labels) -> Doubles:
        """Return the forecasts (N, K) of the labels of the next rows, NaN for none."""
        rows, kept = labels.rows, self.kept
        both = rows if self._past is None else TargetRows.joined([self._past, rows])
        order = np.argsort(both.slot, kind="stable")
        past = both.take(order)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        begin = stream_begins(past.slot)
        clock = running_maximum(past.time, begin)
        first = begin.nonzero()[0]
        ends = run_ends(first, len(clock))
        latest = np.repeat(clock[ends - 1], ends - first)
        self._past = past.take(past.time >= latest - self._season)
        position = place[kept:]
        count = labels.at.shape[1]
        forecast = np.full(rows.value.shape, np.nan)
        for h, at in enumerate(labels.at.T):
            ahead = np.maximum(1, -(-(at - rows.time) // self._season))
            wanted = at - ahead * self._season
            match, hit = _first_at(past, rows.slot, wanted)
            hit &= (match <= position) & (wanted <= rows.time)
            hit &= wanted >= clock[position] - self._season
            forecast[hit, h::count] = past.value[match[hit], h::count]
        return forecast

    def keep_stream(self, slot: int) -> None:
        """Forget the rows of all other streams, of which no more rows will come."""
        if self._past is not None:
            self._past = self._past.take(self._past.slot == slot)


def with_seasons(labels: Iterable[Labels], season: int) -> Iterator[SeasonalLabels]:
    """Add seasonal forecasts to labels, for a `season` in ticks; with 0, all are NaN."""
    if not season:
        for rows in labels:
            yield SeasonalLabels(rows, np.full(rows.label.shape, np.nan))
        return
    join = SeasonJoin(season)
    waiting: list[Labels] = []
    for rows in labels:
        waiting.append(rows)
        # Each time, all kept rows are sorted again: wait until half as many new ones have come.
        if 2 * sum(len(item.at) for item in waiting) >= join.kept:
            yield _with_season(join, waiting)
            waiting = []
    if waiting:
        yield _with_season(join, waiting)


def _with_season(join: SeasonJoin, waiting: Sequence[Labels]) -> SeasonalLabels:
    rows, label, at = zip(*waiting, strict=True)
    labels = Labels(TargetRows.joined(rows), np.concatenate(label), np.concatenate(at))
    return SeasonalLabels(labels, join.add(labels))


def _first_at(past: TargetRows, slot: Ints, time: Ints) -> tuple[Ints, Array]:
    """Return the first row with each slot and time, and whether there is one."""
    _, rank = np.unique(np.concatenate([past.time, time]), return_inverse=True)
    code = np.concatenate([past.slot, slot]) * (len(rank) + 1) + rank
    offered, wanted = code[: len(past.slot)], code[len(past.slot) :]
    order = np.argsort(offered, kind="stable")
    place = np.searchsorted(offered, wanted, sorter=order)
    row = np.append(order, 0)[place]
    hit = place < len(order)
    hit[hit] = offered[row[hit]] == wanted[hit]
    return row, hit
