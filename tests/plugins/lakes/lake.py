"""An output that is published as a Delta and an Iceberg table, and what readers find in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import logs
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyiceberg.catalog import load_catalog
from pyiceberg.table import Table

from streamrnn import Pipeline

DAYS = 3
TABLE = "weather.scores"
BOTH = {"delta": True, "iceberg": {"catalog": "lake", "table": TABLE}}


class Lake:
    """A folder with a source of `DAYS` files, an output, and a catalog in SQLite."""

    def __init__(self, base: Path, environment: Any, publish: dict[str, Any] = BOTH) -> None:
        self.base, self.publish = base, publish
        self.out = str(base / "out")
        self.log = logs.random_log(300, streams=5)
        self.catalog_of(environment)
        logs.small_model().save(str(base / "m.safetensors"))
        (base / "in").mkdir()

    def catalog_of(self, environment: Any) -> None:
        """Set the variables that pyiceberg reads."""
        environment.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
        environment.setenv("PYICEBERG_HOME", str(self.base))
        environment.setenv("PYICEBERG_CATALOG__LAKE__TYPE", "sql")
        environment.setenv("PYICEBERG_CATALOG__LAKE__URI", f"sqlite:///{self.base}/catalog.db")
        environment.setenv("PYICEBERG_CATALOG__LAKE__WAREHOUSE", f"file://{self.base}/warehouse")

    def day(self, number: int, **columns: pa.Array) -> None:
        """Add a file to the source."""
        rows = len(self.log) // DAYS
        table = self.log.slice(number * rows, rows)
        for name, values in columns.items():
            table = table.append_column(name, values)
        pq.write_table(table, self.base / "in" / f"{number}.parquet")

    def pipeline(self, **tables: Any) -> Pipeline:
        """The pipeline from the source to the output."""
        return Pipeline.from_dict(
            {
                "source": {
                    "path": str(self.base / "in"),
                    "key": "id",
                    "time": "t",
                    "features": ["a", "b"],
                    **tables.pop("source", {}),
                },
                "model": {"path": str(self.base / "m.safetensors")},
                "sink": {"path": self.out, **tables.pop("sink", {})},
                "publish": self.publish,
                **tables,
            }
        )

    def run(self, *days: int, tables: dict[str, Any] | None = None, **options: Any) -> Any:
        """Add days to the source, and run."""
        for day in days:
            self.day(day)
        return self.pipeline(**(tables or {})).run(**options)

    def rows(self) -> pl.DataFrame:
        """The rows of the folder."""
        return ordered(pl.read_parquet(f"{self.out}/**/*.parquet", hive_partitioning=True))

    def delta(self) -> DeltaTable:
        return DeltaTable(self.out)

    def iceberg(self) -> Table:
        uri, warehouse = f"sqlite:///{self.base}/catalog.db", f"file://{self.base}/warehouse"
        return load_catalog("lake", type="sql", uri=uri, warehouse=warehouse).load_table(TABLE)

    def versions(self) -> tuple[int, int]:
        """How many versions the tables have."""
        return self.delta().version(), len(self.iceberg().metadata.snapshots)

    def actions(self, version: int) -> list[dict[str, Any]]:
        """The actions of a version of the Delta table."""
        log = Path(self.out, "_delta_log", f"{version:020d}.json").read_text()
        return [json.loads(line) for line in log.splitlines()]

    def assert_equal(self) -> pl.DataFrame:
        """All readers of both tables find the rows of the folder."""
        rows = self.rows()
        for found in self.readings():
            assert found.columns == rows.columns
            assert ordered(found.cast(dict(rows.schema))).equals(rows)
        return rows

    def readings(self) -> list[pl.DataFrame]:
        found = []
        if self.publish.get("delta"):
            found += [
                pl.read_delta(self.out),
                pl.scan_delta(self.out).collect(),
                pl.DataFrame(pa.table(self.delta().to_pyarrow_table())),
            ]
        if self.publish.get("iceberg"):
            table = self.iceberg()
            found += [pl.scan_iceberg(table).collect(), pl.DataFrame(table.scan().to_arrow())]
        return found


def ordered(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort(*[name for name in frame.columns if name in ("id", "t", "score")])
