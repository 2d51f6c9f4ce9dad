"""A Delta table written by hand: its log as the protocol has it, without a library."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

KINDS = {
    "string": "string",
    "int64": "long",
    "int32": "integer",
    "double": "double",
    "bool": "boolean",
    "timestamp[us, tz=UTC]": "timestamp",
    "date32[day]": "date",
}


class DeltaLog:
    """Each method writes one version; `files` are the active ones, by their paths in the table."""

    def __init__(
        self,
        folder: Path,
        schema: pa.Schema,
        partitions: tuple[str, ...] = (),
        protocol: dict[str, Any] | None = None,
        configuration: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.partitions = folder, partitions
        self.files: dict[str, pa.Table] = {}
        self.version = 0
        self._written = 0
        (folder / "_delta_log").mkdir(parents=True)
        fields = [
            {"name": f.name, "type": KINDS[str(f.type)], "nullable": True, "metadata": {}}
            for f in schema
        ]
        self.metadata = {
            "id": "1",
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps({"type": "struct", "fields": fields}),
            "partitionColumns": list(partitions),
            "configuration": configuration or {},
        }
        self.protocol = protocol or {"minReaderVersion": 1, "minWriterVersion": 2}

    def append(self, *tables: pa.Table, **values: str) -> None:
        """Add files, in the partition with these values."""
        self.commit("WRITE", [self.add(table, True, values) for table in tables])

    def optimize(self, *paths: str) -> None:
        """Merge files (default: all) into one."""
        old = list(paths) or list(self.files)
        merged = pa.concat_tables([self.files[path] for path in old])
        removed = [self.remove(path, False) for path in old]
        self.commit("OPTIMIZE", [*removed, self.add(merged, False, {})])

    def vacuum(self) -> None:
        """Delete the files that are not active. (That writes no version.)"""
        for path in self.folder.rglob("*.parquet"):
            if str(path.relative_to(self.folder)) not in self.files:
                path.unlink()

    def add(
        self, table: pa.Table, change: bool, values: dict[str, str], **more: Any
    ) -> dict[str, Any]:
        """Write a file; return the action that adds it."""
        self._written += 1
        folder = "".join(f"{name}={value}/" for name, value in values.items())
        path = f"{folder}part {self._written}.parquet"
        file = self.folder / path
        file.parent.mkdir(exist_ok=True)
        pq.write_table(table.drop_columns([*values]), file, row_group_size=50)
        self.files[path] = table
        action = {
            "path": quote(path),
            "partitionValues": values,
            "size": file.stat().st_size,
            "modificationTime": 1_700_000_000_000 + self._written,
            "dataChange": change,
            "stats": json.dumps({"numRecords": table.num_rows}),
        }
        return {"add": {**action, **more}}

    def remove(self, path: str, change: bool) -> dict[str, Any]:
        """Return the action that removes a file."""
        del self.files[path]
        return {"remove": {"path": quote(path), "dataChange": change, "deletionTimestamp": 1}}

    def commit(self, operation: str, actions: list[dict[str, Any]]) -> None:
        """Write a version."""
        head = [{"commitInfo": {"operation": operation}}]
        if self.version == 0:
            head += [{"protocol": self.protocol}, {"metaData": self.metadata}]
        text = "".join(json.dumps(action) + "\n" for action in (*head, *actions))
        (self.folder / "_delta_log" / f"{self.version:020}.json").write_text(text)
        self.version += 1
