"""Tables of Delta and Iceberg that index the parts of an output: nothing is copied.

The folder and its manifest decide what the rows are. After a commit each table is made equal to the
parts in one new version: what it lacks is added, and what it has beyond them removed (`changes`).
What is not done, because a process died or a catalog did not answer, is done the next time: making
a table equal to the manifest is one set difference, so publishing may be repeated, interrupted, or
late by any number of commits, and rewinding, merging, renaming and starting over need no code of
their own. A format is a plug-in with a `PublishedTable`: its entry point is `publish.NAME`.
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pyarrow as pa

from streamrnn.base.display import count, first_of, location
from streamrnn.base.plugin import load_plugin
from streamrnn.base.storage.store import AnyPath, open_files
from streamrnn.errors import ConfigError, PublishError
from streamrnn.stream.checkpoints import Manifest, OutputFolder, partitioning_in, read_manifest
from streamrnn.stream.checkpoints.manifest import decode_schema
from streamrnn.stream.config import value_of
from streamrnn.stream.config.schema import PUBLISH_KEYS
from streamrnn.stream.sinks import Part

BY = "streamrnn"
"""Prefix of the names under which streamrnn records facts in tables."""


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
    is from another output or writer, which `others` describes: then all parts are registered again.
    `same_schema`: the table has the columns of the output. `version` names the table's version in
    messages.
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

    A part to add replaces a file of its name. `moved`: names, both to add and to remove, of files
    whose rows the table had before: readers of the table need not see these rows as new. `columns`:
    the table does not exist, or has other columns; it then changes even if the output has no part.
    """

    add: Sequence[Part] = ()
    remove: Mapping[str, TableFile] = field(default_factory=dict)
    moved: frozenset[str] = frozenset()
    columns: bool = False

    def __bool__(self) -> bool:
        return bool(self.add or self.remove or self.columns)


