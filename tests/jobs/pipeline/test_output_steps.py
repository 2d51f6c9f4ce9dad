"""A model whose output has steps of its own: a fit, an evaluation, and what is said of it."""

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs.fitting import fits

from streamrnn import Input, Model, Pipeline, Sequential, layers, load_model, optimizers
from streamrnn.cli import main
from streamrnn.errors import ConfigError
from streamrnn.nn.kernels.random import key_of, permutation
from streamrnn.nn.models.steps import own_steps
from streamrnn.pipeline import draft_pipeline

AHEAD, STEPS, STRIDE = 3, 5, 2
WINDOW = {"kind": "independent", "lanes": 6, "steps": STEPS, "stride": STRIDE}


def _stack(units: int) -> list[dict[str, Any]]:
    return [
        {"type": "GRU", "units": 4},
        {"type": "RepeatVector", "n": AHEAD},
        {"type": "GRU", "units": 3, "return_sequences": True},
        {"type": "Dense", "units": units, "name": "y"},
    ]


def _log() -> pa.Table:
    """Rows of four streams at times in steps of a minute, so that labels are exactly later."""
    table = logs.random_log(400, 4, seed=3)
    minute = np.arange(100).repeat(4) * 60_000_000 + 1_704_067_200_000_000
    times = pa.array(minute, pa.int64()).cast(table.schema.field("t").type)
    ids = pa.array([f"s{i % 4}" for i in range(400)])
    return table.set_column(0, "id", ids).set_column(1, "t", times)


def _tables(folder: Path, columns: list[str], **train: Any) -> dict[str, Any]:
    logs.write(_log(), folder / "in" / "a.parquet")
    found = fits.config(
        folder,
        window=WINDOW,
        target={"column": columns, "horizon": [f"{n}m" for n in range(1, AHEAD + 1)]},
        model={"layers": _stack(len(columns))},
    )
    del found["target"]["rows"], found["source"]["reset"]
    keys = {"epochs": 2, "burn_in": 0, "schedule": "constant", "clip_norm": None}
    found["train"] |= {"optimizer": {"name": "adam", "learning_rate": 0.01}, **keys, **train}
    return found


def _windows() -> tuple[list[int], Any, Any]:
    """The last row of each window, its features, and its labels (column, step) or NaN."""
    table = _log()
    ids = table["id"].to_numpy(zero_copy_only=False)
    x = np.column_stack([table["a"].to_numpy(), table["b"].to_numpy()]).astype(np.float32)
    ends, windows, labels = [], [], []
    for key in np.unique(ids):
        rows = np.flatnonzero(ids == key)
        for first in range(0, len(rows) - STEPS + 1, STRIDE):
            end = first + STEPS - 1
            ends.append(int(rows[end]))
            windows.append(x[rows[first : end + 1]])
            later = [end + n if end + n < len(rows) else None for n in range(1, AHEAD + 1)]
            labels.append([[np.nan if n is None else x[rows[n], c] for n in later] for c in (0, 1)])
    return ends, np.stack(windows), np.array(labels, np.float32)


