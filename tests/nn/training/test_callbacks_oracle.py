"""Callbacks beside those of Keras: calls, stops, learning rates, files."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import keras
from nn.training.test_keras_oracle import pair

import streamrnn

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(2)
X = RNG.normal(size=(14, 4)).astype(np.float32)
Y = (X @ RNG.normal(size=(4, 1)) + RNG.normal(size=(14, 1))).astype(np.float32)


def dense(of: Any) -> Any:
    return of.Sequential([of.Input((4,)), of.layers.Dense(1)])


def fits(make: Any, rate: float = 0.05, **options: Any) -> list[Any]:
    """(model, callbacks, history) of Keras and of ours; make(library, number) -> callbacks."""
    settings: dict[str, Any] = {
        "epochs": 8,
        "batch_size": 4,
        "verbose": 0,
        "shuffle": False,
        "validation_data": (X[10:], Y[10:]),
    } | options
    found = []
    for number, (model, of) in enumerate(zip(pair(dense), (keras, streamrnn), strict=True)):
        model.compile(of.optimizers.SGD(rate), "mse", metrics=["mae"])
        given = make(of, number)
        found.append((model, given, model.fit(X[:10], Y[:10], callbacks=given, **settings)))
    return found


def assert_equal_logs(found: list[Any]) -> None:
    (_, _, theirs), (_, _, ours) = found
    assert theirs.epoch == ours.epoch
    assert theirs.history.keys() == ours.history.keys()
    for name, values in theirs.history.items():
        np.testing.assert_allclose(ours.history[name], values, rtol=1e-5, err_msg=name)


def recorder(of: Any) -> Any:
    class Recorder(of.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[Any] = []

    def method(name: str) -> Any:
        def call(self: Any, *args: Any, logs: Any = None) -> None:
            self.calls.append((name, [number for number in args if isinstance(number, int)]))

        return call

    for name in streamrnn.nn.training.callback.METHODS:
        if name not in ("on_batch_begin", "on_batch_end"):
            setattr(Recorder, name, method(name))
    return Recorder()


@pytest.mark.parametrize("validation", [True, False])
def test_the_order_of_calls(validation: bool) -> None:
    data = {} if validation else {"validation_data": None}
    found = fits(lambda of, _: [recorder(of)], epochs=2, validation_freq=2, **data)
    (_, [theirs], _), (_, [ours], _) = found
    assert theirs.calls == ours.calls
    assert {k: theirs.params[k] for k in ("verbose", "epochs", "steps")}.items() <= (
        ours.params.items()
    )
    assert_equal_logs(found)


def test_the_order_of_calls_of_evaluate() -> None:
    calls = []
    for model, of in zip(pair(dense), (keras, streamrnn), strict=True):
        model.compile("sgd", "mse")
        seen = recorder(of)
        model.evaluate(X, Y, batch_size=5, callbacks=[seen], verbose=0)
        calls.append(seen.calls)
    assert calls[0] == calls[1]


STOPS: dict[str, tuple[dict[str, Any], float]] = {
    "patience": ({"patience": 2}, 0.9),
    "min_delta": ({"monitor": "val_mae", "min_delta": 0.05, "patience": 1}, 0.05),
    "baseline": ({"monitor": "loss", "baseline": 0.5, "patience": 3}, 0.02),
    "start": ({"start_from_epoch": 3, "min_delta": 10.0, "patience": 1}, 0.05),
    "restore": ({"patience": 3, "restore_best_weights": True}, 0.7),
    "max": ({"monitor": "mae", "mode": "max", "patience": 1}, 0.05),
}


@pytest.mark.parametrize("name", STOPS)
def test_early_stopping(name: str) -> None:
    options, rate = STOPS[name]
    found = fits(lambda of, _: [of.callbacks.EarlyStopping(**options)], rate, epochs=12)
    assert_equal_logs(found)
    (theirs, [a], _), (ours, [b], _) = found
    assert (a.stopped_epoch, a.best_epoch, a.wait) == (b.stopped_epoch, b.best_epoch, b.wait)
    np.testing.assert_allclose(b.best, a.best, rtol=1e-5)
    for one, other in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4)


PLATEAUS: dict[str, dict[str, Any]] = {
    "patience": {"patience": 1, "min_delta": 0.2, "factor": 0.5},
    "cooldown": {"patience": 1, "min_delta": 10.0, "factor": 0.5, "cooldown": 2},
    "min_lr": {"patience": 1, "min_delta": 10.0, "factor": 0.3, "min_lr": 0.01},
    "max": {"monitor": "mae", "mode": "max", "patience": 2, "factor": 0.5},
}


@pytest.mark.parametrize("name", PLATEAUS)
def test_a_plateau(name: str) -> None:
    found = fits(lambda of, _: [of.callbacks.ReduceLROnPlateau(**PLATEAUS[name])], epochs=10)
    assert_equal_logs(found)
    rates = found[1][2].history["learning_rate"]
    assert len(set(rates)) > 1


def test_a_schedule() -> None:
    def rate(epoch: int, last: float) -> float:
        return last if epoch < 2 else last * 0.7

    assert_equal_logs(fits(lambda of, _: [of.callbacks.LearningRateScheduler(rate)]))


def test_which_models_are_saved(tmp_path: Path) -> None:
    """The same names of files, so the same epochs and values."""
    ends = (".keras", ".safetensors")

    def make(of: Any, number: int) -> list[Any]:
        path = str(tmp_path / str(number) / ("{epoch:02d}-{val_loss:.3f}" + ends[number]))
        every = str(tmp_path / f"every{number}" / ("{epoch}-{batch}" + ends[number]))
        return [
            of.callbacks.ModelCheckpoint(path, save_best_only=True),
            of.callbacks.ModelCheckpoint(every, save_freq=4),
        ]

    (_, [a, _], _), (_, [b, _], _) = fits(make, 0.55)
    assert b.best == pytest.approx(a.best, rel=1e-5)
    for kind in ("", "every"):
        theirs, ours = ({p.stem for p in (tmp_path / f"{kind}{n}").iterdir()} for n in (0, 1))
        assert theirs == ours
        assert len(ours) > 1


@pytest.mark.parametrize("validation", [(X[10:], Y[10:]), None])
def test_a_csv_file(tmp_path: Path, validation: Any) -> None:
    def make(of: Any, number: int) -> list[Any]:
        rates = of.callbacks.LearningRateScheduler(lambda epoch: 0.01)
        return [rates, of.callbacks.CSVLogger(str(tmp_path / f"{number}.csv"))]

    fits(make, validation_data=validation)
    texts = [(tmp_path / f"{number}.csv").read_bytes().decode() for number in (0, 1)]
    assert texts[0].splitlines(keepends=True)[0] == texts[1].splitlines(keepends=True)[0]
    theirs, ours = (list(csv.DictReader(text.splitlines())) for text in texts)
    assert len(theirs) == len(ours) == 8
    for one, other in zip(theirs, ours, strict=True):
        for name, value in one.items():
            if value == "NA":
                assert other[name] == "NA"
            else:
                assert float(other[name]) == pytest.approx(float(value), rel=1e-5)


def test_callbacks_of_keras_work_here() -> None:
    model, seen = pair(dense)[1], []
    model.compile("sgd", "mse")
    theirs = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs))
    stop = keras.callbacks.EarlyStopping("loss", mode="min", min_delta=100.0, patience=1)
    history = model.fit(X, Y, epochs=5, verbose=0, callbacks=[theirs, stop])
    assert [logs["loss"] for logs in seen] == history.history["loss"]
    assert len(history.epoch) == 2


CLASSES = (
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "TensorBoard",
    "TerminateOnNaN",
)


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_are_those_of_keras(name: str) -> None:
    from nn.training.test_keras_oracle import arguments

    ours, theirs = getattr(streamrnn.callbacks, name), getattr(keras.callbacks, name)
    assert list(arguments(ours).items()) == list(arguments(theirs).items())
