"""Which rows of a source count as used: other spellings, rewritten and changed files, links."""

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamrnn
from streamrnn import Pipeline
from streamrnn.cli.run import in_words
from streamrnn.errors import CheckpointError, DataError
from streamrnn.outputs import history
from streamrnn.stream.checkpoints import UsedFile, read_manifest
from streamrnn.stream.scoring.summary import Summary
from streamrnn.stream.sources import FileSource, list_files

LOG = logs.random_log(300)


@pytest.fixture
def base(model_dir: Path) -> Path:
    """A model, and a log of three files in `in`, in the working directory."""
    for i in range(3):
        logs.write(LOG.slice(100 * i, 100), model_dir / "in" / f"part-{i}.parquet")
    return model_dir


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


def test_another_order_of_the_rows_of_a_used_file_is_no_change(base: Path) -> None:
    """The guide names it, as the scores would differ; a file is read again by its name only."""
    page = (Path(streamrnn.__file__).parent / "guide" / "messy-log.md").read_text()
    assert "a used file with the same rows in another order counts as unchanged" in page
    _run("in/part-0.parquet")
    _run()
    file = base / "in" / "part-1.parquet"
    logs.write(pq.read_table(file).take(list(range(99, -1, -1))), file)
    _touch(file)
    before = pq.read_table("out")
    assert _run().nothing_new
    assert _run(options={"reload": True}).nothing_new
    assert pq.read_table("out") == before
    assert _run(options={"reload": ["part-1.parquet"]}).rows == 200
    assert pq.read_table("out") != before


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
    assert "1 new file of the source holds the rows of 3 used files that are no longer" in text
    assert f"{base}/in/part-0.parquet, " in text
    assert f"-> {base}/in/all.parquet" in text
    assert "--force" in text
    assert "would_refuse" in Pipeline.from_dict(_config_without_time()).explain()
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


@pytest.mark.parametrize("timed", [True, False], ids=["time", "no time"])
@pytest.mark.parametrize("together", [True, False], ids=["at once", "a day later"])
@pytest.mark.parametrize(
    "become",
    [
        {"all": (100, 300)},
        {"x": (100, 150), "y": (150, 300)},
        {"month=1/x": (100, 300)},
        {"a": (100, 125), "b": (125, 150), "c": (150, 200), "d": (200, 300)},
    ],
    ids=["one", "two", "elsewhere", "four"],
)
def test_a_compaction_beside_retention_is_refused(
    base: Path, become: dict[str, tuple[int, int]], together: bool, timed: bool
) -> None:
    """The oldest file is deleted, the others become other files, and a new one comes."""
    tables = {"source": {"late": "apply"}} if timed else {}
    _run(time=timed, **tables)
    (base / "in" / "part-0.parquet").unlink()
    if not together:
        logs.write(logs.random_log(50, seed=9), base / "in" / "part-3.parquet")
        _run(time=timed, **tables)
    for i in (1, 2):
        (base / "in" / f"part-{i}.parquet").unlink()
    for name, (first, last) in become.items():
        logs.write(LOG.slice(first, last - first), base / "in" / f"{name}.parquet")
    later = logs.random_log(77, seed=10)
    logs.write(later, base / "in" / "part-4.parquet")
    before = _rows()
    with pytest.raises(CheckpointError, match="the rows of 2 used files"):
        _run(time=timed, **tables)
    assert _run(time=timed, options={"force": True}, **tables).rows == 77
    assert _rows() == before + 77


def test_an_export_that_grew_is_refused_under_a_new_name(base: Path) -> None:
    """Yesterday's rows, and today's behind them."""
    _run("in/part-0.parquet")
    logs.write(LOG.slice(0, 150), base / "in" / "export-2.parquet")
    with pytest.raises(
        CheckpointError, match=r"export-2\.parquet \(with 50 more rows after them\)"
    ):
        _run("in/export-2.parquet")


def test_a_link_in_a_circle_adds_no_rows(base: Path) -> None:
    (base / "in" / "again").symlink_to(".")
    assert _run().rows == 300
    assert _run().nothing_new


def test_files_that_no_run_has_read_are_compared_by_footer_with_a_note(base: Path) -> None:
    _run()
    _as_unread(*(f"in/part-{i}.parquet" for i in range(3)))
    assert "footer" not in in_words(_run())
    _touch(base / "in" / "part-1.parquet")
    summary = _run()
    assert (summary.nothing_new, summary.files_by_footer) == (True, 1)
    assert "note     1 used file with a new modification time, compared by footer only" in in_words(
        summary
    )


def _as_unread(*paths: str) -> None:
    """Give the manifest what it has of files whose rows came from others: size, time, footer."""
    sources = tuple(UsedFile.of(file, None) for path in paths for file in list_files(path))
    changed = replace(read_manifest("out"), sources=sources)
    Path("out/_streamrnn/_manifest.json").write_bytes(changed.to_bytes())


def test_empty_files_that_no_run_has_read_come_and_go(base: Path) -> None:
    """All empty files of one schema have one footer."""
    logs.write(LOG.slice(0, 0), base / "in" / "part-3.parquet")
    _run()
    _as_unread(*(f"in/part-{i}.parquet" for i in range(4)))
    (base / "in" / "part-3.parquet").unlink()
    logs.write(LOG.slice(0, 0), base / "in" / "part-4.parquet")
    _run()


def test_all_columns_keep_the_order_that_they_had(base: Path) -> None:
    """Whatever file comes first today."""
    every = {"output": {"columns": "*"}}
    _run("in/part-[12].parquet", **every)
    names = ["new", "b", "a", "t", "id"]
    pq.write_table(pq.read_table("in/part-0.parquet").select(names), "in/part-0.parquet")
    assert _run(**every).rows == 100
    logs.write(LOG.slice(0, 5).append_column("more", pa.nulls(5)), base / "in" / "part-3.parquet")
    with pytest.raises(DataError, match="'more' is not in"):
        _run(**every)


def test_a_damaged_used_file_can_be_passed_over(base: Path) -> None:
    """Also the first one, which the schema came from."""
    _run()
    Path("in/part-0.parquet").write_bytes(b"torn")
    logs.write(LOG.slice(0, 30), base / "in" / "part-3.parquet")
    with pytest.raises(CheckpointError, match=r"part-0\.parquet: \d+ bytes .* not a readable"):
        _run()
    assert _run(options={"force": True}).rows == 30
    assert _rows() == 330


def test_a_touched_file_is_read_once(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found of it is kept, though nothing else came; so is what can be gone back to."""
    _run()
    kept = [each.commit for each in history("out")]
    _touch(base / "in" / "part-1.parquet")
    assert _run().nothing_new
    monkeypatch.setattr(FileSource, "content", None)
    assert _run().nothing_new
    assert [each.commit for each in history("out")][:-1] == kept[:-1]