@pytest.mark.parametrize("columns", [["b"], ["b", "a"]])
def test_a_fit_trains_what_its_flattened_model_trains(tmp_path: Path, columns: list[str]) -> None:
    """The same weights, bit for bit, as train_on_batch of the steps side by side."""
    found = _tables(tmp_path, columns, scale_target=False)
    Pipeline.from_dict(found).fit()
    first = load_model(tmp_path / "model.safetensors.fit" / "initial.safetensors")
    x, y = first.inputs[0], first.outputs[0]
    flat = Model(x, layers.Flatten()(layers.Permute((2, 1))(y)))
    flat.compile(optimizers.Adam(0.01), "mse")
    _, windows, labels = _windows()
    truth = labels[:, [{"a": 0, "b": 1}[name] for name in columns]].reshape(len(windows), -1)
    for epoch in range(2):
        order = permutation(key_of(0, epoch), len(windows))
        order = order[np.isfinite(truth).all(axis=1)[order]]
        for begin in range(0, len(order), 6):
            batch = order[begin : begin + 6]
            flat.train_on_batch(windows[batch], truth[batch])
    fitted = load_model(tmp_path / "model.safetensors")
    for one, two in zip(fitted.get_weights(), flat.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def _scored(base: Path, names: list[str]) -> tuple[Any, Any]:
    """The windows' outputs in the parts, and by predict of the file, each (window, unit, step)."""
    ends, windows, _ = _windows()
    got = pq.read_table(base / "out")
    values = np.array([got[name].to_pylist() for name in names], float).T
    assert np.isfinite(values).all(axis=1).nonzero()[0].tolist() == sorted(ends)
    expected = load_model(base / "model.safetensors").predict(windows)
    return values[ends], np.moveaxis(expected, 2, 1).reshape(len(ends), -1)


def test_a_scaled_fit_is_judged_by_column_and_horizon(tmp_path: Path) -> None:
    """Each label has its own scale; an evaluation pairs it with the output of its step and unit."""
    found = _tables(tmp_path, ["b", "a"], epochs=4, validation={"since": "2024-01-01T01:00"})
    assert Pipeline.from_dict(found).fit().scaled
    names = [f"{column}_{n}m" for column in "ba" for n in (1, 2, 3)]
    pipeline = Pipeline.from_dict({**found, "output": {"names": names}})
    pipeline.run()
    values, expected = _scored(tmp_path, names)
    np.testing.assert_array_equal(values, expected)
    labels = _windows()[2][:, ::-1].reshape(len(values), -1)
    rows = pipeline.evaluate().table.to_pylist()
    assert [row["output"] for row in rows] == names
    both = np.isfinite(labels).all(axis=1)
    for number, row in enumerate(rows):
        errors = (values[:, number] - labels[:, number])[both]
        assert row["mae"] == pytest.approx(np.abs(errors).mean())


@pytest.mark.parametrize("scale_target", [True, False])
def test_more_seeds_give_a_mean_and_a_spread_of_each_step(
    tmp_path: Path, scale_target: bool
) -> None:
    keys = {"seeds": 2, "keep": "all", "validation": {"since": "2024-01-01T01:00"}}
    found = _tables(tmp_path, ["b", "a"], scale_target=scale_target, **keys)
    Pipeline.from_dict(found).fit()
    Pipeline.from_dict(found).run()
    got = pq.read_table(tmp_path / "out")
    of_units = [
        f"{name}_{unit}_{n}" for name in ("mean", "spread") for unit in (0, 1) for n in (1, 2, 3)
    ]
    assert got.column_names[-12:] == of_units
    fits_of = sorted((tmp_path / "model.safetensors.fit" / "seeds").glob("*/model.safetensors"))
    _, windows, _ = _windows()
    each = np.stack([load_model(path).predict(windows) for path in fits_of])
    ends = _windows()[0]
    values = np.array([got[name].to_pylist() for name in of_units], float).T[ends]
    mean, spread = np.moveaxis(values.reshape(len(ends), 2, 2, AHEAD), (1, 3), (0, 2))
    np.testing.assert_allclose(mean, each.mean(axis=0), atol=1e-6)
    added = spread**2 - each.var(axis=0)
    np.testing.assert_allclose(added, np.broadcast_to(added[:1], added.shape), atol=1e-5)
    assert added.min() > 0


def _decoded(rows: int | None, steps: int, *more: Any) -> Model:
    stack = [Input((rows, 2)), layers.GRU(3), layers.RepeatVector(steps), *more]
    return Sequential([*stack, layers.GRU(2, return_sequences=True, name="y")])


@pytest.mark.parametrize(
    ("model", "steps", "own"),
    [
        (_decoded(8, 4), 8, 4),
        (_decoded(8, 4), 4, 4),
        (_decoded(None, 4), 8, 4),
        (_decoded(None, 4), None, 4),
        (_decoded(None, 4), 4, None),
        (_decoded(8, 8), 8, None),
        (_decoded(8, 8), 9, 8),
        (_decoded(8, 1), 8, 1),
        (Sequential([Input((8, 2)), layers.Conv1D(2, 3)]), 8, None),
        (Sequential([Input((8, 2)), layers.MaxPooling1D(8)]), 8, None),
        (Sequential([Input((8, 2)), layers.GRU(2)]), 8, None),
        (Sequential([Input((8, 2)), layers.Flatten(), layers.Reshape((4, 4))]), 8, 4),
    ],
)
def test_own_steps_are_not_those_of_the_inputs(
    model: Model, steps: int | None, own: int | None
) -> None:
    assert own_steps(model, steps) == [own]


def _job(base: Path, model: Model, **window: Any) -> dict[str, Any]:
    model.save(base / "m.safetensors")
    logs.write(_log(), base / "log.parquet", row_group=37)
    paths = str(base / "log.parquet"), str(base / "m.safetensors"), str(base / "out")
    return logs.config(*paths, window=window)


@pytest.mark.parametrize("kind", ["independent", "whole"])
def test_no_cut_changes_a_bit(tmp_path: Path, kind: str) -> None:
    """Nor what the batches, lanes and threads are."""
    found, first = _job(tmp_path, _decoded(8, 4), kind=kind, steps=8), None
    for rows, lanes, threads in ((1000, 64, 1), (7, 3, 2), (50, 1, 1)):
        one = {**found, "window": {**found["window"], "lanes": lanes}}
        one["source"] = {**found["source"], "batch_rows": rows}
        one["model"] = {**found["model"], "threads": threads}
        Pipeline.from_dict(one).run(full_refresh=True, force=True)
        table = pq.read_table(tmp_path / "out")
        assert first is None or table.equals(first)
        first = table
    assert first is not None
    assert first.column_names[-8:] == [f"y_{unit}_{n}" for unit in (0, 1) for n in (1, 2, 3, 4)]


def test_one_name_is_expected_for_each_step(tmp_path: Path) -> None:
    found = _job(tmp_path, _decoded(8, 4), kind="independent", steps=8)
    with pytest.raises(ConfigError, match=r"8 values per row \(y \(8\)\).* received 1 name: y"):
        Pipeline.from_dict({**found, "output": {"names": ["y"]}}).validate()


def test_the_labels_are_as_many_as_the_steps(tmp_path: Path) -> None:
    """For a fit, and for an evaluation."""
    found = _tables(tmp_path, ["b"])
    found["target"] = {"column": "b", "horizon": "2m"}
    with pytest.raises(ConfigError, match=r"has 3 outputs, but .* needs 1: .* or the labels"):
        Pipeline.from_dict(found).fit()
    found = _job(tmp_path, _decoded(8, 4), kind="independent", steps=8)
    pipeline = Pipeline.from_dict({**found, "target": {"column": "b", "horizon": "2m"}})
    pipeline.run()
    with pytest.raises(ConfigError, match=r"a column and horizon for each output .*y_0_1, y_0_2"):
        pipeline.evaluate()


def test_it_is_said_wherever_a_model_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _job(tmp_path, _decoded(8, 4), kind="independent", steps=8)
    said = "output 'y' has 4 steps of its own: a pipeline writes a column for each, y_0_1 to y_1_4"
    pipeline = Pipeline.from_dict(found)
    assert any(note.startswith(said) for note in pipeline.validate())
    assert any(note.startswith(said) for note in pipeline.explain()["notes"])
    draft = draft_pipeline(tmp_path / "log.parquet", tmp_path / "m.safetensors")
    assert any(said in guess for guess in draft.guesses)
    with pytest.raises(SystemExit):
        main(["convert", str(tmp_path / "m.safetensors"), str(tmp_path / "m.keras")])
    assert f"note: {said}" in capsys.readouterr().out


def test_as_many_steps_as_rows_are_said(tmp_path: Path) -> None:
    """They may be forecasts; an autoencoder's are its rows'. The advice gives a column for each."""
    pipeline = Pipeline.from_dict(_job(tmp_path, _decoded(8, 8), kind="independent", steps=8))
    said = "output 'y' has 8 steps, as many as the rows that it reads: each counts as its row's"
    assert [note[: len(said)] for note in pipeline.run().state_notes] == [said]
    assert [note.startswith(said) for note in pipeline.validate()].count(True) == 1
    (tmp_path / "flat").mkdir()
    model = Sequential([Input((8, 2)), *_decoded(8, 8).layers, layers.Flatten()])
    flat = Pipeline.from_dict(_job(tmp_path / "flat", model, kind="independent", steps=8))
    assert flat.run().state_notes == []
    assert len(pq.read_schema(tmp_path / "flat/out/part-00000.parquet")) == 2 + 16


def test_a_stopped_fit_resumes_with_the_same_bits(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    Pipeline.from_dict(_tables(one, ["b"])).fit()
    fits.interrupt(Pipeline.from_dict(_tables(two, ["b"])).fit, windows=4)
    for name in ("model.safetensors", "model.safetensors.fit/initial.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_scaled_model_is_trained_further(tmp_path: Path) -> None:
    """Its own Rescaling has a number for each step and unit, and stays the last layer."""
    found = _tables(tmp_path, ["b", "a"])
    Pipeline.from_dict(found).fit()
    first = load_model(tmp_path / "model.safetensors")
    again = {**found, "train": {**found["train"], "init": str(tmp_path / "model.safetensors")}}
    again["model"] = {"path": str(tmp_path / "again.safetensors"), "layers": _stack(2)}
    Pipeline.from_dict(again).fit()
    last = load_model(tmp_path / "again.safetensors")
    assert [layer.name for layer in last.layers] == [layer.name for layer in first.layers]
    assert np.shape(last.layers[-1].get_config()["scale"]) == (AHEAD, 2)
