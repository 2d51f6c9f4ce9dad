"""Means and deviations of a fit with the loss gaussian_nll."""

from pathlib import Path
from statistics import NormalDist
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs.fitting import fits
from selection import slow

from streamrnn import Pipeline, layers, load_model, outputs
from streamrnn.errors import ConfigError, ModelMismatchError, ShapeError, StateError
from streamrnn.jobs.fitting.division import Scale
from streamrnn.pipeline import FitSummary

ROWS, UNTIL = 3000, 2000
HEAD = [{"type": "Dense", "units": 2}, {"type": "Gaussian"}]
LAYERS = [{"type": "Normalization"}, *HEAD]


def log(*, garbage: bool = False, shuffled: bool = False) -> pa.Table:
    """Labels 500 + 40 a, with noise of deviation 10 where flag is 0, else 40."""
    table = fits.log(ROWS)
    rng = np.random.default_rng(8)
    a, wide = np.nan_to_num(table["a"].to_numpy()), rng.random(ROWS) < 0.5
    x = 500 + 40 * a + rng.normal(size=ROWS) * np.where(wide, 40.0, 10.0)
    x = rng.permutation(x) if shuffled else x
    if garbage:
        x[UNTIL:] = 1e6
    columns = {"x": pa.array(x), "flag": pa.array(wide.astype(np.float64))}
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def time_of(row: int) -> str:
    return str(log()["t"][row].as_py().isoformat())


def config(folder: Path, **tables: dict[str, Any]) -> dict[str, Any]:
    own = {
        "source": {"features": ["a", "flag"], "nulls": 0},
        "model": {"layers": LAYERS},
        "target": {"column": "x", "rows": 0},
        "train": {
            "epochs": 6,
            "burn_in": 0,
            "metrics": [],
            "loss": "gaussian_nll",
            "optimizer": {"name": "adam", "learning_rate": 0.05},
            "until": time_of(UNTIL),
        },
    }
    merged = {name: {**own.get(name, {}), **tables.get(name, {})} for name in {*own, *tables}}
    return fits.config(folder, **merged)


def fit(folder: Path, table: pa.Table | None = None, **tables: Any) -> FitSummary:
    if not (folder / "in").exists():
        logs.write(log() if table is None else table, folder / "in/a.parquet", row_group=200)
    options = tables.pop("options", {})
    return Pipeline.from_dict(config(folder, **tables)).fit(**options)


def figures_of(folder: Path, **tables: Any) -> list[dict[str, Any]]:
    """What `evaluate` says of the rows that the fit has not read."""
    pipeline = Pipeline.from_dict(config(folder, **tables))
    pipeline.run()
    rows: list[dict[str, Any]] = pipeline.evaluate(since=time_of(UNTIL)).table.to_pylist()
    return rows


def test_mean_and_deviation_are_in_the_units_of_the_target(tmp_path: Path) -> None:
    """Both, of rows of either noise; and the band of evaluate holds what it says."""
    fit(tmp_path)
    model = load_model(tmp_path / "model.safetensors")
    assert [type(layer) for layer in model.layers[-2:]] == [layers.Gaussian, layers.Rescaling]
    features = np.array([[[a, flag]] for a in (-1, 0, 2) for flag in (0, 1)], np.float32)
    mean, deviation = model.predict(features)[:, 0].T
    np.testing.assert_allclose(mean, 500 + 40 * features[:, 0, 0], atol=6)
    np.testing.assert_allclose(deviation, [10, 40] * 3, rtol=0.35)
    (row,) = figures_of(tmp_path)
    assert row["coverage_90"] == pytest.approx(0.9, abs=0.04)
    assert 20 < row["spread"] < 30
    drawn = Pipeline.from_dict(config(tmp_path)).report().as_dict()["pictures"]
    (errors,) = (picture for picture in drawn if picture["id"] == "error-time")
    (crps,) = (note for note in errors["notes"] if note.startswith("CRPS"))
    assert "CRPS of rescaling_0, over all rows: " in crps


@pytest.mark.parametrize("kind", ["moments", "quantiles"])
def test_each_epoch_has_the_crps_and_the_coverage_that_evaluate_finds(
    kind: str, tmp_path: Path
) -> None:
    """They are of the rows of the validation, in the unit of the target."""
    train: dict[str, Any] = {
        "metrics": ["crps", "coverage"],
        "validation": {"since": time_of(1500)},
    }
    tables: dict[str, Any] = {"train": train}
    if kind == "quantiles":
        train["loss"] = {"quantile": [0.05, 0.4, 0.95]}
        tables["model"] = {"layers": [{"type": "Dense", "units": 3}]}
    summary = fit(tmp_path, **tables)
    history = {row["epoch"]: row for row in summary.history}
    assert history[1].keys() >= {"crps", "coverage", "val_crps", "val_coverage"}
    pipeline = Pipeline.from_dict(config(tmp_path, **tables))
    pipeline.run()
    found = pipeline.evaluate(since=time_of(1500), until=time_of(UNTIL)).table.to_pylist()
    best = history[summary.best_epoch]
    assert best["val_crps"] == pytest.approx(found[0]["crps"], rel=1e-4)
    covered = found[0].get("coverage_90")
    if kind == "quantiles":
        covered = found[-1]["coverage"] - found[0]["coverage"]
    assert best["val_coverage"] == pytest.approx(covered, abs=1e-6)


