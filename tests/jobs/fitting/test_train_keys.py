"""[train] schedule and class_weight, and the labels of each loss."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs.fitting import fits

from streamrnn import load_model
from streamrnn.errors import ConfigError, DataError
from streamrnn.jobs.fitting import FitProgress
from streamrnn.jobs.fitting.commit import FitCommit, FitFile, FitRecord, FitStatus
from streamrnn.jobs.fitting.fit_loop import BaseRate, RateSchedule
from streamrnn.nn.training.callbacks import ReduceLROnPlateau

LAST = {"type": "Dense", "units": 1, "activation": "sigmoid"}
STACK = [{"type": "Normalization"}, {"type": "GRU", "units": 4}, LAST]


def tables(**train: Any) -> dict[str, Any]:
    """A validated fit with other keys of [train]."""
    return {"train": {**fits.validated()["train"], **train}}


def interrupt(folder: Path, made: dict[str, Any], when: Callable[[FitProgress], bool]) -> None:
    """Begin a fit and stop it."""
    stop = threading.Event()
    summary = fits.fit(
        folder, made, progress=lambda now: stop.set() if when(now) else None, stop=stop
    )
    assert summary.interrupted


def binary(folder: Path, **options: Any) -> dict[str, Any]:
    """A fit of classes 0 and 1."""
    table = fits.log()
    ones = pa.array((np.asarray(table["b"]) > 0).astype(np.int32))
    table = table.set_column(3, "b", ones)
    weight = pa.array(np.where(np.asarray(ones) > 0, 20.0, 0.5))
    logs.write(table.append_column("w", weight), folder / "in" / "a.parquet")
    made = tables(loss="binary_crossentropy", metrics=[], epochs=1, **options)
    made["target"] = {"column": "b", "rows": 0}
    return {**made, "model": {**fits.config(folder)["model"], "layers": STACK}}


@pytest.mark.parametrize(
    ("table", "formula"),
    [
        ({"name": "constant"}, lambda x: 1),
        ({"name": "cosine"}, lambda x: (1 + math.cos(math.pi * x)) / 2),
        ({"name": "exponential", "factor": 0.01}, lambda x: 0.01**x),
        (
            {"name": "step", "at": (0.3, 0.7), "factor": 0.1},
            lambda x: 1 if x < 0.3 else 0.1 if x < 0.7 else 0.01,
        ),
    ],
)
def test_a_schedule_is_its_formula(table: dict[str, Any], formula: Any) -> None:
    for done in np.linspace(0, 0.99, 34):
        assert RateSchedule(**table)(done) == pytest.approx(formula(done), rel=1e-12)
    warm = RateSchedule(**table, warmup=0.2)
    assert [warm(0.0), warm(0.05)] == [0.0, 0.25]
    if table["name"] != "step":
        assert warm(0.6) == pytest.approx(formula(0.5), rel=1e-12)
    assert warm(0.2) == 1.0


def test_a_plateau_lowers_the_rate_as_reduce_lr_on_plateau() -> None:
    plateau = ReduceLROnPlateau(factor=0.5, patience=2, min_delta=0, min_lr=0.03)
    base, rates, loss = BaseRate(0.1), [], 9.0
    plateau.set_model(SimpleNamespace(optimizer=base))
    for better in (True, False, False, False, True, False, False, False, False, False, False):
        loss -= better
        plateau.on_epoch_end(0, {"val_loss": loss})
        rates.append(0.1 * base.scale)
    wanted = [0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.03, 0.03, 0.03, 0.03, 0.03]
    assert rates == pytest.approx(wanted)


def test_a_commit_reads_back_as_it_was() -> None:
    status = FitStatus(epoch=3, best_loss=0.1, metrics=[(1.0, 3.0)], history=[{"epoch": 1}])
    record = FitRecord({"train.seed": 0}, ["a"], [FitFile("b", 1, 2)], status=status)
    assert FitCommit.of_bytes(FitCommit(record).to_bytes(), "commit").record == record


def test_a_plateau_resumes_with_the_same_bits(tmp_path: Path) -> None:
    """Stopped in the epoch after the rate was lowered; the history shows the rates."""
    schedule = {"name": "plateau", "patience": 1, "factor": 0.25, "warmup": 0.1}
    made = tables(epochs=4, schedule=schedule, optimizer={"name": "nadam", "learning_rate": 0.2})
    made |= {"source": {**fits.config(tmp_path)["source"], "batch_rows": 60}}
    made |= {"checkpoint": {"every": 1}}
    for name in ("one", "two"):
        made["source"]["path"] = str(tmp_path / name / "in")
        if name == "two":
            interrupt(tmp_path / name, made, lambda now: now.epoch == 4 and now.steps > 0)
        fits.fit(tmp_path / name, made)
    rates = [row["learning_rate"] for row in fits.history(tmp_path / "one")]
    losses = [row["val_loss"] for row in fits.history(tmp_path / "one")]
    wanted, scale = [], 0.2
    for number, loss in enumerate(losses):
        wanted.append(scale)
        scale *= 0.25 if number and loss >= min(losses[:number]) else 1.0
    assert rates == pytest.approx(wanted)
    assert rates[-1] < rates[0]
    assert fits.digest(tmp_path / "one") == fits.digest(tmp_path / "two")


def test_a_finished_fit_with_a_table_is_known_again(tmp_path: Path) -> None:
    schedule = {"name": "step", "at": [0.25, 0.5], "factor": 0.5}
    made = tables(schedule=schedule)
    fits.fit(tmp_path, made)
    assert fits.fit(tmp_path, made).nothing_new


def test_metrics_of_several_sums_resume_with_the_same_bits(tmp_path: Path) -> None:
    """Stopped within an epoch; their sums are part of a commit."""
    calls = itertools.count(1)
    for name in ("one", "two"):
        made = binary(tmp_path / name)
        made["train"] |= {"metrics": ["auc", "precision", "r2_score", "huber"], "epochs": 2}
        if name == "two":
            interrupt(tmp_path / name, made, lambda _: next(calls) == 3)
        history = fits.fit(tmp_path / name, made).history
        assert 0.5 < history[-1]["auc"] <= 1
        assert history[-1]["val_r2_score"] < 1
    assert fits.digest(tmp_path / "one") == fits.digest(tmp_path / "two")


def test_weights_of_classes_are_weights_of_their_rows(tmp_path: Path) -> None:
    """In training; the validation loss, by which an epoch is judged, has none."""
    made = binary(tmp_path / "one", class_weight={"0": 0.5, "1": 20})
    one = fits.fit(tmp_path / "one", made)
    weighted = binary(tmp_path / "two")
    weighted["target"] |= {"weight": "w"}
    two = fits.fit(tmp_path / "two", weighted)
    models = [load_model(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    assert models[0].fingerprint() == models[1].fingerprint()
    assert one.history[0]["loss"] == two.history[0]["loss"]
    assert one.history[0]["val_loss"] < two.history[0]["val_loss"]


def test_the_losses_of_a_fit_have_the_penalty_of_its_layers(tmp_path: Path) -> None:
    """In training and in validation; the model file has the regularizer for the next fit."""
    rows = []
    for name in ("plain", "penal"):
        made = binary(tmp_path / name, optimizer={"name": "sgd", "learning_rate": 0.0})
        if name == "penal":
            layer = {**LAST, "kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.5}}}
            made["model"] = {**made["model"], "layers": [*STACK[:-1], layer]}
        rows.append(fits.fit(tmp_path / name, made).history[0])
    model = load_model(tmp_path / "penal" / "model.safetensors")
    kernel = model.named_weights()["dense/kernel"].astype(np.float64)
    added = 0.5 * (kernel**2).sum()
    assert added > 0.01
    for key in ("loss", "val_loss"):
        assert rows[1][key] == pytest.approx(rows[0][key] + added, rel=1e-6)
    model.compile("sgd", "mse")
    assert model._trainer.plan.penalty() > 0.01


def refused(folder: Path, made: dict[str, Any]) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        fits.fit(folder, made)
    return str(caught.value)


def test_what_is_refused(tmp_path: Path) -> None:
    for train, text in (
        ({"class_weight": {"2": 1.0}}, 'expected classes "0" to "1", received "2"'),
        ({"class_weight": {"1": 2.0}, "loss": "mse"}, "the labels of mean_squared_error are no"),
        ({"loss": "poisson", "scale_target": True}, "labels of poisson must keep their unit"),
        ({"loss": "hinge", "scale_target": True}, "labels of hinge are classes, not numbers"),
        ({"schedule": "plateau", "validation": None}, "plateau needs validation"),
        ({"metrics": ["f1_score"]}, "'f1_score' has several values, one for each output"),
        ({"metrics": ["auk"]}, "metric 'auk' is not supported; did you mean 'auc'?"),
        ({"loss": "categorical_hinge"}, "needs an output for each class, not only one"),
    ):
        made = binary(tmp_path)
        made["train"] = {k: v for k, v in {**made["train"], **train}.items() if v is not None}
        assert text in refused(tmp_path, made)


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        ("poisson", "the loss poisson expects 0 or more, within the range of float32"),
        ("msle", "expects 0 or more, within the range of float32"),
        ("hinge", "the loss hinge expects -1 or 1, or 0 or 1"),
        ("kl_divergence", "expects a probability, 0 to 1"),
        ("binary_crossentropy", "expects 0 or 1, because [train] class_weight is set"),
    ],
)
def test_a_label_that_a_loss_cannot_use(loss: str, text: str, tmp_path: Path) -> None:
    made = binary(tmp_path)
    made["train"] |= {"loss": loss}
    if loss.startswith("binary"):
        made["train"] |= {"class_weight": {"1": 2.0}}
    table = fits.log()
    halves = pa.array(np.asarray(table["b"]) * (0.5 if loss.startswith("binary") else -2.0))
    logs.write(table.set_column(3, "b", halves), tmp_path / "in" / "a.parquet")
    assert text in refused(tmp_path, made)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("y", "row 40 (from 0): stream id='s1': the label from [target] column 'y' is inf"),
        ("w", "row 40 (from 0): stream id='s1': the weight from [target] weight is more than"),
    ],
)
def test_a_number_that_float32_cannot_hold(column: str, text: str, tmp_path: Path) -> None:
    """Without a warning of NumPy."""
    made = binary(tmp_path)
    made["train"] |= {"loss": "mse"}
    made["target"] |= {"column": "y", "weight": "w"}
    table = pq.read_table(tmp_path / "in" / "a.parquet").to_pydict()
    table["y"] = [float(value) for value in table["b"]]
    table[column][40] = 1e300
    logs.write(pa.table(table), tmp_path / "in" / "a.parquet")
    assert text in refused(tmp_path, made)


@pytest.mark.parametrize("loss", ["poisson", "log_cosh", "mape", "msle", "squared_hinge"])
def test_a_fit_with_other_losses_and_optimizers_learns(loss: str, tmp_path: Path) -> None:
    made = binary(tmp_path)
    optimizer = {"poisson": "lion", "log_cosh": "adagrad", "mape": "adamax"}.get(loss, "nadam")
    made["train"] |= {"loss": loss, "optimizer": {"name": optimizer, "learning_rate": 0.02}}
    made["train"] |= {"epochs": 3, "schedule": {"name": "exponential", "factor": 0.1}}
    summary = fits.fit(tmp_path, made)
    assert summary.history[-1]["loss"] < summary.history[0]["loss"]
