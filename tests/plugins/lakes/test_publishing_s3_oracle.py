"""Tables of an output in an object store, on a server that runs here."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from base.storage.s3_server import empty_bucket, options
from pyarrow import fs as arrow_fs

from streamrnn import outputs
from streamrnn.errors import PublishError

pytest.importorskip("moto.server", reason="needs the oracles extra")
for library in ("polars", "deltalake", "pyiceberg", "sqlalchemy"):
    pytest.importorskip(library, reason="needs the oracles extra")

import polars as pl  # noqa: E402
from deltalake import DeltaTable  # noqa: E402
from plugins.lakes.lake import Lake, ordered  # noqa: E402

SETTINGS = "ignore::DeprecationWarning", "ignore::ResourceWarning"
pytestmark = [pytest.mark.filterwarnings(setting) for setting in SETTINGS]


class S3Lake(Lake):
    """A lake whose output is in a bucket, and whose Iceberg metadata is there too."""

    def __init__(self, base: Path, environment: pytest.MonkeyPatch, port: int, name: str) -> None:
        super().__init__(base, environment)
        self.port, self.name = port, name
        self.out = f"s3://bucket/{name}?{options(port)}"
        self.fs, _ = arrow_fs.FileSystem.from_uri(self.out)
        self.options = {
            "aws_endpoint_url": f"http://127.0.0.1:{port}",
            "aws_allow_http": "true",
            "aws_region": "us-east-1",
        }
        environment.setenv("PYICEBERG_CATALOG__LAKE__WAREHOUSE", f"s3://bucket/{name}-meta")

    def rows(self) -> pl.DataFrame:
        found = ds.dataset(f"bucket/{self.name}", filesystem=self.fs, format="parquet").to_table()
        return ordered(pl.DataFrame(found))

    def delta(self) -> DeltaTable:
        return DeltaTable(f"s3://bucket/{self.name}", storage_options=self.options)

    def iceberg(self):
        from pyiceberg.catalog import load_catalog

        return load_catalog(
            "lake",
            type="sql",
            uri=f"sqlite:///{self.base}/catalog.db",
            **{"s3.endpoint": self.options["aws_endpoint_url"], "s3.region": "us-east-1"},
        ).load_table("weather.scores")

    def readings(self) -> list[pl.DataFrame]:
        uri = f"s3://bucket/{self.name}"
        return [
            pl.scan_delta(uri, storage_options=self.options).collect(),
            pl.DataFrame(pa.table(self.delta().to_pyarrow_table())),
            pl.DataFrame(self.iceberg().scan().to_arrow()),
        ]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with empty_bucket() as (_, port):
        yield port


def test_tables_of_an_output_in_a_bucket_follow_it(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = S3Lake(tmp_path, monkeypatch, port, "indexed")
    for day in range(3):
        (delta, iceberg) = lake.run(day).published
        assert (delta["table"], delta["added"]) == ("the Delta table s3://bucket/indexed", 1)
        assert iceberg["added"] == 1
    assert len(lake.assert_equal()) == 300
    outputs.compact(lake.out)
    assert len(lake.assert_equal()) == 300
    outputs.rewind(lake.out, to=1)
    assert len(lake.assert_equal()) == 100
    lake.run()
    assert len(lake.assert_equal()) == 300
    assert outputs.verify(lake.out).behind == ()
    lake.run(tables={"output": {"columns": ["id", "a"]}}, full_refresh=True)
    assert lake.assert_equal().columns == ["id", "a", "score"]


def test_keys_of_the_uri_are_used_and_never_shown(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = S3Lake(tmp_path, monkeypatch, port, "indexed-private")
    lake.out = lake.out.replace("s3://", "s3://mykey:mysecret@")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    summary = lake.run(0)
    assert "mysecret" not in str(summary.as_dict())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    lake.assert_equal()


def test_a_store_that_refuses_the_log_does_not_lose_the_run(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = S3Lake(tmp_path, monkeypatch, port, "indexed-refused")
    lake.publish = {"delta": True}
    from streamrnn.plugins.lakes.publish_delta import DeltaLog

    usual = DeltaLog._uri
    monkeypatch.setattr(DeltaLog, "_uri", property(lambda self: "s3://no-bucket/refused"))
    with pytest.raises(PublishError, match="commit 1 is complete"):
        lake.run(0)
    monkeypatch.setattr(DeltaLog, "_uri", usual)
    assert len(lake.rows()) == 100
    assert lake.run().published[0]["added"] == 1
