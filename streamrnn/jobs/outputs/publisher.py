"""Keep the tables of [publish] equal to the parts of an output."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from streamrnn.base.display import count, first_of, location
from streamrnn.base.plugin import load_plugin
from streamrnn.base.storage.store import open_files
from streamrnn.errors import ConfigError, PublishError
from streamrnn.jobs.outputs.table import PublishedTable, changes, columns_of, with_partitions
from streamrnn.stream.checkpoints import Manifest, OutputFolder, read_manifest
from streamrnn.stream.checkpoints.manifest import decode_schema
from streamrnn.stream.config import value_of
from streamrnn.stream.config.schema import PUBLISH_KEYS

_LOGGER = logging.getLogger("streamrnn.outputs")
_LONGEST = 500
_DECORATION = re.compile(r"\x1b\[[\d;]*m|↳ ?")
_AFTER = re.compile(r"^\s*(?:Traceback |at \S+\(|\(Background on )", re.MULTILINE)


@dataclass(frozen=True)
class Published:
    """What was changed in a table: `table` names it, `version` is its new version.

    `added` parts were registered, and `removed` ones dropped, for commit `commit`. `note` says what
    others had done to the table, or that it did not exist.
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
    """The tables of one output. Without tables, all methods do nothing."""

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
        columns = with_partitions(self._config, schema) if self.tables else schema
        for table in self.tables:
            table.check(columns)

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
                problems += _differences(table, manifest)
            except PublishError as error:
                problems.append(str(error))
            except Exception as error:  # noqa: BLE001 - of any library, catalog or store
                reason = _reason(error, table.error_text(error))
                problems.append(f"{table.title} cannot be compared: {reason}")
        return problems


def _publish(table: PublishedTable, manifest: Manifest, merged: bool) -> list[Published]:
    """Bring one table up to date."""
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
        again = "all parts were" if contents.commit is None else "what it lacked was"
        note = f"after {contents.version}, {contents.others}: {again} registered again"
    version = table.commit(manifest, wanted, contents)
    removed = len(wanted.remove)
    return [Published(table.title, version, manifest.commit, len(wanted.add), removed, note)]


def _differences(table: PublishedTable, manifest: Manifest) -> list[str]:
    contents = table.read(manifest)
    if contents is None:
        return [f"{table.title} does not exist. Create it with `streamrnn publish`."]
    if contents.foreign:
        return [
            f"{table.title} lists files that are not parts: {first_of(list(contents.foreign))}."
        ]
    wanted = changes(manifest, contents)
    if not wanted:
        return []
    return [
        f"{table.title} is not up to date: {count(len(wanted.add), 'part')} to add, "
        f"{len(wanted.remove)} to remove. Repair it with `streamrnn publish`."
    ]


def _reason(error: Exception, text: str) -> str:
    """Return the type and the text of a library's error with its causes, on one line.

    A trace or a link after it, and terminal colors, are left out.
    """
    message = _AFTER.split(_DECORATION.sub("", text), maxsplit=1)[0]
    causes = [line.strip().rstrip(".:") for line in message.splitlines() if line.strip()]
    shown = ": ".join(causes)
    if len(shown) > _LONGEST:
        half = _LONGEST // 2
        shown = f"{shown[:half]} … {shown[-half:]}"  # what caused the others is last
    return f"{type(error).__name__}: {shown}".rstrip(": ") + "."


def publish(path: str, *, rejects: str | None = None) -> list[Published]:
    """Make the tables of [publish] equal to the parts of an output, and return what was changed.

    The last commit names the tables. A missing table is created; changes that others made to a
    table are undone, as far as they concern parts of the output. `rejects` is the folder of
    rejected rows, if it was moved. Raises ConfigError if the output has no table, or its library is
    missing; CheckpointError if the folder is in use or damaged; PublishError.
    """
    with OutputFolder.reopen(path, rejects=rejects) as folder:
        manifest = folder.manifest or read_manifest(path)
        publisher = Publisher.of(manifest.config, path)
        if not publisher.tables:
            raise ConfigError(
                f"{path}: the last commit names no table. Set [publish] delta or iceberg in the "
                "pipeline file and run it: it publishes, even if it has nothing new to score."
            )
        return publisher.publish(manifest)
