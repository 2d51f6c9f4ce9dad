"""Reports beside plain Python, and on outputs that have little to draw."""

import json
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs.evaluation.evaluated import TARGETS, config, log, model, pairs_of, write
from naive_scores import distances, probabilities
from selection import first_quick

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, ConfigError, MissingFileError
from streamrnn.pipeline import report_output
from streamrnn.plugins.report import output, scan
from streamrnn.plugins.report.charts import spec_of
from streamrnn.plugins.report.output import even_histogram, histogram_rows
from streamrnn.plugins.report.picture import Drawn, Panel, Picture

IDS = {
    *("outputs", "each-stream", "error-time", "error-stream", "error-hour", "reliability"),
    *("rows", "commits", "values", "features", "streams", "silence", "steps", "norms", "curves"),
}


@pytest.fixture(autouse=True)
def base(workdir: Path) -> Path:
    model("linear", 1)
    return workdir


def ran(name: str = "plain", target: str = "ahead", **tables: dict[str, Any]) -> Pipeline:
    write(log(name))
    pipeline = Pipeline.from_dict(config(name, TARGETS[target], **tables))
    pipeline.run()
    return pipeline


def by_id(report: Any) -> dict[str, dict[str, Any]]:
    items = json.loads(json.dumps(report.as_dict(), allow_nan=False))["pictures"]
    for item in items:
        assert sum(len(panel["rows"]) for panel in item.get("panels", [])) <= 5000  # marks
    return {item["id"]: item for item in items}


def rows(item: dict[str, Any], panel: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = item["panels"][panel]["rows"]
    return found


def noted(found: dict[str, dict[str, Any]]) -> str:
    """What the picture of errors says of the CRPS."""
    (note,) = (note for note in found["error-time"]["notes"] if note.startswith("CRPS"))
    return str(note)


def minute(time: Any, width: int) -> str:
    return str(time.replace(minute=time.minute - time.minute % width).strftime("%Y-%m-%dT%H:%M"))


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    place = (len(ordered) - 1) * share
    low = int(place)
    return ordered[low] + (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]) * (place - low)


def near(value: float | None) -> Any:
    return None if value is None else pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", first_quick(["rejects", "plain", "skip", "applied"]))
def test_the_numbers_are_those_of_plain_python(name: str) -> None:
    """Outputs, rows, rejects, streams and errors, in buckets of ten minutes.

    Slow: other rules for rows.
    """
    pipeline = ran(name)
    found = by_id(pipeline.report())
    output = pq.read_table("out").to_pylist()
    buckets = defaultdict(list)
    for row in output:
        buckets[minute(row["t"], 10)].append(row)
    assert found["outputs"]["title"] == "Outputs over time, by 10 minutes"
    for row in rows(found["outputs"]):
        inside = buckets[row["time"]]
        values = [r["score"] for r in inside if r["score"] is not None]
        assert row["rows"] == len(inside)
        for field, share in (("low", 0.1), ("median", 0.5), ("high", 0.9)):
            expected = quantile(values, share) if values else None
            assert row[field] == near(expected)
    rejects = Path("out.rejects")
    times = pq.read_table(rejects)["t"].to_pylist() if rejects.exists() else []
    rejected = Counter(minute(time, 10) for time in times)
    for row in rows(found["rows"]):
        inside = buckets[row["time"]]
        assert row["scored"] == sum(r["score"] is not None for r in inside)
        assert row["unscored"] == len(inside) - row["scored"]
        assert row.get("rejected", 0) == rejected[row["time"]]
    for row in rows(found["streams"]):
        assert row["active"] == len({r["id"] for r in buckets[row["time"]]})
    counts = Counter(r["id"] for r in output)
    assert [p["label"] for p in found["each-stream"]["panels"]] == [
        key for key, _ in sorted(counts.items(), key=lambda item: -item[1])
    ]
    pairs = pairs_of(log(name), name, TARGETS["ahead"])
    every = [(time, pair) for stream in pairs.values() for time, pair in stream]
    for row in rows(found["error-time"]):
        inside = [pair for time, pair in every if minute(time, 10) == row["time"]]
        assert row["rows"] == len(inside)
        if inside:
            figures = distances(inside)
            assert row["error"] == pytest.approx(figures["mae"], rel=1e-5)
            assert row["baseline"] == near(figures.get("mae_persistence"))
    for row in rows(found["error-stream"]):
        figures = distances([pair for _, pair in pairs[row["stream"]]])
        assert row["error"] == pytest.approx(figures["mae"], rel=1e-5)
    for row in rows(found["error-hour"]):
        assert row["rows"] == sum(time.hour == row["hour"] for time, _ in every)


