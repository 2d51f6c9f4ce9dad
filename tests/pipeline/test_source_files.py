"""Which rows of a source count as used: other spellings, rewritten and changed files, links."""

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.checkpoints import UsedFile, read_manifest
from streamrnn.cli.run import in_words
from streamrnn.errors import CheckpointError
from streamrnn.scoring.summary import Summary
from streamrnn.sources import list_files

LOG = logs.random_log(300)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, and a log of three files in `in`, in the working directory."""
    logs.small_model().save(tmp_path / "m.safetensors")
    for i in range(3):
        logs.write(LOG.slice(100 * i, 100), tmp_path / "in" / f"part-{i}.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(path: str = "in", *, time: bool = False, options: Any = None, **tables: Any) -> Summary:
    """Run without a time unless asked: then nothing but the files says what was used."""
    config = logs.config(path, "m.safetensors", "out", **tables)
    if not time:
        del config["source"]["time"]
    return Pipeline.from_dict(config).run(**(options or {}))


def _rows() -> int:
    return sum(pq.read_metadata(part).num_rows for part in Path("out").glob("*.parquet"))


def _touch(path: Path) -> None:
    """A time of change that is another one, however coarse the clock."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 5_000_000_000))


def test_another_spelling_of_the_path_scores_nothing_twice(base: Path) -> None:
    """Relative, absolute, with dots, through a link, as a URI, as a pattern, file by file."""
    assert _run().rows == 300
    (base / "link").symlink_to("in")
    for path in (
        "./in", f"{base}/in", f"../{base.name}/in", "link", f"file://{base}/in", "in/*.parquet",
        f"{base}/link/**/*.parquet", "in/part-1.parquet", "in//",
    ):  # fmt: skip
        summary = _run(path)
        assert (summary.nothing_new, _rows()) == (True, 300), path
        assert summary.vanished_files == (2 if "part-1" in path else 0)