class PublishedTable(Protocol):
    """A table that indexes the parts of one output.

    A class with these methods is called with the `Files` and the path of the output, and with the
    value of its key in [publish]. Methods raise what their library raises, and PublishError for
    what must not be changed.
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
        """Make the changes in one version, and return the version's name, as in "version 4".

        `contents` is what `read` returned; for None the table is created.
        """

    def left(self) -> str:
        """Describe a table that [publish] no longer names, and how to remove it.

        Returns "" if no such table is known.
        """

    def advice(self, contents: TableContents) -> str:
        """Return how to get rid of foreign files."""


def partition_fields(config: Mapping[str, Any], schema: pa.Schema) -> tuple[pa.Field, ...]:
    """Return the columns that name the partition folders, outermost first, for rows of `schema`.

    `config`: dotted key -> value.
    """
    partitioning = partitioning_in(config, schema)
    return () if partitioning is None else tuple(partitioning.fields)


def with_partitions(config: Mapping[str, Any], schema: pa.Schema) -> pa.Schema:
    """Add the columns of the partition folders that rows of `schema` lack."""
    fields = partition_fields(config, schema)
    return pa.schema([*schema, *(field for field in fields if field.name not in schema.names)])


def columns_of(manifest: Manifest) -> pa.Schema:
    """Return the columns that readers of the output find."""
    return with_partitions(manifest.config, decode_schema(manifest.schema))


def partitions_of(manifest: Manifest) -> tuple[pa.Field, ...]:
    """Return the columns that name the partition folders of an output, outermost first."""
    return partition_fields(manifest.config, decode_schema(manifest.schema))


def changes(
    manifest: Manifest, contents: TableContents | None, *, merged: bool = False
) -> TableChanges:
    """Return what has to change in a table with these `contents` (None: there is no table).

    `merged`: since the table equaled the output, parts were only merged.

    A file is out of date if its part was written by a later commit than the last one registered, or
    if it differs from the part in bytes or rows: rewinding and merging reuse names.
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
        same = file and file.bytes == part.bytes and file.rows in (None, part.rows)
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
    """Return the folder and the number of a part's name, without leading zeros."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.removeprefix('part-').lstrip('0')}"


_LOGGER = logging.getLogger("streamrnn.outputs")
_LONGEST = 500
_DECORATION = re.compile(r"\x1b\[[\d;]*m|↳ ?")
_AFTER = re.compile(r"^\s*(?:Traceback |at \S+\(|\(Background on )", re.MULTILINE)


@dataclass(frozen=True)
class Published:
    """What was changed in a table: `table` names it, `version` is its new version.

    `added` parts were registered, and `removed` parts were dropped, for commit `commit`.
    `note` says what others had done to the table, or that it did not exist.
    """

    table: str
    version: str
    commit: int
    added: int
    removed: int
    note: str = ""

    def __str__(self) -> str:
        """Return one sentence.

        >>> print(Published("the Delta table out/x", "version 4", 7, 3, 0))
        Published 3 parts to the Delta table out/x, version 4
        """
        removed = f", removed {count(self.removed, 'part')}" if self.removed else ""
        note = f" ({self.note})" if self.note else ""
        added = f"Published {count(self.added, 'part')} to {self.table}"
        return f"{added}{removed}, {self.version}{note}"


class Publisher:
    """The published tables of one output; there may be none."""

    def __init__(
        self, path: str, tables: Sequence[PublishedTable], config: Mapping[str, Any]
    ) -> None:
        self._place = path
        self.path = location(path)
        self.tables = tables
        self._config = config

    @classmethod
    def of(cls, config: Mapping[str, Any], path: str) -> "Publisher":
        """Return the publisher of a config (dotted key -> value), for the output at `path`."""
        files = open_files(path)
        tables: list[PublishedTable] = [
            load_plugin(*key.split("."))(files, path, wanted)
            for key in PUBLISH_KEYS
            if (wanted := value_of(key, config))
        ]
        return cls(path, tables, config)

    @property
    def titles(self) -> list[str]:
        """The tables, for messages."""
        return [table.title for table in self.tables]

    def check(self, schema: pa.Schema) -> None:
        """Raise ConfigError if a library is missing, or a table cannot have these columns.

        `schema` is the schema of the rows, as in a manifest.
        """
        for table in self.tables:
            table.check(with_partitions(self._config, schema))

    def publish(self, manifest: Manifest, *, merged: bool = False) -> list[Published]:
        """Make each table equal to the parts of the manifest; return what was changed.

        `merged` is as in `attempt`. Raises ConfigError as `check` does, and PublishError after all
        tables were tried, if one of them could not be changed.
        """
        done, error = self.attempt(manifest, merged=merged)
        if error is not None:
            raise error
        return done

    def attempt(
        self, manifest: Manifest, *, merged: bool = False
    ) -> tuple[list[Published], PublishError | None]:
        """Make each table equal to the parts of the manifest, as far as it can be changed.

        `merged`: since the last call, parts were only merged. The folder is not changed. Returns
        what was changed, and the error for what could not be. Raises ConfigError.
        """
        done, failed = [], []
        if self.tables:
            self.check(decode_schema(manifest.schema))
        for table in self.tables:
            try:
                done += _publish(table, manifest, merged)
            except ConfigError:
                raise
            except PublishError as error:
                failed.append(str(error))
            except Exception as error:  # noqa: BLE001 - of any library, catalog or store
                failed.append(f"{table.title}: {_reason(error, table.error_text(error))}")
        for item in done:
            _LOGGER.debug("%s", item)
        return done, PublishError(
            f"{self.path}: commit {manifest.commit} is complete, but not published:\n"
            + "\n".join(failed)
            + "\nFix the cause. The next run publishes, even if it has nothing new to score, and "
            f"so does: streamrnn publish {self.path}"
        ) if failed else None

    def abandoned_tables(self, before: Mapping[str, Any]) -> list[str]:
        """Describe tables of an earlier config (dotted key -> value) that are no longer named."""
        earlier = Publisher.of(before, self._place).tables
        return [
            advice
            for table in earlier
            if table.title not in self.titles and (advice := table.left())
        ]

    def problems(self, manifest: Manifest) -> list[str]:
        """Describe how the tables differ from the parts of the manifest."""
        problems = []
        for table in self.tables:
            try:
                table.check(columns_of(manifest))
                contents = table.read(manifest)
                if contents is None:
                    problems.append(
                        f"{table.title} does not exist. Create it with `streamrnn publish`."
                    )
                elif contents.foreign:
                    problems.append(
                        f"{table.title} lists files that are not parts: "
                        f"{first_of(list(contents.foreign))}."
                    )
                elif wanted := changes(manifest, contents):
                    problems.append(
                        f"{table.title} is not up to date: {count(len(wanted.add), 'part')} to "
                        f"add, {len(wanted.remove)} to remove. Repair it with `streamrnn publish`."
                    )
            except PublishError as error:
                problems.append(str(error))
            except Exception as error:  # noqa: BLE001 - of any library, catalog or store
                reason = _reason(error, table.error_text(error))
                problems.append(f"{table.title} cannot be compared: {reason}")
        return problems


def _publish(table: PublishedTable, manifest: Manifest, merged: bool) -> list[Published]:
    contents = table.read(manifest)
    if contents is not None and contents.foreign:
        others = f" ({contents.version}: {contents.others})" if contents.others else ""
        raise PublishError(
            f"{table.title} lists files that do not belong to the output{others}: "
            f"{first_of(list(contents.foreign))}. {table.advice(contents)}"
        )
    wanted = changes(manifest, contents, merged=merged)
    if not wanted:
        return []
    # Parts of commits before the last one may have been published.
    existed = any(part.commit < manifest.commit for part in manifest.parts)
    note = "the table did not exist" if contents is None and existed else ""
    if contents is not None and contents.others:
        again = "all parts were" if contents.commit is None else "what the table lacked was"
        note = f"after {contents.version}, {contents.others}: {again} registered again"
    version = table.commit(manifest, wanted, contents)
    removed = len(wanted.remove)
    return [Published(table.title, version, manifest.commit, len(wanted.add), removed, note)]


def _reason(error: Exception, text: str) -> str:
    """Return the type and the text of a library's error with its causes, on one line.

    A trace or a link after the text, and terminal colors, are left out.
    """
    message = _AFTER.split(_DECORATION.sub("", text), maxsplit=1)[0]
    causes = [line.strip().rstrip(".:") for line in message.splitlines() if line.strip()]
    shown = ": ".join(causes)
    if len(shown) > _LONGEST:
        half = _LONGEST // 2
        shown = f"{shown[:half]} … {shown[-half:]}"  # the cause of the others is last
    return f"{type(error).__name__}: {shown}".rstrip(": ") + "."


def publish(path: AnyPath, *, rejects: AnyPath | None = None) -> list[Published]:
    """Make the tables of [publish] equal to the parts of an output, and return what was changed.

    The last commit names the tables. A missing table is created; changes that others made to a
    table are undone, as far as they concern parts of the output. `rejects` is the folder of
    rejected rows, if it was moved. Raises ConfigError if the last commit names no table, or a
    library is missing; CheckpointError if the folder is in use or damaged; PublishError.
    """
    path = os.fspath(path)
    with OutputFolder.reopen(path, rejects=rejects) as folder:
        manifest = folder.manifest or read_manifest(path)
        publisher = Publisher.of(manifest.config, path)
        if not publisher.tables:
            raise ConfigError(
                f"{path}: the last commit names no table. Set [publish] delta or iceberg in the "
                "pipeline file and run it: a run publishes, even if it has nothing new to score."
            )
        return publisher.publish(manifest)
