"""Fits whose windows carry no state: kinds independent and whole."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pytest
from jobs.fitting import fits

from streamrnn import Pipeline, load_model, optimizers
from streamrnn.errors import ConfigError, UnsupportedError
from streamrnn.nn.kernels.random import key_of, permutation

SINCE = "2024-01-01T20:00"
BOTH_WAYS: list[dict[str, Any]] = [
    {"type": "Normalization"},
    {
        "type": "Bidirectional",
        "layer": {"class_name": "GRU", "config": {"units": 3, "return_sequences": True}},
    },
    {"type": "Dense", "units": 1},
]
ONE_OUTPUT: list[dict[str, Any]] = [
    {"type": "Normalization"},
    {"type": "LSTM", "units": 4},
    {"type": "Dense", "units": 1},
]
REPEATED: list[dict[str, Any]] = [
    {"type": "GRU", "units": 4},
    {"type": "RepeatVector", "n": 3},
    {"type": "GRU", "units": 4},
    {"type": "Dense", "units": 1},
]
SHORTER: list[dict[str, Any]] = [{"type": "Conv1D", "filters": 1, "kernel_size": 3, "name": "y"}]
KINDS = [
    ({"kind": "independent", "lanes": 5, "steps": 6, "stride": 2}, BOTH_WAYS),
    ({"kind": "independent", "lanes": 5, "steps": 6}, ONE_OUTPUT),
    ({"kind": "whole", "lanes": 3}, BOTH_WAYS),
    ({"kind": "whole", "lanes": 3}, ONE_OUTPUT),
]


def tables(window: dict[str, Any], stack: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    """Tables of a fit with validation; without dropout."""
    found = fits.validated()
    at_end = window["kind"] == "whole" and stack is ONE_OUTPUT
    return {
        "window": window,
        "target": {"column": "b"} if at_end else {"column": "b", "rows": 1},
        "model": {**fits.config(Path())["model"], "layers": stack},
        "train": {**found["train"], **keys},
    }


def a_fit(folder: Path, found: dict[str, Any], **options: Any) -> Any:
    """Write the log, unless it exists, and fit with these tables in place of the own."""
    if not (folder / "in").exists():
        logs.write(fits.log(), folder / "in" / "a.parquet", row_group=100)
    return Pipeline.from_dict({**fits.config(folder), **paths(folder, found)}).fit(**options)


def paths(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    """The tables, with the model in the folder."""
    model = {**found["model"], "path": str(folder / "model.safetensors")}
    return {**found, "model": model}


@pytest.mark.parametrize(("window", "stack"), KINDS)
def test_it_learns_and_the_validation_is_what_a_run_writes(
    window: dict[str, Any], stack: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = tables(window, stack, epochs=9, burn_in=0, metrics=["mse"])
    found["train"]["validation"] = {"since": SINCE}
    found["output"] = {"columns": ["id", "t"], "names": ["score"]}
    summary = a_fit(tmp_path, found)
    assert summary.best["val_loss"] < 0.9 * summary.history[0]["val_loss"]
    pipeline = Pipeline.from_dict({**fits.config(tmp_path), **paths(tmp_path, found)})
    pipeline.run()
    score = pipeline.evaluate(since=SINCE).table.to_pylist()[0]
    assert score["rmse"] ** 2 == pytest.approx(summary.best["val_mse"], rel=1e-5)


@pytest.mark.parametrize(("window", "stack"), KINDS)
def test_a_stopped_fit_resumes_with_the_same_bits(
    window: dict[str, Any], stack: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = tables(window, stack)
    a_fit(tmp_path / "one", found)
    interrupted = True
    while interrupted:
        stop, windows = threading.Event(), 0

        def count(progress: Any, stop: threading.Event = stop) -> None:
            nonlocal windows
            windows += not progress.message
            if windows >= 3:
                stop.set()

        interrupted = a_fit(tmp_path / "two", found, progress=count, stop=stop).interrupted
    one, two = (tmp_path / name for name in ("one", "two"))
    assert one.joinpath("model.safetensors").read_bytes() == (
        two.joinpath("model.safetensors").read_bytes()
    )
    assert fits.history(one) == fits.history(two)


@pytest.mark.parametrize(("window", "stack"), KINDS)
def test_rows_of_validation_change_no_weight(
    window: dict[str, Any], stack: list[dict[str, Any]], tmp_path: Path
) -> None:
    """But for the choice of the epoch: there is one."""
    table = fits.log()
    late = table["t"].to_numpy() >= np.datetime64(SINCE, "us")
    b = np.where(late, -2, table["b"].to_numpy()).astype(np.int32)
    logs.write(table, tmp_path / "one" / "in" / "a.parquet")
    logs.write(table.set_column(3, "b", pa.array(b)), tmp_path / "two" / "in" / "a.parquet")
    found = tables(window, stack, epochs=1)
    weights = []
    for name in ("one", "two"):
        a_fit(tmp_path / name, found)
        weights.append(load_model(tmp_path / name / "model.safetensors").get_weights())
    for one, two in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_windows_are_those_of_train_on_batch(tmp_path: Path) -> None:
    """The windows of a run, every `stride` rows, in the order drawn from seed and epoch."""
    table = fits.log().drop_columns(["new"])
    table = table.append_column("new", pa.array(np.zeros(len(table), bool)))
    logs.write(table, tmp_path / "in" / "a.parquet")
    found = tables({"kind": "independent", "lanes": 6, "steps": 5, "stride": 3}, ONE_OUTPUT[1:])
    found["train"] = {
        "epochs": 2,
        "burn_in": 0,
        "scale_target": False,
        "optimizer": {"name": "adam", "learning_rate": 0.01},
    }
    a_fit(tmp_path, found)
    model = load_model(tmp_path / "model.safetensors.fit" / "initial.safetensors")
    model.compile(optimizers.Adam(0.01), "mse")
    x, y = [], []
    for key in pa.compute.unique(table["id"]):
        rows = table.filter(pa.compute.equal(table["id"], key))
        steps = np.stack([rows["a"].to_numpy(), rows["b"].to_numpy()], axis=1).astype(np.float32)
        for begin in range(0, len(steps) - 4, 3):
            if begin + 5 < len(steps):
                x.append(steps[begin : begin + 5])
                y.append(steps[begin + 5, 1])
            else:
                x.append(steps[begin : begin + 5])
                y.append(np.nan)
    for epoch in range(2):
        order = permutation(key_of(0, epoch), len(x))
        order = order[~np.isnan(np.array(y))[order]]
        for begin in range(0, len(order), 6):
            batch = order[begin : begin + 6]
            model.train_on_batch(np.stack(x)[batch], np.array(y, np.float32)[batch])
    fitted = load_model(tmp_path / "model.safetensors")
    for one, two in zip(fitted.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_continued_fit_trains_the_windows_of_new_rows(tmp_path: Path) -> None:
    table = fits.log()
    logs.write(table.slice(0, 600), tmp_path / "in" / "a.parquet")
    found = tables(*KINDS[0], validation=None)
    first = a_fit(tmp_path, found)
    logs.write(table.slice(600), tmp_path / "in" / "b.parquet")
    second = a_fit(tmp_path, found, extend=True)
    assert second.rows == 300
    assert 0 < second.labels < first.labels
    out = Pipeline.from_dict({**fits.config(tmp_path), **paths(tmp_path, found)}).run()
    assert out.rows == fits.ROWS


def test_a_fit_of_whole_sequences_keeps_no_state(tmp_path: Path) -> None:
    found = tables(*KINDS[2])
    summary = a_fit(tmp_path, found)
    assert summary.state is None
    assert not (tmp_path / "model.safetensors.fit" / "state.parquet").exists()
    with pytest.raises(ConfigError, match="whole streams has no state"):
        a_fit(tmp_path, found, extend=True)


@pytest.mark.parametrize(
    ("window", "stack", "others", "error", "text"),
    [
        (*KINDS[0], {"train": {"pieces": 3}}, ConfigError, "carry no state"),
        (KINDS[0][0] | {"steps": 2000}, BOTH_WAYS, {}, ConfigError, "no stream has .* = 2000"),
        (*KINDS[3], {"target": {"column": "b", "rows": 1}}, ConfigError, "one output for each"),
        (KINDS[2][0], REPEATED, {}, UnsupportedError, "changes the number of steps"),
        (KINDS[0][0], SHORTER, {}, ConfigError, "'y' has 4 steps for a window of 6 rows"),
    ],
)
def test_what_cannot_be_fitted(
    window: dict[str, Any],
    stack: list[dict[str, Any]],
    others: dict[str, Any],
    error: type[Exception],
    text: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=text):
        a_fit(tmp_path, {**tables(window, stack), **others})
