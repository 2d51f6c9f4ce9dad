"""Twenty updates beside Keras from the same weights; losses and metrics of both."""

import inspect
import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import keras

import streamrnn
import streamrnn.nn.training

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(9)
X = RNG.normal(size=(8, 6, 4)).astype(np.float32)
Y = RNG.normal(size=(8, 6, 2)).astype(np.float32)
IDS = RNG.integers(0, 5, (8, 6))
GAPS = X * (RNG.random((8, 6, 1)) < 0.7)
WEIGHTS = RNG.random((8, 6)).astype(np.float32)


def pair(make: Any) -> tuple[Any, Any]:
    """The same model in Keras and here, with the same weights. make(library)."""
    theirs, ours = make(keras), make(streamrnn)
    rng = np.random.default_rng(1)
    drawn = [rng.normal(size=w.shape) * 0.4 for w in theirs.get_weights()]
    theirs.set_weights(drawn)
    ours.set_weights(drawn)
    return theirs, ours


def regression(of: Any) -> Any:
    return of.Sequential(
        [
            of.Input((None, 4)),
            of.layers.LSTM(10, return_sequences=True),
            of.layers.GRU(6, return_sequences=True),
            of.layers.Dense(2),
        ]
    )


def feedforward(of: Any) -> Any:
    """For optimizers and losses, which see no layers: Keras compiles it in a second, not eight."""
    return of.Sequential(
        [
            of.Input((None, 4)),
            of.layers.Masking(0.0),
            of.layers.Dense(6, activation="tanh"),
            of.layers.Dense(2),
        ]
    )


def masked(of: Any) -> Any:
    return of.Sequential(
        [
            of.Input((None, 4)),
            of.layers.Masking(0.0),
            of.layers.GRU(6, reset_after=False, return_sequences=True),
            of.layers.Dense(2, activation="relu"),
        ]
    )


def classes(of: Any) -> Any:
    return of.Sequential(
        [
            of.Input((6,), dtype="int64"),
            of.layers.Embedding(5, 3, mask_zero=True),
            of.layers.Bidirectional(of.layers.SimpleRNN(5)),
            of.layers.Dense(4, activation="softmax"),
        ]
    )


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda of: of.optimizers.SGD(0.05),
    "momentum": lambda of: of.optimizers.SGD(0.05, momentum=0.9),
    "nesterov": lambda of: of.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "rmsprop": lambda of: of.optimizers.RMSprop(0.01),
    "centered": lambda of: of.optimizers.RMSprop(0.002, momentum=0.5, centered=True),
    "adam": lambda of: of.optimizers.Adam(0.01),
    "adamw": lambda of: of.optimizers.AdamW(0.01),
    "clipnorm": lambda of: of.optimizers.SGD(0.5, clipnorm=0.1),
    "global_clipnorm": lambda of: of.optimizers.Adam(0.01, global_clipnorm=0.1),
    "clipvalue": lambda of: of.optimizers.SGD(0.5, clipvalue=0.05),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_updates(name: str) -> None:
    theirs, ours = pair(regression if name == "adam" else feedforward)
    for model, of in ((theirs, keras), (ours, streamrnn)):
        model.compile(OPTIMIZERS[name](of), "mse")
    for step in range(20):
        weight = WEIGHTS if step % 2 else None
        one = theirs.train_on_batch(X, Y, sample_weight=weight)
        if step == 0:
            assert float(one) == pytest.approx(ours.train_on_batch(X, Y), rel=1e-5)
        else:
            ours.train_on_batch(X, Y, sample_weight=weight)
    for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4)


