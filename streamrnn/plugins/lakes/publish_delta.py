"""A Delta table whose root is the output folder."""

import json
import time
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.base.display import location, safe_text, without_options
from streamrnn.base.storage import Files
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
from streamrnn.plugins.lakes.parts import delta_type, lake_schema, may_be_part, part_footer
from streamrnn.stream.checkpoints import Manifest

_COMMIT, _OUTPUT = f"{BY}.commit", f"{BY}.output"
_LOG = "_delta_log"
_FORBIDDEN = set(" ,;{}()\n\t=")
# VACUUM deletes old files that the table does not name. streamrnn deletes parts that left the
# output, and parts that wait to be registered must stay: with this interval, no file is old.
_PROPERTIES = {"delta.deletedFileRetentionDuration": "interval 36500 days"}
_SECRETS = {"aws_access_key_id", "aws_secret_access_key", "aws_session_token"}
_LONGEST_TEXT = 64
"""Texts of more characters are left out of the bounds of columns in a log."""
_WAITS = {"timeout": "10s", "connect_timeout": "5s", "max_retries": "4", "retry_timeout": "60s"}


def _library() -> Any:
    try:
        import deltalake
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "deltalake":
            raise
        raise ConfigError(
            "[publish] delta needs deltalake: pip install 'streamrnn[delta]'"
        ) from None
    return deltalake


class DeltaLog(PublishedTable):
    """The log of a Delta table in an output folder."""

    def __init__(self, files: Files, path: str, _wanted: object = True) -> None:
        self._files = files
        self._path = without_options(location(path))
        self._options = {} if files.local else {**_WAITS, **files.options()}

    @property
    def title(self) -> str:
        return f"the Delta table {self._path}"

    def error_text(self, error: Exception) -> str:
        secrets = [value for name, value in self._options.items() if name in _SECRETS]
        return safe_text(error, secrets=secrets)

    def check(self, schema: pa.Schema) -> None:
        """Raise ConfigError if deltalake is missing, or a Delta table cannot have these columns."""
        _library()
        lake_schema(schema, delta_type, "Delta")
        if odd := [name for name in schema.names if _FORBIDDEN & set(name)]:
            raise ConfigError(
                "[publish] delta: a column of a Delta table cannot have white space or any of "
                f",;{{}}()= in its name: {', '.join(map(repr, odd))}. Rename it ([output] names, "
                "[source] rename), or leave it out of [output] columns."
            )
        lower = [name.lower() for name in schema.names]
        if same := [name for name in schema.names if lower.count(name.lower()) > 1]:
            raise ConfigError(
                f"[publish] delta: {', '.join(map(repr, same))} are the same name in a Delta "
                "table, which ignores case. Rename one of them ([output] names, [source] rename)."
            )

    def read(self, manifest: Manifest) -> TableContents | None:
        table = self._open()
        if table is None:
            return None
        mapped = table.metadata().configuration.get("delta.columnMapping.mode", "none")
        if mapped != "none":
            raise PublishError(
                f"{self.title} maps its columns (delta.columnMapping.mode = {mapped!r}), but "
                f"parts have no column ids. Turn the mapping off. {self._remake()}"
            )
        files = _files(table)
        ours = {name: file for name, file in files.items() if may_be_part(name)}
        # deltalake's own call would stop all threads of Python meanwhile.
        last = _commit_info(self._files, f"{table.version():020d}.json")
        written = last.get(_OUTPUT) == manifest.output
        columns = [field.name for field in partitions_of(manifest)]
        return TableContents(
            ours,
            int(last[_COMMIT]) if written else None,
            table.schema() == _delta_schema(manifest)
            and [*table.metadata().partition_columns] == columns,
            f"version {table.version()}",
            [name for name in files if name not in ours],
            "" if _OUTPUT in last else f"{last.get('operation', 'a commit')} of another writer",
        )

    def commit(
        self, manifest: Manifest, changes: TableChanges, contents: TableContents | None
    ) -> str:
        """Commit one version; two if the columns change: the first one empties the table."""
        library = _library().transaction
        schema = _delta_schema(manifest)
        now = time.time_ns() // 1_000_000
        adds = [
            library.AddAction(
                path=part.name,
                size=part.bytes,
                partition_values=part.partition,
                modification_time=now,
                data_change=part.name not in changes.moved,
                stats=delta_statistics(part_footer(self._files, part.name)),
            )
            for part in changes.add
        ]
        properties = self._properties(manifest.output, manifest.commit)
        columns = [field.name for field in partitions_of(manifest)]
        table = self._open()
        if contents is None or table is None:
            self._files.make("")
            library.create_table_with_add_actions(
                self._uri, schema, adds, mode="error", partition_by=columns,
                configuration=_PROPERTIES, storage_options=self._options,
                commit_properties=properties,
            )  # fmt: skip
        else:
            removes = [
                library.RemoveAction(
                    path=file.path,
                    data_change=name not in changes.moved,
                    deletion_timestamp=now,
                    size=file.bytes,
                )
                for name, file in changes.remove.items()
                if contents.same_schema
            ]
            if not contents.same_schema:
                _library().DeltaTable.create(
                    self._uri, schema, mode="overwrite", partition_by=columns,
                    configuration={**_PROPERTIES, **table.metadata().configuration},
                    storage_options=self._options,
                    commit_properties=self._properties(manifest.output, 0),
                )  # fmt: skip
                table.update_incremental()
            table.create_write_transaction(
                [*adds, *removes], "append", schema, columns, commit_properties=properties
            )
        done = self._open()
        return f"version {done.version() if done is not None else 0}"

    def left(self) -> str:
        names = [name for name in self._files.entries(_LOG) if name.endswith(".json")]
        if not any(_OUTPUT in _commit_info(self._files, name) for name in reversed(names)):
            return ""
        return (
            f"{self.title} is no longer kept up to date, as [publish] does not name it: "
            "its readers miss new rows, and fail after compact, rewind or --full-refresh. Remove "
            f"{self._path}/{_LOG}, or set [publish] delta = true again."
        )

    def advice(self, contents: TableContents) -> str:
        return (
            "Restore the last version that streamrnn wrote (DeltaTable(…).restore(version)). "
            f"{self._remake()}"
        )

    def _remake(self) -> str:
        return (
            f"Or move {self._path}/{_LOG} away: the table is then created again from the parts of "
            "the output."
        )

    @property
    def _uri(self) -> str:
        return self._files.show("")

    def _open(self) -> Any:
        try:  # is_deltatable would stop all threads of Python while it waits for a store
            return _library().DeltaTable(self._uri, storage_options=self._options)
        except _library().exceptions.TableNotFoundError:
            return None

    def _properties(self, output: str, commit: int) -> Any:
        library = _library()
        transactions = [library.Transaction(f"{BY}-{output}", commit)] if commit else []
        return library.CommitProperties(
            custom_metadata={_OUTPUT: output, _COMMIT: str(commit)},
            app_transactions=transactions,
            max_commit_retries=0,  # another writer's version is read before anything is added to it
        )


