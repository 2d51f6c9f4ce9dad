"""Segments: files with the older entries of the lists that grow with an output.

The manifest itself holds only the newest entries of a list, at most `TAIL`, and the names of its
segments. So the cost of a commit does not depend on the number of files used and parts written:

- if more than `TAIL` entries are in no segment, all but the last become a new segment: the last
  entry may be of a partly read file
- a segment is never changed: if entries in it change, a new file replaces it
- a new segment includes those before it that are at most twice its size, so that the number of
  segments, and how often an entry is rewritten, grow logarithmically

A segment is a JSON object of columns: name -> values, or {"all": value} if all are equal; a column
of defaults is left out. (Written entry by entry, 100,000 entries took five times as long to read.)
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from streamrnn.base.storage.files import Files
from streamrnn.errors import CheckpointError
from streamrnn.stream.checkpoints.directory import INSIDE, RESTORE_MANIFEST
from streamrnn.stream.sources import Content

TAIL = 128
_ALL = "all"
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_Entry = TypeVar("_Entry")


@dataclass(frozen=True)
class Segment:
    """A file with `count` consecutive entries of a list."""

    name: str
    count: int
    bytes: int
    sha256: str


class _Range(NamedTuple):
    """The entries from `start` to before `stop`; `segment` is their file, None if not written."""

    start: int
    stop: int
    segment: Segment | None = None

    @property
    def length(self) -> int:
        return self.stop - self.start


def write_segments(
    files: Files,
    name: str,
    last: Sequence[Segment],
    before: Sequence[object],
    entries: Sequence[object],
) -> tuple[Segment, ...]:
    """Write the segments that `entries` need, durable but for their names; return all of them.

    `last` are the segments of `before`, the same list in the last commit; unchanged ones stay.
    `name` is the beginning of the names of new files. Raises SinkError.
    """
    ranges = _unchanged(last, before, entries)
    while ranges and ranges[-1].segment is None:
        ranges.pop()
    start = ranges[-1].stop if ranges else 0
    if len(entries) - start > TAIL:  # too many for the manifest
        ranges.append(_Range(start, len(entries) - 1))
    return tuple(
        item.segment or _write(files, f"{name}-{item.start}.json", entries[item.start : item.stop])
        for item in _merged(ranges)
    )


def _unchanged(
    last: Sequence[Segment], before: Sequence[object], entries: Sequence[object]
) -> list[_Range]:
    """Return the ranges of the last segments, with their file where all entries are unchanged."""
    ranges: list[_Range] = []
    stop = 0
    for segment in last:
        start, stop = stop, stop + segment.count
        if start < len(entries):
            same = entries is before or entries[start:stop] == before[start:stop]
            end = min(stop, len(entries))
            ranges.append(_Range(start, end, segment if same and end == stop else None))
    return ranges


def _merged(ranges: Sequence[_Range]) -> list[_Range]:
    """Extend each new range by those before it that are at most twice as long."""
    merged: list[_Range] = []
    for item in ranges:
        while item.segment is None and merged and merged[-1].length <= 2 * item.length:
            item = _Range(merged.pop().start, item.stop)
        merged.append(item)
    return merged


def _write(files: Files, name: str, entries: Sequence[Any]) -> Segment:
    output = files.create(name)
    try:
        for text in _encoded(entries):
            output.write(text.encode())
        output.finish()
    finally:
        output.close()
    return Segment(name.rpartition("/")[2], len(entries), output.bytes, output.sha256)


def _encoded(entries: Sequence[Any]) -> Iterator[str]:
    """Yield the JSON column by column: as one text, 100,000 entries would take 60 MB."""
    separator = "{"
    for field in fields(entries[0]):
        values: list[Any] = list(map(attrgetter(field.name), entries))
        if field.name == "content":
            values = [item and (item.rows, item.digest, item.first, item.last) for item in values]
        same = values.count(values[0]) == len(values)
        if same and values[0] == field.default:
            continue
        yield f"{separator}{_ENCODE(field.name)}:{_ENCODE({_ALL: values[0]} if same else values)}"
        separator = ",\n"
    yield "}\n"


def read_segment(files: Files, segment: Segment, kind: type[_Entry]) -> list[_Entry]:
    """Read the entries of a segment, which are of the dataclass `kind`.

    Raises CheckpointError if the file is missing or damaged.
    """
    path = f"{INSIDE}/{segment.name}"
    try:
        data = files.read(path)
    except OSError as error:
        raise _damaged(files.show(path), segment, str(error)) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != segment.sha256:
        received = f"{len(data)} bytes with sha256 {digest[:16]}…"
        raise _damaged(files.show(path), segment, received)
    return _decoded(json.loads(data), segment.count, kind)


def _decoded(columns: dict[str, Any], count: int, kind: type[_Entry]) -> list[_Entry]:
    values: list[list[Any]] = []
    for field in fields(kind):  # type: ignore[arg-type]
        written = field.name in columns or field.default is MISSING
        column = columns[field.name] if written else {_ALL: field.default}
        if isinstance(column, dict):
            column = [column[_ALL]] * count
        if field.name == "content":
            column = [item and Content(*item) for item in column]
        values.append(column)
    return list(map(kind, *values))


def _damaged(path: str, segment: Segment, received: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged: expected {segment.bytes} bytes with sha256 {segment.sha256[:16]}…, "
        f"found {received}. {RESTORE_MANIFEST}"
    )
