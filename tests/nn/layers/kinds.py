"""Every kind of recurrent layer, with the oracle's cell of the same weights."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import naive
import numpy as np

from streamrnn import Model, layers


class MinimalGatedUnit(layers.Cell):
    """Zhou et al. 2016, compiled (the example of layers.cell)."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, input_shape: Any) -> None:
        self.add_weight("kernel", (input_shape[-1], 2 * self.units))
        self.add_weight("recurrent_kernel", (self.units, 2 * self.units), "orthogonal")
        self.add_weight("bias", (2 * self.units,), "zeros")

    @staticmethod
    def step(x, states, weights, y):
        (h,), (kernel, recurrent, bias) = states, weights
        units = h.size
        z = bias.copy()
        for k in range(x.size):
            for u in range(2 * units):
                z[u] += x[k] * kernel[k, u]
        for k in range(units):
            for u in range(units):
                z[u] += h[k] * recurrent[k, u]
        for u in range(units):  # f = sigmoid(x Kf + h Rf + bf)
            z[u] = 1 / (1 + math.exp(-z[u]))
        for k in range(units):
            for u in range(units, 2 * units):
                z[u] += z[k] * h[k] * recurrent[k, u]
        for u in range(units):  # h' = (1 - f) h + f tanh(x Kh + (f h) Rh + bh)
            y[u] = (1 - z[u]) * h[u] + z[u] * math.tanh(z[units + u])
            h[u] = y[u]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


class PlainGatedUnit(MinimalGatedUnit):
    """The same unit in Keras's way: `call` on arrays, in NumPy."""

    step = None

    def call(self, inputs, states, training=False):
        (h,) = states
        kernel, recurrent, bias = self.weights
        u = self.units
        with np.errstate(all="ignore"):
            f = 1 / (1 + np.exp(-(inputs @ kernel[:, :u] + h @ recurrent[:, :u] + bias[:u])))
            candidate = np.tanh(inputs @ kernel[:, u:] + (f * h) @ recurrent[:, u:] + bias[u:])
            h = (1 - f) * h + f * candidate
        return h, [h]


class RunningMoments(layers.Cell):
    """States of two shapes, and an output that is neither: carried outer products, and a count."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.output_size = 2

    def build(self, input_shape: Any) -> None:
        self.state_size = [(self.units, input_shape[-1]), 1]
        self.add_weight("kernel", (input_shape[-1], self.units))

    @staticmethod
    def step(x, states, weights, y):
        (total, count), (kernel,) = states, weights
        count[0] += 1
        largest = np.float32(0)
        for u in range(total.shape[0]):
            for k in range(x.size):
                total[u, k] = np.float32(0.5) * total[u, k] + x[k] * kernel[k, u]
                largest = max(largest, total[u, k])
        y[0] = largest
        y[1] = total[0, 0] / count[0]


def naive_moments(kernel: Any) -> Callable[..., Any]:
    kernel = naive.lists(kernel)

    def step(x: Any, states: Any) -> Any:
        (total, (count,)) = states
        total = [
            [0.5 * old + x[k] * kernel[k][u] for k, old in enumerate(row)]
            for u, row in enumerate(total)
        ]
        largest = max(0.0, *(v for row in total for v in row))
        return [largest, total[0][0] / (count + 1)], [total, [count + 1]]

    return step


class MinimalRNNCell(layers.Layer):
    """The cell of Keras's documentation of RNN, with NumPy's matmul."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="uniform", name="kernel"
        )
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, self.units), initializer="uniform", name="recurrent_kernel"
        )
        self.built = True

    def call(self, inputs, states):
        prev_output = states[0]
        h = np.matmul(inputs, self.kernel)
        output = h + np.matmul(prev_output, self.recurrent_kernel)
        return output, [output]


class MixesRows(MinimalRNNCell):
    """Its body takes a mean over the batch: what no cell of a stream may see."""

    def call(self, inputs, states):
        output, new = super().call(inputs - inputs.mean(axis=0), states)
        return output + states[0].sum(axis=0), new


class LayerGatedUnit(layers.Layer):
    """The gated unit once more, as Keras code writes it: no Cell, weights as attributes."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.state_size = units

    def build(self, input_shape: Any) -> None:
        u = self.units
        self.kernel = self.add_weight(shape=(input_shape[-1], 2 * u), name="kernel")
        self.recurrent = self.add_weight(shape=(u, 2 * u), name="recurrent_kernel")
        self.bias = self.add_weight(shape=(2 * u,), initializer="zeros", name="bias")
        self.built = True

    def call(self, inputs, states):
        (h,), u = states, self.units
        with np.errstate(all="ignore"):
            z = inputs @ self.kernel + self.bias
            f = 1 / (1 + np.exp(-(z[:, :u] + h @ self.recurrent[:, :u])))
            h = (1 - f) * h + f * np.tanh(z[:, u:] + (f * h) @ self.recurrent[:, u:])
        return h, [h]


class LayerMoments(layers.Layer):
    """A matrix and a count as states, and an output of a size of its own."""

    output_size = 2

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.state_size = [(units, 2), 1]
        self.units = units

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def call(self, inputs, states):
        moments, count = states
        values = inputs @ self.kernel
        moments = 0.5 * moments + np.stack([values, values**2], axis=-1)
        count = count + 1
        output = np.concatenate([moments.max(axis=(1, 2))[:, None], moments[:, 0, :1] / count], 1)
        return output, [moments, count]


def naive_layer_moments(kernel: Any) -> Callable[..., Any]:
    kernel = naive.lists(kernel)

    def step(x: Any, states: Any) -> Any:
        moments, (count,) = states
        values = naive.matmul(x, kernel)
        moments = [
            [0.5 * first + v, 0.5 * second + v * v]
            for v, (first, second) in zip(values, moments, strict=True)
        ]
        output = [max(v for row in moments for v in row), moments[0][0] / (count + 1)]
        return output, [moments, [count + 1]]

    return step


class Kind(NamedTuple):
    """layer(units, **options) makes it; oracle(weights, units) is the oracle's cell."""

    layer: Callable[..., layers.RNN]
    oracle: Callable[..., naive.Cell]