def test_errors_by_horizon_are_those_of_evaluate() -> None:
    """Of each column, beside its best baseline; one horizon has no such picture."""
    model("linear", 6)
    table, number = log(), np.arange(len(log()))
    minutes = np.datetime64("2024-03-01", "us") + number // 4 * np.timedelta64(1, "m")
    table = table.set_column(0, "id", pa.array([f"s{n}" for n in number % 4]))
    write(table.set_column(1, "t", pa.array(minutes, pa.timestamp("us", "UTC"))))
    target = {"column": ["x", "days"], "horizon": ["1m", "9m", "4m"]}
    pipeline = Pipeline.from_dict(config("plain", target))
    pipeline.run()
    lines = pipeline.evaluate().table.to_pylist()
    found = by_id(pipeline.report())["error-horizon"]
    drawn = [(panel["label"], row) for panel in found["panels"] for row in panel["rows"]]
    assert [(label, row["output"]) for label, row in drawn] == [
        (line["target"], line["output"]) for line in lines
    ]
    for (_, row), line in zip(drawn, lines, strict=True):
        assert (row["error"], row["rows"]) == (near(line["mae"]), line["rows"])
        assert row["baseline"] == near(line["mae_persistence"])


@pytest.mark.parametrize("target", ["ahead", "now"])
def test_coverage_of_quantiles_by_stream_is_that_of_evaluate(target: str) -> None:
    """Also by time, and of all rows; beside what each quantile says. Rows of "now" have weights."""
    quantiles = [0.1, 0.5, 0.9]
    model("linear", 3)
    write(log())
    loss = {"loss": {"quantile": quantiles}}
    pipeline = Pipeline.from_dict(config("plain", TARGETS[target], train=loss))
    pipeline.run()
    found = by_id(pipeline.report())
    whole, *lines = pipeline.evaluate("stream").table.to_pylist()
    for unit, says in enumerate(quantiles):
        by_stream = {row["stream"]: row for row in rows(found["coverage-stream"], unit)}
        expected = {line["id"]: line for line in lines if line["quantile"] == says}
        assert by_stream.keys() == expected.keys() - {None}
        for key, row in by_stream.items():
            assert row["error"] == near(expected[key]["coverage"])
            assert (row["rows"], row["says"]) == (expected[key]["rows"], says)
        by_time = rows(found["coverage-time"], unit)
        up_to = sum(row["error"] * row["rows"] for row in by_time if row["rows"])
        line = [whole, *lines][unit]
        assert line["id"] is None
        assert target == "now" or up_to / line["rows"] == near(line["coverage"])
    said = re.match(r"CRPS of the quantiles together, over all rows: ([\d.]+)\.", noted(found))
    assert said is not None
    assert float(said[1]) == pytest.approx(line["crps"], rel=2e-3)
    sentence = found["coverage-time"]["sentence"]
    said = re.match(r"([\d.]+) % of the labels are at most score_2, which says 90 %\.", sentence)
    assert said is not None
    assert float(said[1]) == pytest.approx(100 * line["coverage"], rel=2e-3)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("path", "the source cannot be read: [source] path is missing"),
        ("time", "the rows of source and output are placed by time: set [source] time"),
    ],
)
def test_a_pipeline_without_a_source_to_read(key: str, reason: str) -> None:
    """As of a session, whose rows come from a caller: the output is drawn without its source."""
    ran()
    data = config("plain", TARGETS["ahead"])
    del data["source"][key], data["target"]
    found = by_id(Pipeline.from_dict(data).report())
    for name in ("values", "features"):
        assert found[name]["missing"].startswith(reason)
    assert rows(found["outputs"])
    if key == "path":
        data = config("plain", TARGETS["ahead"])
        del data["source"]["path"]
        missing = by_id(Pipeline.from_dict(data).report())["error-time"]["missing"]
        assert missing.startswith("rows cannot be compared: [source] path is missing")


