"""A small model that is trained, and hashes of what training makes."""

import hashlib
from typing import Any
from unittest.mock import patch

import numpy as np
from nn.training.custom_cells import Echo

from streamrnn import Input, Model, Sequential, layers, set_threads
from streamrnn.nn.kernels import bptt
from streamrnn.nn.layers.context import CallContext, CallKind
from streamrnn.nn.layers.initializers import GlorotNormal, Orthogonal, RandomNormal
from streamrnn.nn.training.passes import plan_of, record
from streamrnn.nn.training.recording import Recording

FEATURES, CATEGORIES = 5, 3


def weighted(model: Any, seed: int = 3) -> Any:
    """The same random weights each time."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape) * 0.3 for w in model.weights])
    return model


def stack() -> Sequential:
    """All cells, dropout of both kinds, masks, and units that fill no vector."""
    return weighted(
        Sequential(
            [
                Input((None, FEATURES)),
                layers.Masking(0.0),
                layers.LSTM(20, return_sequences=True, dropout=0.2, recurrent_dropout=0.1, seed=1),
                layers.GRU(33, return_sequences=True, recurrent_dropout=0.3),
                layers.Dropout(0.25),
                layers.GRU(16, return_sequences=True, reset_after=False, recurrent_dropout=0.2),
                layers.SimpleRNN(10, return_sequences=True),
                layers.Dense(7, activation="gelu"),
                layers.Dense(CATEGORIES, activation="softmax"),
            ]
        )
    )


def others() -> Sequential:
    """The layers and cells that `stack` has not."""
    cells = [
        layers.PeepholeLSTMCell(20, recurrent_dropout=0.2, seed=3),
        layers.StackedRNNCells([layers.LayerNormLSTMCell(18, dropout=0.2), Echo(5)]),
    ]
    return weighted(
        Sequential(
            [
                Input((None, FEATURES)),
                layers.Masking(0.0),
                layers.Bidirectional(layers.GRU(9, return_sequences=True), merge_mode="mul"),
                layers.RNN(cells, return_sequences=True),
                layers.PReLU(shared_axes=[1]),
                layers.DepthwiseConv1D(2, padding="causal", depth_multiplier=2, activation="mish"),
                layers.Conv1D(CATEGORIES, 3, padding="causal", dilation_rate=2),
                layers.Softmax(),
            ]
        )
    )


def data(rows: int = 7, steps: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sequences with gaps, their categories, and their lengths."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(rows, steps, FEATURES)).astype(np.float32)
    x[rng.random((rows, steps)) < 0.2] = 0
    return x, rng.integers(0, CATEGORIES, (rows, steps)), rng.integers(1, steps + 1, rows)


def streamed(
    model: Model,
    x: np.ndarray,
    y: np.ndarray,
    lengths: np.ndarray | None,
    states: dict[str, np.ndarray] | None,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A window of `streamrnn fit`: outputs and gradients of a mean squared error.

    `states` are advanced, in place; None: the rows are whole sequences.
    """
    plan = plan_of(model)
    recording = Recording(plan, training=True)
    kind: CallKind = "stream" if states is not None else "whole"
    context = CallContext(training=True, kind=kind, lengths=lengths, states=states)
    counts = np.arange(x.shape[1]) < (x.shape[1] if lengths is None else lengths[:, None])
    counts = np.broadcast_to(counts, x.shape[:2])
    mask = None if lengths is None else counts
    made = record(model.graph, [x], [mask], context, recording, [False])
    output = made.outputs[0]
    if output.ndim == 2:
        counts = np.ones(len(x), np.bool_)
    size = max(1, counts.sum() * output.shape[-1])
    slope = np.where(counts[..., None], 2 * (output - y) / size, 0).astype(np.float32)
    made.pullback([slope], [False])
    gradients = {
        name: recording.gradients[id(holder), key]
        for name, (holder, key, _) in plan.weights.items()
    }
    return output, gradients


@patch.object(bptt, "PART", 1500)
def digest() -> str:
    """A hash of initial weights, of gradients, and of the weights and the history of a fit."""
    bits = hashlib.sha256()
    for initializer in (Orthogonal(seed=1), RandomNormal(seed=2), GlorotNormal(seed=3)):
        bits.update(np.ascontiguousarray(initializer.draw((60, 80))))
    x, y, lengths = data()
    for model in (stack(), others()):
        model.compile("adamw", "sparse_categorical_crossentropy", metrics=["accuracy"], seed=4)
        for gradient in model.gradients(x, y, lengths=lengths, training=True).values():
            bits.update(gradient.tobytes())
        history = model.fit(x, y, batch_size=3, epochs=2, verbose=0, lengths=lengths)
        bits.update(repr(history.history).encode())
        for weight in model.weights:
            bits.update(weight.tobytes())
    return bits.hexdigest()


if __name__ == "__main__":
    set_threads(1)
    print(digest())
