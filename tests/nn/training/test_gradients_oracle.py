"""Gradients of random stacks beside those of PyTorch and JAX in float64."""

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
pytest.importorskip("torch", reason="needs the oracles extra")
pytest.importorskip("jax", reason="needs the oracles extra")

import jax
import keras
import torch
from nn.training import test_outputs_oracle as outputs

from streamrnn import Input, Sequential, layers, losses

KINDS = ("lstm", "gru", "gru_before", "rnn")


def drawn(seed: int) -> tuple[Sequential, list[str], np.ndarray, np.ndarray]:
    """A stack of up to three recurrent layers and a Dense, with inputs and truth."""
    rng = np.random.default_rng(seed)
    features, *units = (int(n) for n in rng.integers(1, 41, 4))
    rows, steps, count = (int(n) for n in rng.integers(1, [30, 15, 4]))
    kinds = [str(kind) for kind in rng.choice(KINDS, count)]
    model = Sequential([Input((None, features))])
    for kind, size in zip(kinds, units, strict=False):
        if kind == "rnn":
            model.add(layers.SimpleRNN(size, return_sequences=True))
        elif kind == "lstm":
            model.add(layers.LSTM(size, return_sequences=True))
        else:
            model.add(layers.GRU(size, return_sequences=True, reset_after=kind == "gru"))
    model.add(layers.Dense(3))
    model.set_weights([rng.normal(size=w.shape) / np.sqrt(w.shape[0] + 4) for w in model.weights])
    x = rng.normal(size=(rows, steps, features)).astype(np.float32)
    return model, kinds, x, rng.normal(size=(rows, steps, 3)).astype(np.float32)


def loss_of(of: Any, kinds: list[str], weights: list[Any], x: Any, y: Any) -> Any:
    """The mean squared error of the stack, in the operations of a library."""
    remaining = iter(weights)
    for kind in kinds:
        kernel, recurrent, bias = next(remaining), next(remaining), next(remaining)
        units = recurrent.shape[0]
        h = c = of.zeros((x.shape[0], units))
        outputs = []
        for t in range(x.shape[1]):
            if kind == "gru":
                xs = cut(x[:, t] @ kernel + bias[0], units)
                hs = cut(h @ recurrent + bias[1], units)
                z, r = of.sigmoid(xs[0] + hs[0]), of.sigmoid(xs[1] + hs[1])
                h = z * h + (1 - z) * of.tanh(xs[2] + r * hs[2])
            elif kind == "gru_before":
                xs = cut(x[:, t] @ kernel + bias, units)
                hs = cut(h @ recurrent[:, : 2 * units], units)
                z, r = of.sigmoid(xs[0] + hs[0]), of.sigmoid(xs[1] + hs[1])
                h = z * h + (1 - z) * of.tanh(xs[2] + (r * h) @ recurrent[:, 2 * units :])
            elif kind == "lstm":
                i, f, g, o = cut(x[:, t] @ kernel + h @ recurrent + bias, units)
                c = of.sigmoid(f) * c + of.sigmoid(i) * of.tanh(g)
                h = of.sigmoid(o) * of.tanh(c)
            else:
                h = of.tanh(x[:, t] @ kernel + h @ recurrent + bias)
            outputs.append(h)
        x = of.stack(outputs)
    error = x @ next(remaining) + next(remaining) - y
    return (error * error).mean()


def cut(z: Any, units: int) -> list[Any]:
    return [z[:, i : i + units] for i in range(0, z.shape[1], units)]


class Torch:
    tanh, sigmoid = torch.tanh, torch.sigmoid

    @staticmethod
    def zeros(shape: Any) -> Any:
        return torch.zeros(shape, dtype=torch.float64)

    @staticmethod
    def stack(outputs: Any) -> Any:
        return torch.stack(outputs, 1)


class Jax:
    tanh, sigmoid = jax.numpy.tanh, jax.nn.sigmoid

    @staticmethod
    def zeros(shape: Any) -> Any:
        return jax.numpy.zeros(shape)

    @staticmethod
    def stack(outputs: Any) -> Any:
        return jax.numpy.stack(outputs, 1)


