"""One row of contracts for every registered layer, with options that are not defaults.

A variant (`Class/variant`) is another configuration of the class, for a contract that depends on
it. `reads` names what the layer is called on, `model` the model around it (default: it alone).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import naive
import naive_values as values
import numpy as np
from contracts.declared import HOLDS, Contract, Row
from contracts.models import ROWS, STEPS

from streamrnn import Input, Model, Sequential, initializers, layers
from streamrnn.nn.layers.initializers import normal

RNG = np.random.default_rng(7)
GAPS = (RNG.random((2, ROWS, STEPS, 1)) < 0.7).astype(np.float32)
X, OTHER = RNG.normal(size=(2, ROWS, STEPS, 4)).astype(np.float32) * GAPS
IDS = RNG.integers(0, 5, (ROWS, STEPS))
WORDS = np.array(["a", "b", "c", "?", ""])[IDS]
READS: dict[str, list[np.ndarray]] = {
    "features": [X],
    "six steps": [X],
    "two": [X, OTHER],
    "two of six": [X, OTHER],
    "ids": [IDS],
    "words": [WORDS],
    "vector": [X[:, 0].copy()],
    "three": [X[..., :3].copy()],
}
_SHAPES: dict[str, tuple[tuple[int | None, ...], str]] = {
    "features": ((None, 4), "float32"),
    "six steps": ((6, 4), "float32"),
    "two": ((None, 4), "float32"),
    "two of six": ((6, 4), "float32"),
    "ids": ((None,), "int64"),
    "words": ((None,), "string"),
    "vector": ((4,), "float32"),
    "three": ((None, 3), "float32"),
}


def inputs_of(reads: str) -> list[Any]:
    """Symbols that take the arrays READS[reads]."""
    shape, dtype = _SHAPES[reads]
    return [Input(shape, dtype=dtype) for _ in READS[reads]]


def alone(layer: layers.Layer, reads: str) -> Model:
    """A model of the layer and nothing else."""
    symbols = inputs_of(reads)
    return Model(symbols, layer(symbols if len(symbols) > 1 else symbols[0]))


def before(*others: Callable[[], layers.Layer]) -> Callable[[layers.Layer, str], Model]:
    """The layer with others behind it."""

    def model(layer: layers.Layer, reads: str) -> Model:
        (x,) = inputs_of(reads)
        y = layer(x)
        for other in others:
            y = other()(y)
        return Model(x, y)

    return model


def inside_rnn(cell: layers.Layer, reads: str) -> Model:
    """A cell over a sequence."""
    return alone(layers.RNN(cell, return_sequences=True), reads)


@dataclass(frozen=True)
class LayerRow(Row):
    """oracle(weights, *inputs): what the model gives, in plain Python.

    config: a config makes the same layer. saved: the native file gives back the model. cut: on a
    stream, outputs and states do not depend on where rows and steps are cut, and no stream sees
    another. apart: nor does a sequence see another in the same batch. trained: the gradients of its
    weights, and of those before it, are the oracle's. training: with training=True it gives the
    same bits, or what training(layer, weights, *inputs) gives; the layer draws the numbers that the
    model's draws.
    """

    layer: Callable[[], layers.Layer]
    oracle: Contract
    reads: str = "features"
    model: Callable[[Any, str], Model] = alone
    config: Contract = HOLDS
    saved: Contract = HOLDS
    cut: Contract = HOLDS
    apart: Contract = HOLDS
    trained: Contract = HOLDS
    training: Contract = HOLDS

    def made(self) -> Model:
        """The model around a new layer."""
        return self.model(self.layer(), self.reads)


def every(cell: naive.Cell, x: Any, **options: Any) -> Any:
    return naive.layer(cell, x, **options)[0]


def last(cell: naive.Cell, x: Any, **options: Any) -> Any:
    return naive.layer(cell, x, **options)[1]


def states_too(cell: naive.Cell, x: Any) -> Any:
    outputs, _, states = naive.layer(cell, x)
    return outputs, *states


def same(_: Any, x: Any) -> Any:
    return x


def dropping(
    cell: Callable[..., Any], outputs: Callable[..., Any] = every, part: Any = None
) -> Callable[..., Any]:
    """With dropout: cell(*weights, masks=…), which has other masks for each row of the batch.

    part: the one inside the layer that draws the masks; by default the layer's cell, or itself.
    """

    def oracle(layer: Any, w: Any, x: Any) -> Any:
        drawn = part(layer) if part else getattr(layer, "cell", layer)
        masks = zip(*drawn.draw_masks(len(x), len(x[0][0])), strict=True)
        return [outputs(cell(*w, masks=pair), [row])[0] for row, pair in zip(x, masks, strict=True)]

    return oracle


def drawn(layer: Any, *shape: int) -> np.ndarray:
    """The first uniform numbers of a layer's seed."""
    return np.random.default_rng(layer.seed).random(shape, dtype=np.float32)