def quantiles(levels: list[float]) -> dict[str, Any]:
    return {"output": {"quantiles": levels, "names": ["low", "middle", "high"]}}


def test_a_run_may_return_quantiles_instead(tmp_path: Path) -> None:
    """Of the same model file, before and after a fit; the state that the fit left fits."""
    levels = [0.05, 0.5, 0.95]
    tables = quantiles(levels)
    fit(tmp_path, **tables)
    rows = figures_of(tmp_path, **tables)
    assert [row["quantile"] for row in rows] == levels
    assert [row["coverage"] for row in rows] == pytest.approx(levels, abs=0.05)
    moments = {"sink": {"path": str(tmp_path / "moments")}}
    Pipeline.from_dict(config(tmp_path, **moments)).run()
    mean, deviation = (pq.read_table(tmp_path / "moments")[f"rescaling_{n}"] for n in (0, 1))
    out = pq.read_table(tmp_path / "out")
    for name, level in zip(("low", "middle", "high"), levels, strict=True):
        wanted = mean.to_numpy() + NormalDist().inv_cdf(level) * deviation.to_numpy()
        np.testing.assert_allclose(out[name].to_numpy(), wanted, rtol=1e-6)
    state = {"state": {"init": str(tmp_path / "model.safetensors.fit/state.parquet")}}
    later = config(tmp_path, **tables, **state, sink={"path": str(tmp_path / "later")})
    assert Pipeline.from_dict(later).run().rows > 0
    assert outputs.reset_streams(str(tmp_path / "out"), ["s0"]) == 1
    with pytest.raises(ConfigError, match=r"expected one label .*, and one quantile"):
        Pipeline.from_dict(config(tmp_path, **tables)).evaluate(quantiles=[0.1, 0.9])


def test_a_state_starts_runs_of_other_levels(tmp_path: Path) -> None:
    """Also without levels, and from the state of an output: levels come after the states."""
    stack = [{"type": "Normalization"}, {"type": "GRU", "units": 3}, *HEAD]
    model = {"model": {"layers": stack}}
    first, other = quantiles([0.05, 0.5, 0.95]), quantiles([0.2, 0.5, 0.7])
    fit(tmp_path, log().slice(0, UNTIL), **model, **first)
    Pipeline.from_dict(config(tmp_path, **model, **first)).run()
    logs.write(log().slice(UNTIL), tmp_path / "in/b.parquet", row_group=200)
    for number, tables in enumerate((other, {}, first)):
        whole = {"sink": {"path": str(tmp_path / f"whole{number}")}}
        Pipeline.from_dict(config(tmp_path, **model, **tables, **whole)).run()
        wanted = pq.read_table(tmp_path / f"whole{number}")
        starts = (tmp_path / "model.safetensors.fit/state.parquet", tmp_path / "out")
        for start, state in enumerate(starts):
            sink = tmp_path / f"rest{number}{start}"
            later = {"state": {"init": str(state)}, "sink": {"path": str(sink)}}
            summary = Pipeline.from_dict(config(tmp_path, **model, **tables, **later)).run()
            notes = " ".join(summary.state_notes)
            assert ("the state was carried from model" in notes) == (tables is not first)
            rest = pq.read_table(sink)
            assert 0 < len(rest) < len(wanted)
            assert rest.equals(wanted.slice(len(wanted) - len(rest)))


@pytest.mark.parametrize("tables", [{}, {"model": {"on_change": "carry"}}], ids=str)
def test_held_rows_of_other_levels_are_refused(tables: dict[str, Any], tmp_path: Path) -> None:
    """They would be written as quantiles of the new levels."""
    fit(tmp_path)

    def pipeline(levels: list[float] | None, **keys: Any) -> Pipeline:
        held = {"output": {"emit": "final", "quantiles": levels}}
        return Pipeline.from_dict(config(tmp_path, **held, **keys))

    first = pipeline([0.05, 0.5, 0.95])
    first.process(log().slice(0, 100))
    pq.write_table(first.state.to_arrow(), tmp_path / "state.parquet")
    init = {"state": {"init": str(tmp_path / "state.parquet")}}
    with pytest.raises(StateError, match=r"quantiles differ for \d+ rows held by"):
        pipeline([0.2, 0.5, 0.7], **tables, **init).process(log().slice(100))
    rest = pipeline([0.05, 0.5, 0.95], **tables, **init)
    rest.process(log().slice(100, 2800))
    assert rest.finish() is not None
    pq.write_table(rest.state.to_arrow(), tmp_path / "state.parquet")
    for levels in ([0.2, 0.7], None):
        pipeline(levels, **tables, **init).process(log().slice(2900))