def test_values_of_the_source_and_its_features() -> None:
    """Nulls by time, quantiles of what is left; there is no Normalization to compare with."""
    found = by_id(ran().report())
    source = log().to_pylist()
    for row in rows(found["values"]):
        inside = [r for r in source if minute(r["t"], 10) == row["time"]]
        assert row["missing"] == sum((r["a"] is None) + (r["b"] is None) for r in inside)
    for row in rows(found["features"]):
        values = [
            float(np.float32(r["a"]))
            for r in source
            if minute(r["t"], 10) == row["time"] and r["a"] is not None
        ]
        expected = quantile(values, 0.5) if values else None
        assert row["median"] == near(expected)
    assert "no Normalization" in " ".join(found["features"]["notes"])


@pytest.mark.parametrize("weight", [{}, {"weight": "w"}])
def test_reliability_of_a_probability(weight: dict[str, str]) -> None:
    model("sigmoid", 1)
    write(log())
    target = {"column": "flag", **weight}
    pipeline = Pipeline.from_dict(config("plain", target))
    pipeline.run()
    found = by_id(pipeline.report())
    table = log()
    table = table.set_column(
        table.column_names.index("flag"), "flag", table["flag"].cast(pa.int8())
    )
    pairs = [p for s in pairs_of(table, "plain", target).values() for _, p in s]
    for row in rows(found["reliability"]):
        inside = [p for p in pairs if int(p.scores[0] * 10) == int(row["forecast"] * 10)]
        assert row["rows"] == len(inside)
        assert row["happened"] == pytest.approx(
            sum(p.weight * p.label for p in inside) / sum(p.weight for p in inside), rel=1e-5
        )
    if weight:
        return
    total = sum(r["error"] * r["rows"] for r in rows(found["error-time"]) if r["rows"])
    assert total / len(pairs) == pytest.approx(probabilities(pairs)["log_loss"], rel=1e-5)


def test_reliability_of_classes() -> None:
    model("softmax", 3)
    write(log())
    pipeline = Pipeline.from_dict(config("plain", {"column": "c"}))
    pipeline.run()
    found = by_id(pipeline.report())
    pairs = [p for s in pairs_of(log(), "plain", {"column": "c"}).values() for _, p in s]
    assert sum(row["rows"] for row in rows(found["reliability"])) == len(pairs)
    right = sum(np.argmax(p.scores) == p.label for p in pairs)
    assert sum(r["rows"] * r["happened"] for r in rows(found["reliability"])) == pytest.approx(
        right, rel=1e-5
    )
    assert len(found["outputs"]["panels"]) == 3


def test_since_until_and_keys_limit_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MOST_STREAMS", 3)
    pipeline = ran()
    times = sorted(pq.read_table("out")["t"].to_pylist())
    since, until = times[100].isoformat(), times[300].isoformat()
    report = pipeline.report(keys=["s1"], since=since, until=until)
    found = by_id(report)
    inside = [t for t in times if times[100] <= t < times[300]]
    assert report.facts["rows"] == len(inside)
    assert sum(r["scored"] + r["unscored"] for r in rows(found["rows"])) == len(inside)
    assert [p["label"] for p in found["each-stream"]["panels"]] == ["s1"]
    compared = [
        t
        for stream in pairs_of(log(), "plain", TARGETS["ahead"]).values()
        for t, _ in stream
        if t in set(inside)
    ]
    assert sum(r["rows"] for r in rows(found["error-time"])) == len(compared)
    with pytest.raises(ConfigError, match="no such stream in out"):
        pipeline.report(keys=["nobody"])
    with pytest.raises(ConfigError, match="expected a list of strings, received 's1'"):
        pipeline.report(keys="s1")
    with pytest.raises(ConfigError, match="--key: expected at most 3 streams, received 4"):
        pipeline.report(keys=["s0", "s1", "s2", "s3"])
    with pytest.raises(ConfigError, match="since"):
        pipeline.report(since="some day")
    empty = by_id(pipeline.report(since="2050-01-01"))
    assert "has no rows in the range of since and until" in empty["outputs"]["missing"]


def test_commits_that_are_not_marked_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_MOST_RULES", 3)
    notes = by_id(ran().report())["outputs"]["notes"]
    assert re.match("Of [0-9]+ commits, .* and of more than 3 changes only the last 3.", notes[0])


