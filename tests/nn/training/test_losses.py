"""Losses and metrics against their formulas in plain Python; derivatives by central differences."""

import math
from typing import Any

import naive
import naive_backward
import numpy as np
import pytest

from streamrnn import Input, Sequential, layers, losses, metrics
from streamrnn.errors import ArgumentError, DataError, ShapeError, StreamRNNError
from streamrnn.nn.simd import jit

RNG = np.random.default_rng(6)
LOGITS = (RNG.normal(size=(6, 5, 3)) * 3).astype(np.float32)
MILD = LOGITS / 3  # central differences of a logarithm need probabilities far above their step
P = np.array([naive.activate("softmax", v) for v in MILD.reshape(-1, 3).tolist()], np.float32)
P = P.reshape(LOGITS.shape)
SIGMOIDS = (1 / (1 + np.exp(-MILD))).astype(np.float32)
Y = RNG.normal(size=LOGITS.shape).astype(np.float32)
BITS = RNG.integers(0, 2, LOGITS.shape)
IDS = RNG.integers(0, 3, LOGITS.shape[:2])
ONE_HOT = np.eye(3)[IDS]


def softplus(x: float) -> float:
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def huber(e: float, delta: float) -> float:
    return e * e / 2 if abs(e) <= delta else delta * (abs(e) - delta / 2)


def cross_entropy(p: list[float], t: list[float]) -> float:
    return -sum(b * math.log(a / sum(p)) for a, b in zip(p, t, strict=True))


def mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values)


def each(f: Any) -> Any:
    """The mean over the last axis."""
    return lambda p, t: mean(f(a, b) for a, b in zip(p, t, strict=True))


def limited(p: float) -> float:
    return min(max(p, 1e-7), 1.0)


def cosine(p: list[float], t: list[float]) -> float:
    return sum(a * b for a, b in zip(p, t, strict=True)) / math.hypot(*p) / math.hypot(*t)


def smoothed(share: float, classes: int) -> Any:
    return lambda t: t * (1 - share) + share / classes


def binary(p: float, t: float) -> float:
    return -(t * math.log(p) + (1 - t) * math.log(1 - p))


