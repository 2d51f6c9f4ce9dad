"""A run that starts over keeps rows that it cannot score again, unless told that they may go."""

import io
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, LateRowError

LOG = logs.random_log(120)
DAYS = [LOG.slice(start, 40) for start in (0, 40, 80)]


@pytest.fixture(autouse=True)
def base(model_dir: Path) -> None:
    """A model, and three days that were scored, a run for each."""
    for number, rows in enumerate(DAYS, 1):
        logs.write(rows, Path(f"in/day={number}/a.parquet"))
        pipeline().run()


def pipeline(path: str = "in", **source: Any) -> Pipeline:
    return Pipeline.from_dict(logs.config(path, "m.safetensors", "out", source=source))


def piped(monkeypatch: pytest.MonkeyPatch, table: pa.Table, **source: Any) -> Pipeline:
    data = io.BytesIO()
    with pa.ipc.new_stream(data, table.schema) as writer:
        writer.write_table(table)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data.getvalue())))
    return pipeline("-", **source)


def rows() -> int:
    return sum(pq.read_metadata(part).num_rows for part in Path("out").glob("*.parquet"))


def test_a_source_of_one_day_does_not_replace_the_rows_of_all() -> None:
    """As a task for one day sets it."""
    with pytest.raises(CheckpointError) as refused:
        pipeline("in/day=3/*.parquet").run(full_refresh=True)
    text = str(refused.value)
    assert text.startswith("out has 80 rows of 2 files that the source does not have: ")
    assert "in/day=1/a.parquet and 1 more. --full-refresh would discard" in text
    assert rows() == 120
    assert pipeline("in/day=3/*.parquet").run().nothing_new
    assert pipeline("in/day=3/*.parquet").run(full_refresh=True, force=True).rows == 40
    assert rows() == 40


def test_all_files_or_new_files_with_their_rows_are_scored_anew() -> None:
    assert pipeline().run(full_refresh=True).rows == 120
    shutil.rmtree("in/day=1")
    shutil.rmtree("in/day=2")
    logs.write(LOG.slice(0, 80), Path("in/day=1/merged.parquet"))
    assert pipeline().run(full_refresh=True).rows == 120
    assert rows() == 120


def test_a_moved_folder_is_scored_anew() -> None:
    Path("place").mkdir()
    for name in ("in", "out", "m.safetensors"):
        Path(name).rename(f"place/{name}")
    config = logs.config("place/in", "place/m.safetensors", "place/out")
    assert Pipeline.from_dict(config).run(full_refresh=True).rows == 120


def test_files_that_after_leaves_out_are_missed_too() -> None:
    with pytest.raises(CheckpointError, match="out has 40 rows of 1 file that the source does"):
        pipeline(after={"partition": "day=1"}).run(full_refresh=True)


def test_a_pipe_does_not_replace_the_rows_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError) as refused:
        piped(monkeypatch, DAYS[2]).run(full_refresh=True)
    assert str(refused.value) == (
        "out has 120 rows, and this run reads a pipe, which cannot send them again. "
        "--full-refresh would discard these rows, and could not score them again. Run without "
        "--full-refresh to add the rows of the pipe; or give these rows up with --full-refresh "
        "--force."
    )
    assert rows() == 120
    assert piped(monkeypatch, DAYS[2]).run(full_refresh=True, force=True).rows == 40
    assert rows() == 40


