"""`streamrnn evaluate` of outputs of every kind, and what it refuses."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import logs
import naive_labels
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs.engines.in_process import TasksHere
from jobs.evaluation.evaluated import ROWS, TARGETS, check, config, log, model, pairs_of, write
from naive_scores import Pair, distances
from selection import first_quick

from streamrnn import Input, Pipeline, Sequential, layers
from streamrnn.errors import CheckpointError, ConfigError, DataError, MissingFileError
from streamrnn.jobs.engines import opening
from streamrnn.jobs.evaluation import matching
from streamrnn.jobs.outputs import parts
from streamrnn.stream.checkpoints import directory


@pytest.fixture(autouse=True)
def base(workdir: Path) -> Path:
    model("linear", 1)
    return workdir


def figures(pipeline: Pipeline) -> list[dict[str, Any]]:
    return pipeline.evaluate("stream").table.to_pylist()


@pytest.mark.parametrize("name", first_quick(["rejects", "skip", "applied"]))
@pytest.mark.parametrize("shards", first_quick([4, 1]))
def test_an_output_of_shards(name: str, shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows are in order of the shards of each epoch; the figures are those of a local run.

    Slow: one shard, and other rules for rows.
    """
    write(log(name))
    local = Pipeline.from_dict(config(name, TARGETS["ahead"]))
    local.run()
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(5))
    engine = {"type": "ray", "shards": shards, "epoch_rows": 170}
    data = config(name, TARGETS["ahead"], engine=engine, sink={"path": "shards"})
    sharded = Pipeline.from_dict(data)
    sharded.run()
    expected = {line["id"]: line for line in figures(local)}
    found = {line["id"]: line for line in figures(sharded)}
    assert found.keys() == expected.keys()
    for stream, line in found.items():
        assert line == pytest.approx(expected[stream])
    assert sharded.evaluate().counts() == local.evaluate().counts()


def test_an_output_whose_run_was_stopped() -> None:
    """Committed rows are compared, whatever else is in the folder; later rows are labels."""
    table = log("plain")
    write(table)
    whole = Pipeline.from_dict(config("plain", TARGETS["ahead"]))
    whole.run()
    compared = pairs_of(table, "plain", TARGETS["ahead"])
    late = table.to_pydict()
    late["t"][400] = datetime(2020, 1, 1, tzinfo=UTC)
    late["id"][400] = "s0"
    write(pa.table(late, schema=table.schema))
    stopped = Pipeline.from_dict(config("plain", TARGETS["ahead"], sink={"path": "stopped"}))
    with pytest.raises(DataError):
        stopped.run()
    write(table)
    scored = pq.read_table("stopped")
    assert 0 < len(scored) < 400
    Path("stopped/_streamrnn/staging").mkdir(exist_ok=True)
    Path("stopped/_streamrnn/staging/part-9.parquet").write_bytes(b"half of a part")
    found = stopped.evaluate()
    assert sum(found.counts().values()) == len(scored)
    times = {(row["id"], row["t"]) for row in scored.to_pylist()}
    chosen = [p for s, pairs in compared.items() for t, p in pairs if (s, t) in times]
    check(found.table.to_pylist()[0], chosen, distances(chosen))