def test_a_run_from_another_directory_knows_its_files(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run()
    (base / "else").mkdir()
    monkeypatch.chdir(base / "else")
    config = logs.config(f"{base}/in", "../m.safetensors", "../out")
    del config["source"]["time"]
    assert Pipeline.from_dict(config).run().nothing_new


def test_an_output_that_was_moved_with_its_source_is_resumed(base: Path) -> None:
    _run()
    (base / "moved").mkdir()
    for name in ("in", "out", "m.safetensors"):
        shutil.move(base / name, base / "moved")
    os.chdir(base / "moved")
    assert _run().nothing_new
    logs.write(LOG.slice(0, 10), Path("in/part-3.parquet"))
    assert _run(f"{base}/moved/in").rows == 10
    assert _run().nothing_new
    assert _rows() == 310


def test_changed_values_are_noticed_whatever_the_footer_says(base: Path) -> None:
    """Plain values, equal size, equal minimum and maximum: only the values tell."""
    table = pa.table(
        {"id": ["x"] * 4, "a": [0.0, 1.0, 2.0, 9.0], "b": pa.array([1] * 4, pa.int32())}
    )
    plain = {"compression": "none", "use_dictionary": False}
    file = base / "in" / "part-3.parquet"
    pq.write_table(table, file, **plain)
    _run()
    before = file.read_bytes()
    changed = table.set_column(1, "a", pa.array([0.0, 1.0, 1.0, 9.0]))
    pq.write_table(changed, file, **plain)
    assert len(file.read_bytes()) == len(before)
    _touch(file)
    with pytest.raises(CheckpointError, match=r"part-3\.parquet: .* other values in its 4 rows"):
        _run()
    summary = _run(options={"force": True})
    assert (summary.changed_files, _rows()) == (1, 304)
    assert _run().nothing_new


def test_a_file_that_was_touched_copied_or_compressed_anew_is_as_it_was(base: Path) -> None:
    _run()
    _touch(base / "in" / "part-0.parquet")
    for i, options in ((1, {"compression": "zstd"}), (2, {"row_group_size": 7})):
        file = base / "in" / f"part-{i}.parquet"
        pq.write_table(pq.read_table(file), file, **options)
        _touch(file)
    assert _run().nothing_new
    logs.write(LOG.slice(0, 10), base / "in" / "part-3.parquet")
    assert _run().rows == 10
    used = {Path(file.path).name: file for file in read_manifest("out").sources}
    for file in (base / "in").iterdir():
        assert used[file.name].mtime_ns == file.stat().st_mtime_ns  # it need not be read again


@pytest.mark.parametrize("rewritten", ["first", "rest"])
def test_a_file_that_changes_while_it_is_being_read(base: Path, rewritten: str) -> None:
    """What was read of it must stay; what was not may change. Row groups may be others."""
    stop = threading.Event()
    options = {"source": {"batch_rows": 40}, "checkpoint": {"every": 1}}
    first = {"stop": stop, "progress": lambda _: stop.set()}
    assert _run("in/part-1.parquet", options=first, **options).rows == 40
    file = base / "in" / "part-1.parquet"
    table = pq.read_table(file)
    b = table["b"].to_pylist()
    b[0 if rewritten == "first" else -1] += 1
    changed = table.set_column(3, "b", pa.array(b, pa.int32()))
    pq.write_table(changed, file, row_group_size=17)
    _touch(file)
    if rewritten == "first":
        with pytest.raises(CheckpointError, match="other values in its 40 rows"):
            _run("in/part-1.parquet", **options)
        return
    assert _run("in/part-1.parquet", **options).rows == 60
    logs.write(changed, base / "other" / "part-1.parquet")
    shutil.move("out", "interrupted")
    _run("other/part-1.parquet", **options)
    tables = [pq.read_table(name).to_pylist() for name in ("interrupted", "out")]
    assert tables[0] == tables[1]


def test_a_compacted_source_is_refused_with_both_names(base: Path) -> None:
    """Three files become one: no row is scored twice, and --force counts it as used."""
    _run()
    whole = pa.concat_tables([pq.read_table(f) for f in sorted((base / "in").iterdir())])
    for file in (base / "in").iterdir():
        file.unlink()
    logs.write(whole, base / "in" / "all.parquet")
    with pytest.raises(CheckpointError) as caught:
        _run()
    text = str(caught.value)
    assert "1 new file of the source holds the rows of 3 used files that are gone" in text
    assert f"{base}/in/part-0.parquet, " in text
    assert f"-> {base}/in/all.parquet" in text
    assert "--force" in text
    assert "would refuse" in Pipeline.from_dict(_config_without_time()).explain()
    summary = _run(options={"force": True})
    assert (summary.rows, summary.rewritten_files, _rows()) == (0, 1, 300)
    assert "1 new file with used rows, counted as used because of --force" in in_words(summary)
    logs.write(LOG.slice(0, 5), base / "in" / "more.parquet")
    assert (_run().rows, _rows()) == (5, 305)


def _config_without_time() -> dict[str, Any]:
    config = logs.config("in", "m.safetensors", "out")
    del config["source"]["time"]
    return config


def test_files_that_moved_to_partitions_are_refused(base: Path) -> None:
    _run()
    for i in range(3):
        (base / "in" / f"day={i}").mkdir()
        (base / "in" / f"part-{i}.parquet").rename(base / "in" / f"day={i}" / "x.parquet")
    with pytest.raises(CheckpointError, match="3 new files of the source hold the rows of 3 used"):
        _run()
    assert _rows() == 300


def test_ordinary_retention_passes_and_is_counted(base: Path) -> None:
    """The oldest file goes, one with as many rows comes, every day."""
    _run(time=True)
    later = logs.random_log(900, seed=8)
    for day in range(3, 9):
        (base / "in" / f"part-{day - 3}.parquet").unlink()
        logs.write(later.slice(100 * day - 300, 100), base / "in" / f"part-{day}.parquet")
        summary = _run(time=True, source={"late": "apply"})
        assert (summary.rows, summary.vanished_files) == (100, day - 2)
    assert _rows() == 900


def test_a_link_in_a_circle_adds_no_rows(base: Path) -> None:
    (base / "in" / "again").symlink_to(".")
    assert _run().rows == 300
    assert _run().nothing_new


def test_files_of_an_older_version_are_compared_by_footer_with_a_note(base: Path) -> None:
    _run()
    manifest = Path("out/_streamrnn/manifest.json")
    found = read_manifest("out")
    old = tuple(
        UsedFile(f"in/part-{i}.parquet", f.size, f.mtime_ns, _footer(f.path))
        for i, f in enumerate(found.sources)
    )
    manifest.write_bytes(type(found)(**{**vars(found), "sources": old, "home": ""}).to_bytes())
    assert "footer" not in in_words(_run())
    _touch(base / "in" / "part-1.parquet")
    summary = _run()
    assert (summary.nothing_new, summary.files_by_footer) == (True, 1)
    assert "note     1 used file with another time of change, compared by footer only" in in_words(
        summary
    )


def _footer(path: str) -> str:
    return list_files(path)[0].identity()
