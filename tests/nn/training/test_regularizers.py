"""Regularizers: penalties in losses, slopes in gradients, kept in files."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import streamrnn
from streamrnn import Input, Sequential, layers, load_model, regularizers
from streamrnn.errors import ArgumentError, UnsupportedError
from streamrnn.nn.layers.arguments import without_training

RNG = np.random.default_rng(12)
X = RNG.normal(size=(10, 5, 3)).astype(np.float32)
Y = RNG.normal(size=(10, 2)).astype(np.float32)


def stack(of: Any = streamrnn) -> Any:
    """A penalty of each kind, in a layer, in its cell, in both directions; the same in Keras."""
    made = of.Sequential(
        [
            of.Input((None, 3)),
            of.layers.Bidirectional(
                of.layers.GRU(4, kernel_regularizer="l2", return_sequences=True)
            ),
            of.layers.LayerNormalization(gamma_regularizer=of.regularizers.L1(0.03)),
            of.layers.RNN(
                of.layers.LSTMCell(
                    5,
                    recurrent_regularizer=of.regularizers.L1L2(0.02, 0.3),
                    bias_regularizer={"class_name": "L2", "config": {"l2": 0.5}},
                )
            ),
            of.layers.Dense(3, kernel_regularizer="l1", trainable=False),
            of.layers.Dense(2, kernel_regularizer="l1", bias_regularizer="l2", use_bias=False),
        ]
    )
    rng = np.random.default_rng(3)
    made.set_weights([rng.normal(size=w.shape) * 0.4 for w in made.get_weights()])
    return made


def penalty(model: Sequential) -> float:
    """By the formula, in plain float64."""
    w = {name: weight.astype(np.float64) for name, weight in model.named_weights().items()}
    kernels = [v for name, v in w.items() if "bidirectional" in name and name.endswith("/kernel")]
    assert len(kernels) == 2
    gamma, *_ = (v for name, v in w.items() if name.endswith("gamma"))
    recurrent, bias, last = list(w.values())[-5], list(w.values())[-4], list(w.values())[-1]
    total = 0.01 * sum((kernel**2).sum() for kernel in kernels) + 0.03 * np.abs(gamma).sum()
    total += 0.02 * np.abs(recurrent).sum() + 0.3 * (recurrent**2).sum() + 0.5 * (bias**2).sum()
    return float(total + 0.01 * np.abs(last).sum())


def plain(model: Sequential) -> Sequential:
    """The same model without regularizers."""
    config = model.get_config()
    bare = Sequential.from_config(without_training(config))
    bare.set_weights(model.get_weights())
    return bare


def test_the_loss_has_the_penalty_and_the_gradient_its_slope() -> None:
    model = stack()
    bare = plain(model)
    for made in (model, bare):
        made.compile(streamrnn.optimizers.SGD(0.1), "mse")
    added = penalty(model)
    assert added > 1
    assert model.evaluate(X, Y) == pytest.approx(bare.evaluate(X, Y) + added, rel=1e-6)
    with_slopes, without = model.gradients(X, Y), bare.gradients(X, Y)
    names = dict(zip(with_slopes, without, strict=True))
    changed = 0
    for name, gradient in with_slopes.items():
        place = model.named_weights()[name]
        step = np.zeros(place.shape)
        for spot in list(np.ndindex(place.shape))[:12]:
            found = []
            for sign in (1, -1):
                moved = [w.copy() for w in model.get_weights()]
                moved[list(model.named_weights()).index(name)][spot] += sign * 1e-3
                other = stack()
                other.set_weights(moved)
                found.append(penalty(other))
            step[spot] = (found[0] - found[1]) / 2e-3
            wanted = without[names[name]][spot] + step[spot]
            assert gradient[spot] == pytest.approx(wanted, rel=1e-3, abs=2e-4)
        changed += step.any()
    assert changed == 6
    assert model.train_on_batch(X, Y) == pytest.approx(bare.train_on_batch(X, Y) + added, rel=1e-6)


def test_files_keep_regularizers_and_the_fingerprint_does_not_know_them(tmp_path: Path) -> None:
    """An output stays that of its model, whatever the model was trained with."""
    model = stack()
    bare = plain(model)
    model.compile("sgd", "mse")
    assert model.fingerprint() == bare.fingerprint()
    model.save(tmp_path / "model.safetensors")
    again = load_model(tmp_path / "model.safetensors")
    again.compile("sgd", "mse")
    assert again.evaluate(X, Y) == model.evaluate(X, Y)
    assert again.fingerprint() == model.fingerprint()


def test_names_configs_and_objects() -> None:
    for given in ("l2", "L2", regularizers.L2, regularizers.l2(0.01), regularizers.L1L2(0, 0.01)):
        made = regularizers.get(given)
        assert made is not None
        assert made(np.float32([1, -2])) == pytest.approx(0.05)
    keras = {"module": "keras.regularizers", "class_name": "L1", "config": {"l1": 0.5}}
    assert isinstance(half := regularizers.get(keras), regularizers.L1)
    assert half(np.float32([1, -2])) == 1.5
    assert regularizers.get(None) is None
    slope = regularizers.L1L2(0.5, 0.25).slope(np.float32([2, 0, -4]))
    np.testing.assert_array_equal(slope, [1.5, 0, -2.5])
    with pytest.raises(ArgumentError, match="l2 must be a finite number, 0 or more, received -1"):
        regularizers.L2(-1)
    with pytest.raises(UnsupportedError, match="'l3' is not supported; supported: l1, l2"):
        regularizers.get("l3")


def test_the_regularizer_of_a_depthwise_convolution_has_a_name_of_its_own() -> None:
    """Keras 3 calls its weight kernel, too."""
    of_depth = layers.DepthwiseConv1D(2, padding="causal", depthwise_regularizer="l2")
    model = Sequential([Input((None, 3)), of_depth])
    model.compile("sgd", "mse")
    wanted = 0.01 * (model.get_weights()[0].astype(np.float64) ** 2).sum()
    x = np.zeros((2, 4, 3), np.float32)
    assert model.evaluate(x, x) == pytest.approx(wanted)


class Leaky(layers.Cell):
    """h' = rate h + x, where what is for training is passed to add_weight alone."""

    def __init__(self, units: int, weight: str = "rate", **kwargs: Any) -> None:
        super().__init__()
        self.units = self.state_size = self.output_size = units
        self.weight, self.penalties = weight, kwargs

    def build(self, input_shape: Any) -> None:
        self.add_weight(self.weight, (self.units,), "ones", **self.penalties)

    @staticmethod
    def step(x: Any, states: Any, weights: Any, y: Any) -> None:
        (h,), (rate,) = states, weights
        for u in range(h.size):
            h[u] = rate[u] * h[u] + x[u]
            y[u] = h[u]

    @staticmethod
    def step_backward(
        x: Any, states: Any, weights: Any, y: Any, dy: Any, dstates: Any, dx: Any, dweights: Any
    ) -> None:
        (h,), (rate,), (dh,), (drate,) = states, weights, dstates, dweights
        for u in range(h.size):
            dx[u] = dy[u] + dh[u]
            drate[u] += h[u] * dx[u]
            dh[u] = rate[u] * dx[u]


