"""Delta tables, read from their log.

The log is read here, not by the library `deltalake`, which does not say which files a version
removed and added without changing rows, and would need separate credentials.
"""

import json
import posixpath
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.base.storage import Store
from streamrnn.errors import DataError, MissingFileError
from streamrnn.stream.sources.files import (
    AllFiles,
    Partitions,
    SourceFile,
    canonical_name,
    read_errors,
    resolve,
)
from streamrnn.stream.sources.formats.text import parse_texts
from streamrnn.stream.sources.tables import DELTA_LOG, Commit, Table

_KINDS = {
    "string": pa.string(),
    "long": pa.int64(),
    "integer": pa.int32(),
    "short": pa.int16(),
    "byte": pa.int8(),
    "float": pa.float32(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
    "timestamp_ntz": pa.timestamp("us"),
}
# Reader features that a table may name. The last two change how a table is read only if it uses
# them, and a table that uses them is refused separately.
_FEATURES = {"timestampNtz", "vacuumProtocolCheck", "deletionVectors", "columnMapping"}
_MAPS = {"partitionValues", "configuration", "tags"}
_Actions = list[dict[str, Any]]


def open_delta(path: str, version: int | None) -> Table:
    """Read the log of a table up to `version` (default: the latest).

    Raises DataError for a table with rows in deletion vectors, mapped columns, or another feature
    that cannot be read; MissingFileError if it has no such version.
    """
    with read_errors(canonical_name(path)):
        return _open(path, version)


def _open(path: str, version: int | None) -> Table:
    log, path = _Log(path), canonical_name(path)
    if log.last < 0:
        raise MissingFileError(f"[source] path: {path}: not a Delta table: it has no {DELTA_LOG}")
    last = log.last if version is None else version
    if last not in log.versions and last not in log.checkpoints:
        oldest = min({*log.versions, *log.checkpoints})
        raise MissingFileError(
            f"[source] version: {path}: expected a version from {oldest} to {log.last}, received "
            f"{last}"
        )
    first = log.first(last)
    base = log.checkpoint(first - 1) if first else []
    numbered = [(number, log.actions(number)) for number in range(first, last + 1)]
    ids, state = [], dict[str, Any]()
    for action in chain(base, *(actions for _, actions in numbered)):
        state |= {k: action[k] for k in ("protocol", "metaData") if action.get(k) is not None}
        ids += [metadata.get("id") for metadata in _of("metaData", [action])]
    name = f"version {last}"
    _check_features(path, state, name)
    reader = _Files(path, log.store, log.location, state)
    added = sorted(_of("add", base), key=lambda a: (a["modificationTime"], a["path"]))
    table = Table(
        path.rstrip("/") + "/",
        name,
        [reader.file(action) for action in added],
        [reader.commit(number, actions) for number, actions in numbered],
        ids=[id for id in ids if id],
    )
    reader.refuse_vectors({file.name for file in table.files}, name)
    return table


class _Log:
    """The versions of a log, and its checkpoints."""

    def __init__(self, path: str) -> None:
        self.store, self.location = resolve(path)
        folder = posixpath.join(self.location, DELTA_LOG)
        self.versions: dict[int, str] = {}
        self.checkpoints: dict[int, list[str]] = {}
        for entry in self.store.find(folder, AllFiles((".json", ".parquet"))):
            number, _, rest = posixpath.basename(entry.path).partition(".")
            if number.isdigit() and rest == "json":
                self.versions[int(number)] = entry.path
            elif number.isdigit() and rest.startswith("checkpoint."):
                self.checkpoints.setdefault(int(number), []).append(entry.path)
        self.last = max([*self.versions, *self.checkpoints], default=-1)
        self._path = canonical_name(path)

    def first(self, last: int) -> int:
        """Return the version to start at: 0, or the one after a checkpoint.

        All versions from there to `last` exist. Raises DataError if there is no such version.
        """
        start = last + 1
        while start - 1 in self.versions:
            start -= 1
        if start == 0:
            return 0
        # Start after the oldest checkpoint: the longer the history, the more it explains.
        follows = [number + 1 for number in self.checkpoints if start <= number + 1 <= last + 1]
        if not follows:
            raise DataError(
                f"{self._path}: not a readable Delta table: its log lacks version {start - 1}, and "
                "has no checkpoint after it. Restore the log"
            )
        return min(follows)

    def actions(self, number: int) -> _Actions:
        """Return the actions of a version."""
        with self.store.open(self.versions[number]) as file:
            text = file.read()
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise DataError(f"{self.versions[number]} is damaged: {error}") from error

    def checkpoint(self, number: int) -> _Actions:
        """Return the added files, the protocol and the metadata of a checkpoint, as actions."""
        actions: _Actions = []
        for path in self.checkpoints[number]:
            if not path.endswith(".parquet") or len(posixpath.basename(path)) > 80:
                raise DataError(
                    f"{path}: expected a checkpoint of the classic form; v2Checkpoint cannot be "
                    "read. Write one with another writer, or read the table's files as Parquet."
                )
            with self.store.open(path) as file:
                table = pq.ParquetFile(file).read(columns=["add", "metaData", "protocol"])
            for row in table.to_pylist():
                for action in filter(None, row.values()):  # Arrow has maps as lists of pairs
                    action |= {n: dict(action[n] or ()) for n in _MAPS & action.keys()}
                actions.append({n: action for n, action in row.items() if action})
        return actions


class _Files:
    """The files of a table, as added and removed by its log."""

    def __init__(self, path: str, store: Store, location: str, state: Mapping[str, Any]) -> None:
        self._path, self._store, self._location = path, store, location
        fields = json.loads(state["metaData"]["schemaString"])["fields"]
        self._kinds = {each["name"]: _kind(each["type"]) for each in fields}
        self._partitions: list[str] = state["metaData"]["partitionColumns"]
        self._values: dict[str, Partitions] = {}
        self._vectors: dict[str, SourceFile] = {}
        self._defaults = tuple(
            (name, pa.scalar(None, kind))
            for name, kind in self._kinds.items()
            if kind is not None and name not in self._partitions
        )

    def file(self, action: Mapping[str, Any]) -> SourceFile:
        """Return the file that an action adds or removes."""
        path = unquote(action["path"])
        absolute = "://" in path
        shown = path if absolute else posixpath.join(self._path, path)
        store, location = (
            resolve(path) if absolute else (self._store, posixpath.join(self._location, path))
        )
        values = action.get("partitionValues")
        if values is not None:
            self._values[path] = self._typed(values)
        statistics = json.loads(action.get("stats") or "{}")
        file = SourceFile(
            shown,
            canonical_name(shown),
            action.get("size") or 0,
            action.get("modificationTime", 0) * 1_000_000,
            store,
            location,
            self._values.get(path, ()),
            defaults=self._defaults,
            rows=statistics.get("numRecords"),
        )
        if action.get("deletionVector") is not None and "modificationTime" in action:
            self._vectors[file.name] = file
        return file

    def commit(self, number: int, actions: _Actions) -> Commit:
        """Return what a version did; `changes` is false if it only rewrote rows as they were."""
        added, removed = _of("add", actions), _of("remove", actions)
        info = next(iter(_of("commitInfo", actions)), {})
        operation = info.get("operation", "an unnamed operation")
        changes = any(action.get("dataChange", True) for action in (*added, *removed))
        # An UPDATE may remove a file and add it again, with another deletion vector.
        old = tuple(map(self.file, removed))
        return Commit(
            f"{operation} in version {number}", tuple(map(self.file, added)), old, changes
        )

    def refuse_vectors(self, active: set[str], version: str) -> None:
        """Raise DataError if rows of a file are deleted by a deletion vector."""
        file = next((file for name, file in self._vectors.items() if name in active), None)
        if file is not None:
            raise DataError(
                f"{file.path}: a deletion vector deletes rows of this file in {version} of the "
                "table; deletion vectors cannot be read. Rewrite the table without them: REORG "
                "TABLE … APPLY (PURGE), then set delta.enableDeletionVectors = false."
            )

    def _typed(self, values: Mapping[str, str | None]) -> Partitions:
        partitions = []
        for name in self._partitions:
            kind, text = self._kinds[name], values.get(name) or None
            if kind is None:
                raise DataError(f"{self._path}: partition {name!r} has a type that cannot be read")
            if pa.types.is_timestamp(kind) and kind.tz and text and not text.endswith("Z"):
                text = text.replace(" ", "T") + "Z"
            parsed = parse_texts(pa.array([text], pa.string()), kind, padded=True)
            partitions.append((name, parsed[0]))
        return tuple(partitions)


def _of(kind: str, actions: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [action[kind] for action in actions if action.get(kind) is not None]


def _check_features(path: str, state: Mapping[str, Any], version: str) -> None:
    if not {"protocol", "metaData"} <= state.keys():
        raise DataError(
            f"{path}: not a readable Delta table: its log has no protocol or metadata. Restore the "
            "log"
        )
    protocol = state["protocol"]
    unknown = sorted(set(protocol.get("readerFeatures") or ()) - _FEATURES)
    reader = protocol["minReaderVersion"]
    if unknown or reader > 3:
        raise DataError(
            f"{path}: {version} of the table requires reader features that are not supported "
            f"({', '.join(unknown) or f'reader version {reader}'}). Read an earlier version with "
            "[source] version, or write the table without them."
        )
    mode = (state["metaData"].get("configuration") or {}).get("delta.columnMapping.mode", "none")
    if mode != "none":
        raise DataError(
            f"{path}: {version} of the table has column mapping (delta.columnMapping.mode = "
            f"{mode}), which cannot be read. Write the table without it."
        )


def _kind(kind: Any) -> pa.DataType | None:
    """Return the Arrow type of a field of the schema; None for a nested or unknown one."""
    if isinstance(kind, str) and kind.startswith("decimal("):
        precision, scale = kind[8:-1].split(",")
        return pa.decimal128(int(precision), int(scale))
    return _KINDS.get(kind) if isinstance(kind, str) else None
