"""Outputs inside one another are refused, and what lies in an output by mistake is reported."""

import shutil
from pathlib import Path
from typing import Any

import logs
import pyarrow.fs as pafs
import pytest
from selection import with_plugins

from streamrnn import Pipeline
from streamrnn.base.storage.remote import RemoteFiles
from streamrnn.errors import CheckpointError, ConfigError, SinkError
from streamrnn.outputs import export_state, verify
from streamrnn.stream.checkpoints import refuse_inside_output, refuse_nested_output, starting
from streamrnn.stream.sinks import PART_FORMATS
from streamrnn.stream.sinks.part import ArrowFormat


@pytest.fixture
def base(model_dir: Path) -> Path:
    """A finished run into `out`, with rejects, in the working directory."""
    logs.write(logs.random_log(60, jitter=4), model_dir / "in" / "a.parquet")
    _run("out")
    return model_dir


def _pipeline(out: str, **tables: Any) -> Pipeline:
    source = {"late": "reject"}
    return Pipeline.from_dict(logs.config("in", "m.safetensors", out, source=source, **tables))


def _run(out: str, **tables: Any) -> None:
    _pipeline(out, **tables).run()


@pytest.mark.parametrize(
    ("out", "tables", "key"),
    [
        ("out/sub", {}, r"\[sink\] path"),
        ("out/a/b", {}, r"\[sink\] path"),
        ("file://{base}/out/sub", {}, r"\[sink\] path"),
        ("link/sub", {}, r"\[sink\] path"),
        ("out.rejects/sub", {}, r"\[sink\] path"),
        ("two", {"sink": {"rejects": "out/rejects"}}, r"\[sink\] rejects"),
        ("two", {"state": {"save": "out/state.parquet"}}, r"\[state\] save"),
        ("-", {"sink": {"rejects": "out/rejects"}}, r"\[sink\] rejects"),
    ],
)
def test_nothing_is_written_inside_an_output(
    base: Path, out: str, tables: dict[str, Any], key: str
) -> None:
    """Whatever the spelling: `run` and `validate` refuse it, and leave no folder behind."""
    (base / "link").symlink_to("out")
    before = sorted(base.rglob("*"))
    pipeline = _pipeline(out.format(base=base), **tables)
    for call in (pipeline.run, pipeline.validate):
        with pytest.raises(ConfigError, match=f"{key}: .* lies inside the output"):
            call()
    assert sorted(base.rglob("*")) == before


def test_a_state_is_not_exported_into_an_output(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"--output: .* lies inside the output"):
        export_state("out", "out/state.parquet")


def test_an_output_around_another_one_is_refused(base: Path) -> None:
    """Whether the outer one is new or was there before."""
    _run("lake/one")
    with pytest.raises(ConfigError, match=r"contains the output .*lake/one: readers of the outer"):
        _run("lake")
    shutil.move("lake/one", "out/one")  # as an older version let it happen
    logs.write(logs.random_log(10, seed=3), base / "in" / "b.parquet")
    with pytest.raises(ConfigError, match=r"contains the output .*out/one"):
        _run("out")
    shutil.move("out/one", "lake/one")
    _run("out")
    assert _pipeline("lake/one").run().rows == 10  # as the message says: moving it is safe


def test_outputs_beside_one_another_are_fine(base: Path) -> None:
    _run("lake/one")
    _run("lake/two")


@with_plugins
def test_verify_reports_parquet_files_that_are_not_of_the_output(base: Path) -> None:
    """Below the folder as well, but not those that readers pass over."""
    verify("out")
    for hidden in ("_delta_log/1.parquet", ".tmp/1.parquet"):
        logs.write(logs.random_log(5), base / "out" / hidden)
    verify("out")
    for foreign in ("copy.parquet", "sub/a.parquet"):
        logs.write(logs.random_log(5), base / "out" / foreign)
    Path("out/copy.parquet").rename("out/copy.PARQUET")
    with pytest.raises(CheckpointError, match=r"its commits names: copy\.PARQUET, sub/a\.par"):
        verify("out")


def test_verify_reports_files_of_every_format_of_parts(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tablets(ArrowFormat):
        suffix = ".tablet"

    (base / "out" / "copy.tablet").write_text("rows")
    verify("out")
    monkeypatch.setitem(PART_FORMATS, "tablets", Tablets())
    with pytest.raises(CheckpointError, match=r"none of its commits names: copy\.tablet\. Readers"):
        verify("out")


def test_linked_folders_are_looked_through_as_readers_do(base: Path) -> None:
    """By verify, and for outputs in them; a link that leads back is no end of it."""
    (base / "out" / "again").symlink_to(".")
    (base / "out" / "more").symlink_to(base / "in")
    with pytest.raises(CheckpointError, match=r"its commits names: more/a\.parquet\. Readers"):
        verify("out")
    _run("else/one")
    (base / "lake").mkdir()
    (base / "lake" / "link").symlink_to(base / "else")
    with pytest.raises(ConfigError, match=r"contains the output .*lake/link/one"):
        _run("lake")


def test_folders_above_that_may_not_be_listed_are_passed(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials for one prefix: the job runs; without leave for its own folder it does not."""

    class Store:
        def get_file_info(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
            if not selector.base_dir.startswith("bucket/mine"):
                raise OSError("AWS Error ACCESS_DENIED during ListObjectsV2 operation")
            return []

    def opened(uri: str) -> RemoteFiles:
        return RemoteFiles(Store(), uri.removeprefix("s3://"), uri)

    monkeypatch.setattr(starting, "open_files", opened)
    refuse_nested_output("s3://bucket/mine/out", "[sink] path")
    with pytest.raises(SinkError, match="ACCESS_DENIED"):
        refuse_nested_output("s3://bucket/yours/out", "[sink] path")


def test_it_is_the_same_on_an_object_store(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the bucket, and down through all keys."""
    store = pafs.SubTreeFileSystem(str(base), pafs.LocalFileSystem())
    shutil.copytree("out", "bucket/lake/out")

    def opened(uri: str) -> RemoteFiles:
        return RemoteFiles(store, uri.removeprefix("s3://"), uri)

    monkeypatch.setattr(starting, "open_files", opened)
    with pytest.raises(ConfigError, match="s3://bucket/lake/out/a/b lies inside the output s3://b"):
        refuse_inside_output("s3://bucket/lake/out/a/b", "[sink] path")
    with pytest.raises(ConfigError, match="s3://bucket/lake contains the output s3://bucket/l"):
        refuse_nested_output("s3://bucket/lake", "[sink] path")
    refuse_nested_output("s3://bucket/lake/out", "[sink] path")
    refuse_nested_output("s3://bucket/lake/new", "[sink] path")
