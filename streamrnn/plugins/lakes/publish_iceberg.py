"""A table in an Iceberg catalog; its data files are the parts of the output."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from functools import cached_property
from itertools import count
from typing import Any

import pyarrow as pa

from streamrnn.base.storage import Files
from streamrnn.base.storage.store import open_like
from streamrnn.errors import ConfigError, PublishError
from streamrnn.jobs.outputs.publisher import (
    BY,
    PublishedTable,
    TableChanges,
    TableContents,
    TableFile,
    columns_of,
    partitions_of,
)
from streamrnn.plugins.lakes.parts import iceberg_type, lake_schema, may_be_part, part_footer
from streamrnn.plugins.lakes.read_iceberg import catalog_text, open_catalog
from streamrnn.stream.checkpoints import Manifest
from streamrnn.stream.checkpoints.reading import find_manifest
from streamrnn.stream.sinks import Part
from streamrnn.stream.sources import canonical_name

_COMMIT, _OUTPUT = f"{BY}.commit", f"{BY}.output"
# One small manifest per commit would make planning a query slow.
_PROPERTIES = {"commit.manifest-merge.enabled": "true"}
_NAMES = "schema.name-mapping.default"


class IcebergCatalogTable(PublishedTable):
    """A table of a catalog that pyiceberg's configuration names."""

    def __init__(self, files: Files, _path: str, wanted: Mapping[str, str]) -> None:
        self._files = files
        self._catalog_name, self._name = wanted["catalog"], wanted["table"]
        root = canonical_name(files.show("")).rstrip("/")
        self._root = root if "://" in root else f"file://{root}"

    @property
    def title(self) -> str:
        return f"the Iceberg table {self._catalog_name}.{self._name}"

    def error_text(self, error: Exception) -> str:
        return catalog_text(error, self._catalog_name)

    def check(self, schema: pa.Schema) -> None:
        """Raise ConfigError if pyiceberg, the catalog, or Iceberg's type of a column is missing."""
        try:
            from pyiceberg.utils.config import Config
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "pyiceberg":
                raise
            raise ConfigError(
                "[publish] iceberg needs pyiceberg: pip install 'streamrnn[iceberg]'"
            ) from None
        if Config().get_catalog_config(self._catalog_name) is None:
            raise ConfigError(
                f"[publish] iceberg: pyiceberg's configuration has no catalog "
                f"{self._catalog_name!r}. Add it to ~/.pyiceberg.yaml, or set "
                f"PYICEBERG_CATALOG__{self._catalog_name.upper()}__URI."
            )
        lake_schema(schema, iceberg_type, "Iceberg")

    @cached_property
    def _catalog(self) -> Any:
        # The options of the sink's object store, under the names of pyiceberg.
        names = {
            "aws_endpoint_url": "s3.endpoint",
            "aws_region": "s3.region",
            "aws_access_key_id": "s3.access-key-id",
            "aws_secret_access_key": "s3.secret-access-key",
            "aws_session_token": "s3.session-token",
        }
        options = {} if self._files.local else self._files.options()
        options = {names[name]: value for name, value in options.items() if name in names}
        try:
            return open_catalog(self._catalog_name, options)
        except ConfigError as error:
            raise PublishError(f"{self.title}: {error}") from error

    def read(self, manifest: Manifest) -> TableContents | None:
        table = self._load()
        if table is None:
            return None
        snapshot = table.current_snapshot()
        about = _about(snapshot)
        output = about.get(_OUTPUT)
        tasks = list(table.scan().plan_files())
        # Keyed by names in the output, or by paths if files are elsewhere.
        files = {task.file.file_path.removeprefix(f"{self._root}/"): task.file for task in tasks}
        ours = output == manifest.output
        foreign = [
            file.file_path for name, file in files.items() if not (ours or may_be_part(name))
        ]
        if ours:
            self._refuse_original([name for name in files if "://" in name], manifest)
        if any(task.delete_files for task in tasks):
            output = None
        return TableContents(
            {
                name: TableFile(file.file_size_in_bytes, file.record_count, file.file_path)
                for name, file in files.items()
            },
            int(about.get(_COMMIT, 0)) if output == manifest.output else None,
            self._has_columns(table, manifest),
            "no snapshot" if snapshot is None else f"snapshot {snapshot.snapshot_id}",
            foreign,
            _others(table, about, manifest.output),
        )

    def commit(
        self, manifest: Manifest, changes: TableChanges, contents: TableContents | None
    ) -> str:
        """Commit one snapshot; two if the columns change: the first one empties the table."""
        table = self._load() or self._create(manifest)
        gone = {file.path for file in changes.remove.values()}
        if contents is not None:  # files with the name of a new part, or with other columns, too
            names = (
                {part.name for part in changes.add}
                if contents.same_schema
                else contents.files.keys()
            )
            gone |= {contents.files[name].path for name in names if name in contents.files}
        if not self._has_columns(table, manifest):
            if gone:
                self._commit_files(table, manifest, 0, gone, ())
            with table.transaction() as transaction:
                _set_columns(transaction, _iceberg_schema(manifest), partitions_of(manifest))
            gone = set()
        self._commit_files(table, manifest, manifest.commit, gone, changes.add)
        return f"snapshot {table.refresh().current_snapshot().snapshot_id}"

    def _commit_files(
        self,
        table: Any,
        manifest: Manifest,
        commit: int,
        gone: Collection[str],
        parts: Sequence[Part],
    ) -> None:
        """Commit one snapshot without the files `gone`, and with these parts."""
        from pyiceberg.io import pyarrow as arrow
        from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
        from pyiceberg.typedef import Record

        fields = partitions_of(manifest)
        properties = {_OUTPUT: manifest.output, _COMMIT: str(commit)}
        with table.transaction() as transaction:
            mapping = transaction.table_metadata.schema().name_mapping.model_dump_json()
            if transaction.table_metadata.properties.get(_NAMES) != mapping:
                transaction.set_properties({_NAMES: mapping})
            update = transaction.update_snapshot(snapshot_properties=properties)
            with update.overwrite() if gone else update.merge_append() as snapshot:
                for task in table.scan().plan_files() if gone else ():
                    if task.file.file_path in gone:
                        snapshot.delete_data_file(task.file)
                metadata = transaction.table_metadata
                plan = arrow.compute_statistics_plan(metadata.schema(), metadata.properties)
                ids = arrow.parquet_path_to_id_mapping(metadata.schema())
                for part in parts:
                    footer = part_footer(self._files, part.name)
                    facts = arrow.data_file_statistics_from_parquet_metadata(footer, plan, ids)
                    file = DataFile.from_args(
                        content=DataFileContent.DATA,
                        file_path=f"{self._root}/{part.name}",
                        file_format=FileFormat.PARQUET,
                        partition=Record(*_partition(part, fields)),
                        file_size_in_bytes=part.bytes,
                        sort_order_id=None,
                        spec_id=metadata.default_spec_id,
                        equality_ids=None,
                        key_metadata=None,
                        **facts.to_serialized_dict(),
                    )
                    snapshot.append_data_file(file)

    def left(self) -> str:
        return (
            f"{self.title} is no longer kept up to date, as [publish] does not name it: "
            "its readers miss new rows, and fail after compact, rewind or --full-refresh. Drop "
            "it without its files, or name it again."
        )

    def advice(self, contents: TableContents) -> str:
        return (
            "Roll the table back to the last snapshot that streamrnn wrote "
            "(table.manage_snapshots().rollback_to_snapshot(id).commit()), name another table in "
            "[publish] iceberg, or drop this one without its files: it is then created again."
        )

    def _load(self) -> Any:
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        try:
            return self._catalog.load_table(self._name)
        except (NoSuchTableError, NoSuchNamespaceError):
            return None

    def _create(self, manifest: Manifest) -> Any:
        self._catalog.create_namespace_if_not_exists(self._name.rpartition(".")[0])
        schema = lake_schema(columns_of(manifest), iceberg_type, "Iceberg")
        table = self._catalog.create_table(self._name, schema, properties=_PROPERTIES)
        with table.transaction() as transaction:
            _divide_by(transaction, partitions_of(manifest))
        return table

    def _has_columns(self, table: Any, manifest: Manifest) -> bool:
        schema, folders = table.schema(), partitions_of(manifest)
        divided_by = [
            (schema.find_column_name(field.source_id), str(field.transform))
            for field in table.spec().fields
        ]
        same = _types_of(schema.fields) == _types_of(_iceberg_schema(manifest).fields)
        return same and divided_by == [(field.name, "identity") for field in folders]

    def _refuse_original(self, paths: Sequence[str], manifest: Manifest) -> None:
        """Raise PublishError if another folder still has an output with the id of this one.

        This output is then a copy of the other one, not the moved original. Raises CheckpointError
        if the other manifest is damaged; SinkError or ConfigError if its store does not answer.
        """
        levels = len(partitions_of(manifest)) + 1
        for root in dict.fromkeys(path.rsplit("/", levels)[0] for path in paths):
            other = open_like(root, self._files)
            copied = find_manifest(other)
            if copied is None or copied.output != manifest.output:
                continue
            # One folder may have two paths, as in a container.
            local = self._files.local and other.local
            if not (local and os.path.samefile(self._files.show(""), other.show(""))):
                raise PublishError(
                    f"{self.title} has the parts of {root}, which is still there; {self._root} is "
                    "a copy of it. Name another table in [publish] iceberg for the copy. If the "
                    "copy replaces that output, move that folder away first."
                )