def test_an_output_alone_gives_the_same_report() -> None:
    """The last commit records the config; the head has no name of a pipeline file."""
    pipeline = ran()
    assert by_id(report_output("out")) == by_id(pipeline.report())
    everything = ran(output={"columns": ["*"], "names": ["s"]}, sink={"path": "all"})
    assert by_id(report_output("all")) == by_id(everything.report())
    assert "missing" not in by_id(everything.report())["features"]
    with pytest.raises(MissingFileError, match="no such output folder"):
        report_output("nowhere")
    Path("plain").mkdir()
    Path("plain/file").touch()
    with pytest.raises(CheckpointError, match="not the output of a streamrnn run"):
        report_output("plain")


def test_what_is_gone_is_said() -> None:
    """The source, then the model: the rest is drawn."""
    pipeline = ran()
    for file in Path("in").iterdir():
        file.unlink()
    found = by_id(Pipeline.from_dict(config("plain", TARGETS["ahead"])).report())
    assert set(found) == IDS
    for name in ("features", "values", "error-time"):
        assert "missing" in found[name]
        assert "in" in found[name]["missing"]
    assert len(rows(found["outputs"])) > 10
    Path("m.safetensors").unlink()
    again = by_id(report_output("out"))
    assert "the pipeline cannot be loaded" in again["features"]["missing"]
    assert again["outputs"] == found["outputs"]
    del pipeline


def test_a_pipeline_without_a_target_says_how_to_get_errors() -> None:
    write(log())
    data = config("plain", {})
    del data["target"]
    pipeline = Pipeline.from_dict(data)
    pipeline.run()
    found = by_id(pipeline.report())
    for name in ("error-time", "error-stream", "error-hour", "reliability"):
        assert "[target] column" in found[name]["missing"]
    assert "streamrnn fit" in found["curves"]["missing"]
    assert "happened" not in rows(found["each-stream"])[0]
    assert len(rows(found["features"])) > 10


def scored(table: pa.Table, **tables: Any) -> dict[str, dict[str, Any]]:
    write(table, files=1)
    data = logs.config("in", "m.safetensors", "out", **tables)
    pipeline = Pipeline.from_dict(data)
    pipeline.run()
    return by_id(pipeline.report())


def test_the_clock_is_that_of_the_time_zone() -> None:
    """[source] time_zone, as for months of evaluate; times of the log are in UTC."""
    zone = ZoneInfo("America/St_Johns")
    plain = by_id(ran().report())
    shutil.rmtree("out")
    report = ran(source={"time_zone": str(zone)}).report()
    found = by_id(report)
    assert report.facts["time_zone"] == str(zone)
    pairs = pairs_of(log(), "plain", TARGETS["ahead"])
    hours = Counter(time.astimezone(zone).hour for stream in pairs.values() for time, _ in stream)
    assert {row["hour"]: row["rows"] for row in rows(found["error-hour"]) if row["rows"]} == hours
    times = [time.astimezone(zone) for time in pq.read_table("out")["t"].to_pylist()]
    drawn = {row["time"]: row["scored"] + row["unscored"] for row in rows(found["rows"])}
    expected = Counter(minute(time, 10) for time in times)
    assert {time: number for time, number in drawn.items() if number} == expected
    assert len(rows(found["values"])) == len(rows(plain["values"]))
    for one, other in zip(rows(found["values"]), rows(plain["values"]), strict=True):
        assert {**one, "time": ""} == {**other, "time": ""}


def test_one_row() -> None:
    found = scored(log().slice(0, 1), source={"nulls": 0.0})
    assert set(found) == IDS
    (row,) = rows(found["outputs"])
    assert (row["rows"], row["low"] == row["median"] == row["high"]) == (1, True)
    assert found["each-stream"]["title"] == "One stream"


def test_no_rows() -> None:
    found = scored(log().slice(0, 0), source={"nulls": 0.0})
    assert found["outputs"]["missing"] == "the output has no rows yet."


def test_all_outputs_are_null_during_warmup() -> None:
    found = scored(log(), source={"nulls": 0.0}, output={"warmup": 100_000})
    assert "[output] warmup" in found["outputs"]["missing"]
    assert sum(row["unscored"] for row in rows(found["rows"])) == len(log())
    assert "missing" in found["each-stream"]


def test_an_integer_time() -> None:
    table = log()
    at = table.column_names.index("t")
    minutes = pa.array(np.arange(len(table)) * 1000 + 7)
    found = scored(table.set_column(at, "t", minutes), source={"nulls": 0.0})
    assert found["outputs"]["title"] == "Outputs over time, by 2,000 units of time"
    assert rows(found["outputs"])[1]["time"] == 2000
    assert found["silence"]["missing"] == "the times of the rows are integers."


