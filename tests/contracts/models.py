"""The contracts of a model, whatever layer, activation or file it is made of."""

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import naive
import naive_backward
import numpy as np
from nn.layers.kinds import assert_same

import streamrnn
from streamrnn import Model, layers
from streamrnn.models import SequenceRunner, StepRunner

Inputs = Sequence[np.ndarray]
ROWS, STEPS = 5, 6
POISONED, AT = 2, 3
LENGTHS = np.array([6, 0, 4, 1, 6])


def with_weights(model: Model, seed: int = 3) -> Model:
    """Normal weights; variances must be positive."""
    rng = np.random.default_rng(seed)
    drawn = {name: rng.normal(size=w.shape) * 0.5 for name, w in model.named_weights().items()}
    model.set_weights([abs(w) + 0.1 if "variance" in name else w for name, w in drawn.items()])
    return model


def said(model: Model, inputs: Inputs) -> list[np.ndarray]:
    """The model's outputs for whole sequences."""
    return SequenceRunner(model).run([np.ascontiguousarray(x) for x in inputs])


def assert_config_round_trip(
    layer: layers.Layer, model_of: Callable[[Any], Model], inputs: Inputs
) -> None:
    """Through JSON: the same class, name and config, and, with the same weights, bits."""
    model = with_weights(model_of(layer))
    config = layers.serialize(layer)
    again = layers.deserialize(json.loads(json.dumps(config)))
    assert type(again) is type(layer)
    assert again.name == layer.name
    assert layers.serialize(again) == config
    copy = model_of(again)
    copy.set_weights(model.get_weights())
    assert_same(said(copy, inputs), said(model, inputs))


def assert_saved(model: Model, inputs: Inputs, folder: Path) -> None:
    """The native file gives back the model: its config, its fingerprint and its bits."""
    model.save(folder / "m.safetensors")
    again = streamrnn.load_model(folder / "m.safetensors")
    assert type(again) is type(model)
    assert again.get_config() == model.get_config()
    assert again.fingerprint() == model.fingerprint()
    assert_same(again.get_weights(), model.get_weights())
    assert_same(said(again, inputs), said(model, inputs))


def assert_close(
    model: Model, inputs: Inputs, oracle: Callable[..., Any], tolerance: float = 1e-5
) -> None:
    """The outputs are what the oracle makes of weights and inputs, all of them nested lists.

    Of several outputs it returns a tuple.
    """
    outputs = said(model, inputs)
    expected = oracle(naive_lists(model.get_weights()), *naive_lists(inputs))
    expected = expected if isinstance(expected, tuple) else (expected,)
    for output, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output, np.array(wanted), rtol=tolerance, atol=tolerance)


def assert_gradients(
    model: Model, inputs: Inputs, oracle: Callable[..., Any], tolerance: float = 1e-4
) -> None:
    """Gradients of a mean squared error are the central differences of the oracle, in float64."""
    outputs = model(list(inputs))
    model.reset_state()
    truth = np.random.default_rng(8).normal(size=outputs.shape)
    mask = getattr(outputs, "_keras_mask", None)
    model.compile("sgd", "mse")
    found = model.gradients(list(inputs), truth)
    weights, x = naive_lists(model.get_weights()), naive_lists(inputs)

    def loss() -> float:
        predicted = oracle(weights, *x)
        return naive_backward.mean_squared_error(truth.tolist(), predicted, naive.lists(mask))

    assert found
    for number, name in enumerate(model.named_weights()):
        if name in found:
            wanted = np.array(naive_backward.central(loss, weights, number))
            error = np.abs(found[name] - wanted).max()
            assert error <= tolerance * max(np.abs(wanted).max(), 0.01), (name, error)


def naive_lists(arrays: Inputs) -> list[Any]:
    return [naive.lists(array) for array in arrays]