def _partition(part: Part, fields: Sequence[pa.Field]) -> list[Any]:
    """Return the values of the folders of a part, as Iceberg stores them: dates are days."""
    values: list[Any] = []
    for field, text in zip(fields, part.partition.values(), strict=True):
        if text is None or not (pa.types.is_integer(field.type) or pa.types.is_date(field.type)):
            values.append(text)
        elif pa.types.is_date(field.type):
            values.append((date.fromisoformat(text) - date(1970, 1, 1)).days)
        else:
            values.append(int(text))
    return values


def _about(snapshot: Any) -> dict[str, str]:
    """Return the operation and the properties of a snapshot; {} if the snapshot is None."""
    if snapshot is None:
        return {}
    if snapshot.summary is None:
        return {"operation": "a snapshot"}
    return {"operation": snapshot.summary.operation.value, **snapshot.summary.additional_properties}


def _others(table: Any, about: Any, output: str) -> str:
    """Describe a change by others since our last snapshot; "" if there is none."""
    if about and _OUTPUT not in about:
        return f"{about['operation']} of another writer"
    ours = [item for item in map(_about, table.metadata.snapshots) if item.get(_OUTPUT) == output]
    latest = max((int(item.get(_COMMIT, 0)) for item in ours), default=0)
    if latest > int(about.get(_COMMIT, 0)) and about.get(_OUTPUT, output) == output:
        return f"set back from the snapshot of commit {latest}"
    return ""