CASES: dict[str, tuple[losses.Loss, Any, np.ndarray, np.ndarray]] = {
    "mse": (losses.MeanSquaredError(), each(lambda p, t: (p - t) ** 2), LOGITS, Y),
    "mae": (losses.MeanAbsoluteError(), each(lambda p, t: abs(p - t)), LOGITS, Y),
    "huber": (losses.Huber(1.5), each(lambda p, t: huber(p - t, 1.5)), LOGITS, Y),
    "binary": (losses.BinaryCrossentropy(), each(binary), SIGMOIDS, BITS),
    "binary logits": (
        losses.BinaryCrossentropy(from_logits=True),
        each(lambda p, t: softplus(p) - p * t),
        LOGITS,
        BITS,
    ),
    "categorical": (losses.CategoricalCrossentropy(), cross_entropy, P * 0.7, ONE_HOT),
    "categorical logits": (
        losses.CategoricalCrossentropy(from_logits=True),
        lambda p, t: cross_entropy(naive.activate("softmax", p), t),
        LOGITS,
        ONE_HOT,
    ),
    "sparse": (losses.SparseCategoricalCrossentropy(), cross_entropy, P, IDS),
    "sparse logits": (
        losses.SparseCategoricalCrossentropy(from_logits=True),
        lambda p, t: cross_entropy(naive.activate("softmax", p), t),
        LOGITS,
        IDS,
    ),
    "quantile": (
        losses.Quantile([0.1, 0.5, 0.9]),
        lambda p, t: mean(
            max(q * (b - a), (q - 1) * (b - a))
            for q, a, b in zip((0.1, 0.5, 0.9), p, t, strict=True)
        ),
        LOGITS,
        Y[..., :1],
    ),
}
CASES |= {
    "gaussian": (
        losses.GaussianNLL(),
        lambda p, t: math.log(p[1]) + ((t[0] - p[0]) / p[1]) ** 2 / 2,
        np.stack([LOGITS[..., 0], 0.2 + SIGMOIDS[..., 1]], axis=-1),
        Y[..., :1],
    ),
    "mape": (
        losses.MeanAbsolutePercentageError(),
        each(lambda p, t: 100 * abs(p - t) / abs(t)),
        LOGITS,
        Y,
    ),
    "msle": (
        losses.MeanSquaredLogarithmicError(),
        each(lambda p, t: (math.log1p(max(p, 1e-7)) - math.log1p(max(t, 1e-7))) ** 2),
        LOGITS,
        Y,
    ),
    "log_cosh": (losses.LogCosh(), each(lambda p, t: math.log(math.cosh(p - t))), LOGITS, Y),
    "poisson": (
        losses.Poisson(),
        each(lambda p, t: p - t * math.log(p + 1e-7)),
        SIGMOIDS * 4,
        BITS * 3,
    ),
    "cosine": (losses.CosineSimilarity(), lambda p, t: -cosine(p, t), LOGITS, Y),
    "kl": (
        losses.KLDivergence(),
        lambda p, t: sum(
            limited(b) * math.log(limited(b) / limited(a)) for a, b in zip(p, t, strict=True)
        ),
        P,
        P[::-1] * (P[::-1] > 0.2),
    ),
    "hinge": (losses.Hinge(), each(lambda p, t: max(0, 1 - (2 * t - 1) * p)), MILD, BITS),
    "squared hinge": (
        losses.SquaredHinge(),
        each(lambda p, t: max(0, 1 - t * p) ** 2),
        MILD,
        BITS * 2 - 1,
    ),
    "categorical hinge": (
        losses.CategoricalHinge(),
        lambda p, t: max(
            0,
            1
            + max((1 - b) * a for a, b in zip(p, t, strict=True))
            - sum(a * b for a, b in zip(p, t, strict=True)),
        ),
        MILD,
        ONE_HOT,
    ),
    "binary smoothed": (
        losses.BinaryCrossentropy(label_smoothing=0.2),
        each(lambda p, t: binary(p, smoothed(0.2, 2)(t))),
        SIGMOIDS,
        BITS,
    ),
    "categorical smoothed": (
        losses.CategoricalCrossentropy(label_smoothing=0.3),
        lambda p, t: cross_entropy(p, [smoothed(0.3, 3)(b) for b in t]),
        P,
        ONE_HOT,
    ),
}
WEIGHTS = RNG.random((6, 5)).astype(np.float32)


def expected(value: Any, p: Any, y: np.ndarray, weights: Any, divisor: float = 30) -> float:
    t = np.eye(3)[y] if y.ndim == 2 else np.broadcast_to(y, LOGITS.shape)
    rows = zip(p, t.tolist(), weights, strict=True)
    pairs = ((a, b, w) for row in rows for a, b, w in zip(*row, strict=True))
    return math.fsum(value(a, b) * w for a, b, w in pairs) / divisor


def test_every_loss_has_a_case() -> None:
    """Of its formula in plain Python."""
    kinds = {name for name in losses.__all__ if isinstance(getattr(losses, name), type)}
    assert {type(loss).__name__ for loss, *_ in CASES.values()} == kinds - {"Loss"}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_derivative(name: str) -> None:
    """With weights of steps; the derivative of each prediction."""
    loss, value, p, y = CASES[name]
    assert loss(y, p) == pytest.approx(expected(value, p.tolist(), y, np.ones((6, 5))), rel=1e-5)
    weights = WEIGHTS.tolist()
    assert loss(y, p, WEIGHTS) == pytest.approx(expected(value, p.tolist(), y, weights), rel=1e-5)
    holder = [p.tolist()]
    wanted = np.array(
        naive_backward.central(lambda: expected(value, holder[0], y, weights), holder, 0)
    )
    _, slope = loss.with_slope(loss.truth(y, p), p, WEIGHTS, None)
    assert np.abs(slope - wanted).max() <= 2e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("name", CASES)
