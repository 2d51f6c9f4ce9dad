"""Gradients of Conv1D and DepthwiseConv1D, whose state is the inputs before a window."""

from typing import Any

import naive
import naive_backward
import naive_time_axis as timed
import numpy as np
import pytest
from nn.layers.kinds import assert_same
from nn.training.trained import streamed, weighted

from streamrnn import Input, Sequential, layers, set_threads
from streamrnn.models import StepRunner
from streamrnn.nn.kernels import threads

RNG = np.random.default_rng(21)
LENGTHS = np.array([5, 0, 3, 1])


def convolution(**options: Any) -> layers.Conv1D:
    given: dict[str, Any] = {"padding": "causal", "dilation_rate": 2, **options}
    return layers.Conv1D(given.pop("filters", 3), given.pop("kernel_size", 3), **given)


def depthwise(**options: Any) -> layers.DepthwiseConv1D:
    """Two outputs for each feature."""
    given: dict[str, Any] = {"padding": "causal", "dilation_rate": 2, **options}
    return layers.DepthwiseConv1D(given.pop("kernel_size", 3), depth_multiplier=2, **given)


MADE = {"Conv1D": convolution, "DepthwiseConv1D": depthwise}


def whole_kernel(kernel: Any) -> list[Any]:
    """The kernel (K, F, M) of a DepthwiseConv1D as (K, F, F M): zeros for the other features."""
    features, multiple = len(kernel[0]), len(kernel[0][0])
    return [
        [
            [tap[f][column % multiple] if column // multiple == f else 0.0
             for column in range(features * multiple)]
            for f in range(features)
        ]
        for tap in kernel
    ]  # fmt: skip


def as_causal(layer: Any, x: Any, weights: list[Any], past: Any = None) -> Any:
    """What the layer makes of x, by the oracle."""
    kernel = whole_kernel(weights[0]) if isinstance(layer, layers.DepthwiseConv1D) else weights[0]
    bias = weights[1] if len(weights) > 1 else None
    return naive.conv1d_causal(x, kernel, bias, layer.dilation_rate, layer.activation, past)


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "tanh"},
        {"activation": "gelu"},
        {"activation": "softmax"},
        {"filters": 16, "kernel_size": 2, "dilation_rate": 1, "use_bias": False},
        {"kernel_size": 1},
        {"kernel_size": 4, "dilation_rate": 3},
    ],
    ids=str,
)
def test_gradients_are_those_of_the_oracle(options: dict[str, Any]) -> None:
    """Of the kernel, the bias and, by a Dense before it, of the inputs."""
    layer = convolution(**options)
    model = weighted(Sequential([Input((None, 3)), layers.Dense(4), layer]))
    model.compile("sgd", "mse")
    x = RNG.normal(size=(3, 7, 3)).astype(np.float32)
    y = RNG.normal(size=(3, 7, layer.filters))
    weights = [naive.lists(w) for w in model.get_weights()]

    def loss() -> float:
        read, bias = naive.dense(x, *weights[:2]), weights[3] if len(weights) > 3 else None
        dilation, activation = layer.dilation_rate, options.get("activation")
        made = naive.conv1d_causal(read, weights[2], bias, dilation, activation)
        return naive_backward.mean_squared_error(y.tolist(), made)

    for number, (name, gradient) in enumerate(model.gradients(x, y).items()):
        wanted = np.array(naive_backward.central(loss, weights, number))
        assert np.abs(gradient - wanted).max() <= 1e-4 * np.abs(wanted).max(), name


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "tanh"},
        {"activation": "gelu"},
        {"activation": "softmax"},
        {"kernel_size": 2, "dilation_rate": 1, "use_bias": False},
        {"kernel_size": 1},
        {"kernel_size": 4, "dilation_rate": 3},
        {"padding": "valid", "activation": "mish"},
        {"padding": "same", "kernel_size": 4},
        {"padding": "same", "strides": 3, "dilation_rate": 1},
        {"padding": "causal", "strides": 2, "dilation_rate": 1},
    ],
    ids=str,
)
def test_depthwise_gradients_are_those_of_the_oracle(options: dict[str, Any]) -> None:
    """Of the kernel, the bias and, through a Dense before it, the inputs, with each padding."""
    layer = depthwise(**options)
    model = weighted(Sequential([Input((None, 3)), layers.Dense(2), layer]))
    model.compile("sgd", "mse")
    x = RNG.normal(size=(3, 7, 3)).astype(np.float32)
    y = RNG.normal(size=np.shape(model(x)))
    weights = [naive.lists(w) for w in model.get_weights()]
    oracle = {
        "padding": layer.padding,
        "strides": layer.strides,
        "dilation": layer.dilation_rate,
        "activation": options.get("activation"),
    }

    def loss() -> float:
        made = timed.depthwise(naive.dense(x, *weights[:2]), *weights[2:], **oracle)
        return naive_backward.mean_squared_error(y.tolist(), made)

    for number, (name, gradient) in enumerate(model.gradients(x, y).items()):
        wanted = np.array(naive_backward.central(loss, weights, number))
        assert np.abs(gradient - wanted).max() <= 1e-4 * np.abs(wanted).max(), name


