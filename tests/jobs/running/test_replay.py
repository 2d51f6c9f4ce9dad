"""`--new-model replay`: the new model reads earlier rows into its own state, and writes none."""

import shutil
import threading
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import swaps
from selection import first_quick, slow
from swaps import DAYS, REPLAY, config, day, run

from streamrnn import Pipeline, Sequential, layers
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.outputs import read_states
from streamrnn.stream.checkpoints import read_manifest


@pytest.fixture
def base(workdir: Path) -> Path:
    swaps.make()
    return workdir


def _states(out: str) -> dict[str, list[Any]]:
    """The states of the model, by stream."""
    table = read_states(out)
    names = [f.name for f in table.schema if pa.types.is_fixed_size_list(f.type)]
    rows = zip(*(table[name].to_pylist() for name in names), strict=True)
    return dict(zip(table["id"].to_pylist(), rows, strict=True))


def test_the_new_model_goes_on_as_if_it_had_scored_the_whole_log(base: Path) -> None:
    """Its rows are those of a run over the whole log, bit for bit; those before it stay."""
    run("old")
    before = pq.read_table("out")
    day(3)
    summary = run("new", options=REPLAY)
    assert summary.rows == 150
    assert summary.replayed == 450
    assert summary.replay_passed_over > 0
    run("new", "whole")
    found, whole = pq.read_table("out"), pq.read_table("whole")
    assert found.slice(0, len(before)).equals(before)
    assert found.slice(len(before)).equals(whole.slice(len(before)))
    assert read_states("out").equals(read_states("whole"))
    (note,) = (n for n in summary.state_notes if "took over" in n)
    assert "450 rows replayed (all earlier rows)" in note
    assert not list(Path("out").rglob("*_replay*"))
    assert Path("out.rejects").exists() == Path("whole.rejects").exists()


def _counter(sign: float) -> Sequential:
    """Adds up `a`. Its state is the sum, or with another seed of its training the negative sum."""
    cell = layers.SimpleRNN(1, activation="linear", return_sequences=True, name="rnn")
    model = Sequential([layers.Input((None, 2)), cell, layers.Dense(1, name="score")])
    weights = [[[sign], [0]], [[1]], [0], [[sign]], [0]]
    model.set_weights([np.array(w, np.float32) for w in weights])
    return model


@slow
def test_the_error_after_a_swap_is_that_of_the_new_model(base: Path) -> None:
    """Two models that compute the same, each with states of its own, which mean nothing to the
    other one: carried they are worse than no model, replayed there is no error. Slow: four runs of
    a kernel that no other test needs."""
    for sign, name in ((1, "old"), (-1, "new")):
        _counter(sign).save(f"{name}.safetensors")
    table = pa.concat_tables(DAYS)
    table = table.set_column(2, "a", pa.array(np.ones(len(table))))
    logs.write(table.slice(0, 450), Path("rows/0.parquet"))
    tables: dict[str, Any] = {
        "source": {"late": "apply", "reset": None, "max_gap": None, "nulls": 0.0}
    }
    for out in ("replay", "carry"):
        run("old", out, "rows", **tables)
    logs.write(table.slice(450), Path("rows/1.parquet"))
    errors = {}
    for mode in ("replay", "carry"):
        run("new", mode, "rows", options={"new_model": mode}, **tables)
        found = pq.read_table(mode)
        ids, count, truth = found["id"].to_pylist(), dict[str, int](), []
        for name in ids:
            count[name] = count.get(name, 0) + 1
            truth.append(count[name])
        errors[mode] = np.abs(found["score"].to_numpy()[450:] - truth[450:]).mean()
    assert errors["replay"] == 0
    assert errors["carry"] > 20


def _swapped(**tables: Any) -> tuple[dict[str, list[Any]], int]:
    """Swap with a day that has one row of a new stream; return all states but its own.

    And how many streams of the output had no row in range.
    """
    run("old", **tables)
    row = DAYS[3].slice(149, 1)
    logs.write(row.set_column(0, "id", pa.array(["new"])), Path("in/3.parquet"))
    summary = run("new", options=REPLAY, **tables)
    states = _states("out")
    del states["new"]
    return states, summary.replay_fresh_streams


def _in_range(rows: pa.Table) -> dict[str, list[Any]]:
    """The states of a run of the new model over these rows alone."""
    logs.write(rows, Path("range/0.parquet"))
    run("new", "expected", "range")
    return _states("expected")