LOSSES: dict[str, tuple[Any, Any, np.ndarray, np.ndarray]] = {
    "mse": (masked, lambda of: "mse", GAPS, Y),
    "mae": (feedforward, lambda of: "mae", GAPS, Y),
    "huber": (feedforward, lambda of: of.losses.Huber(0.5), GAPS, Y),
    "sparse": (classes, lambda of: "sparse_categorical_crossentropy", IDS, IDS[:, 0] % 4),
    "categorical": (classes, lambda of: "categorical_crossentropy", IDS, np.eye(4)[IDS[:, 0] % 4]),
    "binary": (classes, lambda of: of.losses.BinaryCrossentropy(), IDS, np.eye(4)[IDS[:, 0] % 4]),
    "binary logits": (
        feedforward,
        lambda of: of.losses.BinaryCrossentropy(from_logits=True),
        X,
        (Y > 0).astype(np.float32),
    ),
    "categorical logits": (
        feedforward,
        lambda of: of.losses.CategoricalCrossentropy(from_logits=True),
        X,
        np.eye(2)[(Y[..., 0] > 0).astype(int)],
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_fit_and_evaluate(name: str) -> None:
    """Three epochs of three batches: losses and weights; with masks and a smaller last batch."""
    make, loss, x, y = LOSSES[name]
    theirs, ours = pair(make)
    for model, of in ((theirs, keras), (ours, streamrnn)):
        model.compile(of.optimizers.SGD(0.05), loss(of), metrics=["accuracy"])
    options: dict[str, Any] = {"batch_size": 3, "epochs": 3, "shuffle": False, "verbose": 0}
    one, other = theirs.fit(x, y, **options).history, ours.fit(x, y, **options).history
    assert one.keys() == other.keys()
    np.testing.assert_allclose(other["loss"], one["loss"], rtol=2e-4)
    for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4)
    found = ours.evaluate(x, y, batch_size=3, return_dict=True)
    wanted = theirs.evaluate(x, y, batch_size=3, return_dict=True, verbose=0)
    assert found["loss"] == pytest.approx(wanted["loss"], rel=2e-4)


def test_stateful_batches() -> None:
    """Keras on JAX does not carry states from batch to batch in training: they are inputs there."""
    ours = streamrnn.Sequential(
        [
            streamrnn.Input((None, 4), batch_size=8),
            streamrnn.layers.LSTM(6, stateful=True, return_sequences=True),
            streamrnn.layers.Dense(2),
        ]
    )
    x, *states = keras.Input((None, 4)), keras.Input((6,)), keras.Input((6,))
    y, *ends = keras.layers.LSTM(6, return_sequences=True, return_state=True)(
        x, initial_state=states
    )
    theirs = keras.Model([x, *states], keras.layers.Dense(2)(y))
    advance = keras.Model([x, *states], ends)
    ours.set_weights([RNG.normal(size=w.shape) * 0.4 for w in ours.weights])
    theirs.set_weights(ours.get_weights())
    theirs.compile(keras.optimizers.Adam(0.01), "mse")
    ours.compile(streamrnn.optimizers.Adam(0.01), "mse")
    carried = [np.zeros((8, 6), np.float32)] * 2
    for _ in range(5):
        for window in (slice(0, 3), slice(3, 6)):
            inputs = [X[:, window], *carried]
            carried = [np.asarray(state) for state in advance.predict_on_batch(inputs)]
            theirs.train_on_batch(inputs, Y[:, window])
            ours.train_on_batch(X[:, window], Y[:, window])
    for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4)


def test_early_stopping() -> None:
    """The same epochs, and the best weights again at the end."""
    theirs, ours = pair(regression)
    found = []
    for model, of in ((theirs, keras), (ours, streamrnn)):
        stop = of.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
        model.compile(of.optimizers.Adam(0.1), "mse")
        history = model.fit(
            X[:5],
            Y[:5],
            epochs=30,
            verbose=0,
            shuffle=False,
            validation_data=(X[5:], Y[5:]),
            callbacks=[stop],
        )
        found.append((len(history.epoch), stop.best_epoch, stop.stopped_epoch))
    assert found[0] == found[1]
    assert found[0][0] < 30
    for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, atol=5e-3)


PAIRS = [
    *((streamrnn.Model, keras.Model, name) for name in (
        "compile", "fit", "evaluate", "train_on_batch", "test_on_batch"
    )),
    *((streamrnn.optimizers, keras.optimizers, name) for name in (
        "SGD", "RMSprop", "Adam", "AdamW", "Nadam", "Adamax", "Adagrad", "Adadelta", "Lion",
    )),
    *((streamrnn.losses, keras.losses, name) for name in (
        "MeanSquaredError", "MeanAbsoluteError", "Huber", "BinaryCrossentropy",
        "CategoricalCrossentropy", "SparseCategoricalCrossentropy", "CategoricalHinge",
        "CosineSimilarity", "Hinge", "KLDivergence", "LogCosh", "MeanAbsolutePercentageError",
        "MeanSquaredLogarithmicError", "Poisson", "SquaredHinge",
    )),
    *((streamrnn.metrics, keras.metrics, name) for name in (
        "MeanSquaredError", "MeanAbsoluteError", "BinaryAccuracy", "CategoricalAccuracy",
        "SparseCategoricalAccuracy",
    )),
    (streamrnn.callbacks, keras.callbacks, "EarlyStopping"),
]  # fmt: skip
OWN_DEFAULTS = ("name", "dtype")
"""None here means the name that Keras writes, and float32."""


@pytest.mark.parametrize(("ours", "theirs", "name"), PAIRS, ids=[pair[2] for pair in PAIRS])
def test_arguments_are_those_of_keras(ours: Any, theirs: Any, name: str) -> None:
    """Their names, order and defaults; what is not computed is refused by name, not as unknown."""
    found, wanted = arguments(getattr(ours, name)), arguments(getattr(theirs, name))
    options = streamrnn.nn.training.optimizer.Options.__annotations__
    for argument, default in wanted.items():
        if argument in found:
            if argument not in OWN_DEFAULTS:
                assert found[argument] == default, argument
        else:
            assert argument in options, argument
    shared = [argument for argument in found if argument in wanted]
    if ours is not streamrnn.optimizers:
        assert shared == list(wanted)


def arguments(function: Any) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {
        p.name: p.default
        for p in parameters
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"
    }
