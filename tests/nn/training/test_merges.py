"""Gradients of merges of masked inputs, and of inputs that are broadcast; of PReLU's alpha."""

from typing import Any

import naive
import naive_backward
import numpy as np
import pytest
from nn.training.trained import weighted

from streamrnn import Input, Model, layers

RNG = np.random.default_rng(22)
ONE, OTHER, THIRD = RNG.normal(size=(3, 4, 5, 3)).astype(np.float32)
MERGES = {
    "Add": lambda *numbers: sum(numbers),
    "Average": lambda *numbers: sum(numbers) / len(numbers),
    "Maximum": max,
    "Minimum": min,
    "Multiply": lambda *numbers: float(np.prod(numbers)),
}


def assert_gradients(
    model: Model, inputs: list[np.ndarray], predicted: Any, mask: Any = None
) -> None:
    model.compile("sgd", "mse")
    y = RNG.normal(size=model(inputs).shape)
    weights = [naive.lists(w) for w in model.get_weights()]

    def loss() -> float:
        return naive_backward.mean_squared_error(y.tolist(), predicted(weights), mask)

    for number, (name, gradient) in enumerate(model.gradients(inputs, y).items()):
        wanted = np.array(naive_backward.central(loss, weights, number))
        assert np.abs(gradient - wanted).max() <= 1e-4 * np.abs(wanted).max(), name


@pytest.mark.parametrize("kind", [*MERGES, "Subtract"])
@pytest.mark.parametrize("shape", [(1, 3), (5, 1), (1, 1)])
def test_an_input_that_is_broadcast_has_the_sum(kind: str, shape: tuple[int, int]) -> None:
    """Each of the two has a Dense before it."""
    symbols = [Input((5, 3)), Input(shape)]
    dense = layers.Dense(3), layers.Dense(shape[-1])
    read = [layer(symbol) for layer, symbol in zip(dense, symbols, strict=True)]
    model = weighted(Model(symbols, getattr(layers, kind)()(read)))
    small = np.ascontiguousarray(OTHER[:, : shape[0], : shape[1]])
    function = {**MERGES, "Subtract": lambda a, b: a - b}[kind]

    def predicted(w: Any) -> Any:
        one, other = naive.dense(ONE, *w[:2]), naive.dense(small, *w[2:])
        full = [
            [[other[b][t % shape[0]][u % shape[1]] for u in range(3)] for t in range(5)]
            for b in range(4)
        ]
        return each(function, one, full)

    assert_gradients(model, [ONE, small], predicted)


@pytest.mark.parametrize("kind", MERGES)
def test_masked_steps_of_an_input_are_left_out(kind: str) -> None:
    """Steps that any, or all, of three inputs mask; and one input without a mask."""
    rng = np.random.default_rng(5)
    masks = rng.random((3, 4, 5)) < 0.6
    masks[2] |= ~masks[:2].any(axis=0)
    masks[:, 0, 0], masks[2, 1] = False, False
    inputs = [x * mask[..., None] for x, mask in zip((ONE, OTHER, THIRD), masks, strict=True)]
    inputs = [x.astype(np.float32) for x in inputs]
    symbols = [Input((None, 3)) for _ in inputs]
    read = [layers.Dense(3)(layers.Masking()(symbol)) for symbol in symbols]
    model = weighted(Model(symbols, getattr(layers, kind)()(read)))
    joint = masks.any(axis=0)

    def predicted(w: Any) -> Any:
        made = [naive.dense(x, *w[2 * i : 2 * i + 2]) for i, x in enumerate(inputs)]
        return [
            [
                [merged(kind, [m[b][t][u] for m in made], masks[:, b, t]) for u in range(3)]
                for t in range(5)
            ]
            for b in range(4)
        ]

    assert_gradients(model, inputs, predicted, joint.tolist())


def merged(kind: str, numbers: list[float], present: np.ndarray) -> float:
    """What a merge makes of numbers, some of them masked."""
    if kind in ("Maximum", "Minimum", "Multiply"):
        numbers = [n for n, seen in zip(numbers, present, strict=True) if seen] or numbers
    return numbers[0] if len(numbers) == 1 else float(MERGES[kind](*numbers))


def each(function: Any, one: Any, other: Any) -> Any:
    if not isinstance(one, list):
        return function(one, other)
    return [each(function, a, b) for a, b in zip(one, other, strict=True)]


def test_of_equal_inputs_the_first_has_the_gradient() -> None:
    """And not both."""
    symbols = [Input((None, 3)), Input((None, 3))]
    dense = [layers.Dense(3) for _ in symbols]
    both = [layer(symbol) for layer, symbol in zip(dense, symbols, strict=True)]
    model = weighted(Model(symbols, layers.Maximum()(both)))
    weights = model.get_weights()
    model.set_weights([*weights[:2], *weights[:2]])
    model.compile("sgd", "mse")
    found = list(model.gradients([ONE, ONE], np.zeros_like(ONE)).values())
    assert found[0].any()
    assert not found[2].any()


@pytest.mark.parametrize("shared", [None, [1], [1, 2], [2]])
def test_gradients_of_prelu(shared: list[int] | None) -> None:
    x = Input((5, 3))
    model = weighted(Model(x, layers.PReLU(shared_axes=shared)(layers.Dense(3)(x))))

    def predicted(w: Any) -> Any:
        alpha = np.broadcast_to(np.array(w[2]), (5, 3)).tolist()
        return [
            [naive.prelu(step, own) for step, own in zip(row, alpha, strict=True)]
            for row in naive.dense(ONE, *w[:2])
        ]

    assert_gradients(model, [ONE], predicted)