def _iceberg_schema(manifest: Manifest) -> Any:
    from pyiceberg.io.pyarrow import _pyarrow_to_schema_without_ids
    from pyiceberg.schema import assign_fresh_schema_ids

    schema = lake_schema(columns_of(manifest), iceberg_type, "Iceberg")
    return assign_fresh_schema_ids(_pyarrow_to_schema_without_ids(schema))


def _types_of(fields: Iterable[Any]) -> list[tuple[str, str, bool]]:
    """Return the name, the type and the required flag of each field, but not its id."""
    return [(field.name, str(field.field_type), field.required) for field in fields]


def _set_columns(transaction: Any, wanted: Any, folders: Sequence[pa.Field]) -> None:
    """Give a table these columns, in this order, and one partition field for each level of folders.

    A column of another type is replaced: the table has been emptied, so no file needs it.
    """
    with transaction.update_spec() as spec:
        for field in transaction.table_metadata.spec().fields:
            spec.remove_field(field.name)
    now = _types_of(transaction.table_metadata.schema().fields)
    stay = {column[0] for column in now if column in _types_of(wanted.fields)}
    with transaction.update_schema(allow_incompatible_changes=True) as update:
        for name, *_ in now:
            if name not in stay:
                update.delete_column(name)
    with transaction.update_schema(allow_incompatible_changes=True) as update:
        for field in wanted.fields:
            if field.name not in stay:
                update.add_column(field.name, field.field_type, required=field.required)
        for field in reversed(wanted.fields):
            update.move_first(field.name)
    _divide_by(transaction, folders)


def _divide_by(transaction: Any, folders: Sequence[pa.Field]) -> None:
    """Give a table without partition fields one for each level of folders.

    Their names are new, neither a column's nor an earlier partition field's: otherwise a column
    could not be removed and added again.
    """
    metadata = transaction.table_metadata
    owners = (metadata.schema(), *metadata.partition_specs)
    taken = {field.name for owner in owners for field in owner.fields}
    endings = (f"_partition_{number}" for number in count(1))
    ending = next(end for end in endings if taken.isdisjoint(f.name + end for f in folders))
    with transaction.update_spec() as spec:
        for field in folders:
            spec.add_field(field.name, "identity", field.name + ending)