def test_a_regularizer_of_add_weight_is_applied() -> None:
    """A cell of Keras may pass it there and nowhere else."""
    x, y = np.zeros((2, 4, 3), np.float32), np.zeros((2, 3), np.float32)
    model = Sequential([Input((4, 3)), layers.RNN(Leaky(3, regularizer="l2"))])
    model.compile("sgd", "mse")
    assert model.evaluate(x, y) == pytest.approx(0.03)
    (gradient,) = model.gradients(x, y).values()
    np.testing.assert_allclose(gradient, [0.02, 0.02, 0.02], rtol=1e-6)
    named = Sequential([Input((4, 3)), layers.RNN(Leaky(3, "recurrent", regularizer="l2"))])
    named.compile("sgd", "mse")
    assert named.evaluate(x, y) == pytest.approx(0.03)
    limited = Sequential([Input((4, 3)), layers.RNN(Leaky(3, constraint="max_norm"))])
    with pytest.raises(UnsupportedError, match="rate_constraint='max_norm'"):
        limited.compile("sgd", "mse")


class Quartic(regularizers.Regularizer):
    """A penalty of one's own, as it is written for Keras."""

    def __call__(self, weight: Any) -> float:
        return float((weight**4).sum())


class Sloped(Quartic):
    """With its derivative, which no framework computes here."""

    def __call__(self, weight: Any) -> float:
        return 2 * super().__call__(weight)

    def slope(self, weight: Any) -> Any:
        return 8 * weight**3