def rnn(*cells: Any) -> Callable[..., layers.RNN]:
    return lambda units, **options: layers.RNN(
        [cell(units + i) for i, cell in enumerate(cells)] if len(cells) > 1 else cells[0](units),
        **options,
    )


def _moments_oracle(w: Any, units: int) -> naive.Cell:
    features = len(w[0])
    return naive.Cell(
        naive_moments(w[0]),
        lambda: [[[0.0] * features for _ in range(units)], [0.0]],
        lambda _: [0.0, 0.0],
        2,
    )


KINDS: dict[str, Kind] = {
    "simple_rnn": Kind(layers.SimpleRNN, lambda w, u: naive.simple_rnn(*w)),
    "lstm": Kind(layers.LSTM, lambda w, u: naive.lstm(*w)),
    "gru": Kind(layers.GRU, lambda w, u: naive.gru(*w)),
    "gru_before": Kind(
        lambda units, **options: layers.GRU(units, reset_after=False, **options),
        lambda w, u: naive.gru(*w, reset_after=False),
    ),
    "rnn_of_lstm_cell": Kind(rnn(layers.LSTMCell), lambda w, u: naive.lstm(*w)),
    "stacked": Kind(
        rnn(layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell),
        lambda w, u: naive.stacked(
            naive.lstm(*w[:3]), naive.gru(*w[3:6]), naive.simple_rnn(*w[6:])
        ),
    ),
    "custom": Kind(rnn(MinimalGatedUnit), lambda w, u: naive.minimal_gated_unit(*w)),
    "custom_plain": Kind(rnn(PlainGatedUnit), lambda w, u: naive.minimal_gated_unit(*w)),
    "custom_states": Kind(rnn(RunningMoments), _moments_oracle),
    "custom_stacked": Kind(
        rnn(layers.GRUCell, MinimalGatedUnit),
        lambda w, u: naive.stacked(naive.gru(*w[:3]), naive.minimal_gated_unit(*w[3:])),
    ),
    "custom_layer": Kind(rnn(LayerGatedUnit), lambda w, u: naive.minimal_gated_unit(*w)),
    "custom_layer_states": Kind(
        rnn(LayerMoments),
        lambda w, u: naive.Cell(
            naive_layer_moments(w[0]),
            lambda: [[[0.0, 0.0] for _ in range(u)], [0.0]],
            lambda _: [0.0, 0.0],
            2,
        ),
    ),
    "custom_layer_stacked": Kind(
        rnn(LayerGatedUnit, layers.LSTMCell, LayerGatedUnit),
        lambda w, u: naive.stacked(
            naive.minimal_gated_unit(*w[:3]), naive.lstm(*w[3:6]), naive.minimal_gated_unit(*w[6:])
        ),
    ),
}


def built(
    kind: str, units: int, features: int, weights_seed: int = 0, **options: Any
) -> layers.RNN:
    """A layer of this kind with normal weights, biases too."""
    layer = KINDS[kind].layer(units, **options)
    layer.build((None, None, features))
    rng = np.random.default_rng(weights_seed)
    layer.set_weights([rng.normal(size=w.shape) * 0.5 for w in layer.weights])
    return layer


def oracle(kind: str, layer: layers.RNN, units: int) -> naive.Cell:
    """The oracle's cell with the layer's weights."""
    cell = KINDS[kind].oracle(layer.get_weights(), units)
    if kind.startswith("custom"):  # no state is its output, so what is held starts as zeros
        return naive.Cell(cell.step, cell.start, lambda _: [0.0] * cell.units, cell.units)
    return cell


def flat(tree: Any) -> list[np.ndarray]:
    """Nested results as a list of arrays."""
    if isinstance(tree, list | tuple):
        return [array for part in tree for array in flat(part)]
    return [np.asarray(tree)]


def layer_at(model: Model, index: int = 0) -> Any:
    """A layer of a model, whose class the caller knows."""
    return model.layers[index]


def assert_same(one: Any, other: Any) -> None:
    """Equal bit for bit, NaN where NaN is."""
    first, second = flat(one), flat(other)
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.shape == b.shape
        np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))
