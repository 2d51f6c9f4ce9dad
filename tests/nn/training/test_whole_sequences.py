"""Rows of unequal length in training: the bits of scoring, and the gradients row by row."""

from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import assert_same
from nn.training import custom_cells
from nn.training.trained import streamed, weighted
from selection import first_quick

from streamrnn import Input, Sequential, layers
from streamrnn.models import SequenceRunner

RNG = np.random.default_rng(41)
X = RNG.normal(size=(4, 6, 3)).astype(np.float32)
LENGTHS = np.array([6, 2, 4, 1])
STACK = "stack, backwards"
DEEP = {"return_sequences": True}
MODELS: dict[str, Any] = {
    "backwards": lambda: [layers.LSTM(3, go_backwards=True, **DEEP), layers.GRU(2, **DEEP)],
    "backwards, last": lambda: [layers.LSTM(3, go_backwards=True)],
    "both ways": lambda: [
        layers.Bidirectional(layers.GRU(3, **DEEP), merge_mode="mul"),
        layers.Bidirectional(layers.SimpleRNN(2), merge_mode="ave"),
    ],
    "zeros, last": lambda: [layers.Masking(), layers.GRU(3, zero_output_for_mask=True)],
    STACK: lambda: [
        layers.RNN(
            [layers.PeepholeLSTMCell(3), custom_cells.Echo(2), layers.LayerNormLSTMCell(2)],
            go_backwards=True,
            zero_output_for_mask=True,
            **DEEP,
        )
    ],
    "convolution": lambda: [layers.Conv1D(3, 2, padding="causal"), layers.LSTM(2)],
    "depthwise": lambda: [layers.DepthwiseConv1D(2, padding="causal"), layers.LSTM(2)],
    "each step": lambda: [
        layers.TimeDistributed(layers.Reshape((3, 1))),
        layers.TimeDistributed(layers.Bidirectional(layers.SimpleRNN(2))),
        layers.TimeDistributed(layers.PReLU()),
        layers.TimeDistributed(layers.LayerNormalization()),
        layers.LSTM(2),
    ],
}


@pytest.mark.parametrize("name", first_quick(sorted(MODELS, key=STACK.__eq__), len(MODELS) - 1))
def test_rows_of_unequal_length(name: str) -> None:
    """Gradients are those of each row by itself, without what stands past its length.

    Slow: a stack of cells, compiled for itself.
    """
    first = layers.Dense(3, use_bias=False)  # a gap stays a gap
    model = weighted(Sequential([Input((None, 3)), first, *MODELS[name]()]))
    x = X.copy()
    x[0, 2] = x[2, 3] = 0
    (expected,) = SequenceRunner(model).run([x], LENGTHS)
    y = RNG.normal(size=expected.shape)
    x[np.arange(6) >= LENGTHS[:, None]] = 7
    output, found = streamed(model, x, y, LENGTHS, None)
    totals = {key: np.zeros_like(gradient) for key, gradient in found.items()}
    share = LENGTHS / LENGTHS.sum() if output.ndim == 3 else np.full(4, 1 / 4)
    for b, length in enumerate(LENGTHS):
        cut, row = (slice(b, b + 1), slice(0, length)), slice(b, b + 1)
        here = cut if output.ndim == 3 else row
        assert_same(output[here], expected[here])
        _, own = streamed(model, np.ascontiguousarray(x[cut]), y[here], None, None)
        for key, gradient in own.items():
            totals[key] += share[b] * gradient
    for key, gradient in found.items():
        np.testing.assert_allclose(gradient, totals[key], rtol=2e-4, atol=2e-6)


def test_a_mask_within_each_step_of_time_distributed() -> None:
    """Sentences of a text, with padded words: the gradients of each sentence as a row."""
    words = np.array([[[1, 2, 0], [3, 0, 0], [4, 4, 4]], [[2, 0, 1], [0, 0, 2], [0, 0, 0]]])
    y = RNG.normal(size=(2, 3, 2)).astype(np.float32)
    embedding, gru = layers.Embedding(5, 3, mask_zero=True), layers.GRU(2)
    texts = Sequential([Input((3, 3), dtype="int64"), embedding, layers.TimeDistributed(gru)])
    rows = weighted(Sequential([Input((3,), dtype="int64"), embedding, gru]))
    for model in (texts, rows):
        model.compile("sgd", "mse")
    present = (words != 0).any(axis=2)
    found = texts.gradients(words, y)
    expected = rows.gradients(words[present], y[present])
    for one, other in zip(found.values(), expected.values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