@pytest.mark.parametrize("replay", ["1h", "3h", "36500d"])
def test_a_duration_counts_from_the_newest_time_of_the_output(base: Path, replay: str) -> None:
    """Streams without a row since then start from the initial state."""
    states, fresh = _swapped(model={"replay": replay})
    earlier = pa.concat_tables(DAYS[:3])
    hours = int(replay[:-1]) * (24 if replay.endswith("d") else 1)
    newest = pc.max(earlier["t"]).value
    since = pa.scalar(newest - hours * 3_600_000_000, pa.int64()).cast(earlier["t"].type)
    expected = _in_range(earlier.filter(pc.greater_equal(earlier["t"], since)))
    zero = [[0.0] * 7, [0.0] * 7]
    assert len(states) - len(expected) == fresh
    assert bool(fresh) == (replay != "36500d")
    assert states == {name: expected.get(name, tuple(zero)) for name in states}


@pytest.mark.parametrize("replay", first_quick([3, 1, 1000]))
def test_a_number_counts_the_rows_of_each_stream(base: Path, replay: int) -> None:
    """Slow: one row, and more than there are."""
    states, fresh = _swapped(model={"replay": replay})
    assert fresh == 0
    earlier = pa.concat_tables(DAYS[:3])
    ids, left, keep = earlier["id"].to_pylist(), {}, []
    for name in reversed(ids):
        left[name] = left.get(name, 0) + 1
        keep.append(left[name] <= replay)
    assert states == _in_range(earlier.filter(pa.array(keep[::-1])))


@pytest.mark.parametrize(
    ("every", "replay"),
    first_quick([(1, 4), (2, "all"), (1, "all"), (1, "3h"), (2, "3h"), (2, 4)], 2),
)
def test_a_replay_that_is_stopped_goes_on(base: Path, replay: Any, every: int) -> None:
    """As often as it is stopped; what it read is not read again. Slow: other ranges."""
    tables = {"model": {"replay": replay}, "checkpoint": {"every": every}}
    run("old", **tables)
    day(3)
    shutil.copytree("out", "other")
    assert run("new", "other", options=REPLAY, **tables).rows == 150
    read, before, committed = 0, -1, read_manifest("out").commit
    while True:
        stop, seen = threading.Event(), []

        def shown(now: Any, stop: threading.Event = stop, seen: list[Any] = seen) -> None:
            if now.note.startswith("replay"):
                seen.append(now.rows)
                stop.set()

        summary = run("new", options={**REPLAY, "progress": shown, "stop": stop}, **tables)
        if summary.commits:
            break
        assert summary.interrupted
        assert summary.rows == 0
        assert summary.replayed > before
        before, read = summary.replayed, read + 1
        assert read_manifest("out").commit == committed
    assert read
    run("new", **tables)
    assert pq.read_table("out").equals(pq.read_table("other"))
    assert read_states("out").equals(read_states("other"))
    assert summary.replay_passed_over > 0


class _Killed(BaseException):
    """Like a SIGKILL: nothing handles it."""


def _killed_in_replay(**tables: Any) -> None:
    def kill(now: Any) -> None:
        if now.note.startswith("replay") and now.rows > 200:
            raise _Killed

    with pytest.raises(_Killed):
        run("new", options={**REPLAY, "progress": kill}, **tables)


def test_until_its_first_commit_the_old_model_goes_on_and_discards_it(base: Path) -> None:
    run("old")
    day(3)
    _killed_in_replay()
    assert read_manifest("out/_streamrnn/_replay").counters["rows"] > 0
    assert run("old").rows == 150
    assert not Path("out/_streamrnn/_replay").exists()
    run("old", "whole")
    assert pq.read_table("out").equals(pq.read_table("whole"))


def test_without_new_rows_nothing_is_replayed_and_a_note_says_so(base: Path) -> None:
    run("old")
    committed = read_manifest("out").commit
    summary = run("new", options=REPLAY)
    assert (summary.replayed, read_manifest("out").commit) == (0, committed)
    (note,) = summary.state_notes
    assert "takes over with the first new rows, but there are none" in note
    assert run("old").state_notes == []


@pytest.mark.parametrize("change", ["model", "range", "late"])
def test_a_replay_of_something_else_is_not_resumed(base: Path, change: str) -> None:
    """Its rows would be those of another model, range or policy."""
    run("old")
    day(3)
    _killed_in_replay()
    tables: dict[str, Any] = {}
    if change == "model":
        logs.small_model("GRU", units=3).save("new.safetensors")
    elif change == "range":
        tables["model"] = {"replay": "3h"}
    else:
        tables["source"] = {"late": "apply"}
    shutil.copytree("out", "other")
    shutil.rmtree("other/_streamrnn/_replay")
    for out in ("out", "other"):
        run("new", out, options=REPLAY, **tables)
    assert read_states("out").equals(read_states("other"))
    assert pq.read_table("out").equals(pq.read_table("other"))


