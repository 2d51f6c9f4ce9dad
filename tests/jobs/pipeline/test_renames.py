"""Files that have columns under old names."""

import os
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from selection import first_quick

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, ConfigError, DataError
from streamrnn.outputs import read_states
from streamrnn.stream.checkpoints import read_manifest
from streamrnn.stream.scoring.summary import Summary

pytestmark = pytest.mark.usefixtures("model_dir")

LOG = logs.random_log(300)
OLD = {"id": "device", "t": "stamp", "a": "a_old", "new": "restart"}
RENAME = {"id": "device", "t": "stamp", "new": ["begin", "restart"]}
FEATURES = [{"name": "a", "from": ["a_older", "a_old"]}, "b"]


def _config(path: str = "in", out: str = "out", **source: Any) -> dict[str, Any]:
    source = {"reset": "new", "batch_rows": 33, **source}
    return logs.config(
        path, "m.safetensors", out, source=source, output={"columns": ["id", "t", "a"]}
    )


def _run(path: str = "in", out: str = "out", **source: Any) -> Summary:
    return Pipeline.from_dict(_config(path, out, **source)).run()


def _renaming(*args: Any, **source: Any) -> Summary:
    return _run(*args, **{"rename": RENAME, "features": FEATURES, **source})


def _with(names: dict[str, str], table: pa.Table = LOG) -> pa.Table:
    return table.rename_columns([names.get(name, name) for name in table.schema.names])


def _rows(folder: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(p) for p in sorted(Path(folder).glob("*.parquet"))])


