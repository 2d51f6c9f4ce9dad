"""Weights as integers: the kernels bit for bit as exact arithmetic, and the rules of rounding."""

from typing import Any

import naive
import naive_integers
import numpy as np
import pytest
from kernelcases import INTEGERS, Case
from selection import first_quick, slow

from streamrnn.nn import simd
from streamrnn.nn.kernels import activation, conv1d, dense, integers
from streamrnn.nn.kernels.integers import Integers, rounded

QUICK = "lstm_int16"
"""With two states."""


def of_list(name: str) -> naive_integers.Activation:
    """An activation of the kernels, which have their own tests, on a list."""

    def function(values: list[float]) -> list[float]:
        found: list[float] = activation.applied(name, np.array(values, np.float32)).tolist()
        return found

    return function


def oracle_weights(weights: Integers) -> naive_integers.Weights:
    values = weights.values.reshape(-1, weights.shape[-1])
    return naive_integers.Weights(
        values.tolist(), weights.scales.tolist(), weights.factors().tolist(), weights.top
    )


def oracle(case: Case, kind: str, x: np.ndarray, start: list[np.ndarray], *names: str) -> Any:
    """Outputs and states of the oracle of a case."""
    x_weights, h_weights = map(oracle_weights, case.integers)
    functions = [of_list(name) for name in names]
    bias = case.weights[2].tolist()
    step = naive_integers.CELLS[kind.rpartition("_")[0]](x_weights, h_weights, bias, *functions)
    outputs, states = [], []
    for b, rows in enumerate(x.tolist()):
        y, after = naive_integers.sequence(step, rows, [state[b].tolist() for state in start])
        outputs.append(y)
        states.append(after)
    swapped = [list(state) for state in zip(*states, strict=True)]
    return np.array(outputs, np.float32), [np.array(state, np.float32) for state in swapped]


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("kind", first_quick([QUICK, *sorted({*INTEGERS} - {QUICK})]))
def test_every_bit_is_that_of_exact_integers(kind: str, lanes: int) -> None:
    """Slow: the other kinds, each compiled for itself."""
    case = Case(kind, features=5, units=13)
    x, start = case.window(lanes, 4), case.start(lanes)
    x[0, 1] = 0  # a row of zeros
    x[0, 2, 1] = 1e4
    start[0][0] *= 40  # h outside [-1, 1], as a state from elsewhere may be
    y, states = case.run(x, start)
    names = case.kind.activations({})
    expected, after = oracle(case, kind, x, start, *names)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(states, after)


@pytest.mark.parametrize("precision", ["int16", "int8"])
@pytest.mark.parametrize("features", [1, 7, 36])
def test_every_bit_of_dense_is_that_of_exact_integers(features: int, precision: str) -> None:
    """Of more rows than go at once, too."""
    rng = np.random.default_rng(features)
    kernel, bias = (rng.standard_normal(s).astype(np.float32) for s in ((features, 37), 37))
    x = rng.standard_normal((simd.dense.ROWS + 3, features)).astype(np.float32)
    x[3], x[4, 0] = 0, 1e4
    weights, y = rounded(kernel, precision, factors=True), np.empty((len(x), 37), np.float32)
    dense.run(dense.pack(weights, bias), x, y)
    wanted = naive_integers.dense(
        oracle_weights(weights), bias.tolist(), of_list("linear"), x.tolist()
    )
    np.testing.assert_array_equal(y, np.array(wanted, np.float32))


@pytest.mark.parametrize("precision", ["int16", "int8"])
@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (3, 1), (2, 4)])
def test_every_bit_of_a_convolution_is_that_of_exact_integers(
    taps: int, dilation: int, precision: str
) -> None:
    rng = np.random.default_rng(taps)
    kernel, bias = (rng.standard_normal(s).astype(np.float32) for s in ((taps, 3, 37), 37))
    x = rng.standard_normal((2, 9, 3)).astype(np.float32)
    past = rng.standard_normal((2, (taps - 1) * dilation, 3)).astype(np.float32)
    weights, y = rounded(kernel, precision, factors=True), np.empty((2, 9, 37), np.float32)
    assert weights.shape == kernel.shape
    conv1d.run(conv1d.pack(weights, bias, dilation=dilation), x, None, None, past.copy(), y)
    for b in range(2):
        wanted = naive_integers.conv1d(
            oracle_weights(weights),
            bias.tolist(),
            of_list("linear"),
            x[b].tolist(),
            past[b].tolist(),
            dilation,
        )
        np.testing.assert_array_equal(y[b], np.array(wanted, np.float32))


