"""Dataclasses as JSON: records of the manifest, and segments with many entries.

A record is an object without the fields that have their defaults. `built` reads it back, and
`check_fields` compares its values with the types of the fields.

Segments are files with the older entries of the lists that grow with an output. The manifest itself
holds only the newest entries of a list, at most `TAIL`, and the names of its segments. So the cost
of a commit does not depend on the number of files used and parts written:

- if more than `TAIL` entries are in no segment, all but the last become a new segment: the last
  entry may be of a partly read file
- a segment is never changed: if entries in it change, a new file replaces it
- a new segment includes the segments just before it while they are at most twice its size, so that
  the number of segments, and how often an entry is rewritten, grow logarithmically

A segment is a JSON object of columns: name -> values, or {"all": value} if all are equal; a column
of defaults is left out. (Written entry by entry, 100,000 entries took five times as long to read.)
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from streamrnn.base.storage.files import Files
from streamrnn.errors import CheckpointError
from streamrnn.stream.checkpoints.directory import INSIDE, RESTORE_MANIFEST
from streamrnn.stream.sources import Content

_LONGEST = 60


@cache
def _defaults(kind: Any) -> dict[str, Any]:
    return {
        item.name: item.default if item.default_factory is MISSING else item.default_factory()
        for item in fields(kind)
    }


def fields_of(item: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that do not have their defaults, for JSON."""
    kind: Any = type(item)
    return {
        name: value
        for name, default in _defaults(kind).items()
        if (value := getattr(item, name)) != default
    }


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


@cache
def _form(hint: Any) -> tuple[Any, Any, bool]:
    """Return the first type of a hint, what to build from a value, and whether None is allowed.

    What to build: a tuple, Mapping, or object (a dataclass); None: the value stays as in JSON.
    """
    kind, *_ = options = _options(hint)
    origin = object if is_dataclass(kind) else get_origin(kind)
    return kind, origin if origin in (object, tuple, Mapping) else None, NoneType in options


@cache
def _nested(kind: Any) -> dict[str, Any]:
    """Return the hints of a dataclass's fields whose values have to be built (see `_form`)."""
    return {name: hint for name, hint in _hints(kind).items() if _form(hint)[1] is not None}


def built(hint: Any, value: Any, key: str = "") -> Any:
    """Return a value from JSON in the type of a hint: dataclasses from objects, tuples from lists.

    Raises TypeError, naming the key, for a value that should be a list or an object, and for an
    unknown or missing field of a dataclass. `check_fields` checks other types.
    """
    kind, form, nullable = _form(hint)
    if form is None or (nullable and value is None):
        return value
    if form is tuple:
        if not isinstance(value, list):
            raise TypeError(mistyped(key, "a list", value))
        inner = get_args(kind)[0]
        return tuple(built(inner, item, f"{key}[{i}]") for i, item in enumerate(value))
    if not isinstance(value, dict):
        raise TypeError(mistyped(key, "an object", value))
    hints = _nested(kind) if form is object else dict.fromkeys(value, get_args(kind)[1])
    prefix = f"{key}." if key else ""
    items = {
        name: built(inner, value[name], prefix + name)
        for name, inner in hints.items()
        if name in value
    }
    return kind(**value | items) if form is object else items


def check_fields(items: Iterable[Any]) -> None:
    """Check the fields of instances of one dataclass, and of the dataclasses in these fields.

    Raises ValueError, naming field and dataclass, for a value whose type is not in the hint.
    """
    items = list(items)
    if not items:
        return
    kind: Any = type(items[0])
    for name, hint in _hints(kind).items():
        key, values = f"{name} of {kind.__name__}", list(map(attrgetter(name), items))
        _check_each(values, _options(hint), key)
        if get_origin(hint) is tuple:
            values, hint = [entry for value in values for entry in value], get_args(hint)[0]
            _check_each(values, (hint,), key)
        if any(map(is_dataclass, _options(hint))):
            check_fields(value for value in values if value is not None)


def _check_each(values: Sequence[object], hints: Sequence[Any], key: str) -> None:
    types = {dict if get_origin(h) is Mapping else get_origin(h) or h for h in hints}
    for wrong in set(map(type, values)) - types:
        value = next(value for value in values if type(value) is wrong)
        names = ("null" if kind is NoneType else kind.__name__ for kind in types)
        raise ValueError(mistyped(key, " or ".join(sorted(names)), value))