def _commit_info(files: Files, name: str) -> dict[str, Any]:
    """Return the `commitInfo` of a file of the log, which says who wrote it; {} if it has none."""
    log = files.read(f"{_LOG}/{name}").decode()
    actions = [json.loads(line) for line in log.splitlines() if line]
    return next((action["commitInfo"] for action in actions if "commitInfo" in action), {})


def _delta_schema(manifest: Manifest) -> Any:
    schema = lake_schema(columns_of(manifest), delta_type, "Delta")
    return _library().Schema.from_arrow(schema)


def _files(table: Any) -> dict[str, TableFile]:
    """Return the files of a table by their paths, which the log percent-encodes."""
    actions = pa.table(table.get_add_actions(flatten=True))
    columns = (actions.column(name).to_pylist() for name in ("path", "size_bytes", "num_records"))
    return {
        unquote(path): TableFile(size, rows, unquote(path))
        for path, size, rows in zip(*columns, strict=True)
    }


def delta_statistics(footer: pq.FileMetaData) -> str:
    """Return the number of rows, and the nulls and bounds of columns that are not nested, as JSON.

    Bounds are the smallest and the largest value; only integers, timestamps, dates and short texts
    have bounds. Floats have none, as Parquet leaves NaN out of its bounds, while Delta orders NaN
    above all numbers.
    """
    nulls: dict[str, int] = {}
    bounds: dict[str, dict[str, Any]] = {"minValues": {}, "maxValues": {}}
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    for index in range(footer.num_columns):
        column = footer.schema.column(index)
        if column.path != column.name or column.max_repetition_level or not groups:
            continue
        statistics = [group.column(index).statistics for group in groups]
        if any(item is None for item in statistics):
            continue
        if all(item.has_null_count for item in statistics):
            nulls[column.name] = sum(item.null_count for item in statistics)
        bounded = [item for item in statistics if item.has_min_max]
        empty = [item for item in statistics if not item.has_min_max and not item.num_values]
        if bounded and len(bounded) + len(empty) == len(statistics):
            _add(bounds["minValues"], column.name, min, (item.min for item in bounded))
            _add(bounds["maxValues"], column.name, max, (item.max for item in bounded))
    return json.dumps({"numRecords": footer.num_rows, **bounds, "nullCount": nulls})


def _add(bounds: dict[str, Any], name: str, best: Any, values: Iterable[Any]) -> None:
    value = best(values)
    if isinstance(value, bool):
        return
    if isinstance(value, datetime):
        utc = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
        bounds[name] = utc.isoformat(timespec="microseconds") + ("" if value is utc else "Z")
    elif isinstance(value, date):
        bounds[name] = value.isoformat()
    elif isinstance(value, int) or (isinstance(value, str) and len(value) <= _LONGEST_TEXT):
        bounds[name] = value
