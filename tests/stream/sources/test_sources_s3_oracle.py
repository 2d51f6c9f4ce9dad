"""CSV and Delta tables on an S3 server, started here on the loopback."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import logs
import pytest
from base.storage.s3_server import empty_bucket, options
from contracts.rows_files import SOURCE_FORMATS
from deltalog import DeltaLog
from pyarrow import fs as arrow_fs

from streamrnn import Pipeline

pytest.importorskip("moto.server", reason="needs the oracles extra")

LOG = logs.random_log(300, nulls=0.1)


@pytest.fixture
def bucket() -> Iterator[tuple[arrow_fs.FileSystem, str]]:
    with empty_bucket() as (fs, port):
        yield fs, "s3://bucket/{}?" + options(port)


def test_files_of_text_and_tables_are_read_from_an_object_store(
    bucket: tuple[arrow_fs.FileSystem, str], tmp_path: Path
) -> None:
    """Also what is new in a later version."""
    fs, uri = bucket
    logs.small_model().save(tmp_path / "m.safetensors")
    for name in ("csv", "ndjson"):
        SOURCE_FORMATS[name].write(LOG, tmp_path / f"log.{name}")
        packed = gzip.compress((tmp_path / f"log.{name}").read_bytes())
        with fs.open_output_stream(f"bucket/log.{name}.gz", compression=None) as file:
            file.write(packed)
    log = DeltaLog(tmp_path / "table", LOG.schema)
    log.append(LOG.slice(0, 100), LOG.slice(100, 100))
    arrow_fs.copy_files(str(tmp_path / "table"), "bucket/table", destination_filesystem=fs)

    def run(path: str, out: str) -> int:
        config = logs.config(uri.format(path), str(tmp_path / "m.safetensors"), str(tmp_path / out))
        config["source"]["nulls"] = "previous"
        rows: int = Pipeline.from_dict(config).run().rows
        return rows

    assert run("log.csv.gz", "csv") == 300
    assert run("log.ndjson.gz", "ndjson") == 300
    assert run("table", "delta") == 200
    log.optimize()
    log.append(LOG.slice(200))
    arrow_fs.copy_files(str(tmp_path / "table"), "bucket/table", destination_filesystem=fs)
    assert run("table", "delta") == 100
    assert run("table", "delta") == 0