def mistyped(key: str, expected: str, value: object) -> str:
    """Return the message for a value of a wrong type; `value` is cut to a readable length.

    >>> mistyped("commit", "int", "two")
    "commit: expected int, received 'two' (str)"
    """
    shown = repr(value)
    if len(shown) > _LONGEST:
        shown = f"{shown[: _LONGEST - 1]}…"
    shown = "null" if value is None else f"{shown} ({type(value).__name__})"
    return f"{key}: expected {expected}, received {shown}"


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
    """The entries from `start` to before `stop`; `segment` has them (None: not written yet)."""

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
    """Write the segments that `entries` need; return all segments, old ones included.

    `last` are the segments of `before`, the same list in the last commit; unchanged ones stay. The
    contents of new files are durable, their names, which begin with `name`, not yet. Raises
    SinkError.
    """
    ranges = _unchanged(last, before, entries)
    while ranges and ranges[-1].segment is None:
        ranges.pop()
    start = ranges[-1].stop if ranges else 0
    if len(entries) - start > TAIL:  # too many for the manifest
        ranges.append(_Range(start, len(entries) - 1))
    merged: list[_Range] = []
    for item in ranges:
        # A new range includes those before it that are at most twice as long.
        while item.segment is None and merged and merged[-1].length <= 2 * item.length:
            item = _Range(merged.pop().start, item.stop)
        merged.append(item)
    return tuple(
        item.segment or _write(files, f"{name}-{item.start}.json", entries[item.start : item.stop])
        for item in merged
    )


def _unchanged(
    last: Sequence[Segment], before: Sequence[object], entries: Sequence[object]
) -> list[_Range]:
    """Return the ranges of the last segments; a range has its segment if no entry has changed."""
    ranges: list[_Range] = []
    stop = 0
    for segment in last:
        start, stop = stop, stop + segment.count
        if start < len(entries):
            same = entries is before or entries[start:stop] == before[start:stop]
            end = min(stop, len(entries))
            ranges.append(_Range(start, end, segment if same and end == stop else None))
    return ranges


def _write(files: Files, name: str, entries: Sequence[Any]) -> Segment:
    output, separator = files.create(name), "{"
    try:
        # Column by column: as one text, 100,000 entries would take 60 MB.
        for field in fields(entries[0]):
            values: list[Any] = list(map(attrgetter(field.name), entries))
            if field.name == "content":
                values = [
                    item and (item.rows, item.digest, item.first, item.last) for item in values
                ]
            same = values.count(values[0]) == len(values)
            if same and values[0] == field.default:
                continue
            column = _ENCODE({_ALL: values[0]} if same else values)
            output.write(f"{separator}{_ENCODE(field.name)}:{column}".encode())
            separator = ",\n"
        output.write(b"}\n")
        output.finish()
    finally:
        output.close()
    return Segment(name.rpartition("/")[2], len(entries), output.bytes, output.sha256)


def read_segment(files: Files, segment: Segment, kind: type[_Entry]) -> list[_Entry]:
    """Read the entries of a segment. Raises CheckpointError if the file is missing or damaged."""
    path = f"{INSIDE}/{segment.name}"
    try:
        data = files.read(path)
    except OSError as error:
        raise _damaged(files.show(path), segment, str(error)) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != segment.sha256:
        received = f"{len(data)} bytes with sha256 {digest[:16]}…"
        raise _damaged(files.show(path), segment, received)
    columns = json.loads(data)
    values: list[list[Any]] = []
    for field in fields(kind):  # type: ignore[arg-type]
        written = field.name in columns or field.default is MISSING
        column = columns[field.name] if written else {_ALL: field.default}
        if isinstance(column, dict):
            column = [column[_ALL]] * segment.count
        if field.name == "content":
            column = [item and Content(*item) for item in column]
        values.append(column)
    return list(map(kind, *values))


def _damaged(path: str, segment: Segment, received: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged: expected {segment.bytes} bytes with sha256 {segment.sha256[:16]}…, "
        f"found {received}. {RESTORE_MANIFEST}"
    )