def test_a_state_of_other_weights_does_not_start_a_run_of_quantiles(tmp_path: Path) -> None:
    tables = quantiles([0.05, 0.5, 0.95])
    fit(tmp_path, **tables)
    state = tmp_path / "state.parquet"
    (tmp_path / "model.safetensors.fit/state.parquet").rename(state)
    fit(tmp_path, train={"seed": 1}, options={"full_refresh": True}, **tables)
    later = config(tmp_path, **quantiles([0.2, 0.5, 0.7]), state={"init": str(state)})
    with pytest.raises(StateError, match="this is the state of another model"):
        Pipeline.from_dict(later).run()


@slow
def test_several_seeds_as_one_have_quantiles_of_their_spread(tmp_path: Path) -> None:
    """Slow: a fit of several seeds."""
    one = [{"type": "Normalization"}, {"type": "Dense", "units": 1}]
    train = {"loss": "mse", "seeds": 2, "keep": "all", "validation": {"streams": 0.3}}
    tables = {**quantiles([0.05, 0.5, 0.95]), "train": train, "model": {"layers": one}}
    fit(tmp_path, **tables)
    low, _, high = figures_of(tmp_path, **tables)
    assert 0.8 < high["coverage"] - low["coverage"] < 1


def test_quantiles_of_other_outputs_are_refused(tmp_path: Path) -> None:
    tables = {"train": {"loss": "mse"}, "model": {"layers": [{"type": "Dense", "units": 1}]}}
    said = r"\[output\] quantiles: .*expected a model with one mean and one deviation, received"
    with pytest.raises(ModelMismatchError, match=said):
        fit(tmp_path, **{**tables, **quantiles([0.1, 0.5, 0.9])})
    assert not (tmp_path / "model.safetensors.fit").exists()
    fit(tmp_path, **tables)
    with pytest.raises(ModelMismatchError, match=said):
        Pipeline.from_dict(config(tmp_path, **{**tables, **quantiles([0.1, 0.5, 0.9])})).run()


def test_each_column_has_a_mean_and_a_deviation(tmp_path: Path) -> None:
    """First all means, then all deviations, each in the units of its column."""
    target = {"column": ["x", "a"]}
    stack = [{"type": "Dense", "units": 4}, {"type": "Gaussian"}]
    tables = {"target": target, "model": {"layers": stack}}
    fit(tmp_path, **tables)
    rescaling = load_model(tmp_path / "model.safetensors").layers[-1]
    assert isinstance(rescaling, layers.Rescaling)
    scale, offset = np.array(rescaling.scale), np.array(rescaling.offset)
    assert (scale[:2] == scale[2:]).all()
    assert offset[:2] == pytest.approx([500, 0], abs=5)
    assert (offset[2:] == 0).all()
    rows = figures_of(tmp_path, **tables)
    assert [row["target"] for row in rows] == ["x", "a"]
    assert all(row["coverage_90"] > 0.8 for row in rows)


def test_a_scale_of_moments_is_the_scale_of_its_labels() -> None:
    scale = Scale(np.float32([3, 5]), np.float32([2, 4])).of_moments()
    label = np.float32([[7, 9]])
    assert scale.standardized(label).tolist() == [[2, 1]]
    assert scale.restored(np.float32([[2, 1, 0.5, 0.5]])).tolist() == [[7, 9, 1, 2]]


def test_a_fit_goes_on_and_starts_from_its_model(tmp_path: Path) -> None:
    """With --continue, and with [train] init: the Rescaling is the one there was."""
    fit(tmp_path, train={"until": time_of(1000)})
    first = load_model(tmp_path / "model.safetensors").layers[-1].get_config()
    fit(tmp_path, options={"extend": True})
    init = {"train": {"init": str(tmp_path / "model.safetensors")}, "model": {"layers": []}}
    fit(tmp_path / "init", **init)
    for folder in (tmp_path, tmp_path / "init"):
        *_, head, last = load_model(folder / "model.safetensors").layers
        assert isinstance(head, layers.Gaussian)
        assert last.get_config() == first