def test_no_time() -> None:
    """Rows are numbered; what is read of the source has no place on that axis."""
    table = log().drop_columns(["t"])
    write(table, files=1)
    data = logs.config("in", "m.safetensors", "out", source={"nulls": 0.0})
    del data["source"]["time"]
    data["output"] = {**data.get("output", {}), "columns": ["id"]}
    pipeline = Pipeline.from_dict(data)
    pipeline.run()
    found = by_id(pipeline.report())
    assert sum(row["rows"] for row in rows(found["outputs"])) == len(table)
    assert rows(found["outputs"])[1]["row_number"] == 2
    assert "[source] time" in found["features"]["missing"]
    with pytest.raises(ConfigError, match="since and until need the time"):
        pipeline.report(since=3)


def test_no_key_in_the_output() -> None:
    found = scored(log(), source={"nulls": 0.0}, output={"columns": ["t"]})
    for name in ("each-stream", "streams", "silence"):
        assert "the key is not in the output" in found[name]["missing"]
    assert len(rows(found["outputs"])) > 10
    assert sum(row["streams"] for row in rows(found["steps"])) == 4


def test_of_many_outputs_the_first_are_drawn() -> None:
    model("linear", 64)
    found = scored(log(), source={"nulls": 0.0})
    assert [p["label"] for p in found["outputs"]["panels"]] == [f"score_{i}" for i in range(4)]
    assert "4 of 64 outputs are drawn" in " ".join(found["outputs"]["notes"])


def test_many_streams_are_counted_and_few_are_drawn() -> None:
    count = 20_000
    table = pa.table(
        {
            "id": [f"s{i}" for i in range(count)],
            "t": pa.array(np.arange(count) * 60_000_000).cast(pa.timestamp("us", "UTC")),
            "a": np.ones(count),
            "b": np.ones(count, np.int32),
            "new": np.zeros(count, bool),
        }
    )
    found = scored(table)
    assert len(found["each-stream"]["panels"]) == 12
    assert sum(row["new"] for row in rows(found["streams"])) == count
    assert sum(row["streams"] for row in rows(found["norms"])) == count


def test_commits_and_models_are_marked() -> None:
    """A rule at the first row of each later commit; the norms of retained commits."""
    table = log()
    data = logs.config("in", "m.safetensors", "out", source={"nulls": 0.0})
    for part in range(3):
        write(table.slice(0, 150 * (part + 1)), files=part + 1)
        if part == 2:
            model("linear", 1)
        Pipeline.from_dict(data).run(new_model="carry" if part == 2 else None)
    pipeline = Pipeline.from_dict(data)
    found = by_id(pipeline.report())
    rules = found["outputs"]["rules"]
    assert [rule["label"] for rule in rules] == [
        "commit 2",
        f"model {pipeline.loaded.fingerprint[:6]}",
    ]
    times = table["t"].to_pylist()
    assert rules[0]["at"] == minute(times[150], 1)
    assert [row["rows"] for row in rows(found["commits"])] == [150, 150, 150]
    assert [row["commit"] for row in rows(found["norms"])] == [1, 2, 3]


def test_a_fit_has_learning_curves() -> None:
    folder = Path("m.safetensors.fit")
    folder.mkdir()
    history = pa.table(
        {"epoch": [1, 2], "loss": [3.0, 2.0], "mae": [1.0, 0.5], "val_loss": [4.0, None]}
    )
    pq.write_table(history, folder / "history.parquet")
    found = by_id(ran().report())
    assert rows(found["curves"]) == [
        {"epoch": 1, "training": 3.0, "validation": 4.0},
        {"epoch": 2, "training": 2.0, "validation": None},
    ]
    (folder / "history.parquet").write_bytes(b"no history")
    assert "cannot be read" in by_id(report_output("out"))["curves"]["missing"]


def test_a_partitioned_output_has_the_same_report() -> None:
    """By stream, so that a partition holds each stream in order; the key is in the folders."""
    found = by_id(ran().report())
    assert Path("out/part-00000.parquet").exists()
    write(log())
    data = config("plain", TARGETS["ahead"])
    data["sink"] = {"path": "parted", "partition_by": ["id"]}
    pipeline = Pipeline.from_dict(data)
    pipeline.run()
    assert list(Path("parted").glob("id=s1/*.parquet"))
    parted = by_id(pipeline.report())
    for name in ("outputs", "rows", "streams", "steps", "error-time", "error-hour", "values"):
        assert parted[name]["panels"] == found[name]["panels"], name
    streams = {panel["label"]: panel["rows"] for panel in found["each-stream"]["panels"]}
    assert {p["label"]: p["rows"] for p in parted["each-stream"]["panels"]} == streams


