"""Convolutions, stacks, both directions and merges beside Keras; cells beside PyTorch."""

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
pytest.importorskip("keras", reason="needs the oracles extra")
pytest.importorskip("torch", reason="needs the oracles extra")

import keras
import torch
from nn.training import custom_cells

import streamrnn
from streamrnn import Input, Sequential, layers

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(51)
X = (RNG.normal(size=(8, 7, 4)) * (RNG.random((8, 7, 1)) < 0.7)).astype(np.float32)
DEEP = {"return_sequences": True}


def convolution(of: Any, x: Any) -> Any:
    for dilation, activation in ((1, "relu"), (2, "gelu"), (4, None)):
        x = of.layers.Conv1D(5, 3, padding="causal", dilation_rate=dilation, activation=activation)(
            x
        )
        x = of.layers.PReLU(shared_axes=[1])(x)
    return of.layers.GRU(3)(x)


def depthwise(of: Any, x: Any) -> Any:
    """Keras has no causal padding here."""
    for options in ({"strides": 2, "padding": "same"}, {"dilation_rate": 2, "use_bias": False}):
        x = of.layers.DepthwiseConv1D(2, depth_multiplier=2, activation="tanh", **options)(x)
    return of.layers.GRU(3)(x)


def stack(of: Any, x: Any) -> Any:
    """The second stack reads no masked input: Keras 3 forgets a mask beside an initial state."""
    cells = [of.layers.LSTMCell(5), of.layers.GRUCell(4), of.layers.SimpleRNNCell(3)]
    rnn = of.layers.RNN(cells, return_state=True, **DEEP)
    y, *states = rnn(of.layers.Masking()(x))
    again = [type(cell)(cell.units) for cell in cells]
    last = of.layers.RNN(again)(x, initial_state=states)
    return of.layers.Add()([of.layers.GRU(3)(y), last])


def both_ways(mode: str | None, **options: Any) -> Any:
    def made(of: Any, x: Any) -> Any:
        x = of.layers.Masking()(x)
        y = of.layers.Bidirectional(of.layers.LSTM(4, **options), merge_mode=mode)(x)
        return y if mode else of.layers.Add()(y)

    return made


def states_of_both(of: Any, x: Any) -> Any:
    first = of.layers.Bidirectional(of.layers.GRU(4, return_state=True), merge_mode="mul")
    y, *states = first(x)
    second = of.layers.Bidirectional(of.layers.GRU(4), merge_mode="ave")
    return of.layers.Add()([y, second(x, initial_state=states)])


def merges(of: Any, x: Any) -> Any:
    read = of.layers.Masking()(x)
    one, other = of.layers.Dense(3)(read), of.layers.Dense(3)(read)
    last = of.layers.Reshape((1, 3))(of.layers.GRU(3)(x))
    product = of.layers.Multiply()([of.layers.Maximum()([one, other]), last])
    least = of.layers.Minimum()([product, of.layers.Dense(1)(x)])
    return of.layers.GRU(3)(of.layers.Average()([least, other]))


def moments(of: Any, x: Any) -> Any:
    y = of.layers.Dense(4)(of.layers.Masking()(x))
    y = of.layers.BatchNormalization(momentum=0.9, epsilon=0.01)(y)
    y = of.layers.BatchNormalization(center=False, scale=False)(of.layers.GRU(5, **DEEP)(y))
    return of.layers.GRU(3)(y)


MODELS = {
    "convolution": convolution,
    "depthwise": depthwise,
    "stack": stack,
    "mul": both_ways("mul"),
    "mul, sequences": both_ways("mul", **DEEP),
    "two outputs": both_ways(None, **DEEP),
    "states": states_of_both,
    "merges": merges,
    "moments": moments,
}