def noise(layer: Any, deviation: float) -> np.ndarray:
    return normal(np.random.default_rng(layer.seed), X.shape) * deviation


def alpha_dropout(layer: Any, _: Any, x: Any) -> Any:
    """Klambauer et al. 2017: dropped to -lambda alpha, then scaled to mean 0 and variance 1."""
    low, rate = -1.0507009873554805 * 1.6732632423543772, layer.rate
    a = ((1 - rate) * (1 + rate * low**2)) ** -0.5
    return a * np.where(drawn(layer, ROWS, 1, 4) < rate, low, x) - a * low * rate


def over_batch(_: Any, w: Any, x: Any) -> Any:
    """BatchNormalization without gamma: beta is the first weight."""
    return naive.batch_normalization(x, *naive.moments(x), beta=w[0])


def over_batch_by_step(_: Any, w: Any, x: Any) -> Any:
    """The same, step by step."""
    steps = [over_batch(_, w, [[row[t]] for row in x]) for t in range(len(x[0]))]
    return values.joined_in_time(*steps)


NO_WEIGHTS = "It reads ids, and the model around it has no weights."
NEEDS_ALL = "It needs the whole time axis."
MAKES_TIME = "It makes a new sequence of a single value."

RECURRENT = {
    "SimpleRNN": LayerRow(
        lambda: layers.SimpleRNN(3, use_bias=False, dropout=0.3, seed=4),
        lambda w, x: last(naive.simple_rnn(*w), x),
        training=dropping(partial(naive.simple_rnn, bias=None), last),
    ),
    "SimpleRNN/backwards": LayerRow(
        lambda: layers.SimpleRNN(3, use_bias=False, go_backwards=True),
        lambda w, x: last(naive.simple_rnn(*w), x, go_backwards=True),
        cut="It runs from the last step of a sequence to the first.",
    ),
    "GRU": LayerRow(
        lambda: layers.GRU(3, reset_after=False, dropout=0.1, recurrent_dropout=0.4, seed=4),
        lambda w, x: last(naive.gru(*w, reset_after=False), x),
        training=dropping(partial(naive.gru, reset_after=False), last),
    ),
    "LSTM": LayerRow(
        lambda: layers.LSTM(
            3,
            unit_forget_bias=False,
            return_sequences=True,
            stateful=True,
            recurrent_dropout=0.3,
            seed=2,
        ),
        lambda w, x: every(naive.lstm(*w), x),
        training=dropping(naive.lstm),
    ),
    "LSTM/states": LayerRow(
        lambda: layers.LSTM(3, return_sequences=True, return_state=True),
        lambda w, x: states_too(naive.lstm(*w), x),
        cut="Its state at the end of the sequence is used.",
        trained="States as outputs are trained in tests of their own (test_bidirectional).",
    ),
    "RNN": LayerRow(
        lambda: layers.RNN(layers.SimpleRNNCell(3, recurrent_dropout=0.2, seed=5)),
        lambda w, x: last(naive.simple_rnn(*w), x),
        training=dropping(naive.simple_rnn, last),
    ),
    "RNN/stacked": LayerRow(
        lambda: layers.RNN(
            [layers.LSTMCell(3), layers.GRUCell(2)], zero_output_for_mask=True, unroll=True
        ),
        lambda w, x: last(naive.stacked(naive.lstm(*w[:3]), naive.gru(*w[3:])), x),
    ),
    "SimpleRNNCell": LayerRow(
        lambda: layers.SimpleRNNCell(3, use_bias=False, recurrent_dropout=0.5, seed=2),
        lambda w, x: every(naive.simple_rnn(*w), x),
        model=inside_rnn,
        training=dropping(partial(naive.simple_rnn, bias=None)),
    ),
    "GRUCell": LayerRow(
        lambda: layers.GRUCell(3, reset_after=False, dropout=0.5, seed=2),
        lambda w, x: every(naive.gru(*w, reset_after=False), x),
        model=inside_rnn,
        training=dropping(partial(naive.gru, reset_after=False)),
    ),
    "PeepholeLSTMCell": LayerRow(
        lambda: layers.PeepholeLSTMCell(3, recurrent_dropout=0.3, seed=2),
        lambda w, x: every(naive.peephole_lstm(*w[:3], peephole=w[3:]), x),
        model=inside_rnn,
        training=dropping(
            lambda *w, masks: naive.peephole_lstm(*w[:3], peephole=w[3:], masks=masks)
        ),
    ),
    "LayerNormLSTMCell": LayerRow(
        lambda: layers.LayerNormLSTMCell(3, recurrent_dropout=0.3, seed=2),
        lambda w, x: every(naive.layer_norm_lstm(*w), x),
        model=inside_rnn,
        training=dropping(naive.layer_norm_lstm),
    ),
    "LSTMCell": LayerRow(
        lambda: layers.LSTMCell(3, unit_forget_bias=False, dropout=0.5, seed=1),
        lambda w, x: every(naive.lstm(*w), x),
        model=inside_rnn,
        training=dropping(naive.lstm),
    ),
    "StackedRNNCells": LayerRow(
        lambda: layers.StackedRNNCells(
            [layers.GRUCell(3, dropout=0.3, seed=2), layers.LSTMCell(2)]
        ),
        lambda w, x: every(naive.stacked(naive.gru(*w[:3]), naive.lstm(*w[3:])), x),
        model=inside_rnn,
        training=dropping(
            lambda *w, masks: naive.stacked(naive.gru(*w[:3], masks=masks), naive.lstm(*w[3:])),
            part=lambda stack: stack.cells[0],
        ),
    ),
    "Bidirectional": LayerRow(
        lambda: layers.Bidirectional(
            layers.GRU(3, recurrent_dropout=0.3, seed=2),
            merge_mode="sum",
            backward_layer=layers.SimpleRNN(3, go_backwards=True),
        ),
        lambda w, x: naive.bidirectional(
            naive.gru(*w[:3]), naive.simple_rnn(*w[3:]), x, "sum", return_sequences=False
        )[0],
        training=dropping(
            lambda *w, masks: (naive.gru(*w[:3], masks=masks), naive.simple_rnn(*w[3:])),
            lambda pair, x: naive.bidirectional(pair[0], pair[1], x, "sum", return_sequences=False)[
                0
            ],
            part=lambda layer: layer.forward_layer.cell,
        ),
        cut="Its second half begins at the end of the sequence.",
    ),
}

