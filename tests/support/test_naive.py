"""The oracle against Keras, whose values are kept in golden/: it is naive, it must not be wrong.

An interpreter of golden/cases.py: each kind of layer says how naive computes it from its weights.
"""

from collections.abc import Callable, Iterator
from typing import Any

import naive
import numpy as np
import pytest
from golden.cases import CASES, Case, Spec, inputs_of, results_of, weights_of

Weights = Iterator[Any]


def take(weights: Weights, arguments: dict[str, Any], count: int) -> list[Any]:
    """The next `count` weights, the last of them a bias that may be absent."""
    has_bias = arguments.get("use_bias", True)
    taken = [next(weights) for _ in range(count - (not has_bias))]
    return taken if has_bias else [*taken, None]


def cell_of(spec: Spec, weights: Weights) -> naive.Cell:
    kind, arguments = spec
    if kind == "RNN":
        return naive.stacked(*[cell_of(cell, weights) for cell in arguments["cell"]])
    names = ("activation", "recurrent_activation", "reset_after")
    given = {name: arguments[name] for name in names if name in arguments}
    make = {"LSTM": naive.lstm, "GRU": naive.gru, "SimpleRNN": naive.simple_rnn}
    return make[kind.removesuffix("Cell")](*take(weights, arguments, 3), **given)


class Signal:
    """What goes from layer to layer: x, its mask, and what else the last layer returned."""

    def __init__(self, x: Any, mask: Any, states: Any) -> None:
        self.x, self.mask, self.states, self.returned = naive.lists(x), mask, states, []


def recurrent(spec: Spec, weights: Weights, signal: Signal) -> None:
    _, arguments = spec
    y, last, states = naive.layer(
        cell_of(spec, weights),
        signal.x,
        signal.states,
        signal.mask,
        go_backwards=arguments.get("go_backwards", False),
        zero_output_for_mask=arguments.get("zero_output_for_mask", False),
    )
    every = arguments.get("return_sequences", False)
    signal.x, signal.mask = (y, signal.mask) if every else (last, None)
    signal.returned = leaves(states) if arguments.get("return_state") else []


def bidirectional(spec: Spec, weights: Weights, signal: Signal) -> None:
    inner = spec[1]["layer"]
    forward = cell_of(inner, weights)
    backward = cell_of(inner, weights)
    every = inner[1].get("return_sequences", False)
    y, states = naive.bidirectional(
        forward,
        backward,
        signal.x,
        spec[1].get("merge_mode", "concat"),
        every,
        signal.states,
        signal.mask,
    )
    signal.returned = leaves(states) if inner[1].get("return_state") else []
    if isinstance(y, tuple):
        y, second = y
        signal.returned.insert(0, second)
    signal.x, signal.mask = y, signal.mask if every else None


def leaves(states: Any) -> list[Any]:
    """Nested states as a list of (B, U)."""
    if naive.is_matrix(states):
        return [states]
    return [leaf for state in states for leaf in leaves(state)]


def masking(_: Spec, weights: Weights, signal: Signal) -> None:
    signal.x, signal.mask = naive.masking(signal.x)


def embedding(spec: Spec, weights: Weights, signal: Signal) -> None:
    if spec[1].get("mask_zero"):
        signal.mask = [[i != 0 for i in row] for row in signal.x]
    signal.x = naive.embedding(signal.x, next(weights))


def time_distributed(spec: Spec, weights: Weights, signal: Signal) -> None:
    LAYERS[spec[1]["layer"][0]](spec[1]["layer"], weights, signal)


def timewise(function: Callable[[Any, dict[str, Any], Weights], Any]) -> Callable[..., None]:
    def compute(spec: Spec, weights: Weights, signal: Signal) -> None:
        signal.x = function(signal.x, spec[1], weights)

    return compute


def normalization(x: Any, arguments: dict[str, Any], weights: Weights) -> Any:
    if "mean" in arguments:
        return naive.normalization(x, arguments["mean"], arguments["variance"])
    mean, variance, _ = next(weights), next(weights), next(weights)
    return naive.normalization(x, mean, variance)


def layer_normalization(x: Any, arguments: dict[str, Any], weights: Weights) -> Any:
    if arguments:
        return naive.layer_normalization(x)
    return naive.layer_normalization(x, next(weights), next(weights))


def batch_normalization(x: Any, arguments: dict[str, Any], weights: Weights) -> Any:
    gamma, beta, mean, variance = (next(weights) for _ in range(4))
    return naive.batch_normalization(x, mean, variance, gamma, beta, arguments["epsilon"])


LAYERS: dict[str, Callable[[Spec, Weights, Signal], None]] = {
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "RNN"), recurrent),
    "Bidirectional": bidirectional,
    "Masking": masking,
    "Embedding": embedding,
    "TimeDistributed": time_distributed,
    "Dense": timewise(
        lambda x, a, w: naive.dense(x, *take(w, a, 2), activation=a.get("activation"))
    ),
    "Conv1D": timewise(
        lambda x, a, w: naive.conv1d_causal(
            x, next(w), next(w), a.get("dilation_rate", 1), a.get("activation")
        )
    ),
    "Normalization": timewise(normalization),
    "Rescaling": timewise(lambda x, a, w: naive.rescaling(x, a["scale"], a["offset"])),
    "Dropout": timewise(lambda x, a, w: x),
    "Activation": timewise(lambda x, a, w: naive.activation(x, a["activation"])),
    "LayerNormalization": timewise(layer_normalization),
    "BatchNormalization": timewise(batch_normalization),
    "ReLU": timewise(lambda x, a, w: naive.activation(x, "relu", **a)),
    "LeakyReLU": timewise(lambda x, a, w: naive.activation(x, "leaky_relu", negative_slope=0.3)),
    "ELU": timewise(lambda x, a, w: naive.activation(x, "elu", **a)),
    "PReLU": timewise(lambda x, a, w: naive.prelu(x, naive.lists(next(w))[0])),
    "Softmax": timewise(lambda x, a, w: naive.activation(x, "softmax")),
}


def compute(case: Case) -> list[Any]:
    signal, weights = Signal(*inputs_of(case)), iter(weights_of(case))
    for spec in case.layers:
        LAYERS[spec[0]](spec, weights, signal)
    assert next(weights, None) is None, "a weight was not used"
    return [signal.x, *signal.returned]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_naive_agrees_with_keras(case: Case) -> None:
    """Every case within 1e-5 (Keras computes in float32)."""
    ours, golden = compute(case), results_of(case)
    assert len(ours) == len(golden) > 0
    for mine, keras in zip(ours, golden, strict=True):
        np.testing.assert_allclose(mine, keras, rtol=1e-5, atol=1e-5)
        assert np.shape(mine) == keras.shape