def test_masked_steps_do_not_count(name: str) -> None:
    """The mean is over the others, and their predictions may be NaN."""
    loss, value, p, y = CASES[name]
    mask = RNG.random((6, 5)) < 0.6
    p = p.copy()
    p[~mask] = np.nan
    found, slope = loss.with_slope(loss.truth(y, p), p, None, mask)
    good = np.where(mask[..., None], p, 0.5).tolist()
    wanted = expected(value, good, y, mask.tolist(), float(mask.sum()))
    assert found == pytest.approx(wanted, rel=1e-5)
    assert (slope[~mask] == 0).all()
    assert np.isfinite(slope).all()


def test_certain_probabilities_have_finite_losses() -> None:
    """They are limited as in Keras, and then have no derivative."""
    p, t = np.array([[0.0, 1.0]], np.float32), np.array([[1.0, 0.0]])
    value, slope = losses.BinaryCrossentropy().with_slope(np.float32(t), p, None, None)
    assert value == pytest.approx(-math.log(1e-7), rel=1e-2)
    assert (slope == 0).all()


@pytest.mark.parametrize("x", [1e-30, 1e-7, 0.5, 0.70710678, 1.0, 1.4142136, 3.0, 1e30])
def test_the_logarithm_is_exact_to_two_units_of_the_last_place(x: float) -> None:
    """By cross-entropy of logits 0 and log(x): log(1 + x)."""
    p = np.array([[np.float32(x), np.float32(1)]])
    found, _ = losses.CategoricalCrossentropy().with_slope(
        np.array([[0, 1]], np.float32), p, None, None
    )
    share = 1 / (float(p[0, 0]) + 1)
    limited = min(max(share, 1e-7), 1 - 1e-7)
    assert found == pytest.approx(-math.log(limited), rel=3e-7, abs=2e-7)
    assert jit.width() in (4, 8, 16)


def test_what_has_no_logarithm_is_no_number() -> None:
    """As in Keras: the loss is NaN, or infinite, not a wrong number."""
    poisson = losses.Poisson()
    assert math.isnan(poisson([[1.0]], [[-1.0]]))
    assert poisson([[1.0]], [[-1e-7]]) == math.inf
    for loss in (losses.MeanSquaredLogarithmicError(), losses.LogCosh(), losses.SquaredHinge()):
        assert math.isnan(loss([[1.0]], [[math.nan]]))
    for rows in (losses.KLDivergence(), losses.CosineSimilarity(), losses.CategoricalHinge()):
        assert math.isnan(rows([[1.0, 0.0]], [[math.nan, 0.5]]))


def test_a_vector_of_zeros_has_no_angle() -> None:
    value, slope = losses.CosineSimilarity().with_slope(
        np.float32([[3, 4]]), np.float32([[0, 0]]), None, None
    )
    assert value == 0
    assert np.isfinite(slope).all()