FEATUREWISE = {
    "Dense": LayerRow(
        lambda: layers.Dense(2, use_bias=False, kernel_initializer=initializers.Constant(0.5)),
        lambda w, x: naive.dense(x, *w),
    ),
    "TimeDistributed": LayerRow(
        lambda: layers.TimeDistributed(layers.Dense(2, activation="softmax")),
        lambda w, x: naive.dense(x, *w, activation="softmax"),
    ),
    "TimeDistributed/moments": LayerRow(
        lambda: layers.TimeDistributed(layers.BatchNormalization(scale=False)),
        lambda w, x: naive.batch_normalization(x, w[1], w[2], beta=w[0]),
        trained="In training it takes moments of each step alone.",
        training=over_batch_by_step,
    ),
    "Conv1D": LayerRow(
        lambda: layers.Conv1D(
            2, 3, padding="causal", dilation_rate=2, activation="tanh", use_bias=False
        ),
        lambda w, x: naive.conv1d_causal(x, w[0], None, 2, "tanh"),
    ),
    "LayerNormalization": LayerRow(
        lambda: layers.LayerNormalization(epsilon=0.01, center=False),
        lambda w, x: naive.layer_normalization(x, *w, epsilon=0.01),
    ),
    "BatchNormalization": LayerRow(
        lambda: layers.BatchNormalization(momentum=0.9, scale=False),
        lambda w, x: naive.batch_normalization(x, w[1], w[2], beta=w[0]),
        training=over_batch,
    ),
    "BatchNormalization/frozen": LayerRow(
        lambda: layers.BatchNormalization(epsilon=0.01, trainable=False),
        lambda w, x: naive.batch_normalization(x, w[2], w[3], w[0], w[1], epsilon=0.01),
    ),
    "Normalization": LayerRow(
        lambda: layers.Normalization(mean=[1, 2, 3, 4], variance=[1, 2, 3, 0]),
        lambda _, x: naive.normalization(x, [1, 2, 3, 4], [1, 2, 3, 1e-14]),
    ),
    "Normalization/inverse": LayerRow(
        lambda: layers.Normalization(invert=True),
        lambda w, x: naive.rescaling(x, [v**0.5 for v in w[1]], w[0]),
    ),
    "Rescaling": LayerRow(
        lambda: layers.Rescaling([1, 2, 3, 4], 0.5),
        lambda _, x: naive.rescaling(x, [1, 2, 3, 4], 0.5),
    ),
    "Activation": LayerRow(
        lambda: layers.Activation("swish"), lambda _, x: naive.activation(x, "silu")
    ),
    "ReLU": LayerRow(
        lambda: layers.ReLU(6.0, 0.1, 0.2),
        lambda _, x: naive.activation(x, "relu", max_value=6.0, negative_slope=0.1, threshold=0.2),
    ),
    "LeakyReLU": LayerRow(
        lambda: layers.LeakyReLU(0.2),
        lambda _, x: naive.activation(x, "leaky_relu", negative_slope=0.2),
    ),
    "ELU": LayerRow(lambda: layers.ELU(0.5), lambda _, x: naive.activation(x, "elu", alpha=0.5)),
    "PReLU": LayerRow(
        lambda: layers.PReLU("random_normal", shared_axes=[1]), lambda w, x: naive.prelu(x, w[0][0])
    ),
    "PReLU/by_step": LayerRow(
        lambda: layers.PReLU(),
        lambda w, x: [
            [naive.prelu(step, alpha) for step, alpha in zip(row, w[0], strict=True)] for row in x
        ],
        reads="six steps",
        cut="It has an alpha for each step of a sequence.",
    ),
    "Gaussian": LayerRow(layers.Gaussian, lambda _, x: naive.mean_and_deviation(x)),
    "Softmax": LayerRow(lambda: layers.Softmax(), lambda _, x: naive.activation(x, "softmax")),
    "Softmax/over_time": LayerRow(
        lambda: layers.Softmax(axis=1),
        lambda _, x: values.turned(naive.activation(values.turned(x), "softmax")),
        cut="Its sum is over the steps of a sequence.",
    ),
    "Dropout": LayerRow(
        lambda: layers.Dropout(0.25, noise_shape=(None, None, 1), seed=3),
        same,
        training=lambda layer, _, x: np.where(drawn(layer, ROWS, STEPS, 1) < 0.25, 0, x) / 0.75,
    ),
    "SpatialDropout1D": LayerRow(
        lambda: layers.SpatialDropout1D(0.5, seed=3),
        same,
        training=lambda layer, _, x: np.where(drawn(layer, ROWS, 1, 4) < 0.5, 0, x) / 0.5,
    ),
    "ActivityRegularization": LayerRow(
        lambda: layers.ActivityRegularization(0.1, 0.2), same, trained="It adds to the loss."
    ),
    "Identity": LayerRow(layers.Identity, same),
    "GaussianNoise": LayerRow(
        lambda: layers.GaussianNoise(0.3, seed=2),
        same,
        training=lambda layer, _, x: x + noise(layer, 0.3),
    ),
    "GaussianDropout": LayerRow(
        lambda: layers.GaussianDropout(0.2, seed=2),
        same,
        training=lambda layer, _, x: x * (1 + noise(layer, (0.2 / 0.8) ** 0.5)),
    ),
    "AlphaDropout": LayerRow(
        lambda: layers.AlphaDropout(0.3, (None, 1, None), seed=2), same, training=alpha_dropout
    ),
}

