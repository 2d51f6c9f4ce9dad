"""Pipeline.evaluate: figures of committed scores, against the oracles."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import logs
import naive_labels
import numpy as np
import pyarrow as pa
import pytest
from jobs.evaluation.evaluated import (
    ROWS,
    RULES,
    TARGETS,
    check,
    config,
    log,
    model,
    pairs_of,
    write,
)
from naive_scores import Pair, classes, crps_of_quantiles, distances, pinball, probabilities
from selection import first_quick

from streamrnn import Pipeline, load_model
from streamrnn.errors import ConfigError


@pytest.fixture(autouse=True)
def base(workdir: Path) -> Path:
    model("linear", 1)
    return workdir


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", first_quick(sorted(RULES, key="rejects".__ne__), 2))
def test_figures_are_those_of_the_oracles(name: str, target: str) -> None:
    """Over all rows, by stream, by month; late, rejected and skipped rows, and warm-up.

    Slow: further rules for rows.
    """
    table = log(name)
    write(table)
    pipeline = Pipeline.from_dict(config(name, TARGETS[target], output={"warmup": 3}))
    summary = pipeline.run()
    found = pipeline.evaluate("stream")
    compared = pairs_of(table, name, TARGETS[target])
    everything = [pair for pairs in compared.values() for _, pair in pairs]
    whole, *lines = found.table.to_pylist()
    assert whole["id"] is None
    assert (whole["output"], whole["target"]) == ("score", "x")
    expected = distances(everything)
    check(whole, everything, expected)
    assert ("rmse_persistence" in whole) == (target in ("ahead", "rows", "seasonal"))
    assert ("rmse_seasonal" in whole) == ("season" in TARGETS[target])
    if "season" in TARGETS[target]:
        assert 0 < whole["rows_seasonal"] < whole["rows"]
    shares = {name: value for name, value in whole.items() if name.startswith("better_")}
    assert whole["better"] == min(shares.values())
    assert shares[f"better_{whole['best_baseline']}"] == whole["better"]
    assert [line["id"] for line in lines] == [s for s, pairs in compared.items() if pairs]
    for line in lines:
        pairs = [pair for _, pair in compared[line["id"]]]
        check(line, pairs, distances(pairs))
    assert found.rows == len(everything)
    assert sum(found.counts().values()) == summary.rows_out
    assert found.no_score >= 3
    assert found.no_source == 0
    assert pipeline.evaluate().table.to_pylist() == [
        {key: value for key, value in whole.items() if key != "id"}
    ]


@pytest.mark.parametrize("size", first_quick([7, 1, 10_000]))
def test_record_batches_parts_and_order_of_streams_do_not_matter(size: int) -> None:
    """Slow: other sizes."""
    table = log("applied")
    write(table)
    one = Pipeline.from_dict(config("applied", TARGETS["ahead"]))
    one.run()
    expected = one.evaluate("stream").table.to_pylist()
    data = config("applied", TARGETS["ahead"], source={"batch_rows": size})
    for line, right in zip(
        Pipeline.from_dict(data).evaluate("stream").table.to_pylist(), expected, strict=True
    ):
        assert line == pytest.approx(right)


def test_by_month_since_and_until() -> None:
    """In UTC, whatever the zone of the column; months are in order, whenever they come."""
    table = log()
    start = datetime(2024, 1, 30, 20, tzinfo=UTC)
    times = [start + timedelta(hours=3 * i) for i in range(ROWS)]
    zone = pa.timestamp("us", "Asia/Tokyo")
    table = table.set_column(1, "t", pa.array(times, pa.timestamp("us", "UTC")).cast(zone))
    write(table)
    target = {"column": "x", "rows": 1}
    pipeline = Pipeline.from_dict(config("plain", target))
    pipeline.run()
    compared = pairs_of(table, "plain", target)
    months: dict[str, list[Pair]] = defaultdict(list)
    inside = []
    since, until = (sorted(t for pairs in compared.values() for t, _ in pairs)[i] for i in (50, 99))
    for time, pair in (item for pairs in compared.values() for item in pairs):
        months[f"{time.astimezone(UTC):%Y-%m}"].append(pair)
        if since <= time < until:
            inside.append(pair)
    lines = pipeline.evaluate("month").table.to_pylist()
    assert [line["month"] for line in lines] == [None, *sorted(months)]
    assert len(months) == 4
    for line in lines[1:]:
        check(line, months[line["month"]], distances(months[line["month"]]))
    limited = pipeline.evaluate(since=since.isoformat(), until=until)
    assert limited.rows == 49
    rows = table.to_pylist()
    streams = naive_labels.kept_streams(rows, "id", "t").values()
    earlier = [
        rows[n]["x"]
        for numbers in streams
        for n in numbers[1:]
        if rows[n]["t"] < since and rows[n]["x"] is not None
    ]
    figures = distances(inside, constant=sum(earlier) / len(earlier))
    (line,) = limited.table.to_pylist()
    check(line, inside, figures)
    assert figures.keys() <= line.keys()
    assert limited.baselines["mean"] == "the mean of the labels before the first row compared"


@pytest.mark.parametrize("ahead", [True, False])
def test_probabilities(ahead: bool) -> None:
    """Of a boolean, or of integers 0 and 1: log-loss, accuracy, AUC, and the base rate."""
    model("sigmoid", 1)
    write(log())
    target = {"column": "flag", "weight": "w", **({"rows": 1} if ahead else {})}
    pipeline = Pipeline.from_dict(config("plain", target))
    pipeline.run()
    compared = pairs_of(log(), "plain", target)
    whole, *lines = pipeline.evaluate("stream").table.to_pylist()
    everything = [pair for pairs in compared.values() for _, pair in pairs]
    figures = probabilities(everything)
    check(whole, everything, figures)
    assert figures.keys() <= whole.keys()
    assert whole["auc_error"] == 0
    assert "rmse" not in whole
    for line in lines:
        pairs = [pair for _, pair in compared[line["id"]]]
        check(line, pairs, probabilities(pairs))


def test_classes() -> None:
    model("softmax", 3)
    write(log())
    target = {"column": "c"}
    pipeline = Pipeline.from_dict(config("plain", target))
    pipeline.run()
    compared = pairs_of(log(), "plain", target)
    everything = [pair for pairs in compared.values() for _, pair in pairs]
    (whole,) = pipeline.evaluate().table.to_pylist()
    check(whole, everything, classes(everything))
    assert whole["output"] == "score_0, score_1, score_2"
    assert classes(everything).keys() <= whole.keys()


def shifted_persistence(pairs: Sequence[Pair], earlier: Sequence[Pair], q: float) -> list[Pair]:
    """Persistence plus its error at level q over earlier pairs, by the definition of a quantile."""
    errors = sorted(
        (np.float32(p.label - p.now), p.weight) for p in earlier if p.now is not None and p.weight
    )
    below = list(accumulate(weight for _, weight in errors))
    place = next(place for place, weight in enumerate(below) if weight >= q * below[-1])
    shift = float(errors[place][0])
    return [p._replace(now=None if p.now is None else p.now + shift) for p in pairs]


def test_quantiles() -> None:
    model("linear", 3)
    write(log())
    pipeline = Pipeline.from_dict(config("plain", TARGETS["ahead"]))
    pipeline.run()
    compared = pairs_of(log(), "plain", TARGETS["ahead"])
    everything = [pair for pairs in compared.values() for _, pair in pairs]
    quantiles = [0.1, 0.5, 0.9]
    lines = pipeline.evaluate(quantiles=quantiles).table.to_pylist()
    assert [line["quantile"] for line in lines] == quantiles
    for unit, (line, q) in enumerate(zip(lines, quantiles, strict=True)):
        shifted = shifted_persistence(everything, everything, q)
        expected = distances(shifted, unit)
        expected = {name: value for name, value in expected.items() if "better" not in name}
        check(line, everything, {**expected, "pinball": pinball(everything, unit, q)})
        still = [Pair([pair.now], pair.label) for pair in shifted if pair.now is not None]
        assert line["pinball_persistence"] == pytest.approx(pinball(still, 0, q))
        covered = sum(pair.label <= pair.scores[unit] for pair in everything) / len(everything)
        assert line["coverage"] == pytest.approx(covered)
    with pytest.raises(ConfigError, match=r"one quantile per output .*labels: 1, quantiles: 2"):
        pipeline.evaluate(quantiles=[0.1, 0.9])


@pytest.mark.parametrize("earlier", ["fit", "since"])
def test_the_baseline_of_a_quantile_knows_earlier_errors(earlier: str) -> None:
    """Of the rows of the fit, else of the rows before `since`, each with its weight."""
    target = {"column": "x", "horizon": "3m", "weight": "w"}
    levels, until = [0.2, 0.7], datetime(2024, 1, 1, 6, tzinfo=UTC)
    tables: dict[str, Any] = {
        "train": {"epochs": 1, "until": "2024-01-01T06:00", "loss": {"quantile": levels}},
        "output": {"names": ["score_0", "score_1"]},
    }
    write(log())
    model("linear", 2)
    if earlier == "fit":
        layers = [{"type": "GRU", "units": 2}, {"type": "Dense", "units": 2}]
        tables["model"] = {"path": "fitted.safetensors", "layers": layers}
    pipeline = Pipeline.from_dict(config("plain", target, **tables))
    if earlier == "fit":
        pipeline.fit()
    pipeline.run()
    since = until + timedelta(hours=4 if earlier == "fit" else 0)
    found = pipeline.evaluate(since=since)
    said = "that the fit of this model was" if earlier == "fit" else "before the first row compared"
    assert (
        f"plus the quantile of its error over the labels {said}" in found.baselines["persistence"]
    )
    compared = [item for pairs in pairs_of(log(), "plain", target).values() for item in pairs]
    known = [pair for time, pair in compared if time + timedelta(minutes=3) < until]
    later = [pair for time, pair in compared if time >= since]
    assert found.rows == len(later) > 0
    assert len(known) > 10
    for line, q in zip(found.table.to_pylist(), levels, strict=True):
        shifted = shifted_persistence(later, known, q)
        still = [Pair([p.now], p.label, weight=p.weight) for p in shifted if p.now is not None]
        assert line["pinball_persistence"] == pytest.approx(pinball(still, 0, q))


@pytest.mark.parametrize(
    "levels", first_quick([[0.9, 0.02, 0.4], [0.1, 0.5, 0.9], [0.25, 0.5, 0.75]]), ids=str
)
def test_quantiles_have_one_crps(levels: list[float]) -> None:
    """The line of each has the CRPS of all together: also by stream, weighted, in any order.

    Slow: other levels.
    """
    model("linear", 3)
    write(log())
    pipeline = Pipeline.from_dict(config("plain", TARGETS["now"]))
    pipeline.run()
    compared = pairs_of(log(), "plain", TARGETS["now"])
    everything = [pair for pairs in compared.values() for _, pair in pairs]
    chosen = {stream: [pair for _, pair in pairs] for stream, pairs in compared.items()}
    lines = pipeline.evaluate("stream", quantiles=levels).table.to_pylist()
    assert len(lines) == 3 * (1 + len(compared))
    for line in lines:
        pairs = everything if line["id"] is None else chosen[line["id"]]
        assert line["crps"] == pytest.approx(crps_of_quantiles(pairs, levels), rel=1e-4)


def test_one_quantile_has_no_crps() -> None:
    """It says nothing of the distribution."""
    write(log())
    pipeline = Pipeline.from_dict(config("plain", TARGETS["ahead"]))
    pipeline.run()
    table = pipeline.evaluate(quantiles=[0.5]).table
    assert "pinball" in table.column_names
    assert "crps" not in table.column_names


def test_several_targets_have_a_line_each() -> None:
    model("sigmoid", 2)
    write(log())
    pipeline = Pipeline.from_dict(config("plain", {"column": ["flag", "x"]}))
    pipeline.run()
    lines = pipeline.evaluate("stream").table.to_pylist()
    assert [(line["id"], line["output"], line["target"]) for line in lines[:2]] == [
        (None, "score_0", "flag"),
        (None, "score_1", "x"),
    ]
    assert lines[0]["auc"] is not None
    assert lines[0]["rmse"] is None
    assert lines[1]["auc"] is None
    assert lines[1]["rmse"] is not None


@pytest.mark.parametrize(
    ("column", "units", "message"),
    [
        ("x", 3, r"\[target\] column: expected a column and horizon for each output of the "
                 r"model \(score_0, score_1, score_2\) or, .*one integer column"
                 r".*received x\. .*--quantiles"),
        ("days", 3, r"'days' has the label \d+, but the 3 outputs are for classes 0 to 2\..*quan"),
    ],
)  # fmt: skip
def test_targets_that_do_not_fit_the_outputs(column: str, units: int, message: str) -> None:
    model("linear", units)
    write(log())
    pipeline = Pipeline.from_dict(config("plain", {"column": column}))
    pipeline.run()
    with pytest.raises(ConfigError, match=message):
        pipeline.evaluate()


@pytest.mark.parametrize("column", ["c", "x"])
def test_labels_0_and_1_of_other_columns(column: str) -> None:
    """Integers are compared as such with scores beyond 0 to 1, floats always."""
    model("sigmoid" if column == "x" else "linear", 1)
    table = log().to_pydict()
    table[column] = [(int if column == "c" else float)(n % 2) for n in range(ROWS)]
    write(pa.table(table))
    pipeline = Pipeline.from_dict(config("plain", {"column": column}))
    pipeline.run()
    (line,) = pipeline.evaluate().table.to_pylist()
    assert line["rmse"] > 0
    assert "auc" not in line


def test_scores_of_another_model_than_the_one_that_is_there_now_are_named() -> None:
    """A fit replaces the file; what the output has is not what the new model is worth."""
    model("linear", 1)
    write(log())
    pipeline = Pipeline.from_dict(config("plain", TARGETS["ahead"]))
    pipeline.run()
    assert pipeline.evaluate().notes == ()
    other = load_model("m.safetensors")
    other.set_weights([weight * 2 for weight in other.get_weights()])
    other.save("m.safetensors")
    (note,) = Pipeline.from_dict(config("plain", TARGETS["ahead"])).evaluate().notes
    assert "scored by another model, or with another precision or other [output] quantiles" in note


def test_the_mean_of_labels_that_the_fit_did_not_have_is_of_earlier_rows() -> None:
    """What the model was trained on says nothing about another target."""
    write(log())
    dense = {"type": "Dense", "units": 1}
    tables: dict[str, Any] = {
        "model": {"path": "fitted.safetensors", "layers": [{"type": "GRU", "units": 2}, dense]},
        "train": {"epochs": 1, "until": "2024-01-01T02:00"},
        "output": {"names": ["score"]},
    }
    fitted = Pipeline.from_dict(config("plain", TARGETS["ahead"], **tables))
    fitted.fit()
    fitted.run()
    target = {"column": "days", "rows": 1}
    other = Pipeline.from_dict(config("plain", target, **tables))
    compared = [item for pairs in pairs_of(log(), "plain", target).values() for item in pairs]
    since = datetime(2024, 1, 1, 5, tzinfo=UTC)
    found = other.evaluate(since=since)
    assert found.baselines["mean"] == "the mean of the labels before the first row compared"
    streams = naive_labels.kept_streams(log().to_pylist(), "id", "t").values()
    rows = log().to_pylist()
    earlier = [
        rows[n]["days"]
        for numbers in streams
        for n in numbers[1:]
        if rows[n]["t"] < since and rows[n]["days"] is not None
    ]
    inside = [pair for time, pair in compared if time >= since]
    check(
        found.table.to_pylist()[0],
        inside,
        distances(inside, constant=sum(earlier) / len(earlier)),
    )


def test_class_weights_are_noted_beside_probabilities() -> None:
    model("sigmoid", 1)
    write(log())
    train = {"loss": "binary_crossentropy", "class_weight": {"1": 5}}
    pipeline = Pipeline.from_dict(config("plain", {"column": "flag"}, train=train))
    pipeline.run()
    (note,) = pipeline.evaluate().notes
    assert note.startswith("[train] class_weight shifts probabilities")
    assert Pipeline.from_dict(config("plain", {"column": "flag"})).evaluate().notes == ()


def test_rows_that_the_model_was_trained_on_are_noted() -> None:
    """Not with a later --since, nor if another model scored them."""
    write(log())
    dense = {"type": "Dense", "units": 1}
    tables: dict[str, Any] = {
        "model": {"path": "fitted.safetensors", "layers": [{"type": "GRU", "units": 2}, dense]},
        "train": {"epochs": 1, "until": "2024-01-01T02:00"},
        "output": {"names": ["score"]},
    }
    fitted = Pipeline.from_dict(config("plain", TARGETS["ahead"], **tables))
    fitted.fit()
    fitted.run()
    (note,) = fitted.evaluate().notes
    compared = pairs_of(log(), "plain", TARGETS["ahead"]).values()
    limit = datetime(2024, 1, 1, 2, tzinfo=UTC)
    early = sum(time < limit for pairs in compared for time, _ in pairs)
    assert f"not later: {early}. Set --since" in note
    last = max(row["t"] for row in log().to_pylist() if row["t"] < limit)
    assert f"trained on rows up to {last:%Y-%m-%d %H:%M}" in note
    assert fitted.evaluate(since="2024-01-01T02:00").notes == ()
    model("linear", 1)
    data = config("plain", TARGETS["ahead"], sink={"path": "other"})
    Pipeline.from_dict(data).run()
    other = Pipeline.from_dict(config("plain", TARGETS["ahead"], **tables, sink={"path": "other"}))
    (note,) = other.evaluate().notes
    assert "scored by another model" in note


def test_rows_of_two_models_are_noted_and_have_a_line_each() -> None:
    """In the order in which the models came; the line of all rows has both."""
    table = log()
    write(table.slice(0, 300), 1)
    data = config("plain", TARGETS["now"])
    Pipeline.from_dict(data).run()
    first = load_model("m.safetensors")
    second = load_model("m.safetensors")
    second.set_weights([weight * 2 for weight in second.get_weights()])
    second.save("m.safetensors")
    logs.write(table.slice(300), Path("in/1.parquet"), row_group=37)
    pipeline = Pipeline.from_dict(data)
    pipeline.run(new_model="carry")
    found = pipeline.evaluate()
    (note,) = found.notes
    assert "rows of 2 models are compared together; --by model" in note
    whole, *lines = pipeline.evaluate("model").table.to_pylist()
    assert pipeline.evaluate("model").notes == ()
    models = [model.fingerprint()[:16] for model in (first, second)]
    assert [whole["model"], *(line["model"] for line in lines)] == [None, *models]
    compared = pairs_of(table, "plain", TARGETS["now"])
    start = table["t"][300].as_py()
    for line, later in zip(lines, (False, True), strict=True):
        pairs = [p for each in compared.values() for t, p in each if (t >= start) == later]
        check(line, pairs, distances(pairs))
    assert whole["rows"] == sum(line["rows"] for line in lines) == found.rows