def test_scores_that_are_not_finite_are_counted_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run writes them, but others may."""
    write(log())
    pipeline = Pipeline.from_dict(config("plain", TARGETS["now"]))
    pipeline.run()
    before = pipeline.evaluate()
    (part, *_) = sorted(Path("out").glob("*.parquet"))
    rows = pq.read_table(part).to_pydict()
    rows["score"][:2] = [float("nan"), float("inf")]
    pq.write_table(pa.table(rows, schema=pq.read_schema(part)), part)
    monkeypatch.setattr(
        directory.PartDirectory, "locate", lambda _, parts: {p.name: p.name for p in parts}
    )
    found = pipeline.evaluate()
    assert found.no_score == 2
    assert sum(found.counts().values()) == sum(before.counts().values())
    assert np.isfinite(found.table["rmse"][0].as_py())


@pytest.mark.parametrize(
    "tables",
    [
        {"sink": {"format": "arrow"}},
        {"output": {"columns": ["t", "a", "id"], "names": ["mine"], "model_column": "by"}},
        {"source": {"rename": {"x": "old"}, "after": {"path": "in/0.parquet"}}},
    ],
    ids=str,
)
def test_other_outputs(tables: dict[str, dict[str, Any]]) -> None:
    """Parts in Arrow, other columns, renamed targets, files that are left out."""
    table = log()
    write(table)
    if "rename" in tables.get("source", {}):
        last = pq.read_table("in/2.parquet")
        names = ["old" if name == "x" else name for name in last.column_names]
        pq.write_table(last.rename_columns(names), "in/2.parquet")
    pipeline = Pipeline.from_dict(config("plain", TARGETS["rows"], **tables))
    summary = pipeline.run()
    found = pipeline.evaluate()
    assert sum(found.counts().values()) == summary.rows_out
    assert found.no_source == found.no_score == 0
    rows = table.to_pylist()
    streams = naive_labels.kept_streams(rows, "id", "t")
    labels = naive_labels.labels(rows, streams, ["x"], time="t", ahead=2)
    begin = ROWS - summary.rows_out
    assert found.rows == sum(labels[n] != [None] and rows[n]["w"] > 0 for n in range(begin, ROWS))


def test_files_that_a_run_leaves_out_hold_no_labels() -> None:
    """Of rows that are applied although they are late: they would be the next rows."""
    table = log()
    write(table)
    source = {"late": "apply", "after": {"path": "in/0.parquet"}}
    pipeline = Pipeline.from_dict(config("plain", TARGETS["rows"], source=source))
    pipeline.run()
    expected = figures(pipeline)
    Path("in/0.parquet").unlink()
    source = {"late": "apply"}
    assert figures(Pipeline.from_dict(config("plain", TARGETS["rows"], source=source))) == expected


@pytest.mark.parametrize("emit", [{"emit": "last", "last_of": 5}, {"emit": "final"}], ids=str)
def test_outputs_that_are_not_of_every_row(emit: dict[str, Any]) -> None:
    """As those rows of an output that has all."""
    table = log()
    write(table)
    target = {"column": "x"}
    every = Pipeline.from_dict(config("plain", target))
    every.run()
    compared = pairs_of(table, "plain", target)
    some = Pipeline.from_dict(config("plain", target, output=emit, sink={"path": "some"}))
    some.run()
    times = {(row["id"], row["t"]) for row in pq.read_table("some").to_pylist()}
    chosen = [p for s, pairs in compared.items() for t, p in pairs if (s, t) in times]
    found = some.evaluate()
    check(found.table.to_pylist()[0], chosen, distances(chosen))
    assert found.no_source == 0
    assert found.rows + found.no_label == len(times)


def test_a_key_in_the_path_and_an_output_in_partitions_of_it() -> None:
    """And one that began with the state of another."""
    table = log()
    for stream in ("s0", "s1", "s2", "s3"):
        rows = table.filter(pa.compute.equal(table["id"], stream))
        logs.write(rows.drop_columns("id").slice(0, 30), Path(f"in/id={stream}/0.parquet"))
    data = config("plain", TARGETS["now"], sink={"path": "first"})
    Pipeline.from_dict(data).run()
    for stream in ("s0", "s1", "s2", "s3"):
        rows = table.filter(pa.compute.equal(table["id"], stream))
        logs.write(rows.drop_columns("id").slice(30), Path(f"in/id={stream}/1.parquet"))
    pipeline = Pipeline.from_dict(config("plain", TARGETS["now"], state={"init": "first"}))
    summary = pipeline.run()
    assert 0 < summary.rows_out < ROWS
    found = pipeline.evaluate("stream")
    assert found.no_source == found.no_score == 0
    assert sum(found.counts().values()) == summary.rows_out
    assert found.table["id"].to_pylist()[1:] == ["s0", "s1", "s2", "s3"]


def test_windows_of_which_the_last_step_has_a_score() -> None:
    table = log()
    write(table)
    window = {"kind": "independent", "steps": 6}
    pipeline = Pipeline.from_dict(config("plain", TARGETS["now"], window=window))
    pipeline.run()
    compared = pairs_of(table, "plain", TARGETS["now"])
    everything = [pair for pairs in compared.values() for _, pair in pairs]
    found = pipeline.evaluate()
    check(found.table.to_pylist()[0], everything, distances(everything))
    assert found.no_score > ROWS / 2


def test_kind_whole_writes_streams_one_after_another() -> None:
    table = log()
    write(table)
    made = Sequential(
        [
            Input((None, 2)),
            layers.Bidirectional(layers.GRU(3, return_sequences=True, name="rnn")),
            layers.Dense(1, name="score"),
        ]
    )
    made.save("m.safetensors")
    pipeline = Pipeline.from_dict(config("plain", TARGETS["ahead"], window={"kind": "whole"}))
    pipeline.run()
    compared = pairs_of(table, "plain", TARGETS["ahead"])
    everything = [pair for pairs in compared.values() for _, pair in pairs]
    check(pipeline.evaluate().table.to_pylist()[0], everything, distances(everything))


def test_labels_may_lie_in_files_that_are_not_scored_yet() -> None:
    table = log()
    write(table)
    data = config("plain", {"column": "x", "rows": 2})
    Path("in/2.parquet").rename("2.parquet")
    pipeline = Pipeline.from_dict(data)
    pipeline.run()
    before = pipeline.evaluate()
    Path("2.parquet").rename("in/2.parquet")
    after = pipeline.evaluate()
    assert after.rows > before.rows
    assert after.no_label < before.no_label
    scored = len(pq.read_table("out"))
    assert sum(after.counts().values()) == sum(before.counts().values()) == scored < ROWS
    rows = table.to_pylist()
    streams = naive_labels.kept_streams(rows, "id", "t")
    labels = naive_labels.labels(rows, streams, ["x"], time="t", ahead=2)
    assert after.rows == sum(labels[n] != [None] for n in range(scored))


def test_bad_rows_in_files_that_are_not_scored_yet_are_no_labels() -> None:
    """A late row there, and one with a NaN, stop the next run, not the evaluation."""
    table = log()
    write(table, files=2)
    data = config("plain", TARGETS["ahead"])
    pipeline = Pipeline.from_dict(data)
    pipeline.run()
    expected = pipeline.evaluate().table.to_pylist()
    bad = table.slice(0, 30).to_pydict()
    bad["a"] = [float("nan")] * 30
    logs.write(pa.table(bad, schema=table.schema), Path("in/9.parquet"))
    assert pipeline.evaluate().table.to_pylist() == expected


def test_rows_of_deleted_files_have_no_source() -> None:
    table = log()
    write(table)
    pipeline = Pipeline.from_dict(config("plain", TARGETS["ahead"]))
    pipeline.run()
    whole = pipeline.evaluate()
    first = len(pq.read_table("in/0.parquet"))
    Path("in/0.parquet").unlink()
    found = pipeline.evaluate()
    assert found.no_source == first
    assert whole.rows - first <= found.rows < whole.rows
    assert sum(found.counts().values()) == ROWS
    Path("in").rename("old")
    logs.write(table, Path("in/other.parquet"))
    with pytest.raises(MissingFileError, match="none of the files that out was scored from"):
        pipeline.evaluate()


def test_no_label_lies_beyond_a_deleted_file() -> None:
    """The next row of a stream is not the one after it, and a reset in the file is not seen."""
    table = log()
    rows = table.to_pylist()
    count = dict.fromkeys({row["id"] for row in rows}, 0.0)
    for row in rows:
        count[row["id"]] = row["x"] = count[row["id"]] + 1
    write(pa.Table.from_pylist(rows, schema=table.schema))
    pipeline = Pipeline.from_dict(config("plain", {"column": "x", "rows": 1}))
    pipeline.run()
    begin, end = (len(pq.read_table(f"in/{file}.parquet")) for file in (0, 2))
    Path("in/1.parquet").unlink()
    found = pipeline.evaluate()
    assert found.table["mae_persistence"][0].as_py() == 1
    assert found.no_source == ROWS - begin - end
    assert found.no_label == 2 * len(count)


def test_a_source_that_lost_its_first_files_is_read_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the types that they had; scores from before it are not kept."""
    waiting = watch_waiting(monkeypatch)
    write(log(rows=6000), files=6)
    for number in range(6):
        file = Path(f"in/{number}.parquet")
        table = pq.read_table(file)
        keys = pa.compute.utf8_slice_codeunits(table["id"], 1)
        keys = keys.cast(pa.int32() if number == 0 else pa.int64())
        pq.write_table(table.set_column(0, "id", keys), file, row_group_size=100)
    pipeline = Pipeline.from_dict(config("plain", TARGETS["now"]))
    pipeline.run()
    whole = pipeline.evaluate("stream")
    for number in range(4):
        Path(f"in/{number}.parquet").unlink()
    waiting.clear()
    found = pipeline.evaluate("stream")
    assert found.no_source == 4000
    assert found.rows + found.no_label + found.no_weight == 2000
    assert found.table["id"].type == whole.table["id"].type == pa.int32()
    assert max(waiting) < 600