@pytest.mark.parametrize("before", [0, 80])
def test_files_do_not_replace_the_rows_of_a_pipe(
    monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Alone in the output, or after files which the source still has."""
    shutil.rmtree("out")
    if before:
        pipeline("in/day=[12]/*.parquet").run()
    piped(monkeypatch, DAYS[2]).run()
    with pytest.raises(CheckpointError) as refused:
        pipeline("in/day=[12]/*.parquet").run(full_refresh=True)
    assert str(refused.value).startswith(
        "out has 40 rows that are in none of its used files, such as rows of a pipe or a session. "
    )
    assert rows() == before + 40
    assert pipeline().run(full_refresh=True, force=True).rows == 120
    assert rows() == 120


def test_dropped_rows_of_files_hide_no_row_of_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Used files have more rows than the output has of them."""
    shutil.rmtree("out")
    piped(monkeypatch, LOG.slice(60, 10), late="drop").run()
    pipeline(late="drop").run()
    assert rows() < len(LOG)
    with pytest.raises(CheckpointError, match="out has 10 rows that are in none of its used"):
        pipeline(late="drop").run(full_refresh=True)
    assert pipeline(late="drop").run(full_refresh=True, force=True).rows == len(LOG)
    pipeline(late="drop").run(full_refresh=True)


def test_an_output_without_rows_starts_over_from_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("out")
    piped(monkeypatch, LOG.slice(0, 0)).run()
    assert piped(monkeypatch, DAYS[0]).run(full_refresh=True).rows == 40


@pytest.mark.parametrize("torn", [False, True])
def test_a_used_file_that_was_cut_is_missed_too(torn: bool) -> None:
    file = Path("in/day=1/a.parquet")
    logs.write(DAYS[0].slice(0, 30), file)
    if torn:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError) as refused:
        pipeline().run(full_refresh=True)
    lost = "40 rows of 1 file" if torn else "10 rows of 1 file"
    assert str(refused.value) == (
        f"out has {lost} that the source does not have: {file.resolve()}. --full-refresh would "
        "discard these rows, and could not score them again. Restore these rows; or run with "
        "--force and without --full-refresh, to keep these rows and score only new files; or "
        "give these rows up with --full-refresh --force."
    )
    with pytest.raises(CheckpointError, match="--full-refresh --force, which discards the rows th"):
        pipeline().run()
    assert pipeline().run(force=True).nothing_new
    assert rows() == 120


def test_rows_of_a_cut_file_that_force_kept_are_missed_even_so() -> None:
    """The file is known by what it has now."""
    logs.write(DAYS[0].slice(0, 30), Path("in/day=1/a.parquet"))
    pipeline().run(force=True)
    with pytest.raises(
        CheckpointError, match=r"^out has 10 rows that are in none of its used files"
    ):
        pipeline().run(full_refresh=True)
    assert rows() == 120
    assert pipeline().run(full_refresh=True, force=True).rows == 110


def test_the_rest_of_a_cut_file_may_be_in_another_one() -> None:
    """As of a log that is copied, and emptied in place."""
    file = Path("in/day=1/a.parquet")
    shutil.copy(file, "in/day=1/a.1.parquet")
    logs.write(DAYS[0].slice(0, 0), file)
    assert pipeline().run(full_refresh=True).rows == 120


def test_a_file_with_more_rows_or_fewer_bytes_loses_none() -> None:
    pq.write_table(DAYS[1], "in/day=2/a.parquet", compression="brotli")
    logs.write(pa.concat_tables([DAYS[2], DAYS[2].slice(39)]), Path("in/day=3/a.parquet"))
    assert pipeline().run(full_refresh=True).rows == 121


def test_an_output_whose_manifest_is_lost_starts_over() -> None:
    """What it had is not known, and its own message advises that."""
    Path("out/_streamrnn/_manifest.json").write_text("{}")
    assert pipeline("in/day=3/*.parquet").run(full_refresh=True).rows == 40


def test_where_the_file_that_was_being_read_is_gone_the_advice_works() -> None:
    stop = threading.Event()
    pipeline(batch_rows=10).run(full_refresh=True, stop=stop, progress=lambda _: stop.set())
    shutil.rmtree("in/day=1")
    with pytest.raises(CheckpointError, match="start over with --full-refresh --force"):
        pipeline().run()
    with pytest.raises(CheckpointError, match=r"out has \d+ rows of 1 file"):
        pipeline().run(full_refresh=True)
    assert pipeline().run(full_refresh=True, force=True).rows == 80


def test_a_backfill_that_sees_one_day_is_told_which_days_to_score_again() -> None:
    """The way back drops their rows; it is named where a commit from before them is retained."""
    shutil.rmtree("out")
    for day in (1, 3):
        pipeline(f"in/day={day}/*.parquet").run()
    with pytest.raises(LateRowError) as late:
        pipeline("in/day=2/*.parquet").run()
    text = str(late.value)
    assert "`streamrnn rewind out --before " in text
    assert "in/day=3/a.parquet`, and rerun: 1 used file is then scored again" in text
    assert "The source does not have " in text
    assert "run the pipeline for it again, too, in the order of time. If late rows" in text
    assert "--full-refresh" not in text
    from streamrnn.outputs import rewind

    rewind("out", before="day=3")
    for day in (2, 3):
        pipeline(f"in/day={day}/*.parquet").run()
    assert rows() == 120
