"""Elementary functions and activations on vectors: their error, their limits, NaN.

Errors are taken over a sample of all float32. Over every one, in some minutes:

    STREAMRNN_EVERY_FLOAT=1 pytest tests/nn/kernels/test_functions.py -k error_over
"""

import os
from collections.abc import Iterator

import naive
import numpy as np
import pytest

from streamrnn.errors import UnsupportedError
from streamrnn.nn.kernels import activation


def floats(step: int) -> Iterator[np.ndarray]:
    """Every `step`-th float32: both signs, subnormals, infinities and NaNs among them."""
    piece = step << 22
    for first in range(0, 2**32, piece):
        bits = np.arange(first, min(first + piece, 2**32), step, dtype=np.uint64)
        yield bits.astype(np.uint32).view(np.float32)


STEP = 1499
SAMPLE = np.concatenate(list(floats(STEP)))


def apply(name: str, x: np.ndarray, **parameters: float) -> np.ndarray:
    out = np.empty_like(x)
    activation.run((name, *(activation.parameters_of(name) | parameters).values()), x, out)
    return out


def sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


@pytest.mark.parametrize(
    ("name", "exact", "ulps", "floor"),
    [
        ("exponential", np.exp, 1.02, 0.0),
        ("sigmoid", sigmoid, 2.41, 2.0**-126),
        ("tanh", np.tanh, 5.12, 0.0),
    ],
)
def test_error_over_all_of_float32(name: str, exact, ulps: float, floor: float) -> None:
    """As stated in each docstring, in units of the last place; below `floor` zero is right."""
    for piece in floats(1 if os.environ.get("STREAMRNN_EVERY_FLOAT") == "1" else STEP):
        x = piece[~np.isnan(piece)]
        got = apply(name, x)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            wanted = exact(x.astype(np.float64))
            rounded = wanted.astype(np.float32)
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(got[~finite], rounded[~finite])
        error = np.abs(got[finite] - wanted[finite])
        allowed = ulps * np.spacing(np.abs(rounded[finite]))
        allowed[np.abs(wanted[finite]) < floor] = floor
        assert (error <= allowed).all(), x[finite][error > allowed][:5]
        assert np.isnan(apply(name, piece[np.isnan(piece)])).all()


@pytest.mark.parametrize(("name", "low", "high"), [("sigmoid", 0, 1), ("tanh", -1, 1)])
def test_gates_stay_in_their_range(name: str, low: float, high: float) -> None:
    """In their range everywhere, and rising but for the last places."""
    x = np.sort(SAMPLE[np.isfinite(SAMPLE)])
    y = apply(name, x)
    assert y.min() >= low
    assert y.max() <= high
    assert np.diff(y).min() >= -4e-7
    ends = apply(name, np.array([-np.inf, np.inf], np.float32))
    np.testing.assert_allclose(ends, [low, high], atol=1.2e-7)
    assert ends[0] >= low
    assert ends[1] <= high


def test_tanh_is_odd() -> None:
    x = SAMPLE[np.isfinite(SAMPLE)][::7].copy()
    np.testing.assert_array_equal(apply("tanh", -x), -apply("tanh", x))


def test_the_end_of_tanh() -> None:
    """As its docstring says: largest where rounding goes up, and the same from 8.3 to infinity."""
    bits = np.arange(*np.array([8, 8.3], np.float32).view(np.uint32), dtype=np.uint32)
    y = apply("tanh", bits.view(np.float32))
    assert y.max() == np.nextafter(np.float32(1), np.float32(2))
    assert (y > 1).sum() == 116
    assert bits.view(np.float32)[y > 1].min() > 8.2
    beyond = np.array([8.3, 8.4, 9, 1e10, np.finfo(np.float32).max, np.inf], np.float32)
    assert apply("tanh", beyond).view(np.uint32).tolist() == [0x3F7FFFFE] * 6
    assert apply("tanh", -beyond).view(np.uint32).tolist() == [0xBF7FFFFE] * 6


ELEMENTWISE = sorted(activation.ACTIVATIONS)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_activations_agree_with_the_oracle(name: str) -> None:
    """Over 19 numbers (no multiple of a vector) and NaN; in place too."""
    x = np.linspace(-6, 6, 19, dtype=np.float32)
    wanted = [naive.activate(name, [float(v)])[0] for v in x]
    got = apply(name, x)
    np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=3e-7)
    assert np.isnan(apply(name, np.array([np.nan], np.float32))[0])
    same = x.copy()
    activation.run(name, same, same)
    np.testing.assert_array_equal(same, got)


def test_infinities_give_the_limit() -> None:
    inf, nan = np.inf, np.nan
    limits = {
        "linear": (-inf, inf),
        "tanh": (-1, 1),
        "sigmoid": (0, 1),
        "relu": (0, inf),
        "softplus": (0, inf),
        "softsign": (nan, nan),
        "silu": (nan, inf),
        "gelu": (nan, inf),
        "mish": (nan, inf),
        "exponential": (0, inf),
        "relu6": (0, 6),
        "leaky_relu": (-inf, inf),
        "elu": (-1, inf),
        "selu": (-1.6732632423543772 * 1.0507009873554805, inf),
        "hard_sigmoid": (0, 1),
        "hard_sigmoid_02": (0, 1),
        "scaled_tanh": (-1, 1),
        "affine": (-inf, inf),
        "thresholded_relu": (0, inf),
        "erf": (-1, 1),
        "log": (nan, inf),
        "celu": (-1, inf),
        "hard_shrink": (-inf, inf),
        "hard_silu": (0, inf),
        "hard_tanh": (-1, 1),
        "log_sigmoid": (-inf, 0),
        "soft_shrink": (-inf, inf),
        "sparse_plus": (0, inf),
        "sparse_sigmoid": (0, 1),
        "squareplus": (0, inf),
        "tanh_shrink": (-inf, inf),
        "threshold": (0, inf),
    }
    assert sorted(limits) == ELEMENTWISE
    for name, wanted in limits.items():
        got = apply(name, np.array([-inf, inf], np.float32))
        np.testing.assert_allclose(got, wanted, rtol=3e-7, err_msg=name)


def test_softmax_goes_over_the_last_axis() -> None:
    """Rows sum to 1 and do not see each other; large inputs do not overflow."""
    x = (np.random.default_rng(0).standard_normal((3, 4, 21)) * 30).astype(np.float32)
    x[2, 3, 5] = np.nan
    y = apply("softmax", x)
    e = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    wanted = e / e.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(y[:2], wanted[:2], rtol=1e-5, atol=1e-9)
    assert np.isnan(y[2, 3]).all()
    np.testing.assert_allclose(y[2, :3].sum(axis=-1), 1, rtol=1e-6)


def test_what_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match=r"unknown activation 'tahn'; expected.*tanh"):
        activation.split_spec("tahn")
    with pytest.raises(UnsupportedError, match="'elu' has 2 parameters, received 3"):
        activation.split_spec(("elu", 1.0, 1.0, 1.0))
