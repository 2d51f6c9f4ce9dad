"""The same commits on an S3 server, started here on the loopback."""

import pyarrow.dataset as ds
import pytest
from checkpoints.small_run import expected, run
from pyarrow import fs as arrow_fs

from streamrnn.checkpoints import compact, load_state, rewind, verify

server = pytest.importorskip("moto.server", reason="needs the oracles extra")


@pytest.fixture(scope="module")
def bucket(monkeypatch_module):
    running = server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    query = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    fs, _ = arrow_fs.FileSystem.from_uri(f"s3://bucket/x?{query}&allow_bucket_creation=true")
    fs.create_dir("bucket")
    yield fs, "s3://bucket/{}?" + query
    running.stop()


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "any")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield patch


def rows(fs, path):
    table = ds.dataset(path, filesystem=fs, format="parquet").to_table()
    return [tuple(row.values()) for row in table.to_pylist()]


def test_runs_merging_and_going_back_on_s3(bucket):
    fs, address = bucket
    uri = address.format("out")

    def outcome():
        found = [rows(fs, "bucket/out"), rows(fs, "bucket/out.rejects")]
        return (*found, load_state(uri).to_pydict())

    run(uri, steps=2, keep=3)
    assert outcome() == expected(2)
    run(uri, steps=4, keep=3)
    assert outcome() == expected(4)
    verify(uri)
    compact(uri)
    assert outcome() == expected(4)
    rewind(uri, 3)
    assert outcome() == expected(3)
    run(uri)
    assert outcome() == expected()
    verify(uri)
    names = fs.get_file_info(arrow_fs.FileSelector("bucket", recursive=True))
    files = [item.path for item in names if item.is_file]
    assert [name for name in files if "staging/" in name or name.endswith("lock")] == []