def test_months_are_in_order_whenever_they_come() -> None:
    """Of streams of which one is a file, the later one first."""
    table = log()
    days = [datetime(2024, 5, 1, tzinfo=UTC) - timedelta(days=n // 100 * 25) for n in range(ROWS)]
    table = table.set_column(1, "t", pa.array(days)).to_pydict()
    table["id"] = [f"s{n // 100}" for n in range(ROWS)]
    write(pa.table(table))
    pipeline = Pipeline.from_dict(config("plain", TARGETS["now"]))
    pipeline.run()
    months = pipeline.evaluate("month").table["month"].to_pylist()
    assert months == [None, "2024-01", "2024-02", "2024-03", "2024-04", "2024-05"]


def test_the_source_is_read_in_the_order_in_which_it_was_scored() -> None:
    """A file that came later with a name before others: its late rows were dropped."""
    table = log()
    data = config("plain", TARGETS["ahead"], source={"late": "drop"})
    write(table, files=2)
    pipeline = Pipeline.from_dict(data)
    pipeline.run()
    expected = pipeline.evaluate().table.to_pylist()
    logs.write(table.slice(0, 200), Path("in/0-again.parquet"))
    data["source"]["path"] = ["in/*.parquet"][0]
    late = table.slice(0, 200).to_pydict()
    late["x"] = [5.0] * 200
    logs.write(pa.table(late, schema=table.schema), Path("in/0-again.parquet"))
    again = Pipeline.from_dict(data)
    again.run()
    assert again.evaluate().table.to_pylist() == expected


def test_duplicates_of_a_time_are_matched_in_order() -> None:
    minutes = [0, 0, 1, 1, 2]
    start = datetime(2024, 1, 1, tzinfo=UTC)
    table = pa.table(
        {
            "id": ["s"] * 5,
            "t": pa.array([start + timedelta(minutes=m) for m in minutes]),
            "a": [0.0, 1, 2, 3, 4],
            "b": [0.0] * 5,
            "x": [10.0, 20, 30, 40, 50],
        }
    )
    write(table, files=1)
    pipeline = Pipeline.from_dict(config("plain", {"column": "x", "horizon": "1m"}))
    pipeline.run()
    found = pipeline.evaluate()
    written = pq.read_table("out")["score"].to_pylist()
    rows = zip(written[:4], [30, 30, 50, 50], [10, 20, 30, 40], strict=True)
    wanted = [Pair([score], label, now) for score, label, now in rows]
    check(found.table.to_pylist()[0], wanted, distances(wanted))
    assert found.no_label == 1


def test_nothing_to_compare() -> None:
    """No labels at all, no scores at all, no rows at all: figures are null."""
    table = log().to_pydict()
    table["x"] = [None] * ROWS
    write(pa.table(table, schema=log().schema))
    pipeline = Pipeline.from_dict(config("plain", TARGETS["ahead"]))
    pipeline.run()
    found = pipeline.evaluate("stream")
    assert found.rows == 0
    assert found.no_label == ROWS
    (line,) = found.table.to_pylist()
    assert (line["id"], line["rows"], line["rmse"], line["rmse_persistence"]) == (
        None,
        0,
        None,
        None,
    )
    cold = Pipeline.from_dict(
        config("plain", TARGETS["ahead"], output={"warmup": ROWS}, sink={"path": "cold"})
    )
    cold.run()
    assert cold.evaluate("month").no_score == ROWS
    write(log().slice(0, 0), files=1)
    empty = Pipeline.from_dict(config("plain", TARGETS["ahead"], sink={"path": "empty"}))
    empty.run()
    assert empty.evaluate().table.to_pylist()[0]["rows"] == 0


def watch_waiting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list to which the number of waiting rows is added, with small record batches."""
    waiting: list[int] = []

    class Watched(matching.Matcher):
        def match(self, *, scores_ended: bool, labels_ended: bool) -> Any:
            waiting.append(self.waiting_scores + self.waiting_labels)
            return super().match(scores_ended=scores_ended, labels_ended=labels_ended)

    monkeypatch.setattr(matching, "Matcher", Watched)
    monkeypatch.setattr(parts, "READ_ROWS", 60)
    return waiting


@pytest.mark.parametrize(
    "output", first_quick([{"emit": "last", "last_of": 7}, {}, {"emit": "final"}]), ids=str
)
def test_memory_does_not_grow_with_the_rows(
    output: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits to be matched is a few record batches.

    Slow: outputs of every row and of the last one.
    """
    waiting = watch_waiting(monkeypatch)
    write(log(rows=6000))
    pipeline = Pipeline.from_dict(config("plain", TARGETS["now"], output=output))
    pipeline.run()
    assert pipeline.evaluate().rows > 0
    assert len(waiting) > 50
    assert max(waiting) < 600


@pytest.mark.parametrize(
    ("tables", "error", "message"),
    [
        ({"target": {}}, ConfigError, r"\[target\] column is missing.*\n  \[target\]\n  column"),
        ({"sink": {"path": "-"}}, ConfigError, r"files in both \[source\] path and \[sink\] path"),
        ({"sink": {"path": "nowhere"}}, MissingFileError, r"nowhere: no such output folder"),
        ({"sink": {"path": "in"}}, CheckpointError, r"in has no _streamrnn/_manifest\.json"),
        (
            {"output": {"names": ["other"]}},
            ConfigError,
            r"\[output\] names: out has no column 'other' \(columns: id, t, score\)\. Set",
        ),
        (
            {"source": {"key": ["id", "b"]}},
            ConfigError,
            r"out has no column 'b' \(.*joined with labels by key",
        ),
        ({"source": {"path": "none"}}, MissingFileError, r"none"),
    ],
)
def test_what_cannot_be_compared(
    tables: dict[str, Any], error: type[Exception], message: str
) -> None:
    write(log())
    Pipeline.from_dict(config("plain", TARGETS["now"])).run()
    data = config("plain", tables.pop("target", TARGETS["now"]), **tables)
    with pytest.raises(error, match=message):
        Pipeline.from_dict(data).evaluate()


def test_names_in_another_order_are_refused() -> None:
    """They would be compared as the outputs of each other."""
    model("linear", 2)
    write(log())
    target = {"column": "x", "horizon": ["1m", "3m"]}
    Pipeline.from_dict(config("plain", target, output={"names": ["near", "far"]})).run()
    pipeline = Pipeline.from_dict(config("plain", target, output={"names": ["far", "near"]}))
    expected = r"names: expected near, far, the order in which out was written, received far, near"
    with pytest.raises(ConfigError, match=expected):
        pipeline.evaluate()


def test_an_output_without_key_or_time_is_refused() -> None:
    write(log())
    for columns, missing in ((["t"], "id"), (["id"], "t")):
        data = config("plain", TARGETS["now"], output={"columns": columns}, sink={"path": missing})
        pipeline = Pipeline.from_dict(data)
        pipeline.run()
        with pytest.raises(ConfigError, match=rf"has no column '{missing}'.*\[output\] columns"):
            pipeline.evaluate()


def test_without_a_time_column_nothing_can_be_joined() -> None:
    write(log())
    data = config("plain", {"column": "x", "rows": 1})
    del data["source"]["time"]
    pipeline = Pipeline.from_dict(data)
    pipeline.run()
    with pytest.raises(ConfigError, match=r"\[source\] time is missing"):
        pipeline.evaluate()


def test_integer_times_have_no_months() -> None:
    table = log()
    table = table.set_column(1, "t", pa.array(range(ROWS)))
    write(table)
    pipeline = Pipeline.from_dict(config("plain", {"column": "x", "rows": 1}))
    pipeline.run()
    assert pipeline.evaluate("stream", since="100").rows > 50
    with pytest.raises(ConfigError, match=r"by month: .*expected a timestamp or a date"):
        pipeline.evaluate("month")
    with pytest.raises(ConfigError, match=r"since: expected a value of type int64, received 'x'"):
        pipeline.evaluate(since="x")
    assert pipeline.evaluate(until=100).rows < pipeline.evaluate(until="300").rows
    with pytest.raises(ConfigError, match=r'by: .*"month" or "model", received \'year\''):
        pipeline.evaluate("year")  # type: ignore[arg-type]


def test_a_missing_part_is_reported() -> None:
    write(log())
    pipeline = Pipeline.from_dict(config("plain", TARGETS["now"]))
    pipeline.run()
    (part, *_) = sorted(Path("out").glob("*.parquet"))
    part.unlink()
    with pytest.raises(CheckpointError, match=rf"{part} is missing"):
        pipeline.evaluate()


def test_key_columns_of_any_name_and_several() -> None:
    parity = pa.array(np.arange(ROWS) % 2)
    write(log().append_column("rows", parity).append_column("rmse", parity))
    data = config("plain", TARGETS["now"], source={"key": ["id", "rows", "rmse"]})
    pipeline = Pipeline.from_dict(data)
    pipeline.run()
    table = pipeline.evaluate("stream").table
    assert table.column_names[:3] == ["id", "rows_", "rmse_"]
    lines = table.to_pylist()
    assert lines[0]["rows_"] is None
    assert {(line["rows_"], line["rmse_"]) for line in lines[1:]} == {(0, 0), (1, 1)}
    assert all(line["rmse"] > 0 for line in lines)
    assert sum(line["rows"] for line in lines[1:]) == lines[0]["rows"] > 200
