"""Iceberg tables, whose metadata the library `pyiceberg` reads."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from streamrnn.base.display import location, safe_text
from streamrnn.errors import ConfigError, DataError, MissingFileError
from streamrnn.stream.sources.files import Partitions, SourceFile, canonical_name, resolve
from streamrnn.stream.sources.tables import CATALOG, Commit, Table

_LOGGER = logging.getLogger("streamrnn.plugins")
# Module that a catalog's library imports -> the extra of pyiceberg that installs it.
_EXTRAS = {
    "boto3": "glue",
    "google": "bigquery",
    "psycopg2": "sql-postgres",
    "sqlalchemy": "sql-sqlite",
    "thrift": "hive",
}
# Properties of catalogs that are not secret, but may be URIs.
_URIS = ("type", "uri", "warehouse", "s3.endpoint", "s3.region", "client.region")


def open_iceberg(path: str, version: int | None) -> Table:
    """Read the snapshots of a table up to the one with the id `version` (default: the current one).

    Raises DataError for a table with deleted rows or other features that cannot be read;
    MissingFileError if there is no such table or snapshot.
    """
    table, path = _load(path), location(path)
    snapshots = {snapshot.snapshot_id: snapshot for snapshot in table.metadata.snapshots}
    current = table.metadata.current_snapshot_id if version is None else version
    ids = [str(table.metadata.table_uuid)]
    root = canonical_name(table.location()).rstrip("/") + "/"
    if current is None:
        return Table(root, "the first version", [], [], ids=ids)
    if current not in snapshots:
        raise MissingFileError(
            f"[source] version: {path}: expected one of the snapshots {sorted(snapshots)}, "
            f"received {current}"
        )
    chain = [snapshots[current]]
    while (parent := chain[-1].parent_snapshot_id) in snapshots:
        chain.append(snapshots[parent])
    chain.reverse()
    reader = _Files(path, table)
    name = f"snapshot {current}"
    base: list[SourceFile] = []
    before = reader.live(chain[0])
    if chain[0].parent_snapshot_id is not None:  # earlier snapshots have expired
        base = list(before.values())
        chain = chain[1:]
    else:
        before = {}
    commits = []
    for snapshot in chain:
        after = reader.live(snapshot)
        commits.append(_commit(snapshot, before, after, deletes=reader.deletes(snapshot)))
        before = after
    reader.refuse_deletes(snapshots[current], name)
    return Table(root, name, base, commits, renames=_renames(path, table), ids=ids)


def open_catalog(name: str, options: Mapping[str, str]) -> Any:
    """Open a catalog of pyiceberg's configuration, which overrides `options`.

    Raises ConfigError, with the pip command, for a catalog whose driver is not installed, and any
    error of the libraries: see `catalog_text`.
    """
    from pyiceberg import catalog as library
    from pyiceberg import exceptions as errors

    # Some of the libraries' warnings contain the URI of the catalog.
    with warnings.catch_warnings(record=True) as caught:
        try:
            return library.load_catalog(name, **{**options, **_properties(name)})
        except (errors.NotInstalledError, ImportError) as error:
            missing = error if isinstance(error, ImportError) else error.__cause__
            module = (getattr(missing, "name", None) or "").partition(".")[0]
            extra = _EXTRAS.get(module)
            install = f"'pyiceberg[{extra}]'" if extra else module or "its driver"
            raise ConfigError(
                f"the Iceberg catalog {name!r} needs {module or 'a driver'}, which is not "
                f"installed: pip install {install}"
            ) from error
        finally:
            for warning in caught:
                _LOGGER.debug("pyiceberg: %s", catalog_text(warning.message, name))


def catalog_text(error: object, catalog: str) -> str:
    """Return the text of an error or a warning from a catalog's libraries, without credentials."""
    properties = _properties(catalog)
    uris = [properties.pop(name) for name in _URIS if name in properties]
    return safe_text(error, *uris, secrets=properties.values())


def _properties(catalog: str) -> dict[str, str]:
    from pyiceberg.utils.config import Config

    config = Config().get_catalog_config(catalog)
    return {name: str(value) for name, value in (config or {}).items()}


def _load(path: str) -> Any:
    try:
        from pyiceberg import exceptions as errors
        from pyiceberg import table as tables
    except ImportError as error:
        raise ConfigError(
            f"[source] path: {location(path)}: an Iceberg table needs pyiceberg: "
            "pip install 'streamrnn[iceberg]'"
        ) from error
    catalog, slash, name = path.removeprefix(CATALOG).partition("/")
    if path.startswith(CATALOG) and not (catalog and slash and "." in name):
        raise ConfigError(
            f'[source] path: expected "iceberg:catalog/namespace.table", received {path}'
        )
    shown = location(path)

    def text(error: Exception) -> str:
        return catalog_text(error, catalog) if path.startswith(CATALOG) else safe_text(error, path)

    try:
        if path.startswith(CATALOG):
            return open_catalog(catalog, {}).load_table(name)
        return tables.StaticTable.from_metadata(path)
    except ConfigError as error:
        raise ConfigError(f"[source] path: {shown}: {error}") from error
    except (errors.NoSuchTableError, FileNotFoundError) as error:
        raise MissingFileError(
            f"[source] path: {shown}: no such Iceberg table: {text(error)}"
        ) from error
    except (errors.ValidationError, ValueError, OSError, KeyError) as error:
        raise DataError(f"{shown}: not a readable Iceberg table: {text(error)}") from error
    except Exception as error:
        if not type(error).__module__.startswith("sqlalchemy."):
            raise
        raise DataError(
            f"{shown}: the catalog cannot be read: {text(error)}. Check its uri, or restore its "
            "database."
        ) from error


