"""Statistics of a part from its Parquet footer, in the form of Delta tables."""

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

import pyarrow.parquet as pq

from streamrnn.base.storage import Files

_LONGEST = 64
"""Characters of text up to which it is worth a place in the log of a table."""


def part_footer(files: Files, name: str) -> pq.FileMetaData:
    """Read the footer of a part; no row is read."""
    with files.open(name) as file:
        return pq.read_metadata(file)


def delta_statistics(footer: pq.FileMetaData) -> str:
    """Return the number of rows, and nulls, least and greatest values of plain columns, as JSON.

    Floats have no bounds: those of Parquet leave out NaN, which Delta orders above all numbers.
    """
    nulls: dict[str, int] = {}
    bounds: dict[str, dict[str, Any]] = {"minValues": {}, "maxValues": {}}
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    for index in range(footer.num_columns):
        column = footer.schema.column(index)
        if column.path != column.name or column.max_repetition_level or not groups:
            continue
        found = [group.column(index).statistics for group in groups]
        if any(item is None for item in found):
            continue
        if all(item.has_null_count for item in found):
            nulls[column.name] = sum(item.null_count for item in found)
        known = [item for item in found if item.has_min_max]
        empty = [item for item in found if not item.has_min_max and not item.num_values]
        if known and len(known) + len(empty) == len(found):
            _add(bounds["minValues"], column.name, min, (item.min for item in known))
            _add(bounds["maxValues"], column.name, max, (item.max for item in known))
    return json.dumps({"numRecords": footer.num_rows, **bounds, "nullCount": nulls})


def _add(bounds: dict[str, Any], name: str, best: Any, values: Iterable[Any]) -> None:
    value = best(values)
    if isinstance(value, bool):
        return
    if isinstance(value, datetime):
        utc = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
        bounds[name] = utc.isoformat(timespec="microseconds") + ("" if value is utc else "Z")
    elif isinstance(value, date):
        bounds[name] = value.isoformat()
    elif isinstance(value, int) or (isinstance(value, str) and len(value) <= _LONGEST):
        bounds[name] = value