SHAPES = {
    "Flatten": LayerRow(
        layers.Flatten,
        lambda _, x: [values.flat(row) for row in x],
        reads="six steps",
        cut=NEEDS_ALL,
    ),
    "Flatten/vector": LayerRow(
        layers.Flatten,
        lambda w, x: last(naive.simple_rnn(*w), x),
        model=lambda layer, _: Sequential([Input((None, 4)), layers.SimpleRNN(3), layer]),
    ),
    "Reshape": LayerRow(
        lambda: layers.Reshape((-1, 6)),
        lambda _, x: values.reshaped(x, 6),
        reads="six steps",
        cut=NEEDS_ALL,
    ),
    "RepeatVector": LayerRow(
        lambda: layers.RepeatVector(3),
        lambda _, x: values.repeated(x, 3),
        reads="vector",
        cut=MAKES_TIME,
    ),
}

ON_FEATURES = {
    name: row.layer
    for name, row in {**RECURRENT, **FEATUREWISE, **SHAPES}.items()
    if row.reads != "vector" and row.model is not inside_rnn
}
"""Layers that can be called on (batch, 6, 4) as they are."""

MERGES = {
    name: LayerRow(kind, lambda _, *x, f=function: values.each(f, *x), reads="two")
    for name, kind, function in (
        ("Add", layers.Add, values.total),
        ("Average", layers.Average, values.average),
        ("Maximum", layers.Maximum, max),
        ("Minimum", layers.Minimum, min),
        ("Multiply", layers.Multiply, values.product),
        ("Subtract", layers.Subtract, lambda a, b: a - b),
    )
} | {
    "Spread": LayerRow(
        lambda: layers.Spread(0.5), lambda _, *x: values.each(values.spread(0.5), *x), reads="two"
    ),
    "Concatenate": LayerRow(layers.Concatenate, lambda _, *x: values.joined(*x), reads="two"),
    "Concatenate/in_time": LayerRow(
        lambda: layers.Concatenate(axis=1),
        lambda _, *x: values.joined_in_time(*x),
        reads="two",
        cut="It puts one sequence behind the other.",
    ),
}


