"""Source and output in an object store, which two workers read and write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from base.storage.s3_server import empty_bucket, options
from kill import case
from plugins.ray import cluster
from pyarrow import fs

from streamrnn import Pipeline
from streamrnn.outputs import verify
from streamrnn.stream.checkpoints import load_state

pytest.importorskip("moto.server", reason="needs the engines extra")
pytest.importorskip("ray", reason="needs the engines extra")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server with a bucket, and a cluster whose workers have its keys."""
    with empty_bucket() as (_, port), cluster.started():
        yield port


def table(store: fs.FileSystem, path: str) -> pa.Table:
    found = ds.dataset(path, filesystem=store, format="parquet").to_table()
    keys = [(name, "ascending") for name in found.column_names if name in ("id", "t", "row")]
    return found.sort_by(keys).combine_chunks()


def test_two_days_from_and_to_a_bucket(port: int, tmp_path: Path) -> None:
    place = case.make(tmp_path)
    store, _ = fs.FileSystem.from_uri(f"s3://bucket/x?{options(port)}")
    engines = {"one": {}, "ray": {"type": "ray", "shards": 3, "epoch_rows": 900}}
    for names in (list(case.FILES)[:20], list(case.FILES)[20:]):
        for name in names:
            with store.open_output_stream(f"bucket/log/{name}.parquet") as stream:
                stream.write((place / f"in/{name}.parquet").read_bytes())
        for out, engine in engines.items():
            data = case.config(place, tmp_path, path=f"s3://bucket/log?{options(port)}")
            data["sink"]["path"] = f"s3://bucket/{out}?{options(port)}"
            Pipeline.from_dict({**data, "engine": engine}).run()
    for part in ("", ".rejects"):
        one, other = (table(store, f"bucket/{out}{part}") for out in engines)
        assert len(one) > 100
        assert case.same(one, other), part
    uris = [f"s3://bucket/{out}?{options(port)}" for out in engines]
    one, other = (load_state(uri).sort_by("id").combine_chunks() for uri in uris)
    assert case.same(one, other)
    verify(uris[1])
    names = store.get_file_info(fs.FileSelector("bucket/ray", recursive=True))
    assert not [item.path for item in names if "staging/" in item.path]