def test_streams_whose_keys_join_to_one_text_have_names_of_their_own() -> None:
    """As `--key` reads them: they are told apart in errors, panels and sentences."""
    pairs = [("a, b", "c"), ("a", "b, c"), ("x", ""), ("long" * 50, "z")]
    table = log()
    picked = [pairs[int(key[1:])] for key in table["id"].to_pylist()]
    for at, name in enumerate(("id", "part")):
        column = pa.array([pair[at] for pair in picked])
        table = (
            table.set_column(table.column_names.index(name), name, column)
            if name in table.column_names
            else table.append_column(name, column)
        )
    write(table)
    data = config("plain", TARGETS["ahead"], source={"key": ["id", "part"]})
    pipeline = Pipeline.from_dict(data)
    pipeline.run()
    found = by_id(pipeline.report())
    names = {'"a, b",c', 'a,"b, c"', "x,", f"{'long' * 50},z"}
    assert {row["stream"] for row in rows(found["error-stream"])} == names
    assert {panel["label"] for panel in found["each-stream"]["panels"]} == names
    assert max(len(found[id]["sentence"]) for id in ("error-stream", "each-stream")) < 200
    chosen = by_id(pipeline.report(keys=['"a, b",c']))["each-stream"]
    assert [panel["label"] for panel in chosen["panels"]] == ['"a, b",c']


def test_rows_that_evaluate_leaves_out_are_stated() -> None:
    pipeline = ran()
    counts = pipeline.evaluate().counts()
    assert counts["no_label"] > 0
    notes = " ".join(by_id(pipeline.report())["error-time"]["notes"])
    assert f"{counts['no_label']} without a label" in notes


def test_classes_of_a_narrow_histogram_have_labels_of_their_own() -> None:
    """Also if the numbers differ in their last bits only."""
    for width in (1.0, 1e-3, 1e-9, 1e-15, 2e-16):
        table = even_histogram(1.51 + width * np.linspace(0, 1, 300), 20)
        found = histogram_rows(table, "norm", "streams")
        assert len({row["norm"] for row in found}) == len(found)
        assert sum(row["streams"] for row in found) == 300


@pytest.mark.parametrize("name", ["two\nlines", "\u2028", 'x\\": 1, "', "back\\", 'a "b"', "ü"])
@pytest.mark.parametrize("chart", ["lines", "stack", "bars", "dots", "reliability"])
def test_a_name_stays_a_text_in_the_expressions_of_vega_lite(name: str, chart: Any) -> None:
    """Which writes `"` + the title with `"` as `\\"` + `"`, and parses that."""
    panel = Panel("", [{"x": 1, "y": 2.0, "low": 1.0}])
    series = [Drawn("y", name, "low" if chart == "lines" else "")]
    picture = Picture("p", "", "", chart, [panel], series, "x", name, "")
    found: list[str] = []

    def titles(spec: Any) -> None:
        if isinstance(spec, dict):
            found.extend(tip["title"] for tip in spec.get("tooltip", ()) if isinstance(tip, dict))
        for part in spec.values() if isinstance(spec, dict) else spec:
            if isinstance(part, dict | list):
                titles(part)

    titles(spec_of(picture, panel))
    assert found
    quoted = ['"' + title.replace('"', '\\"') + '"' for title in found]
    assert all(json.loads(text).startswith((name, "low")) for text in quoted)
    assert "\u2028" not in "".join(quoted)  # ends a line of JavaScript


def test_what_does_not_change_is_not_between_two_numbers() -> None:
    """One constant feature, one stream: its value, once."""
    table = log().filter(pa.compute.equal(log()["id"], "s0"))
    ones = pa.array(np.full(len(table), 0.4, np.float32))
    table = table.set_column(table.column_names.index("a"), "a", ones)
    found = scored(table, source={"nulls": 0.0})
    assert found["features"]["sentence"] == "Median a 0.4 throughout."
    assert found["streams"]["sentence"] == "1 stream; active: 1 throughout."
