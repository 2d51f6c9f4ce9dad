"""Models in a bucket: in a pipeline, in a checkpoint, in a conversion."""

from collections.abc import Iterator
from pathlib import Path

import logs
import pyarrow.dataset as ds
import pytest
from base.storage.s3_server import empty_bucket, options
from pyarrow import fs as arrow_fs

from streamrnn import Pipeline, load_model
from streamrnn.errors import CheckpointError, DataError, MissingFileError
from streamrnn.nn.formats.convert import convert

pytest.importorskip("moto.server", reason="needs the oracles extra")


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[arrow_fs.FileSystem, str]]:
    with empty_bucket("models") as (fs, port):
        yield fs, "s3://models/{}?" + options(port)


@pytest.fixture
def model(bucket: tuple[arrow_fs.FileSystem, str], tmp_path: Path) -> str:
    """The URI of a model, which is not on the disk."""
    fs, uri = bucket
    logs.small_model().save(tmp_path / "m.safetensors")
    with fs.open_output_stream("models/m.safetensors") as file:
        file.write((tmp_path / "m.safetensors").read_bytes())
    (tmp_path / "m.safetensors").unlink()
    return uri.format("m.safetensors")


def config(model: str, folder: Path) -> dict[str, object]:
    return {
        "source": {"path": str(folder / "in"), "key": "id", "time": "t", "features": ["a", "b"]},
        "model": {"path": model},
        "sink": {"path": str(folder / "out")},
    }


def test_a_pipeline_reads_its_model_in_a_bucket(model: str, tmp_path: Path) -> None:
    """A run, the next day, and outputs of the same model on a disk."""
    (tmp_path / "in").mkdir()
    log = logs.random_log(120)
    logs.write(log.slice(0, 80), tmp_path / "in" / "1.parquet")
    assert Pipeline.from_dict(config(model, tmp_path)).run().rows == 80
    logs.write(log.slice(80), tmp_path / "in" / "2.parquet")
    pipeline = Pipeline.from_dict(config(model, tmp_path))
    assert pipeline.run().rows == 40
    local = str(tmp_path / "here.safetensors")
    load_model(model).save(local)
    anew = config(local, tmp_path) | {"sink": {"path": str(tmp_path / "other")}}
    here = Pipeline.from_dict(anew).process(log.to_batches()[0])
    found = ds.dataset(tmp_path / "out").to_table()
    assert found.column(2).combine_chunks().equals(here.column(2))


def test_a_checkpoint_holds_a_model_of_a_bucket(
    bucket: tuple[arrow_fs.FileSystem, str], model: str, tmp_path: Path
) -> None:
    """It resumes without the bucket; without the model in it, from the bucket."""
    fs, _ = bucket
    log = logs.random_log(120).to_batches()[0]
    pipeline = Pipeline.from_dict(config(model, tmp_path))
    pipeline.process(log.slice(0, 80))
    pipeline.checkpoint(tmp_path / "without.arrow")
    pipeline.checkpoint(tmp_path / "with.arrow", include_model=True)
    expected = pipeline.process(log.slice(80))
    for name in ("without", "with"):
        assert Pipeline.resume(tmp_path / f"{name}.arrow").process(log.slice(80)).equals(expected)
        if name == "without":
            fs.delete_file("models/m.safetensors")
    with pytest.raises(MissingFileError, match=r"^s3://models/m\.safetensors.*: no such model"):
        Pipeline.resume(tmp_path / "without.arrow")


def test_a_bucket_that_does_not_answer_as_expected(
    bucket: tuple[arrow_fs.FileSystem, str], model: str, tmp_path: Path
) -> None:
    """A torn object, an object of another name, and the way to a disk."""
    fs, uri = bucket
    convert(model, tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    with fs.open_output_stream("models/torn.safetensors") as file:
        file.write(whole[:-7])
    with pytest.raises(DataError, match=r"^s3://models/torn\.safetensors\?.*: ") as caught:
        load_model(uri.format("torn.safetensors"))
    assert "/streamrnn-" not in str(caught.value)
    with pytest.raises(MissingFileError, match=r"^s3://models/gone\.onnx.*: no such model file"):
        load_model(uri.format("gone.onnx"))


def test_a_checkpoint_in_a_bucket_is_replaced_by_its_owner_alone(
    bucket: tuple[arrow_fs.FileSystem, str], model: str, tmp_path: Path
) -> None:
    """However its options are spelled: they are no part of its name."""
    fs, uri = bucket
    log = logs.random_log(120).to_batches()[0]
    path = uri.format("c.arrow")
    pipeline = Pipeline.from_dict(config(model, tmp_path))
    pipeline.process(log.slice(0, 80), 1)
    pipeline.checkpoint(path)
    other = Pipeline.resume(f"{path}&allow_bucket_creation=true")
    pipeline.process(log.slice(80), 2)
    pipeline.checkpoint(f"{path}&allow_bucket_creation=true")
    other.process(log.slice(80), 2)
    with pytest.raises(CheckpointError, match=r"c\.arrow.*: the file is not the checkpoint that"):
        other.checkpoint(path)
    assert Pipeline.resume(path).position == 2
    fs.delete_file("models/c.arrow")
    with pytest.raises(CheckpointError, match="is gone"):
        other.checkpoint(path)
    other.checkpoint(path, overwrite=True)
    assert Pipeline.resume(path).position == 2