def test_a_regularizer_of_ones_own_has_a_slope() -> None:
    """The loss had its penalty, and the gradient the slope of the base class: 0."""

    class Halved(regularizers.L2):
        def __call__(self, weight: Any) -> float:
            return super().__call__(weight) / 2

    x, y = np.zeros((2, 3), np.float32), np.zeros((2, 1), np.float32)
    model = Sequential([Input((3,)), layers.Dense(1, kernel_regularizer=Sloped())])
    model.compile("sgd", "mse")
    kernel = model.get_weights()[0].astype(np.float64)
    assert model.evaluate(x, y) == pytest.approx(2 * (kernel**4).sum())
    (slope, _) = model.gradients(x, y).values()
    np.testing.assert_allclose(slope, 8 * kernel**3, rtol=1e-5)
    for own in (Quartic(), Halved()):
        bare = Sequential([Input((3,)), layers.Dense(1, kernel_regularizer=own)])
        with pytest.raises(UnsupportedError, match=r"kernel_regularizer=.*needs slope\(weight\)"):
            bare.compile("sgd", "mse")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: layers.Dense(2, kernel_regularizer="orthogonal_regularizer"), "kernel_regulari"),
        (lambda: layers.Dense(2, gamma_regularizer="l2"), "the layer has no weight for it"),
        (lambda: layers.Dense(2, depthwise_regularizer="l2"), "the layer has no weight for it"),
        (lambda: layers.Dense(2, kernel_constraint="max_norm"), "kernel_constraint='max_norm'"),
        (lambda: layers.Dense(2, activity_regularizer="l1"), "activity_regularizer='l1'"),
        (lambda: layers.Dense(2, kernel_regularizer=0.1), "kernel_regularizer=0.1 .*class_name"),
        (
            lambda: layers.Dense(2, kernel_regularizer={"class_name": "L2", "config": {"l1": 0.1}}),
            "'l1': 0.1}} is not supported; supported: l1, l2",
        ),
    ],
)
def test_what_is_refused(layer: Any, message: str) -> None:
    """Also in a copy, such as the one that streamrnn fit makes."""
    model = Sequential([Input((3,)), layer()])
    for one in (model, Sequential.from_config(model.get_config())):
        with pytest.raises(UnsupportedError, match=message):
            one.compile("sgd", "mse")


@pytest.mark.filterwarnings("ignore")
def test_beside_keras(tmp_path: Path) -> None:
    """Losses and weights of a fit; and the regularizers in the file of Keras."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="needs the oracles extra")
    theirs, ours = stack(keras), stack()
    found = []
    for model, of in ((theirs, keras), (ours, streamrnn)):
        model.compile(of.optimizers.SGD(0.05), "mse")
        history = model.fit(
            X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0, validation_data=(X[:5], Y[:5])
        )
        found.append(history.history)
    for name, values in found[0].items():
        np.testing.assert_allclose(found[1][name], values, rtol=1e-4)
    for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4)
    theirs.save(tmp_path / "theirs.keras")
    loaded = load_model(tmp_path / "theirs.keras")
    loaded.compile("sgd", "mse")
    assert loaded.evaluate(X, Y) == pytest.approx(ours.evaluate(X, Y), rel=1e-4)
