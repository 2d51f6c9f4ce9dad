"""The seasonal naive forecast: the value of the stream a whole number of seasons before."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Doubles, Ints
from streamrnn.stream.windows.labels import Labels, TargetRows
from streamrnn.stream.windows.sorted_rows import running_maximum, stream_begins


class SeasonalLabels(NamedTuple):
    """N rows with their labels, and seasonal naive forecasts (N, K) of them, NaN for none."""

    labels: Labels
    seasonal: Doubles


class _PastRows(NamedTuple):
    """N rows of some streams; the rows of a stream are in its order."""

    slot: Ints
    time: Ints
    value: Doubles

    def take(self, index: Array) -> "_PastRows":
        return _PastRows._make(array[index] for array in self)


class SeasonJoin:
    """Joins each row with the row of its stream a whole number of seasons before its label.

    The number of seasons is the smallest, 1 or more, that does not lead beyond the row itself: the
    forecast uses nothing that comes later. Of several rows with that time the first one counts.
    Resets and gaps do not matter, as the values before them count too. There is no forecast where
    no row has exactly that time, the value there is null, or that time is more than a season before
    the latest time of the stream, as only the rows of the last season are kept.
    """

    def __init__(self, season: int) -> None:
        self._season = season
        self._past: _PastRows | None = None

    @property
    def kept(self) -> int:
        """Number of rows that are kept for later rows."""
        return 0 if self._past is None else len(self._past.slot)

    def add(self, labels: Labels) -> Doubles:
        """Return the forecasts (N, K) of the next rows, NaN for none."""
        rows = labels.rows
        new = _PastRows(rows.slot, rows.time, rows.value)
        kept = self.kept
        past = new if self._past is None else _joined(self._past, new)
        order = np.argsort(past.slot, kind="stable")
        past = past.take(order)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        begin = stream_begins(past.slot)
        clock = running_maximum(past.time, begin)
        self._keep_since(past, clock, begin)

        position = place[kept:]
        count = labels.at.shape[1]
        forecast = np.full(rows.value.shape, np.nan)
        for h, at in enumerate(labels.at.T):
            ahead = np.maximum(1, -(-(at - rows.time) // self._season))
            wanted = at - ahead * self._season
            match, hit = _first(past, rows.slot, wanted)
            hit &= (match <= position) & (wanted <= rows.time)
            hit &= wanted >= clock[position] - self._season
            forecast[hit, h::count] = past.value[match[hit], h::count]
        return forecast

    def keep_stream(self, slot: int) -> None:
        """Forget the rows of all streams but one, because no rows of the others will come."""
        if self._past is not None:
            self._past = self._past.take(self._past.slot == slot)

    def _keep_since(self, past: _PastRows, clock: Ints, begin: Array) -> None:
        first = np.flatnonzero(begin)
        last = np.append(first[1:], len(clock))[: len(first)] - 1
        latest = np.repeat(clock[last], np.diff(np.append(first, len(clock))))
        self._past = past.take(past.time >= latest - self._season)


def with_seasons(labels: Iterable[Labels], season: int) -> Iterator[SeasonalLabels]:
    """Add the forecasts of a season in ticks; none with season 0."""
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
    columns = map(np.concatenate, zip(*rows, strict=True))
    labels = Labels(TargetRows._make(columns), np.concatenate(label), np.concatenate(at))
    return SeasonalLabels(labels, join.add(labels))


def _first(past: _PastRows, slot: Ints, time: Ints) -> tuple[Ints, Array]:
    """Return the first row with a slot and a time, and whether there is one."""
    _, rank = np.unique(np.concatenate([past.time, time]), return_inverse=True)
    code = np.concatenate([past.slot, slot]) * (len(rank) + 1) + rank
    offered, wanted = code[: len(past.slot)], code[len(past.slot) :]
    order = np.argsort(offered, kind="stable")
    place = np.searchsorted(offered, wanted, sorter=order)
    row = np.append(order, 0)[place]
    hit = place < len(order)
    hit[hit] = offered[row[hit]] == wanted[hit]
    return row, hit


def _joined(a: _PastRows, b: _PastRows) -> _PastRows:
    return _PastRows._make(map(np.concatenate, zip(a, b, strict=True)))
