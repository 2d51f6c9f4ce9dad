"""A bad day, taken back: `--reload`, `rewind --before`.

Slow: windows of kind independent; the quick tests reload those of kind carry.
"""

import shutil
import threading
from datetime import date, datetime
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from selection import first_quick, slow

from streamrnn import Pipeline, Sequential, layers, load_model
from streamrnn.cli.run import in_words
from streamrnn.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DTypeError,
    LateRowError,
    StateError,
)
from streamrnn.outputs import history, read_states, rewind
from streamrnn.stream.checkpoints import OutputFolder, read_manifest
from streamrnn.stream.scoring.summary import Progress, Summary

DAYS = 5
LOG = logs.random_log(500, jitter=8, nulls=0.02)
TABLES: dict[str, Any] = {
    "source": {"late": "reject", "nulls": "previous", "batch_rows": 20},
    "checkpoint": {"every": 2},
    "output": {"names": ["y"], "warmup": 2},
}


@pytest.fixture(params=first_quick(["carry", "independent"]))
def base(request: Any, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model; `right` with five days, `wrong` with another third day; no day in `in` yet."""
    logs.small_model().save("m.safetensors")
    monkeypatch.setitem(TABLES, "window", {"kind": request.param, "steps": 4})
    for number in range(DAYS):
        day = LOG.slice(100 * number, 100)
        logs.write(day, workdir / "right" / _name(number))
    bad = LOG.slice(200, 100)
    a = pa.array([None if x is None else x + 1 for x in bad["a"].to_pylist()], pa.float64())
    logs.write(bad.set_column(2, "a", a).slice(0, 90), workdir / "wrong" / _name(2))
    return workdir


def _name(number: int) -> str:
    return f"day={number}/log.parquet"


def _put(number: int, of: str = "right") -> None:
    target = Path("in") / _name(number)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(of) / _name(number), target)


def _run(out: str = "out", tables: dict[str, Any] | None = None, **options: Any) -> Summary:
    config = logs.config("in", "m.safetensors", out, **{**TABLES, **(tables or {})})
    return Pipeline.from_dict(config).run(**options)


def _bad_days() -> None:
    """Five daily runs, of which the third read a wrong file."""
    for number in range(DAYS):
        _put(number, "wrong" if number == 2 else "right")
        _run()


def _outcome(out: str) -> tuple[pa.Table, pa.Table, pa.Table]:
    states = read_states(out)
    rejects = pq.read_table(f"{out}.rejects")
    return pq.read_table(out), rejects, states.replace_schema_metadata(None)


def _expected() -> tuple[pa.Table, pa.Table, pa.Table]:
    """What five daily runs of the right files give."""
    shutil.rmtree("in")
    for number in range(DAYS):
        _put(number)
        _run("expected")
    return _outcome("expected")


def test_a_changed_file_is_reloaded_as_if_it_had_been_right(base: Path) -> None:
    _bad_days()
    _put(2)
    with pytest.raises(CheckpointError, match="--reload"):
        _run()
    summary = _run(reload=True)
    assert summary.rows == 300
    assert "rewound to commit" in str(summary.reloaded)
    assert str(summary.reloaded) in in_words(summary)
    assert _outcome("out") == _expected()


def test_killed_and_interrupted_in_between_it_is_the_same(base: Path) -> None:
    """After the rewind, and at each of its batches: a plain run reads on."""
    _bad_days()
    _put(2)
    stop = threading.Event()

    def interrupt(progress: Progress) -> None:
        stop.set()

    assert _run(reload=True, stop=stop, progress=interrupt).interrupted
    for _ in range(30):
        stop = threading.Event()

        def stop_now(progress: Progress, stop: threading.Event = stop) -> None:
            stop.set()

        if not _run(stop=stop, progress=stop_now).interrupted:
            break
    assert _outcome("out") == _expected()


def test_a_named_file_is_read_again_though_it_did_not_change(base: Path) -> None:
    _bad_days()
    before = _outcome("out")
    for name in (["day=3/log.parquet"], "day=3", [Path("in/day=3/log.parquet")]):
        assert _run(reload=name).rows == 200
        assert _outcome("out") == before
    with pytest.raises(ConfigError, match="has not used a file or partition of this name"):
        _run(reload=["day=9/log.parquet"])
    with pytest.raises(ConfigError, match=r"reload: expected .* received \[3\]"):
        _run(reload=[3])
    assert _run(reload=[]).nothing_new
    _put(2)  # no file is named, so none is read again
    with pytest.raises(CheckpointError, match="--reload"):
        _run(reload=[])


def test_an_output_of_a_session_has_used_no_file(base: Path) -> None:
    config = logs.config("in", "m.safetensors", "out", output={"names": ["y"]})
    with Pipeline.from_dict(config).session() as session:
        session.process(LOG.slice(0, 5))
    _put(0)
    with pytest.raises(ConfigError, match="the last file it used: none"):
        _run(reload=["day=3/log.parquet"])


def test_nothing_to_reload_is_said(base: Path) -> None:
    _put(0)
    assert _run(reload=True).rows == 100
    summary = _run(reload=True)
    assert summary.nothing_new
    assert "no used file changed" in in_words(summary)


def test_where_no_commit_is_kept_from_before_it_is_refused(base: Path) -> None:
    for number in range(DAYS):
        _put(number, "wrong" if number == 2 else "right")
        _run(tables={"checkpoint": {"keep": 1}})
    before = _outcome("out")
    _put(2)
    with pytest.raises(CheckpointError, match="--full-refresh") as caught:
        _run(reload=True)
    assert "every retained commit was made after" in str(caught.value)
    assert _outcome("out") == before


def test_another_pipeline_is_refused_before_anything_is_taken_back(base: Path) -> None:
    _bad_days()
    before = _outcome("out")
    _put(2)
    with pytest.raises(CheckpointError, match=r"output\.warmup"):
        _run(reload=True, tables={"output": {"names": ["y"], "warmup": 9}})
    assert _outcome("out") == before


def test_another_key_is_another_pipeline_though_files_then_seem_changed(base: Path) -> None:
    """With the columns of another pipeline no used file has the content that it had."""
    _bad_days()
    before, commits = _outcome("out"), history("out")
    for path in Path("in").rglob("*.parquet"):
        path.touch()
    tables = {"source": {**TABLES["source"], "key": "new"}}
    with pytest.raises(CheckpointError, match="written by another pipeline") as caught:
        _run(reload=True, tables=tables)
    assert 'source.key: was ["id"], is now ["new"]' in str(caught.value)
    assert "Set another [sink] path" in str(caught.value)
    assert (_outcome("out"), history("out")) == (before, commits)


def test_a_late_row_of_a_corrected_file_under_a_new_name_names_the_old_one(base: Path) -> None:
    log = logs.random_log(500)
    tables = {"source": {"batch_rows": 20}}
    for number in range(DAYS):
        logs.write(log.slice(100 * number, 100), Path(f"in/{number}.parquet"))
        _run(tables=tables)
    Path("in/2.parquet").unlink()
    logs.write(log.slice(200, 90), Path("in/2-corrected.parquet"))
    with pytest.raises(LateRowError) as caught:
        _run(tables=tables)
    option = f"--reload-file {base}/in/2.parquet"
    assert f"files that earlier runs used: {base}/in/2.parquet (2024-" in str(caught.value)
    assert f"If in/2-corrected.parquet replaces it, rerun with {option}." in str(caught.value)
    assert _run(tables=tables, reload=[option.removeprefix("--reload-file ")]).rows == 290
    _run("whole", tables=tables)
    assert pq.read_table("out") == pq.read_table("whole")


def test_rewind_to_before_a_file_or_a_time(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(f"2024-01-{day:02d}T06:00:00Z" for day in range(1, 30))
    monkeypatch.setattr("streamrnn.stream.checkpoints.folder.now", lambda: next(clock))
    _bad_days()
    commits = history("out")
    assert [commit.newest.rpartition("/in/")[2] for commit in commits] == [
        _name(number) for number in range(DAYS)
    ]
    rewind("out", before="day=4/log.parquet")
    assert history("out")[-1].rows == commits[3].rows
    rewind("out", before=datetime.fromisoformat(commits[2].time))
    assert history("out")[-1].rows == commits[1].rows
    for wrong in ("day=0/log.parquet", "2023-01-01", "day=7/log.parquet"):
        with pytest.raises(ConfigError):
            rewind("out", before=wrong)
    for options in ({}, {"to": 1, "before": "x"}):
        with pytest.raises(ConfigError, match="either"):
            rewind("out", **options)


def test_a_restored_commit_keeps_its_time(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a later `rewind` to before a time would go back further than needed."""
    clock = iter(f"2024-01-01T{n // 60:02d}:{n % 60:02d}:00Z" for n in range(1440))
    monkeypatch.setattr("streamrnn.stream.checkpoints.folder.now", lambda: next(clock))
    _bad_days()
    commits = history("out")
    rewind("out", before=_name(4))
    assert history("out")[-1].time == commits[3].time
    with pytest.raises(ConfigError, match="there is nothing to rewind"):
        rewind("out", before=commits[4].time)
    _put(2)
    _run(reload=True)
    restored = history("out")
    assert [commit.time for commit in restored[:2]] == [commit.time for commit in commits[:2]]
    assert restored[2].time > commits[4].time
    rewind("out", before=commits[2].time)
    assert history("out")[-1].rows == commits[1].rows


def test_no_commit_is_dropped_by_a_time_after_the_last_one(base: Path) -> None:
    _bad_days()
    before, commits = _outcome("out"), history("out")
    for time in ("2099-01-01", date(2099, 1, 1)):
        with pytest.raises(ConfigError, match="there is nothing to rewind") as caught:
            rewind("out", before=time)
        assert f"out ({commits[-1].commit}, {commits[-1].time}) was made earlier" in str(
            caught.value
        )
    assert (_outcome("out"), history("out")) == (before, commits)


def test_files_that_were_read_in_another_order_are_not_reloaded(base: Path) -> None:
    """Without a time nothing else would notice: the states would be those of another history."""
    for number in (0, 3, 2, 1):
        _put(number, "wrong" if number == 2 else "right")
        _run()
    before = _outcome("out")
    _put(2)
    with pytest.raises(CheckpointError, match="another order") as caught:
        _run(reload=True)
    assert _outcome("out") == before
    number = int(str(caught.value).partition("streamrnn rewind out --to ")[2].split(",")[0])
    assert number == history("out")[1].commit
    rewind("out", number)
    assert _run().rows == 200


def _broken(how: str, path: Path) -> None:
    """Write a corrected third day that no run can read to its end."""
    day = LOG.slice(200, 100)
    a = [None if i == 90 else x or 0.0 for i, x in enumerate(day["a"].to_pylist())]
    if how == "no footer":
        path.write_bytes(path.read_bytes()[:-9])
    elif how == "no column":
        logs.write(day.drop_columns(["b"]), path)
    elif how == "another type":
        logs.write(day.set_column(2, "a", pa.array(["x"] * 100)), path)
    elif how == "a null":
        logs.write(day.set_column(2, "a", pa.array(a, pa.float64())), path)
    elif how == "outside valid":
        logs.write(day.set_column(2, "a", pa.array([2.0] * 99 + [101])), path)
    else:
        logs.write(day.set_column(0, "id", pa.array([None, *day["id"].to_pylist()[1:]])), path)


@pytest.mark.parametrize(
    ("how", "message"),
    first_quick(
        [
            ("no footer", "not a readable Parquet file"),
            ("a null key", "column 'id': 1 null in 100 rows"),
            ("no column", "'b'"),
            ("another type", "expected number or boolean"),
            ("a null", "feature 'a': 1 null in 100 rows"),
            ("outside valid", "maximum 101 outside valid"),
        ]
    ),
)
def test_a_corrected_file_that_is_broken_leaves_the_output_as_it_is(
    base: Path, monkeypatch: pytest.MonkeyPatch, how: str, message: str
) -> None:
    valid = {"name": "a", "valid": [-100, 100]}
    source = {**TABLES["source"], "nulls": "error", "features": [valid, "b"]}
    monkeypatch.setitem(TABLES, "source", source)
    for number in range(DAYS):
        logs.write(LOG.slice(100 * number, 100).drop_null(), Path("right") / _name(number))
        _put(number)
        _run()
    before, commits = _outcome("out"), history("out")
    _broken(how, Path("in") / _name(2))
    with pytest.raises((DataError, DTypeError), match=message) as caught:
        _run(reload=True)
    assert _name(2) in str(caught.value)
    assert (_outcome("out"), history("out")) == (before, commits)
    _put(2)
    assert _run(reload=[_name(2)]).rows == sum(
        pq.read_metadata(Path("in") / _name(number)).num_rows for number in (2, 3, 4)
    )
    assert _outcome("out") == before


def test_nulls_that_are_rejected_are_reloaded(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {**TABLES["source"], "nulls": "error", "bad": "reject"}
    monkeypatch.setitem(TABLES, "source", source)
    _bad_days()
    _broken("a null", Path("in") / _name(2))
    assert _run(reload=True).rejected > 0


def test_rows_of_files_that_are_gone_are_not_dropped(base: Path) -> None:
    _bad_days()
    before = _outcome("out")
    _put(2)
    shutil.rmtree(Path("in/day=3"))
    with pytest.raises(
        CheckpointError, match=r"1 used file that --reload .* gone: .*day=3"
    ) as caught:
        _run(reload=True)
    assert "streamrnn rewind out --to " in str(caught.value)
    assert _outcome("out") == before
    _put(3)
    assert _run(reload=True).rows == 300


def _retrain(units: int = 5, name: str = "rnn", path: str = "m2.safetensors") -> str:
    model = Sequential(
        [layers.Input((None, 2)), layers.GRU(units, name=name), layers.Dense(1, name="score")]
    )
    model.save(path)
    return load_model(path).fingerprint()[:16]


@pytest.mark.parametrize("carry", first_quick([{}, {"on_change": "carry"}]), ids=str)
def test_rows_of_another_model_are_replaced_only_with_new_model(
    base: Path, carry: dict[str, str]
) -> None:
    """Whether it takes over states or not: scored rows are another matter."""
    _bad_days()
    _put(2)
    first = load_model("m.safetensors").fingerprint()[:16]
    second = _retrain()
    before, commits = _outcome("out"), history("out")
    tables = {"model": {"path": "m2.safetensors", **carry}}
    with pytest.raises(CheckpointError) as caught:
        _run(tables=tables, reload=True)
    parts = [part for part in read_manifest("out").parts if part.commit > commits[1].commit]
    refusal = str(caught.value)
    assert f"rows of other models with rows of the current model {second}:\n  " in refusal
    numbers = f"of commits {parts[0].commit} to {parts[-1].commit} by model {first} ("
    assert f"{sum(part.rows for part in parts)} rows {numbers}" in refusal
    assert parts[0].name in refusal
    assert "--reload --new-model" in refusal
    assert (_outcome("out"), history("out")) == (before, commits)
    summary = _run(tables=tables, reload=True, new_model="carry")
    assert f"{numbers}{parts[0].name}" in str(summary.reloaded)
    assert f": replaced by rows of model {second}" in str(summary.reloaded)
    assert {part.model[:16] for part in read_manifest("out").parts} == {first, second}


@slow
def test_the_model_that_wrote_the_rows_reloads_them_before_another_takes_over(base: Path) -> None:
    """The other way that the refusal names. Slow: a reload by an earlier model."""
    _bad_days()
    _put(2)
    _retrain()
    summary = _run(reload=True)
    assert "replaced by" not in str(summary.reloaded)
    assert _outcome("out") == _expected()


def test_a_state_that_the_new_model_cannot_take_over_leaves_the_output_as_it_is(base: Path) -> None:
    _bad_days()
    _put(2)
    _retrain(units=6, name="other")
    before, commits = _outcome("out"), history("out")
    if TABLES["window"]["kind"] == "carry":
        with pytest.raises(StateError, match="the states of the new model differ"):
            _run(tables={"model": {"path": "m2.safetensors"}}, reload=True, new_model="carry")
        assert (_outcome("out"), history("out")) == (before, commits)
    with pytest.raises(CheckpointError, match="columns"):
        _run(tables={"output": {**TABLES["output"], "names": ["z"]}}, reload=True)
    assert (_outcome("out"), history("out")) == (before, commits)


@slow
def test_an_output_that_was_moved_with_its_source_is_reloaded(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow: a reload elsewhere."""
    _bad_days()
    expected = _expected()
    moved = base / "moved"
    moved.mkdir()
    for name in ("in", "out", "out.rejects", "m.safetensors"):
        shutil.move(base / name, moved / name)
    monkeypatch.chdir(moved)
    shutil.copy(base / "right" / _name(2), "in/" + _name(2))
    _run(reload=True)
    rows, _, states = _outcome("out")
    assert (rows, states) == (expected[0], expected[2])


def test_the_refusal_of_a_changed_file_names_what_to_do(base: Path) -> None:
    _bad_days()
    _put(2)
    with pytest.raises(CheckpointError) as caught:
        _run()
    assert str(caught.value).endswith(
        "\nWith --reload, score it again from the last commit before that use; keep the output and "
        "score no other row of it with --force; or start over with --full-refresh. Write new rows "
        "to a new file."
    )


def test_a_named_file_that_is_still_to_be_read_is_nothing_to_reload(base: Path) -> None:
    """As after a kill between the rewind and the first commit."""
    _bad_days()
    rewind("out", before=_name(3))
    assert _run(reload=[_name(3)]).rows == 200


def test_a_reload_while_another_run_is_at_work_is_refused(base: Path) -> None:
    _bad_days()
    _put(2)
    with OutputFolder.open("out"), pytest.raises(CheckpointError, match="in use"):
        _run(reload=True)


def _four_days_in_two_partitions() -> None:
    """A run for each of four files."""
    for number, name in enumerate(("m=1/d=1/a", "m=1/d=1/b", "m=1/d=2/a", "m=2/d=1/a")):
        logs.write(LOG.slice(100 * number, 100), Path(f"in/{name}.parquet"))
        _run()


@pytest.mark.parametrize(
    ("name", "kept"),
    first_quick(
        [
            ("m=1/d=2/", 2),
            ("b.parquet", 1),
            ("m=2", 3),
            ("m=1/d=2", 2),
            ("d=2", 2),
            ("{base}/in/m=1/d=2", 2),
            ("m=1/d=1/b.parquet", 1),
        ]
    ),
)
def test_a_partition_or_the_end_of_a_path_names_files(base: Path, name: str, kept: int) -> None:
    _four_days_in_two_partitions()
    rows = [commit.rows for commit in history("out")]
    rewind("out", before=name.format(base=base))
    assert history("out")[-1].rows == rows[kept - 1]
    assert len(history("out")) == kept
    assert _run().rows == 100 * (4 - kept)
    summary = _run(reload=[name.format(base=base)])
    assert summary.rows == 100 * (4 - kept)
    assert history("out")[-1].rows == rows[-1]


@pytest.mark.parametrize("name", ["a.parquet", "d=1"])
def test_a_name_that_means_several_files_is_refused_with_them(base: Path, name: str) -> None:
    _four_days_in_two_partitions()
    before = _outcome("out")
    for act in (lambda: rewind("out", before=name), lambda: _run(reload=[name])):
        with pytest.raises(
            ConfigError, match=f"{name}: out has used [23] (files|partitions) of"
        ) as caught:
            act()
        assert "m=1/d=1" in str(caught.value)
        assert "m=2/d=1" in str(caught.value)
    assert _outcome("out") == before
    with pytest.raises(ConfigError, match="expected a file or partition that out has used"):
        rewind("out", before="d=3")
