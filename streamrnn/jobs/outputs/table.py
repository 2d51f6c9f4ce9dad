"""Tables of Delta and Iceberg that index the parts of an output: nothing is copied.

The folder and its manifest stay the truth. After a commit each table is made equal to the parts:
what it lacks is added, what it has beyond them is removed, in one version of the table (`changes`).
What is not done, because a process died or a catalog did not answer, is done the next time: making
a table equal to the manifest is one set difference, so publishing may be repeated, interrupted, or
late by any number of commits, and rewinding, merging, renaming and starting over need no code of
their own. A format is a plug-in with a `PublishedTable`: its entry point is `publish.NAME`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pyarrow as pa

from streamrnn.stream.checkpoints import Manifest, partitioning_in
from streamrnn.stream.checkpoints.manifest import decode_schema
from streamrnn.stream.sinks import Part

BY = "streamrnn"
"""Prefix of the names under which we record facts in tables."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file of a table: its bytes and rows, and how the table names it.

    `rows` is None if the table does not record it.
    """

    bytes: int
    rows: int | None
    path: str


@dataclass(frozen=True)
class TableContents:
    """What a table has.

    `files`: name in the output -> its file; `foreign` are paths of files that are not parts of this
    output. `commit` is the last registered commit of this output; None if the table's last version
    is from another output or writer, which `others` describes: then all parts are registered anew.
    `same_schema`: the table has the columns of the output. `version` identifies it for messages.
    """

    files: Mapping[str, TableFile]
    commit: int | None
    same_schema: bool
    version: str
    foreign: Sequence[str] = ()
    others: str = ""


@dataclass(frozen=True)
class TableChanges:
    """The changes that make a table equal to an output: parts to add, and files to remove.

    A part to add replaces a file of its name. `moved`: names, on both sides, of rows that the table
    had before; its readers need not see them as new. `columns`: the table does not exist, or has
    other columns; it then changes even if the output has no part.
    """

    add: Sequence[Part] = ()
    remove: Mapping[str, TableFile] = field(default_factory=dict)
    moved: frozenset[str] = frozenset()
    columns: bool = False

    def __bool__(self) -> bool:
        return bool(self.add or self.remove or self.columns)


class PublishedTable(Protocol):
    """A table that indexes the parts of one output.

    It is created from the `Files` and the path of the output, and the value of its key in
    [publish]. Methods raise what their library raises, and PublishError for what must not be
    changed.
    """

    @property
    def title(self) -> str:
        """The table for messages, as in "the Delta table out/weather"."""

    def error_text(self, error: Exception) -> str:
        """Return the text of a library's error, without credentials."""

    def check(self, schema: pa.Schema) -> None:
        """Raise ConfigError if the library is missing, or a column has a type that tables lack."""

    def read(self, manifest: Manifest) -> TableContents | None:
        """Return what the table has; None if there is no such table."""

    def commit(
        self, manifest: Manifest, changes: TableChanges, contents: TableContents | None
    ) -> str:
        """Make the changes in one version, and return its name, as in "version 4".

        `contents` is what `read` returned; for None the table is created.
        """

    def left(self) -> str:
        """Describe a table that [publish] no longer names, and how to remove it.

        "" if none is known.
        """

    def advice(self, contents: TableContents) -> str:
        """Return how to get rid of foreign files."""


def partition_fields(config: Mapping[str, Any], schema: pa.Schema) -> tuple[pa.Field, ...]:
    """Return the columns of the folders, outermost first, for rows of `schema`.

    `config`: dotted key -> value.
    """
    partitioning = partitioning_in(config, schema)
    return () if partitioning is None else tuple(partitioning.fields)


def with_partitions(config: Mapping[str, Any], schema: pa.Schema) -> pa.Schema:
    """Add the columns of the folders that rows of `schema` lack."""
    fields = partition_fields(config, schema)
    return pa.schema([*schema, *(field for field in fields if field.name not in schema.names)])


def columns_of(manifest: Manifest) -> pa.Schema:
    """Return the columns that readers of the output find."""
    return with_partitions(manifest.config, decode_schema(manifest.schema))


def partitions_of(manifest: Manifest) -> tuple[pa.Field, ...]:
    """Return the columns of the folders of an output, outermost first."""
    return partition_fields(manifest.config, decode_schema(manifest.schema))


def changes(
    manifest: Manifest, contents: TableContents | None, *, merged: bool = False
) -> TableChanges:
    """Return what has to change in a table with these `contents` (None: there is no table).

    `merged`: since the table equaled the output, parts were only merged.

    A file is out of date if its part was written by a later commit than the last one registered, or
    differs in size: rewinding and merging reuse names.
    """
    parts = {part.name: part for part in manifest.parts}
    if contents is not None and contents.commit is not None and contents.commit > manifest.commit:
        contents = replace(contents, commit=None)  # the folder was restored from an older backup
    if contents is None:
        return TableChanges(manifest.parts, columns=True)
    remove = {name: file for name, file in contents.files.items() if name not in parts}
    if not contents.same_schema:
        return TableChanges(manifest.parts, remove, columns=True)
    add = []
    for name, part in parts.items():
        file, last = contents.files.get(name), contents.commit
        same = file is not None and (file.bytes, file.rows) == (part.bytes, part.rows)
        if not same or last is None or part.commit > last:
            add.append(part)
    if merged:
        return TableChanges(add, remove, frozenset({part.name for part in add} | remove.keys()))
    return TableChanges(add, remove, _moved(add, remove, contents))


def _moved(
    add: list[Part], remove: dict[str, TableFile], contents: TableContents
) -> frozenset[str]:
    """Return the old and new names of parts that were renamed because numbers got more digits."""
    if contents.commit is None:
        return frozenset()
    old = {(_number(name), file.bytes): name for name, file in remove.items()}
    pairs = [
        (part.name, name)
        for part in add
        if part.commit <= contents.commit and (name := old.get((_number(part.name), part.bytes)))
    ]
    return frozenset(name for pair in pairs for name in pair)


def _number(name: str) -> str:
    """Return the name of a part without the leading zeros of its number."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.removeprefix('part-').lstrip('0')}"