def assert_cut_free(model: Model, inputs: Inputs) -> None:
    """Each row of a stream gets what the model says to its past, wherever steps and rows are cut.

    Bit for bit, and so do the states; what stands past the end of a row does not count.
    """
    stream = StepRunner(model)
    full = stream.run(inputs, np.full(ROWS, STEPS), stream.initial_state(ROWS))
    assert_same(full, _said_to_each_beginning(model, inputs))
    states = stream.initial_state(ROWS)
    whole = stream.run(inputs, LENGTHS, states)
    rng = np.random.default_rng(6)
    for cuts in (range(1, STEPS), [2], rng.integers(0, STEPS + 1, 3), rng.integers(0, 7, 2)):
        edges = [0, *sorted(int(cut) for cut in cuts), STEPS]
        lanes = rng.permutation(ROWS)
        for rows in np.split(lanes, sorted(rng.integers(0, ROWS + 1, 2))):
            _assert_same_in_pieces(stream, inputs, rows, edges, whole, states)


def _said_to_each_beginning(model: Model, inputs: Inputs) -> list[np.ndarray]:
    """The last step that it says to x[:, :1], x[:, :2], …, whether or not a sequence was said."""
    beginnings = [said(model, [x[:, : t + 1] for x in inputs]) for t in range(STEPS)]
    last = [[y if y.ndim == 2 else y[:, -1] for y in outputs] for outputs in beginnings]
    return [np.stack(steps, axis=1) for steps in zip(*last, strict=True)]


def _assert_same_in_pieces(
    stream: StepRunner,
    inputs: Inputs,
    rows: np.ndarray,
    edges: list[int],
    whole: list[np.ndarray],
    after: dict[str, np.ndarray],
) -> None:
    states = stream.initial_state(len(rows))
    pieces = []
    for a, b in pairwise(edges):
        lengths = np.clip(LENGTHS[rows] - a, 0, b - a)
        window = [np.ascontiguousarray(x[rows, a:b]) for x in inputs]
        pieces.append(stream.run(window, lengths, states))
    valid = np.arange(STEPS) < LENGTHS[rows, None]
    for i, output in enumerate(whole):
        made = np.concatenate([piece[i] for piece in pieces], axis=1)
        assert_same(made[valid], output[rows][valid])
    assert_same(list(states.values()), [state[rows] for state in after.values()])


def assert_rows_apart(model: Model, inputs: Inputs) -> None:
    """What stands in one sequence changes no bit of another."""
    others = np.arange(ROWS) != POISONED
    for clean, spoilt in zip(said(model, inputs), said(model, _poisoned(inputs)), strict=True):
        assert_same(spoilt[others], clean[others])


def assert_streams_apart(model: Model, inputs: Inputs) -> None:
    """Neither poison in a lane nor a reset of it changes a bit of another; a reset forgets all."""
    stream, others = StepRunner(model), np.arange(ROWS) != POISONED
    clean, spoilt = stream.initial_state(ROWS), stream.initial_state(ROWS)
    expected = stream.run(inputs, LENGTHS, clean)
    got = stream.run(_poisoned(inputs), LENGTHS, spoilt)
    live = (np.arange(STEPS) < LENGTHS[:, None]) & others[:, None]
    for y, good in zip(got, expected, strict=True):
        assert_same(y[live], good[live])
    for name, state in spoilt.items():
        assert_same(state[others], clean[name][others])

    full, states = np.full(ROWS, STEPS), stream.initial_state(ROWS)
    expected = stream.run(inputs, full, states)
    reset, fresh = stream.initial_state(ROWS), stream.initial_state(1)
    stream.run(_poisoned([x[:, :AT] for x in inputs]), None, reset)
    for name, state in reset.items():
        state[POISONED] = fresh[name][0]
    tail = [np.ascontiguousarray(x[:, AT:]) for x in inputs]
    got = stream.run(tail, None, reset)
    one = slice(POISONED, POISONED + 1)
    alone = stream.run([np.ascontiguousarray(x[one]) for x in tail], None, fresh)
    for y, good, begun in zip(got, expected, alone, strict=True):
        assert_same(y[others], good[others, AT:])
        assert_same(y[one], begun)
    for name, state in reset.items():
        assert_same(state[others], states[name][others])
        assert_same(state[one], fresh[name])


def _poisoned(inputs: Inputs) -> list[np.ndarray]:
    """NaN in a row of features; another row's values where there is no NaN."""
    spoilt = []
    for x in inputs:
        y = x.copy()
        if x.dtype == np.float32:
            y[POISONED, min(AT, x.shape[1] - 1) - 1 :] = np.nan
        else:
            y[POISONED] = x[POISONED - 1]
        spoilt.append(y)
    return spoilt