@pytest.mark.parametrize("kind", MADE)
def test_sequences_without_a_step_have_gradients_of_zero(kind: str) -> None:
    model = weighted(Sequential([Input((None, 3)), layers.Dense(3), MADE[kind]()]))
    model.compile("sgd", "mse")
    x = np.zeros((2, 0, 3), np.float32)
    for name, gradient in model.gradients(x, model.predict(x)).items():
        assert not gradient.any(), name


@pytest.mark.parametrize("kind", MADE)
def test_the_state_advances_as_in_scoring_and_stops_the_gradient(kind: str) -> None:
    """Windows with lengths: outputs and states are the bits of scoring, the state is a constant."""
    layer = MADE[kind](activation="mish")
    model = weighted(Sequential([Input((None, 3)), layer]))
    runner, weights = StepRunner(model), [naive.lists(w) for w in model.get_weights()]
    states, scored = runner.initial_state(4), runner.initial_state(4)
    for window in range(3):
        x = RNG.normal(size=(4, 5, 3)).astype(np.float32)
        y = RNG.normal(size=(4, 5, layer.compute_output_shape((4, 5, 3))[-1] or 0))
        lengths = None if window == 2 else LENGTHS
        past = next(iter(states.values())).reshape(4, 4, 3).copy()
        output, found = streamed(model, x, y, lengths, states)
        (expected,) = runner.run([x], lengths, scored)
        present = np.arange(5) < (5 if lengths is None else lengths[:, None])
        present = np.broadcast_to(present, (4, 5))
        assert_same(output[present], expected[present])
        assert not output[~present].any() or lengths is None
        assert_same(list(states.values()), list(scored.values()))

        def loss(x: Any = x, y: Any = y, past: Any = past, present: Any = present) -> float:
            made = as_causal(layer, x, weights, past)
            return naive_backward.mean_squared_error(y.tolist(), made, present.tolist())

        for number, (name, gradient) in enumerate(found.items()):
            wanted = np.array(naive_backward.central(loss, weights, number))
            assert np.abs(gradient - wanted).max() <= 1e-4 * np.abs(wanted).max(), name


@pytest.mark.parametrize("kind", MADE)
def test_what_stands_past_a_length_changes_no_bit(kind: str) -> None:
    """Nor does it reach the recurrent layer behind it, which gets no mask from a convolution."""
    recurrent = layers.LSTM(4, return_sequences=True)
    model = weighted(Sequential([Input((None, 3)), MADE[kind](), recurrent, layers.Dense(2)]))
    runner, found = StepRunner(model), []
    x, y = RNG.normal(size=(4, 5, 3)).astype(np.float32), RNG.normal(size=(4, 5, 2))
    for poison in (0.0, np.nan):
        x[np.arange(5) >= LENGTHS[:, None]] = poison
        states = runner.initial_state(4)
        _, gradients = streamed(model, x, y, LENGTHS, states)
        found.append([*gradients.values(), *states.values()])
    assert_same(*found)
    scored = runner.initial_state(4)
    runner.run([np.nan_to_num(x)], LENGTHS, scored)
    assert_same(list(scored.values()), found[0][-len(scored) :])


@pytest.mark.parametrize("kind", MADE)
def test_bits_do_not_depend_on_threads(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MIN_PRODUCTS", 0)
    layer = convolution(filters=40) if kind == "Conv1D" else depthwise()
    model = weighted(Sequential([Input((None, 20)), layers.Dense(20), layer]))
    model.compile("sgd", "mse")
    x = RNG.normal(size=(6, 9, 20)).astype(np.float32)
    found = []
    for count in (1, 2, 5):
        set_threads(count)
        found.append(list(model.gradients(x, np.zeros((6, 9, 40))).values()))
    set_threads(0)
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])