def test_reductions_and_names() -> None:
    p, t = np.ones((4, 2), np.float32), np.zeros((4, 2))
    assert losses.MeanSquaredError(reduction="sum")(t, p) == 4.0
    assert losses.loss_of("mse").name == "mean_squared_error"
    found = losses.loss_of(losses.Huber)
    assert isinstance(found, losses.Huber)
    assert found.delta == 1.0
    for name in ("kld", "KLD", "kl_divergence", "KLDivergence"):
        assert isinstance(losses.loss_of(name), losses.KLDivergence)
    for name in ("logcosh", "log_cosh", "LogCosh"):
        assert isinstance(losses.loss_of(name), losses.LogCosh)
    with pytest.raises(ArgumentError, match="loss 'msee' is not supported; did you mean 'mse'"):
        losses.loss_of("msee")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.MeanSquaredError("none"), "reduction must be .* received 'none'"),
        (lambda: losses.BinaryCrossentropy(label_smoothing=2), "label_smoothing must lie in 0…1"),
        (lambda: losses.CosineSimilarity(axis=1), "axis must be -1, received 1"),
        (lambda: losses.SparseCategoricalCrossentropy(ignore_class=0), "ignore_class=0 is not"),
        (lambda: losses.Quantile([0.5, 1.0]), "quantiles above 0 and below 1"),
        (lambda: losses.MeanSquaredError()(np.ones((4, 1)), np.ones((4, 3))), "y must have shape"),
        (lambda: losses.MeanSquaredError()(np.ones(4), np.ones((4, 2))), "y must have shape"),
        (lambda: losses.MeanSquaredError()(["a"], np.ones((1, 1))), "expected numbers as y"),
        (
            lambda: losses.SparseCategoricalCrossentropy()([0, 3], np.ones((2, 3))),
            r"y must lie in 0…2, received 0…3",
        ),
        (lambda: losses.Quantile()(np.ones(2), np.ones((2, 3))), "one unit for each of 1"),
        (
            lambda: losses.MeanSquaredError()(np.ones((4, 1)), np.ones((4, 1)), np.ones(3)),
            r"sample_weight must have shape \(4,\), received \(3,\)",
        ),
        (
            lambda: losses.MeanSquaredError()(np.ones((2, 1)), np.ones((2, 1)), [1.0, None]),
            "expected numbers as sample_weight, received object",
        ),
        (
            lambda: metrics.Recall().update_state(np.ones((1, 1)), np.ones((1, 1)), ["a"]),
            "expected numbers as sample_weight, received <U1",
        ),
        (
            lambda: losses.SparseCategoricalCrossentropy()(["a"], np.ones((1, 3))),
            "expected numbers as y, received <U1",
        ),
        (
            lambda: metrics.SparseCategoricalAccuracy().update_state([None], np.ones((1, 3))),
            "expected numbers as y, received object",
        ),
        (
            lambda: metrics.MeanSquaredError(dtype="float16"),
            "dtype must be 'float32', received 'float16'",
        ),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(StreamRNNError, match=message) as caught:
        make()
    assert isinstance(caught.value, ArgumentError | ShapeError | DataError)


def test_metrics() -> None:
    """Means over all samples of several batches, weighted or masked."""
    mae = metrics.MeanAbsoluteError()
    mae.update_state([[1.0], [2.0]], [[0.0], [4.0]])
    mae.update_state([[0.0]], [[6.0]], [2.0])
    assert mae.result() == pytest.approx((1 + 2 + 12) / 4)
    mae.reset_state()
    assert mae.result() == 0.0
    mask = np.array([[True, False]])
    mae.update_state(np.zeros((1, 2, 1)), np.array([[[3.0], [np.nan]]]), mask=mask)
    assert mae.result() == 3.0
    mse = metrics.MeanSquaredError()
    mse.update_state(Y, LOGITS)
    assert mse.result() == pytest.approx(losses.MeanSquaredError()(Y, LOGITS), rel=1e-6)


def test_accuracy_fits_the_loss() -> None:
    for loss, y, p in (
        ("sparse_categorical_crossentropy", IDS, P),
        ("categorical_crossentropy", ONE_HOT, P),
    ):
        found = metrics.metric_of("accuracy", losses.loss_of(loss), 3)
        found.update_state(y, p)
        assert found.name == "accuracy"
        assert found.result() == pytest.approx((P.argmax(-1) == IDS).mean())
    binary = metrics.metric_of("acc", losses.BinaryCrossentropy(), 1)
    binary.update_state(BITS[..., :1], SIGMOIDS[..., :1])
    wanted = ((SIGMOIDS[..., 0] > 0.5) == BITS[..., 0]).mean()
    assert binary.result() == pytest.approx(wanted)
    with pytest.raises(ArgumentError, match="metric 'aux' is not supported"):
        Sequential([Input((3,)), layers.Dense(1)]).compile("sgd", "mse", metrics=["aux"])