@pytest.mark.parametrize("name", MODELS)
def test_ten_updates_beside_keras(name: str) -> None:
    """The losses of each, and the weights after them."""
    found = []
    for of in (keras, streamrnn):
        x = of.Input((7, 4))
        made = MODELS[name](of, x)
        model = of.Model(x, of.layers.Dense(2)(made))
        rng = np.random.default_rng(1)
        model.set_weights([rng.normal(size=w.shape) * 0.4 for w in model.get_weights()])
        model.compile(of.optimizers.SGD(0.05), "mse")
        y = np.random.default_rng(2).normal(size=np.shape(model.predict(X, verbose=0)))
        losses = [float(np.ravel(model.train_on_batch(X, y))[0]) for _ in range(10)]
        found.append((losses, model.get_weights()))
    (theirs, wanted), (ours, weights) = found
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    for a, b in zip(wanted, weights, strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4)


def normalized(x: Any, gamma: Any, beta: Any) -> Any:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-3) * gamma + beta


def peephole(w: Any, x: Any, states: Any) -> Any:
    (kernel, recurrent, bias, p_i, p_f, p_o), (h, c) = w, states
    i, f, g, o = (x @ kernel + h @ recurrent + bias).chunk(4, -1)
    i, f = torch.sigmoid(i + p_i * c), torch.sigmoid(f + p_f * c)
    c = f * c + i * torch.tanh(g)
    return torch.sigmoid(o + p_o * c) * torch.tanh(c), c


def layer_norm(w: Any, x: Any, states: Any) -> Any:
    (kernel, recurrent, bias, *norms), (h, c) = w, states
    z = normalized(x @ kernel, *norms[:2]) + normalized(h @ recurrent, *norms[2:4]) + bias
    i, f, g, o = z.chunk(4, -1)
    c = normalized(torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g), *norms[4:])
    return torch.sigmoid(o) * torch.tanh(c), c


def gated(w: Any, x: Any, states: Any) -> Any:
    (kernel, recurrent, bias), (h,) = w, states
    (x_f, x_h), (r_f, r_h) = (x @ kernel + bias).chunk(2, -1), recurrent.chunk(2, -1)
    f = torch.sigmoid(x_f + h @ r_f)
    return ((1 - f) * h + f * torch.tanh(x_h + (f * h) @ r_h),)


CELLS: dict[str, tuple[Any, Any, int]] = {
    "peephole": (layers.PeepholeLSTMCell, peephole, 2),
    "layer_norm": (layers.LayerNormLSTMCell, layer_norm, 2),
    "custom": (custom_cells.MinimalGatedUnit, gated, 1),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", CELLS)
def test_gradients_of_cells_beside_torch(name: str, seed: int) -> None:
    """Two on each other, of random sizes, in float64."""
    make, step, count = CELLS[name]
    rng = np.random.default_rng(seed)
    features, low, high = (int(n) for n in rng.integers(2, 41, 3))
    rows, steps = (int(n) for n in rng.integers(1, [30, 15]))
    model = Sequential([Input((None, features)), layers.RNN([make(low), make(high)], **DEEP)])
    model.set_weights([rng.normal(size=w.shape) / np.sqrt(w.shape[0] + 4) for w in model.weights])
    model.compile("sgd", "mse")
    x, y = rng.normal(size=(rows, steps, features)), rng.normal(size=(rows, steps, high))
    x, y = x.astype(np.float32), y.astype(np.float32)
    weights = [torch.tensor(w.astype(np.float64), requires_grad=True) for w in model.weights]
    values, half, made = torch.tensor(x.astype(np.float64)), len(weights) // 2, []
    states = [
        tuple(torch.zeros((rows, units), dtype=torch.float64) for _ in range(count))
        for units in (low, high)
    ]
    for t in range(steps):
        states[0] = step(weights[:half], values[:, t], states[0])
        states[1] = step(weights[half:], states[0][0], states[1])
        made.append(states[1][0])
    ((torch.stack(made, 1) - torch.tensor(y.astype(np.float64))) ** 2).mean().backward()
    for (key, gradient), weight in zip(model.gradients(x, y).items(), weights, strict=True):
        wanted = weight.grad.numpy()
        assert np.abs(gradient - wanted).max() <= 2e-5 * np.abs(wanted).max(), key