class _Files:
    """The data files of snapshots. Each manifest is read once."""

    def __init__(self, path: str, table: Any) -> None:
        self._path, self._table = path, table
        self._manifests: dict[str, list[Any]] = {}
        self._files: dict[str, SourceFile] = {}
        from pyiceberg.io.pyarrow import schema_to_pyarrow

        schema = schema_to_pyarrow(table.metadata.schema())
        self._kinds = {field.name: field.type for field in schema}
        self._defaults = tuple((n, pa.scalar(None, kind)) for n, kind in self._kinds.items())

    def live(self, snapshot: Any) -> dict[str, SourceFile]:
        """Return the data files of a snapshot, by their names."""
        files = (self._file(entry.data_file) for entry in self._entries(snapshot, "DATA"))
        return {file.name: file for file in files}

    def deletes(self, snapshot: Any) -> bool:
        """Return whether a snapshot added files that delete rows of data files."""
        return any(
            entry.snapshot_id == snapshot.snapshot_id and entry.status.name == "ADDED"
            for entry in self._entries(snapshot, "DELETES")
        )

    def refuse_deletes(self, snapshot: Any, name: str) -> None:
        """Raise DataError if rows of the snapshot are deleted by position or by value."""
        entry = next(self._entries(snapshot, "DELETES"), None)
        if entry is not None:
            kind = entry.data_file.content.name.lower().replace("_", " ")
            raise DataError(
                f"{self._path}: {name} of the table has {kind} ({entry.data_file.file_path}), "
                "which cannot be read. Rewrite its data files first (rewrite_data_files), and "
                "write with copy-on-write."
            )

    def _entries(self, snapshot: Any, content: str) -> Iterator[Any]:
        for manifest in snapshot.manifests(self._table.io):
            if manifest.content.name != content:
                continue
            path = manifest.manifest_path
            if path not in self._manifests:
                self._manifests[path] = manifest.fetch_manifest_entry(
                    self._table.io, discard_deleted=True
                )
            yield from self._manifests[path]

    def _file(self, data: Any) -> SourceFile:
        path = data.file_path
        if path not in self._files:
            if data.file_format.name != "PARQUET":
                raise DataError(
                    f"{path}: expected a Parquet file, received {data.file_format.name}, which "
                    "cannot be read as part of an Iceberg table. Rewrite the data files as Parquet"
                )
            store, location = resolve(path)
            self._files[path] = SourceFile(
                path.removeprefix("file://"),
                canonical_name(path),
                data.file_size_in_bytes,
                0,  # a data file never changes
                store,
                location,
                self._partitions(data),
                defaults=self._defaults,
                rows=data.record_count,
            )
        return self._files[path]

    def _partitions(self, data: Any) -> Partitions:
        """Return the columns by whose values the file is partitioned; the file may lack them."""
        spec = self._table.metadata.specs()[data.spec_id]
        schema = self._table.metadata.schema()
        partitions = []
        for field, value in zip(spec.fields, data.partition, strict=True):
            name = schema.find_column_name(field.source_id)
            if str(field.transform) == "identity" and name in self._kinds:
                partitions.append((name, pa.scalar(value, self._kinds[name])))
        return tuple(partitions)


def _commit(
    snapshot: Any,
    before: Mapping[str, SourceFile],
    after: Mapping[str, SourceFile],
    *,
    deletes: bool,
) -> Commit:
    """Return what a snapshot did.

    A snapshot that deletes rows in place counts as changing all files.
    """
    operation = snapshot.summary.operation.value if snapshot.summary else "overwrite"
    name = f"{operation} in snapshot {snapshot.snapshot_id}"
    if deletes:
        return Commit(name, tuple(after.values()), tuple(before.values()), changes=True)
    return Commit(
        name,
        tuple(file for key, file in after.items() if key not in before),
        tuple(file for key, file in before.items() if key not in after),
        changes=operation != "replace",
    )


def _renames(path: str, table: Any) -> dict[str, tuple[str, ...]]:
    """Return the names of columns in older files: new name -> old names.

    Raises DataError for a name that two columns have had, if one of them still exists: files do not
    say which of the two they contain.
    """
    names: dict[int, list[str]] = {}
    ids: dict[str, set[int]] = {}
    for schema in table.metadata.schemas:
        for field in schema.fields:
            ids.setdefault(field.name, set()).add(field.field_id)
            if field.name not in names.setdefault(field.field_id, []):
                names[field.field_id].append(field.name)
    now = {field.field_id: field.name for field in table.metadata.schema().fields}
    twice = [name for name, used in ids.items() if len(used) > 1 and used & now.keys()]
    if twice:
        raise DataError(
            f"{path}: column {twice[0]!r}: two columns of the table have had this name, one after "
            "the other, and files do not say which of the two they contain. Rename the current "
            "one, and rewrite the data files."
        )
    return {
        name: tuple(old for old in names[number] if old != name)
        for number, name in now.items()
        if len(names[number]) > 1
    }