def assert_close(found: dict[str, np.ndarray], wanted: list[np.ndarray]) -> None:
    for (name, gradient), other in zip(found.items(), wanted, strict=True):
        scale = np.abs(other).max()
        assert np.abs(gradient - other).max() <= 1e-5 * scale, name


@pytest.mark.parametrize("seed", range(12))
def test_gradients_beside_torch(seed: int) -> None:
    model, kinds, x, y = drawn(seed)
    model.compile("sgd", "mse")
    found = model.gradients(x, y)
    weights = [torch.tensor(w.astype(np.float64), requires_grad=True) for w in model.weights]
    loss_of(Torch, kinds, weights, *(torch.tensor(a.astype(np.float64)) for a in (x, y))).backward()
    assert_close(found, [w.grad.numpy() for w in weights])


@pytest.mark.parametrize("seed", range(100, 106))
def test_gradients_beside_jax(seed: int) -> None:
    """In float32, the default of JAX."""
    model, kinds, x, y = drawn(seed)
    model.compile("sgd", "mse")
    weights = [jax.numpy.asarray(w) for w in model.weights]
    wanted = jax.grad(lambda w: loss_of(Jax, kinds, w, x, y))(weights)
    assert_close(model.gradients(x, y), [np.asarray(w) for w in wanted])


@pytest.mark.filterwarnings("ignore")
def test_gradients_of_several_outputs_beside_jax() -> None:
    """Of the weighted sum of three losses, all weights."""
    theirs, ours = outputs.pair(outputs.three)
    ours.compile("sgd", outputs.LOSSES, loss_weights=[0.5, 2.0, 1.5])
    found = ours.gradients(outputs.X, [outputs.A, outputs.B, outputs.C], sample_weight=outputs.W)

    def loss(weights: list[Any]) -> Any:
        variables = zip(theirs.trainable_variables, weights, strict=True)
        with keras.StatelessScope(state_mapping=list(variables)):
            a, b, c = theirs(outputs.X)
        square = ((a - outputs.A)[..., 0] ** 2 * outputs.W[0]).mean()
        picked = jax.numpy.take_along_axis(b, outputs.B, axis=1)[:, 0]
        cross = (-jax.numpy.log(picked) * outputs.W[1]).mean()
        absolute = (abs(c - outputs.C).mean(axis=-1) * outputs.W[2]).mean()
        return 0.5 * square + 2.0 * cross + 1.5 * absolute

    wanted = jax.grad(loss)([variable.value for variable in theirs.trainable_variables])
    assert len(found) == len(wanted)
    for (name, gradient), other in zip(found.items(), wanted, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-4, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("weighted", [False, True])
def test_gaussian_nll_is_that_of_pytorch(weighted: bool) -> None:
    """Of several labels, with weights of steps; deviations below the least have its value."""
    rng = np.random.default_rng(3)
    y, mean = rng.normal(size=(2, 6, 5, 3)).astype(np.float32)
    deviation = np.exp(rng.normal(size=y.shape) * 2).astype(np.float32)
    deviation[0, 0] = [0, 1e-5, 1e-4]
    weight = rng.random((6, 5)).astype(np.float32) if weighted else np.ones((6, 5), np.float32)
    m, d = (torch.tensor(of, dtype=torch.float64, requires_grad=True) for of in (mean, deviation))
    each = torch.nn.GaussianNLLLoss(reduction="none")(m, torch.tensor(y), d**2)
    value = (each * torch.tensor(weight)[..., None]).mean()
    value.backward()
    loss, p = losses.GaussianNLL(), np.concatenate([mean, deviation], axis=-1)
    found, slope = loss.with_slope(loss.truth(y, p), p, weight, None)
    assert found == pytest.approx(value.item(), rel=1e-5)
    np.testing.assert_allclose(slope[..., :3], m.grad.numpy(), rtol=1e-4, atol=1e-6)
    above = deviation > 1e-3
    np.testing.assert_allclose(slope[..., 3:][above], d.grad.numpy()[above], rtol=1e-4, atol=1e-6)
