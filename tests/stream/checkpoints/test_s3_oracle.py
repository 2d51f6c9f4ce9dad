"""The same commits on an S3 server, started here on the loopback."""

import io
import time

import logs
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from base.storage.s3_server import empty_bucket, options
from jobs.outputs.test_partitions_oracle import ROWS, SCHEMA, write
from pyarrow import fs as arrow_fs
from stream.checkpoints.small_run import expected, run

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, ConfigError, DataError
from streamrnn.outputs import compact, rewind, verify
from streamrnn.stream.checkpoints import OutputFolder, load_state, read_manifest
from streamrnn.stream.sources import FileSource

pytest.importorskip("moto.server", reason="needs the oracles extra")


@pytest.fixture(scope="module")
def bucket():
    with empty_bucket() as (fs, port):
        yield fs, "s3://bucket/{}?" + options(port)


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


def test_partitions_on_s3(bucket):
    """Their names have signs that a server must not decode when it copies."""
    fs, address = bucket
    uri = address.format("partitions")
    write(uri)
    found = ds.dataset("bucket/partitions", filesystem=fs, format="parquet", partitioning="hive")
    hours = {row["hour"]: row["origin"] for row in found.to_table().to_pylist()}
    assert hours == {row["hour"]: row["origin"] for row in ROWS}
    verify(uri)
    write_again = pytest.raises(CheckpointError, match="another pipeline")
    with OutputFolder.open(uri) as folder, write_again:
        folder.begin(SCHEMA, model="m", config={})
    rewind(uri, 1)
    assert verify(uri).rows == found.count_rows() - 4
    names = fs.get_file_info(arrow_fs.FileSelector("bucket/partitions", recursive=True))
    assert not [item for item in names if item.is_file and "staging/" in item.path]


def put(fs, name, table):
    """Write an object, with a time of change that is another one."""
    data = io.BytesIO()
    pq.write_table(table, data)
    time.sleep(1.1)  # the store's clock has seconds
    with fs.open_output_stream(f"bucket/{name}") as stream:
        stream.write(data.getvalue())


def test_objects_are_known_by_name_version_and_content(bucket, tmp_path, monkeypatch):
    """Whatever the options of the URI; equal versions are not read, changed ones are refused."""
    fs, address = bucket
    logs.small_model().save(tmp_path / "m.safetensors")
    log = logs.random_log(300)
    pieces = {"part-10": log.slice(200), "part-2": log.slice(100, 100), "part-1": log.slice(0, 100)}
    for name, table in pieces.items():
        put(fs, f"in/{name}.parquet", table)
    out = address.format("scores")

    def score(path="in", uri=address, **options):
        config = logs.config(uri.format(path), str(tmp_path / "m.safetensors"), out)
        return Pipeline.from_dict(config).run(**options)

    assert score().rows == 300  # by time, so the order of the files is right
    names = [file.path for file in read_manifest(out).sources]
    assert names == [f"s3://bucket/in/part-{i}.parquet" for i in (1, 2, 10)]
    secret = address.replace("s3://", "s3://key:secret@") + "&allow_bucket_creation=true"
    for path, uri in (("in/", address), ("in/*.parquet", address), ("in", secret)):
        assert score(path, uri).nothing_new
    assert score("in/part-2.parquet", secret).vanished_files == 2

    put(fs, "in/part-1.parquet", pieces["part-1"])
    with monkeypatch.context() as patch:
        patch.setattr(FileSource, "content", None)  # the etag says that it is the same
        assert score().nothing_new
    put(fs, "in/part-1.parquet", pieces["part-1"].slice(1))
    with pytest.raises(CheckpointError, match="100 rows when it was read, 99 rows now") as caught:
        score()
    assert "s3://bucket/in/part-1.parquet" in str(caught.value)
    with pytest.raises(DataError, match="cannot be read: Empty path component"):
        score("in//part-1.parquet")


def test_scores_on_s3_are_evaluated(bucket, tmp_path):
    """With the figures of local files."""
    fs, address = bucket
    model, log = str(tmp_path / "m.safetensors"), logs.random_log(400)
    logs.small_model().save(model)
    logs.write(log, tmp_path / "log/1.parquet")
    put(fs, "log/1.parquet", log)
    found = []
    for source, out in (
        (str(tmp_path / "log"), str(tmp_path / "evaluated")),
        (address.format("log"), address.format("evaluated")),
    ):
        target = {"column": "b", "rows": 1}
        pipeline = Pipeline.from_dict(logs.config(source, model, out, target=target))
        pipeline.run()
        file = address.format("figures.parquet") if "://" in out else f"{out}.parquet"
        evaluation = pipeline.evaluate("stream", file=file)
        found.append((evaluation.table, evaluation.counts()))
    assert found[0] == found[1]
    assert found[0][1]["rows"] > 300
    assert pq.read_table("bucket/figures.parquet", filesystem=fs) == found[0][0]


def test_outputs_inside_one_another_are_refused_on_s3(bucket, tmp_path):
    _, address = bucket
    run(address.format("lake/one"))
    logs.small_model().save(tmp_path / "m.safetensors")
    logs.write(logs.random_log(20), tmp_path / "in.parquet")
    for path, said in (("lake/one/two", "lies inside the output"), ("lake", "contains the output")):
        config = logs.config(str(tmp_path / "in.parquet"), str(tmp_path / "m.safetensors"), None)
        config["sink"] = {"path": address.format(path)}
        with pytest.raises(ConfigError, match=said):
            Pipeline.from_dict(config).run()
