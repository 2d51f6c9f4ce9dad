"""The files of a source that come after a file, a partition or a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pyarrow as pa

from streamrnn.errors import ConfigError, DataError
from streamrnn.sources.base import SourceOfFiles
from streamrnn.sources.files import SourceFile
from streamrnn.sources.order import NULL_PARTITION
from streamrnn.sources.timeline import FileTimes, require_times, shown_time


def after_path(files: Sequence[SourceFile], path: str) -> list[SourceFile]:
    """Return the files after the last one that `path` names: a whole path, or the end of one.

    Raises ConfigError if it names none.
    """
    end = "/" + path.lstrip("./")
    found = [i for i, f in enumerate(files) if path in (f.path, f.name) or f.path.endswith(end)]
    if not found:
        raise ConfigError(
            f"[source] after: path: {path}: no such file among the {len(files):,} of the source"
        )
    return list(files[found[-1] + 1 :])


def after_partition(files: Sequence[SourceFile], partition: str) -> list[SourceFile]:
    """Return the files whose partitions are greater: `date=2013-01-05`, `year=2013/month=1`.

    A value alone is one of the first partition. Null partitions come last. Raises ConfigError if a
    file is in no such partition.
    """
    pairs = [step.partition("=") for step in partition.split("/")]
    named = [(name, value) if mark else ("", name) for name, mark, value in pairs]
    return [file for file in files if _values(file, named) > _limit(file, named)]


def after_time(
    files: Sequence[SourceFile], source: SourceOfFiles, column: str, time: str
) -> list[SourceFile]:
    """Return the files that begin at `time` or later, by the ranges in their footers.

    Raises ConfigError unless `time` is one of the column's type; DataError for a file without a
    range, or with rows on both sides.
    """
    kind = source.schema.field(column).type
    limit = _ticks(time, kind)
    later = []
    for file in files:
        footer = source.footer(file)
        if not footer.rows:
            continue
        first, last = require_times(footer, file, column, "[source] after requires the range")
        if first >= limit:
            later.append(file)
        elif last > limit:
            raise DataError(
                f"{FileTimes(file.path, first, last).shown(kind)}: has rows before and after "
                f"{shown_time(limit, kind)}; [source] after does not divide a file. Name a path or "
                "a partition, or write the later rows to another file."
            )
    return later


def _values(file: SourceFile, named: Sequence[tuple[str, str]]) -> list[tuple[bool, object]]:
    """Return the partition values of a file, as sort keys."""
    return [_key(_scalar(file, name).as_py()) for name, _ in named]


def _limit(file: SourceFile, named: Sequence[tuple[str, str]]) -> list[tuple[bool, object]]:
    """Return the values to compare with those of a file, in their types."""
    return [_key(_typed(text, _scalar(file, name).type)) for name, text in named]


def _key(value: object) -> tuple[bool, object]:
    return value is None, "" if value is None else value


def _scalar(file: SourceFile, name: str) -> pa.Scalar:
    partitions = dict(file.partitions)
    if not name and file.partitions:
        return file.partitions[0][1]
    if name not in partitions:
        raise ConfigError(
            f"[source] after: partition: {file.path} is in no partition {name!r}; its partitions: "
            f"{', '.join(partitions) or 'none'}"
        )
    return partitions[name]


def _typed(text: str, kind: pa.DataType) -> object:
    if text == NULL_PARTITION:
        return None
    if not pa.types.is_integer(kind):
        return text
    try:
        return int(text)
    except ValueError:
        raise ConfigError(
            f"[source] after: partition: expected an integer, as all values of this partition are, "
            f"received {text!r}"
        ) from None


def _ticks(time: str, kind: pa.DataType) -> int:
    """Convert a time to ticks of the column's type; without a zone it is in UTC."""
    try:
        if pa.types.is_integer(kind):
            return int(time)
        if pa.types.is_timestamp(kind):
            moment = datetime.fromisoformat(time)
            plain = moment.replace(tzinfo=moment.tzinfo or UTC) if kind.tz else moment
            return int(pa.array([plain], kind).cast(pa.int64())[0].as_py())
        value = pa.array([time]).cast(kind)
        width = pa.int32() if pa.types.is_date32(kind) else pa.int64()
        return int(value.cast(width).cast(pa.int64())[0].as_py())
    except (pa.ArrowException, ValueError) as error:
        raise ConfigError(
            f"[source] after: time: expected a value of type {kind}, received {time!r}: {error}"
        ) from error