def embedded(size: int) -> Callable[[Any, str], Model]:
    """Numbers into a table, as only an Embedding takes them."""
    return before(lambda: layers.Embedding(size, 3))


TOKENS = {
    "Embedding": LayerRow(
        lambda: layers.Embedding(5, 3), lambda w, ids: naive.embedding(ids, *w), reads="ids"
    ),
    "StringLookup": LayerRow(
        lambda: layers.StringLookup(vocabulary=["b", "a", "c"], mask_token=""),
        lambda w, words: naive.embedding(
            values.numbers(words, ["b", "a", "c"], lambda word: int(word != ""), 2), *w
        ),
        reads="words",
        model=embedded(5),
    ),
    "StringLookup/one_hot": LayerRow(
        lambda: layers.StringLookup(vocabulary=["b", "a"], output_mode="one_hot"),
        lambda _, words: values.one_hot(values.numbers(words, ["b", "a"], lambda _: 0, 1), 3),
        reads="words",
        trained=NO_WEIGHTS,
    ),
    "StringLookup/counts": LayerRow(
        lambda: layers.StringLookup(vocabulary=["b", "a"], output_mode="count"),
        lambda _, words: values.counts(values.numbers(words, ["b", "a"], lambda _: 0, 1), 3),
        reads="words",
        cut="It counts what is in all steps.",
        trained=NO_WEIGHTS,
    ),
    "IntegerLookup": LayerRow(
        lambda: layers.IntegerLookup(vocabulary=[4, 1], num_oov_indices=2),
        lambda w, ids: naive.embedding(values.numbers(ids, [4, 1], lambda n: n % 2, 2), *w),
        reads="ids",
        model=embedded(4),
    ),
    "Discretization": LayerRow(
        lambda: layers.Discretization([-0.5, 0.0, 1.25]),
        lambda _, x: values.bins(x, [-0.5, 0.0, 1.25]),
        trained="Bins have no slope.",
    ),
    "CategoryEncoding": LayerRow(
        lambda: layers.CategoryEncoding(6, "one_hot"),
        lambda _, ids: values.one_hot(ids, 6),
        reads="ids",
        trained=NO_WEIGHTS,
    ),
    "CategoryEncoding/counts": LayerRow(
        lambda: layers.CategoryEncoding(6, "count"),
        lambda _, ids: values.counts(ids, 6),
        reads="ids",
        cut="It counts what is in all steps.",
        trained=NO_WEIGHTS,
    ),
}