@pytest.mark.parametrize("old_days", [(0,), (1, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("order", first_quick(["path", "time"]))
def test_old_names_change_no_bit(old_days: tuple[int, ...], order: str) -> None:
    """Neither where all files are read in one run, nor where the names come or go day by day.

    Slow: files in the order of their times.
    """
    for day in range(3):
        piece = LOG.slice(100 * day, 100)
        logs.write(piece, Path(f"plain/{day}.parquet"))
        logs.write(_with(OLD if day in old_days else {}, piece), Path(f"in/{day}.parquet"))
        assert _renaming(out="daily", order=order).rows == 100
    _run("plain", "right")
    _renaming(order=order)
    for out in ("out", "daily"):
        assert _rows(out).equals(_rows("right"))
        assert read_states(out).equals(read_states("right"))
        assert read_manifest(out).sources[0].content == read_manifest("right").sources[0].content


def test_the_content_of_a_used_file_does_not_depend_on_its_names() -> None:
    """A file that is rewritten under new names is as it was; so is a compaction of both."""
    logs.write(_with(OLD, LOG.slice(0, 100)), Path("in/0.parquet"))
    logs.write(LOG.slice(100, 200), Path("in/1.parquet"))
    assert _renaming().rows == 300
    logs.write(LOG.slice(0, 100), Path("in/0.parquet"), row_group=7)
    assert _renaming().nothing_new
    for name in ("0", "1"):
        Path(f"in/{name}.parquet").unlink()
    logs.write(_with(OLD), Path("in/all.parquet"))
    with pytest.raises(CheckpointError, match="hold"):
        _renaming()


def test_used_files_are_not_checked_again() -> None:
    """The day after the rename the old files are still in the source."""
    logs.write(LOG.slice(0, 100), Path("in/0.parquet"))
    _run()
    logs.write(_with({"a": "temperature", "t": "stamp"}, LOG.slice(100)), Path("in/1.parquet"))
    with pytest.raises(DataError, match=r"in/1\.parquet: column 'a' not found") as caught:
        _run(rename={"t": "stamp"})
    assert 'set [source] rename = { a = "its name here" }' in str(caught.value)
    keys = {"rename": {"t": "stamp", "a": "temperature"}}
    pipeline = Pipeline.from_dict(_config(**keys))
    assert pipeline.validate() == []
    assert pipeline.explain()["new_files"] == 1
    assert pipeline.run().rows == 200


def test_validate_checks_new_files_alone() -> None:
    logs.write(LOG.slice(0, 100), Path("in/0.parquet"))
    _run()
    logs.write(_with({"a": "other"}, LOG.slice(100)), Path("in/1.parquet"))
    with pytest.raises(DataError, match=r"in/1\.parquet: column 'a' not found"):
        Pipeline.from_dict(_config()).validate()
    Path("in/1.parquet").unlink()
    stat = Path("in/0.parquet").stat()
    logs.write(_with({"a": "other"}, LOG.slice(0, 100)), Path("in/0.parquet"))
    os.utime("in/0.parquet", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert Pipeline.from_dict(_config()).validate() == []


def test_a_file_with_both_names_is_an_error() -> None:
    both = LOG.append_column("a_old", LOG["a"])
    logs.write(both, Path("in/0.parquet"))
    message = r"in/0\.parquet: column 'a': expected one column, found a, a_old, which"
    with pytest.raises(DataError, match=message):
        _renaming()
    with pytest.raises(DataError, match="the batch: column 'a': expected one column"):
        Pipeline.from_dict(_config(features=FEATURES)).process(both)


def test_a_partition_has_an_old_name() -> None:
    for device in ("s1", "s2"):
        piece = LOG.filter(pa.compute.equal(LOG["id"], device)).drop(["id"])
        logs.write(piece, Path(f"in/device={device}/0.parquet"))
    assert _run(rename={"id": "device"}, order="path").streams == 2
    assert set(_rows("out")["id"].to_pylist()) == {"s1", "s2"}


def test_process_and_its_checkpoint_know_old_names() -> None:
    batch = LOG.slice(0, 150).combine_chunks().to_batches()[0]
    plain = Pipeline.from_dict(_config())
    pipeline = Pipeline.from_dict(_config(rename=RENAME, features=FEATURES))
    assert pipeline.process(_with(OLD, batch)).equals(plain.process(batch))
    pipeline.checkpoint("c.arrow")
    rest = LOG.slice(150)
    assert Pipeline.resume("c.arrow").process(_with(OLD, rest)).equals(plain.process(rest))


def test_all_columns_are_carried_under_their_new_names() -> None:
    logs.write(_with(OLD, LOG.slice(0, 100)), Path("in/0.parquet"))
    logs.write(LOG.slice(100), Path("in/1.parquet"))
    config = _config(rename=RENAME, features=FEATURES)
    Pipeline.from_dict({**config, "output": {"columns": "*"}}).run()
    assert _rows("out").schema.names == [*LOG.schema.names, "score"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"rename": {"aa": "x"}}, r'source\.rename\.aa: "aa" is not a column in use; did you mean'),
        ({"rename": {"a": "b"}}, r'source\.rename\.a: "b" is a column in use'),
        ({"rename": {"a": "x", "t": "x"}}, r'source\.rename\.t: "x" is already an old name of "a"'),
        ({"rename": ["a"]}, r"source\.rename: expected a table of new name = old name"),
        ({"rename": {"a": []}}, r"source\.rename: expected at least one name"),
        ({"features": [{"name": "a", "from": "b"}, "b"]}, r'features: "b" is a column in use'),
        ({"features": [{"name": "a", "from": 3}, "b"]}, r"features\[0\]\.from: expected a name or"),
        ({"features": [{"name": "a", "from_": "x"}, "b"]}, r"known here: name, from, valid"),
    ],
)
def test_names_that_cannot_be_are_refused(source: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Pipeline.from_dict(_config(**source))


def test_a_feature_may_be_renamed_by_either_key_between_runs() -> None:
    logs.write(LOG.slice(0, 100), Path("in/0.parquet"))
    _run()
    logs.write(_with({"a": "a_old"}, LOG.slice(100, 100)), Path("in/1.parquet"))
    assert _run(features=FEATURES).rows == 100
    logs.write(_with({"a": "a_old"}, LOG.slice(200)), Path("in/2.parquet"))
    assert _run(rename={"a": "a_old"}).rows == 100
