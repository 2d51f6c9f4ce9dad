"""Labels by their definition, row by row: the oracle of the joins. It imports nothing of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def kept_streams(
    rows: Sequence[Row],
    key: str,
    time: str | None,
    late: str = "error",
    repeated: str = "score",
    invalid: Callable[[Row], bool] = lambda row: False,
) -> dict[Any, list[int]]:
    """The rows of each stream, by number: without invalid ones, late ones unless applied, and
    repeated ones unless scored."""
    streams: dict[Any, list[int]] = {}
    latest: dict[Any, Any] = {}
    for number, row in enumerate(rows):
        if invalid(row):
            continue
        name = row[key]
        if time is not None:
            if name in latest and row[time] < latest[name] and late != "apply":
                continue
            if row[time] == latest.get(name) and repeated != "score":
                continue
            latest[name] = max(latest.get(name, row[time]), row[time])
        streams.setdefault(name, []).append(number)
    return streams


def labels(
    rows: Sequence[Row],
    streams: Mapping[Any, Sequence[int]],
    targets: Sequence[str],
    *,
    time: str | None = None,
    horizon: Any = None,
    ahead: int = 0,
    reset: str | None = None,
    max_gap: Any = None,
) -> dict[int, list[Any]]:
    """Number of each row -> the values of its label row, None for none."""
    found = {}
    for numbers in streams.values():
        for place, number in enumerate(numbers):
            row = _label_row(rows, numbers, place, time, horizon, ahead, reset, max_gap)
            found[number] = [None if row is None else rows[row][name] for name in targets]
    return found


def seasonal(
    rows: Sequence[Row],
    streams: Mapping[Any, Sequence[int]],
    targets: Sequence[str],
    season: Any,
    *,
    time: str,
    horizon: Any = None,
    ahead: int = 0,
    reset: str | None = None,
    max_gap: Any = None,
) -> dict[int, list[Any]]:
    """Number of each row that has a label -> the values seasons before that, None for none.

    Beside the time of the label it looks at the rows of the stream up to the row itself alone.
    """
    found = {}
    for numbers in streams.values():
        for place, number in enumerate(numbers):
            label = _label_row(rows, numbers, place, time, horizon, ahead, reset, max_gap)
            if label is None:
                continue
            past = numbers[: place + 1]
            clock = max(rows[n][time] for n in past)
            wanted = rows[label][time] - season
            while wanted > rows[number][time]:
                wanted -= season
            hits = [n for n in past if rows[n][time] == wanted]
            usable = bool(hits) and wanted >= clock - season
            found[number] = [rows[hits[0]][name] if usable else None for name in targets]
    return found


def _label_row(
    rows: Sequence[Row],
    numbers: Sequence[int],
    place: int,
    time: str | None,
    horizon: Any,
    ahead: int,
    reset: str | None,
    max_gap: Any,
) -> int | None:
    if horizon is None and ahead == 0:
        return numbers[place]
    clock = None if time is None else max(rows[n][time] for n in numbers[: place + 1])
    wanted = None if horizon is None or time is None else rows[numbers[place]][time] + horizon
    if wanted is not None and clock >= wanted:
        return None
    for passed, number in enumerate(numbers[place + 1 :], 1):
        row = rows[number]
        before = clock
        if time is not None:
            clock = max(clock, row[time])
        if reset is not None and row[reset]:
            return None
        if max_gap is not None and clock - before > max_gap:
            return None
        if wanted is None:
            if passed == ahead:
                return number
        elif time is not None and clock >= wanted:
            return number if row[time] == wanted else None
    return None
