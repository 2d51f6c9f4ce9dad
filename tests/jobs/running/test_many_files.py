"""Many small files: record batches and commits span them, and every row keeps its own file."""

from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.errors import DataError
from streamrnn.outputs import read_states, verify
from streamrnn.pipeline import Summary
from streamrnn.stream.checkpoints import read_manifest

LOG = logs.random_log(1500, nulls=0.1, jitter=3)
SMALL = 5


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with the log as 300 files of 5 rows, and as one file."""
    logs.small_model().save(tmp_path / "m.safetensors")
    logs.write(LOG, tmp_path / "one" / "log.parquet")
    _write(LOG, tmp_path / "many")
    return tmp_path


def _write(log: pa.Table, folder: Path) -> None:
    for first in range(0, log.num_rows, SMALL):
        logs.write(log.slice(first, SMALL), folder / f"{first // SMALL:04d}.parquet")


def _run(base: Path, path: str, out: str, **tables: dict[str, Any]) -> Summary:
    policy = {"nulls": "previous", "late": "reject", **tables.pop("source", {})}
    paths = (str(base / name) for name in (path, "m.safetensors", out))
    return Pipeline.from_dict(logs.config(*paths, source=policy, **tables)).run()


def _rows(path: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(part) for part in sorted(path.glob("*.parquet"))])


def test_small_files_share_record_batches_and_commits(base: Path) -> None:
    """A commit every 2 x 100 rows, not every 2 files; the result is that of one file."""
    one = _run(base, "one", "a")
    many = _run(base, "many", "b", source={"batch_rows": 100}, checkpoint={"every": 2})
    assert (one.rows, many.rows, many.files) == (1500, 1500, 300)
    assert many.commits == 8
    assert _rows(base / "a").equals(_rows(base / "b"))
    assert read_states(str(base / "a")).equals(read_states(str(base / "b")))
    assert verify(str(base / "b")).rows == many.rows_out


def test_each_used_file_is_known_with_its_own_content(base: Path) -> None:
    """As if each had been read alone: the digests add up to that of the whole log."""
    _run(base, "one", "a")
    _run(base, "many", "b", source={"batch_rows": 64}, checkpoint={"every": 3})
    (whole,) = read_manifest(str(base / "a")).sources
    used = read_manifest(str(base / "b")).sources
    assert [Path(file.path).name for file in used] == [f"{i:04d}.parquet" for i in range(300)]
    contents = [file.content for file in used if file.content is not None]
    assert [content.rows for content in contents] == [SMALL] * 300
    assert whole.content is not None
    assert sum(content.digest for content in contents) % (1 << 64) == whole.content.digest
    assert _run(base, "many", "b").nothing_new


def test_a_rejected_row_names_its_own_file(base: Path) -> None:
    _run(base, "one", "a")
    _run(base, "many", "b", source={"batch_rows": 64})
    whole, small = (_rows(base / f"{name}.rejects") for name in "ab")
    assert small.num_rows > 10
    assert small.drop_columns(["file", "row"]).equals(whole.drop_columns(["file", "row"]))
    for row, file, own in zip(
        whole["row"].to_pylist(), small["file"].to_pylist(), small["row"].to_pylist(), strict=True
    ):
        assert (Path(file).name, own) == (f"{row // SMALL:04d}.parquet", row % SMALL)


def test_the_message_for_an_invalid_row_names_its_own_file(base: Path) -> None:
    bad = LOG.slice(0, 2).set_column(2, "a", pa.array([1.0, float("inf")]))
    logs.write(bad, base / "many" / "0017.parquet")
    with pytest.raises(DataError, match=r"0017\.parquet: row 1 \(from 0\)"):
        _run(base, "many", "out", source={"late": "drop"})


def test_rows_before_a_damaged_file_are_committed(base: Path) -> None:
    """With a commit for each record batch: those before the file are in the output."""
    path = base / "many" / "0123.parquet"
    good = path.read_bytes()
    path.write_bytes(good[:4] + b"\xff" * 60 + good[64:])  # its footer is intact
    options: dict[str, Any] = {"source": {"batch_rows": 50}, "checkpoint": {"every": 1}}
    with pytest.raises(DataError, match=r"0123\.parquet: cannot be read after row 0"):
        _run(base, "many", "b", **options)
    manifest = read_manifest(str(base / "b"))
    assert len(manifest.sources) == 123
    assert manifest.position is None
    path.write_bytes(good)
    _run(base, "many", "b", **options)
    _run(base, "one", "a")
    assert _rows(base / "a").equals(_rows(base / "b"))
