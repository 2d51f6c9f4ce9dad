"""What a table format has to do, and the partitions of an output as tables have them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