def test_files_that_are_gone_are_refused_with_the_range_that_is_there(base: Path) -> None:
    """And with that range the same command runs, as if they were there."""
    run("old")
    day(3)
    shutil.copytree("out", "other")
    Path("in/0.parquet").rename("0.parquet")
    with pytest.raises(
        CheckpointError, match=r"1 used file .* not in the source: .*0\.parquet"
    ) as caught:
        run("new", options=REPLAY)
    (there,) = (part.split('"')[0] for part in str(caught.value).split('replay = "')[1:])
    assert run("new", options=REPLAY, model={"replay": there}).replayed > 0
    Path("0.parquet").rename("in/0.parquet")
    run("new", "other", options=REPLAY, model={"replay": there})
    assert read_states("out").equals(read_states("other"))


def test_a_number_of_rows_that_files_which_are_gone_may_have_is_refused(base: Path) -> None:
    """Every stream has two rows in the files after it: so many can be read."""
    for number in (1, 2):
        rows = DAYS[number].slice(0, 40)
        ids = pa.array([f"s{i}" for i in range(40)])
        logs.write(rows.set_column(0, "id", ids), Path(f"in/{number}.parquet"))
    run("old")
    day(3)
    Path("in/0.parquet").unlink()
    with pytest.raises(CheckpointError, match=r"set \[model\] replay = 2 or less"):
        run("new", options=REPLAY, model={"replay": 3})
    assert run("new", options=REPLAY, model={"replay": 2}).replayed == 80


def test_a_file_that_goes_while_a_replay_is_stopped_is_missed(base: Path) -> None:
    run("old")
    day(3)
    many = {"replay": 1000}
    _killed_in_replay(model=many)
    Path("in/2.parquet").rename("2.parquet")
    with pytest.raises(CheckpointError, match="1 used file is not in the source"):
        run("new", options=REPLAY, model=many)
    Path("2.parquet").rename("in/2.parquet")
    shutil.copytree("out", "other")
    shutil.rmtree("other/_streamrnn/_replay", ignore_errors=True)
    for out in ("out", "other"):
        run("new", out, options=REPLAY, model=many)
    assert read_states("out").equals(read_states("other"))


def test_an_output_that_began_from_a_state_needs_a_range(base: Path) -> None:
    run("old", "first")
    day(3)
    state = {"state": {"init": "first"}}
    run("old", **state)
    logs.write(DAYS[3].slice(140), Path("in/4.parquet"))
    with pytest.raises(CheckpointError, match=r"began from \[state\] init = first"):
        run("new", options=REPLAY, **state)
    summary = run("new", options=REPLAY, model={"replay": 2}, **state)
    assert any("[state] init = first" in note for note in summary.state_notes)


def test_where_there_is_no_state_to_replay(base: Path) -> None:
    """Kind independent: carried, nothing is read. Kind whole is refused."""
    window = {"kind": "independent", "steps": 6, "stride": 4}
    for model in ("old", "new"):
        run(model, f"{model}-out", window=window)
    day(3)
    summary = run("new", "old-out", window=window, options=REPLAY)
    assert summary.replayed == 0
    run("new", "new-out", window=window)
    assert read_states("old-out").equals(read_states("new-out"))
    whole = {"kind": "whole"}
    logs.write(DAYS[0], Path("one/0.parquet"))
    run("old", "w", "one", window=whole)
    logs.write(DAYS[3].set_column(0, "id", pa.array(["n"] * 150)), Path("one/1.parquet"))
    with pytest.raises(ConfigError, match='kind "whole" keeps no state'):
        run("new", "w", "one", window=whole, options=REPLAY)


def test_what_cannot_read_a_file_again_refuses_it_by_name(base: Path) -> None:
    replay = {"model": {"on_change": "replay"}}
    run("old")
    for pipeline in (
        Pipeline.from_dict(config("new", "two", state={"init": "out"}, **replay)),
        Pipeline.from_dict(config("new", **replay), state="output"),
    ):
        with pytest.raises(ConfigError, match=r'on_change = "replay": .* Set carry'):
            pipeline.process(DAYS[3])
    job = Pipeline.from_dict(config("old", "none"))
    job.process(DAYS[0])
    job.checkpoint("c.arrow")
    with pytest.raises(ConfigError, match='on_change = "replay": only a run'):
        Pipeline.resume("c.arrow", "new.safetensors", on_change="replay")


def test_a_duration_needs_times(base: Path) -> None:
    """Integers have no length; rows can be counted."""
    tables: dict[str, Any] = {"source": {"time": None, "late": "error", "max_gap": None}}
    run("old", **tables)
    day(3)
    with pytest.raises(ConfigError, match=r'replay = "3h": expected \[source\] time to be'):
        run("new", options=REPLAY, model={"replay": "3h"}, **tables)
    assert run("new", options=REPLAY, model={"replay": 2}, **tables).replayed < 80
