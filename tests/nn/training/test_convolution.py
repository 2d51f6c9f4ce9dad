"""Gradients of Conv1D, which sees inputs from before a window: they are a state."""

from typing import Any

import naive
import naive_backward
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


def test_the_state_advances_as_in_scoring_and_stops_the_gradient() -> None:
    """Windows with lengths: outputs and states are the bits of scoring, the state is a constant."""
    model = weighted(Sequential([Input((None, 3)), convolution(activation="mish")]))
    runner, weights = StepRunner(model), [naive.lists(w) for w in model.get_weights()]
    states, scored = runner.initial_state(4), runner.initial_state(4)
    for window in range(3):
        x = RNG.normal(size=(4, 5, 3)).astype(np.float32)
        y = RNG.normal(size=(4, 5, 3))
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
            made = naive.conv1d_causal(x, weights[0], weights[1], 2, "mish", past)
            return naive_backward.mean_squared_error(y.tolist(), made, present.tolist())

        for number, (name, gradient) in enumerate(found.items()):
            wanted = np.array(naive_backward.central(loss, weights, number))
            assert np.abs(gradient - wanted).max() <= 1e-4 * np.abs(wanted).max(), name


def test_what_stands_past_a_length_changes_no_bit() -> None:
    """Nor does it reach the recurrent layer behind it, which gets no mask from a convolution."""
    recurrent = layers.LSTM(4, return_sequences=True)
    model = weighted(Sequential([Input((None, 3)), convolution(), recurrent, layers.Dense(2)]))
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


def test_bits_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MIN_PRODUCTS", 0)
    model = weighted(Sequential([Input((None, 20)), layers.Dense(20), convolution(filters=40)]))
    model.compile("sgd", "mse")
    x = RNG.normal(size=(6, 9, 20)).astype(np.float32)
    found = []
    for count in (1, 2, 5):
        set_threads(count)
        found.append(list(model.gradients(x, np.zeros((6, 9, 40))).values()))
    set_threads(0)
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])