def test_an_interrupted_fit_has_the_same_bytes(tmp_path: Path) -> None:
    """With masked targets and weights of rows."""
    table = log()
    label = pa.array(table["x"], mask=np.random.default_rng(1).random(ROWS) < 0.2)
    table = table.set_column(table.column_names.index("x"), "x", label)
    tables = {"target": {"weight": "flag"}}
    fit(tmp_path / "whole", table, **tables)
    fits.interrupt(lambda **options: fit(tmp_path / "cut", table, options=options, **tables), 40)
    assert fits.digest(tmp_path / "cut") == fits.digest(tmp_path / "whole")


def test_labels_that_a_fit_does_not_read_change_no_byte(tmp_path: Path) -> None:
    files = []
    for garbage in (False, True):
        fit(tmp_path / str(garbage), log(garbage=garbage))
        files.append((tmp_path / str(garbage) / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_shuffled_labels_give_no_skill(tmp_path: Path) -> None:
    """The mean of all labels is as good, and the deviation is theirs.

    With the label itself planted as a feature, mean and deviation show it: a leak would be seen.
    """
    shuffled = log(shuffled=True)
    fit(tmp_path / "shuffled", shuffled)
    (row,) = figures_of(tmp_path / "shuffled")
    assert row["better_mean"] < 0.02
    assert row["spread"] == pytest.approx(row["rmse_mean"], rel=0.1)
    flag = shuffled.column_names.index("flag")
    fit(tmp_path / "planted", shuffled.set_column(flag, "flag", shuffled["x"]))
    (leak,) = figures_of(tmp_path / "planted")
    assert leak["better_mean"] > 0.8
    assert leak["spread"] < row["spread"] / 4


def test_the_test_of_rates_does_not_end_where_the_loss_passes_zero(tmp_path: Path) -> None:
    """As a logarithm it may, of labels that follow from the features."""
    table = log()
    x = pa.array(np.nan_to_num(table["a"].to_numpy()))
    table = table.set_column(table.column_names.index("x"), "x", x)
    train = {"optimizer": {"name": "adam"}}
    tried = fit(tmp_path, table, options={"find_rate": True}, train=train).rates
    assert min(of.loss for of in tried) < 0
    assert len(tried) == 200


def test_a_rescaling_of_one_scale_and_two_offsets_is_one_of_moments(tmp_path: Path) -> None:
    scale = {"type": "Rescaling", "scale": 40.0, "offset": [500.0, 0.0]}
    fit(tmp_path, model={"layers": [*LAYERS, scale]})
    assert 15 < figures_of(tmp_path, model={"layers": [*LAYERS, scale]})[0]["spread"] < 35


def test_quantiles_of_several_offsets_are_refused(tmp_path: Path) -> None:
    """They share one label, which one offset would standardize for all."""
    scale = {"type": "Rescaling", "scale": 40.0, "offset": [500.0, 500.0, 700.0]}
    tables = {
        "train": {"loss": {"quantile": [0.1, 0.5, 0.9]}},
        "model": {"layers": [{"type": "Dense", "units": 3}, scale]},
    }
    with pytest.raises(ConfigError, match="a scale or an offset for each quantile, but all share"):
        fit(tmp_path, **tables)


RESCALED = [*LAYERS, {"type": "Rescaling", "scale": 3.0, "offset": 1.0}]


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"train": {"loss": "mse"}}, "the model ends in Gaussian, but the loss is mean_squared"),
        ({"model": {"layers": LAYERS[:-1]}}, "the model does not end in Gaussian, but the loss"),
        ({"model": {"layers": RESCALED}}, "the Rescaling after Gaussian shifts deviations"),
        (
            {"target": {"column": ["x", "a"]}},
            "the model has 2 outputs, but the loss gaussian_nll needs 4: a mean and a deviation",
        ),
        (
            {"model": {"layers": [{"type": "Dense", "units": 3}, {"type": "Gaussian"}]}},
            r"\(Gaussian\): expected a mean and a deviation for each label, .* received shape",
        ),
        (
            {"train": {"seeds": 2, "keep": "all", "validation": {"streams": 0.3}}},
            r'\[train\] keep = "all" .* a model trained with the loss gaussian_nll has its own spr',
        ),
        (
            {
                "train": {"loss": "mse", "metrics": ["crps"]},
                "model": {"layers": [{"type": "Dense", "units": 1}]},
            },
            r"\[train\] metrics: metric 'crps': expected a loss of quantiles, or of a mean",
        ),
        ({"output": {"calibrate": True}}, r"\[output\] calibrate: a fit calibrates quantiles"),
    ],
)
def test_what_does_not_fit_is_refused(tables: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, ShapeError), match=message):
        fit(tmp_path, **tables)