@slow
@pytest.mark.parametrize("kind", ["simple_rnn_int16", "gru_before_int8"])
def test_a_state_may_be_of_any_size(kind: str) -> None:
    """Without an activation that limits it: the error is relative to the largest h. LSTM and GRU
    round h as SimpleRNN does; GRU with reset_after=False rounds its product with a gate.

    Slow: compiled for an activation without limits.
    """
    case = Case(kind, units=13)
    x, start = case.window(3, 3), [1e6 * state for state in case.start(3)]
    y, _ = case.run(x, start, activation="linear")
    cell = case.kind.cell(*case.weights, **case.kind.options, activation="linear")
    expected = np.array(naive.layer(cell, x, start)[0])
    near = {"int16": 1e-3, "int8": 5e-2}[case.kind.precision]
    assert np.abs(y - expected).max() < near * np.abs(expected).max()


def test_a_feature_without_weights_drowns_no_other() -> None:
    weights = np.random.default_rng(6).standard_normal((3, 5)).astype(np.float32)
    weights[1] = 0
    found, alone = (rounded(w, "int16", factors=True) for w in (weights, weights[[0, 2]]))
    assert found.factors()[1] == 0
    assert not found.floats()[1].any()
    np.testing.assert_array_equal(found.factors()[[0, 2]], alone.factors())
    np.testing.assert_array_equal(found.values[[0, 2]], alone.values)
    assert not rounded(np.zeros((3, 5), np.float32), "int8", factors=True).floats().any()


def test_a_feature_in_small_units_is_not_drowned() -> None:
    """Pressure in pascals beside wind in m/s: its weights are as small as its values are large."""
    rng = np.random.default_rng(5)
    units = np.array([1.0, 1e5, 1e-3, 30.0], np.float32)
    even = rng.standard_normal((4, 40)).astype(np.float32)
    x = rng.standard_normal((50, 4)).astype(np.float32)
    for scale in (np.ones(4, np.float32), units):
        weights = rounded(even / scale[:, None], "int16", factors=True)
        error = np.abs(made(weights, x * scale) - made_in_float64(even, x)).max()
        assert error < 2e-3
    drowned = rounded(even / units[:, None], "int16", factors=False)
    assert np.abs(made(drowned, x * units) - made_in_float64(even, x)).max() > 1


def made(weights: Integers, x: np.ndarray) -> np.ndarray:
    sums = oracle_weights(weights).sums
    return np.array([sums(row, [0.0] * weights.shape[1]) for row in x.tolist()])


def made_in_float64(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    found: np.ndarray = x.astype(np.float64) @ weights.astype(np.float64)
    return found


@pytest.mark.parametrize(("precision", "largest"), [("int16", 32767), ("int8", 127)])
@pytest.mark.parametrize("rows", [1, 3, 64, 700])
def test_no_sum_exceeds_32_bits(rows: int, precision: str, largest: int) -> None:
    """Also where all weights and all inputs are as large as they can be."""
    rng = np.random.default_rng(rows)
    for weights in (np.ones((rows, 3)), rng.standard_normal((rows, 40)), np.zeros((rows, 2))):
        found = rounded(weights.astype(np.float32), precision, factors=False)
        worst = np.abs(found.values.astype(np.int64)).sum(axis=0).max() * found.top
        assert worst < 2**31
        assert np.abs(found.values.astype(np.int64)).max() <= largest


def test_a_weight_is_off_by_half_its_scale_at_most() -> None:
    weights = np.random.default_rng(1).standard_normal((30, 20)).astype(np.float32)
    weights[3] *= 1e-9
    weights[:, 4] *= 1e20
    found = rounded(weights, "int16", factors=True)
    error = np.abs(found.floats() - weights) / found.factors()[:, None]
    assert (error <= 0.51 * found.scales).all()


def test_more_bits_go_to_the_weights_of_wide_layers() -> None:
    rng = np.random.default_rng(2)
    tops = [
        rounded(
            (rng.standard_normal((n, n)) / np.sqrt(n)).astype(np.float32), "int16", factors=False
        ).top
        for n in (8, 128, 512)
    ]
    assert tops == sorted(tops, reverse=True)
    assert tops[0] > tops[-1]


def test_rounding_the_values_of_integers_changes_no_sum_of_them() -> None:
    """The values of the weights, as float32, are those that the kernel computes with."""
    weights = np.random.default_rng(3).standard_normal((9, 8)).astype(np.float32)
    found = rounded(weights, "int16", factors=True)
    again = np.rint(
        found.floats().astype(np.float64)
        / found.scales
        / found.factors()[:, None].astype(np.float64)
    )
    np.testing.assert_array_equal(again, found.values)


def test_too_many_inputs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integers, "_room", lambda top, rows: 0)
    with pytest.raises(ValueError, match="expected fewer inputs for int16, received 3"):
        rounded(np.ones((3, 2), np.float32), "int16", factors=False)
