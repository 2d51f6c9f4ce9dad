"""CRPS and coverage of quantiles and of normal distributions, against their definitions."""

from typing import Any

import numpy as np
import pytest
from naive_scores import Pair, bands, crps_of_quantiles, mean

from streamrnn import Input, Sequential, layers, losses
from streamrnn.errors import ArgumentError
from streamrnn.nn.training.metrics import metric_of

RNG = np.random.default_rng(4)
B, T = 6, 7
LABEL = RNG.normal(size=(B, T, 1)).astype(np.float32)
WEIGHT = RNG.integers(0, 4, (B, T)).astype(np.float32)
MASK = RNG.random((B, T)) < 0.7
MOMENTS = np.stack([RNG.normal(size=(B, T)), RNG.random((B, T)) + 0.01], axis=-1)
LEVELS = {
    "even": [0.1, 0.5, 0.9],
    "uneven": [0.02, 0.05, 0.5, 0.6],
    "falling": [0.8, 0.3],
    "one": [0.7],
}


def added(metric: Any, y: np.ndarray, p: np.ndarray) -> float:
    """Return the result of two batches with weights and a mask."""
    for part in (slice(0, 2), slice(2, B)):
        metric.update_state(y[part], p[part], WEIGHT[part], mask=MASK[part])
    return float(metric.result())


def pairs(p: np.ndarray, label: np.ndarray = LABEL) -> list[Pair]:
    """The steps that count."""
    weight = WEIGHT * MASK
    return [
        Pair(p[at].astype(float).tolist(), float(label[at][0]), weight=float(weight[at]))
        for at in np.ndindex(B, T)
        if weight[at]
    ]


@pytest.mark.parametrize("name", LEVELS)
def test_quantiles(name: str) -> None:
    levels = LEVELS[name]
    loss, p = losses.Quantile(levels), RNG.normal(size=(B, T, len(levels))).astype(np.float32)
    chosen = pairs(p)
    low, high = levels.index(min(levels)), levels.index(max(levels))
    inside = [
        float((low == high or pair.scores[low] <= pair.label) and pair.label <= pair.scores[high])
        for pair in chosen
    ]
    coverage = added(metric_of("coverage", loss, len(levels)), LABEL, p)
    assert coverage == pytest.approx(mean(chosen, inside), rel=1e-12)
    if len(levels) > 1:
        crps = added(metric_of("crps", loss, len(levels)), LABEL, p)
        assert crps == pytest.approx(crps_of_quantiles(chosen, levels), rel=1e-4)


def test_a_mean_and_a_deviation() -> None:
    """Also with very small deviations; for several labels the result is the mean over them."""
    p = MOMENTS.astype(np.float32)
    p[0, :, 1], p[1, :, 1] = 1e-6, 0
    wanted, loss = bands(pairs(p)), losses.GaussianNLL()
    assert added(metric_of("crps", loss, 2), LABEL, p) == pytest.approx(wanted["crps"], rel=1e-5)
    assert added(metric_of("coverage", loss, 2), LABEL, p) == wanted["coverage_90"]
    two, other = np.concatenate([LABEL, 3 * LABEL], axis=-1), bands(pairs(p, 3 * LABEL))
    of_two = p[..., [0, 0, 1, 1]]
    for name, figure in (("crps", "crps"), ("coverage", "coverage_90")):
        first, second = wanted[figure], other[figure]
        assert first is not None
        assert second is not None
        found = added(metric_of(name, loss, 4), two, of_two)
        assert found == pytest.approx((first + second) / 2, rel=1e-5)


def test_many_levels_of_a_normal_distribution_have_its_crps() -> None:
    """So the scores of quantiles and of distributions can be compared."""
    from statistics import NormalDist

    levels = ((np.arange(200) + 0.5) / 200).tolist()
    at = np.array([NormalDist().inv_cdf(level) for level in levels])
    p = (MOMENTS[..., :1] + MOMENTS[..., 1:] * at).astype(np.float32)
    crps = added(metric_of("crps", losses.Quantile(levels), 200), LABEL, p)
    of_moments = metric_of("crps", losses.GaussianNLL(), 2)
    assert crps == pytest.approx(added(of_moments, LABEL, MOMENTS.astype(np.float32)), rel=1e-3)


def test_compile_takes_them_by_name() -> None:
    model = Sequential([Input((None, 3)), layers.Dense(2), layers.Gaussian()])
    model.compile("sgd", "gaussian_nll", metrics=["crps", "coverage"])
    x = RNG.normal(size=(B, T, 3)).astype(np.float32)
    found = model.evaluate(x, LABEL, return_dict=True)
    one = np.ones((B, T, 1), np.float32)
    for name in ("crps", "coverage"):
        metric = metric_of(name, losses.GaussianNLL(), 2)
        metric.update_state(LABEL, model.predict(x), one)
        assert found[name] == pytest.approx(float(metric.result()))


@pytest.mark.parametrize(
    ("name", "loss", "received"),
    [
        ("crps", losses.MeanSquaredError(), "the loss mean_squared_error. Set the loss to quantile "
         "with several levels or to gaussian_nll, or leave 'crps' out"),
        ("coverage", losses.MeanAbsoluteError(), "the loss mean_absolute_error. Set the loss to q"),
        ("crps", losses.Quantile(0.5), "the loss quantile with one level. Set"),
        ("coverage", None, "no loss. Set the loss to quantile or to"),
    ],
    ids=["one value", "another", "one level", "no loss"],
)  # fmt: skip
def test_other_outputs_are_refused(name: str, loss: Any, received: str) -> None:
    expected = "expected a loss of quantiles, or of a mean and a deviation"
    said = f"metric {name!r}: {expected}, received {received}"
    with pytest.raises(ArgumentError, match=said):
        metric_of(name, loss, 1)
