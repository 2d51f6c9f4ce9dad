"""The files of a source that come after a file, a partition or a time."""

import posixpath
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal

from streamrnn.base.display import first_of
from streamrnn.base.storage.store import natural
from streamrnn.errors import ConfigError, DataError
from streamrnn.stream.sources.files import (
    NULL_PARTITION,
    Hive,
    SourceFile,
    canonical_name,
    is_number,
)
from streamrnn.stream.sources.reading import FileSource
from streamrnn.stream.sources.times import FileTimes, parse_time, require_times, shown_time


def after_path(files: Sequence[SourceFile], path: str, used: Sequence[str]) -> list[SourceFile]:
    """Return the files after the file whose path is `path`, or ends with `path`.

    `used` are the names of the files that the output has used. If there are any, the named file may
    be gone: then its place in the order of paths counts, or, if its folder is unknown, the place of
    the first used file. Raises ConfigError if `path` is the end of several paths, or if it names no
    file and the output has used none.
    """
    places = [i for i, file in enumerate(files) if path in (file.name, file.path)] or [
        i for i, file in enumerate(files) if _ends(file.path, path)
    ]
    _refuse_several([files[i].path for i in places], path)
    if places:
        return list(files[places[0] + 1 :])
    if not used:
        raise ConfigError(
            f"[source] after: path: {path}: no such file among the {len(files):,} of the source"
        )
    names = [file.name for file in files]
    gone = [path] if path in used else [name for name in used if _ends(name, path)]
    _refuse_several(gone, path)
    if not gone:
        name, folder = canonical_name(path), "/"
        with suppress(ValueError):  # files that have moved from a disk to an object store
            folder = posixpath.commonpath([posixpath.dirname(other) for other in (*names, *used)])
        gone = [name] if name.startswith(folder + "/") else []
    order = Hive([*names, *used, *gone]).order
    limit = order(gone[0]) if gone else min(map(order, used))
    return [file for file in files if order(file.name) > limit]


def _refuse_several(names: Sequence[str], path: str) -> None:
    different = list(dict.fromkeys(names))
    if len(different) > 1:
        raise ConfigError(
            f"[source] after: path: {path}: {len(different):,} files have this name: "
            f"{first_of(different)}. Name one by more of its path."
        )


def _ends(name: str, path: str) -> bool:
    return name == path or name.endswith("/" + path.lstrip("./"))


def after_partition(
    files: Sequence[SourceFile], partition: str, among: Sequence[SourceFile]
) -> list[SourceFile]:
    """Return the files whose partitions are greater than `partition`, such as `year=2013/month=1`.

    `partition` names the levels from the first one on; a value alone, such as `2013`, is a value of
    the only level. Values are compared as numbers if all files of the source (`among`) have
    numbers, else as text in natural order, null last. Raises ConfigError if the partitions of a
    file do not begin with these levels, or if a value is text where all files have numbers.
    """
    pairs = [step.partition("=") for step in partition.split("/")]
    named = [(name, value) if mark else ("", name) for name, mark, value in pairs]
    if not files:
        return []
    _check_levels(named, partition, among)
    numbers = [
        all(is_number(text) for text in {_text(file, name) for file in among} - {NULL_PARTITION})
        for name, _ in named
    ]
    limit = [_key(text, kind) for (_, text), kind in zip(named, numbers, strict=True)]
    keys = (list(map(_key, [_text(file, name) for name, _ in named], numbers)) for file in files)
    return [file for file, key in zip(files, keys, strict=True) if key > limit]


def after_time(
    files: Sequence[SourceFile], source: FileSource, column: str, time: str, zone: str
) -> list[SourceFile]:
    """Return the files that begin at `time` or later, by the ranges in their footers.

    A file that begins before `time` and ends at `time` is left out: its last row may be the last
    one that was scored. Files without rows are left out, too. `zone` applies to a time without an
    offset. Raises ConfigError unless `time` can be read as the column's type; DataError for a file
    whose footer has no range, or whose range begins before `time` and ends after it.
    """
    kind = source.schema.field(column).type
    limit = parse_time(time, kind, "[source] after: time", zone)
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
                f"{FileTimes(file.path, first, last).shown(kind)} has rows before and after "
                f"{shown_time(limit, kind)}; [source] after does not divide a file. Name a path or "
                "a partition, or write the later rows to another file."
            )
    return later


def _check_levels(
    named: Sequence[tuple[str, str]], partition: str, files: Sequence[SourceFile]
) -> None:
    """Raise ConfigError unless the partitions of all files begin with the named ones.

    A lower level alone would be compared within each partition above it.
    """
    names = [name for name, _ in named]
    for levels, file in {tuple(dict(file.partitions)): file for file in files}.items():
        missing = [name for name in names if name and name not in levels]
        if missing or not levels:
            raise ConfigError(
                f"[source] after: partition: {file.path} is in no partition "
                f"{(missing or [partition])[0]!r}; its partitions: {', '.join(levels) or 'none'}"
            )
        if len(levels) == 1 if names == [""] else names == list(levels[: len(names)]):
            continue
        depth = 1 + max((levels.index(name) for name in names if name), default=len(levels) - 1)
        values = dict(named)
        whole = "/".join(f"{name}={values.get(name, '…')}" for name in levels[:depth])
        raise ConfigError(
            f"[source] after: partition: {partition} does not divide the files: {file.path} is in "
            f"the partitions {', '.join(levels)}. Name them from the first one on: {whole}. Or set "
            "{ time = … }."
        )


def _text(file: SourceFile, name: str) -> str:
    """Return the value of one of a file's partitions as text; the name "" stands for the first."""
    value = (dict(file.partitions)[name] if name else file.partitions[0][1]).as_py()
    return NULL_PARTITION if value is None else str(value)


def _key(text: str, numbers: bool) -> tuple[bool, tuple[str | int | Decimal, ...]]:
    """Return the sort key of a value of a partition.

    Raises ConfigError for a text if the files' values are `numbers`.
    """
    if text == NULL_PARTITION:
        return True, ()
    if not numbers:
        return False, natural(text)
    if not is_number(text):
        raise ConfigError(
            "[source] after: partition: expected a number, as all values of this partition are, "
            f"received {text!r}"
        )
    return False, (Decimal(text),)
