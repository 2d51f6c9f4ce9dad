"""Metrics of bands: of quantiles, or of the mean and the deviation of a normal distribution."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Doubles, Floats
from streamrnn.errors import ArgumentError
from streamrnn.nn.kernels import losses as kernel
from streamrnn.nn.layers import activations
from streamrnn.nn.training.loss import Loss
from streamrnn.nn.training.losses import GaussianNLL, Quantile
from streamrnn.nn.training.metric import MeanMetric

NORMAL_90 = 1.6448536
"""90 % of a normal distribution lie within this many standard deviations of its mean."""


def level_weights(levels: Sequence[float]) -> Doubles:
    """Return a factor for the pinball loss of each quantile; the sum of the products is the CRPS.

    The CRPS is the integral of 2 pinball(level) over all levels (Gneiting & Ranjan 2011). It is
    computed by the trapezoid rule from these levels and from levels 0 and 1, whose pinball losses
    are 0. So the distances between levels may differ; with few levels the result is too small.

    >>> level_weights([0.25, 0.5, 0.75]).tolist()
    [0.5, 0.5, 0.5]
    """
    order = np.argsort(levels, kind="stable")
    points = np.array([0.0, *np.take(levels, order), 1.0])
    weights = np.empty(len(order))
    weights[order] = points[2:] - points[:-2]
    return weights


class BandMetric(MeanMetric):
    """The base of metrics of the outputs that `loss` fits: quantiles, or means and deviations."""

    def __init__(self, loss: Quantile | GaussianNLL, name: str) -> None:
        super().__init__(name)
        self.loss = loss

    def values(self, y_true: npt.ArrayLike, y_pred: Floats) -> Floats:
        t, loss = self.loss.truth(y_true, y_pred), self.loss
        if isinstance(loss, Quantile):
            return self.of_quantiles(loss, t, y_pred)
        labels = t.shape[-1]
        return kernel.means_of_rows(self.of_moments(t - y_pred[..., :labels], y_pred[..., labels:]))

    def of_quantiles(self, loss: Quantile, t: Floats, p: Floats) -> Floats:
        """Return the value of each sample; the label `t` is repeated for each quantile."""
        raise NotImplementedError

    def of_moments(self, error: Floats, deviation: Floats) -> Floats:
        """Return the value of each label; `error` is the label minus the mean."""
        raise NotImplementedError


class RankedProbabilityScore(BandMetric, direction="down"):
    """The mean continuous ranked probability score, in the unit of the label."""

    def of_quantiles(self, loss: Quantile, t: Floats, p: Floats) -> Floats:
        weights = level_weights(loss.quantiles) * len(loss.quantiles)  # a mean follows
        return kernel.means_of_rows(loss.of_each(t, p)[0] * weights.astype(np.float32))

    def of_moments(self, error: Floats, deviation: Floats) -> Floats:
        """Return the score of a normal distribution (Gneiting & Raftery 2007, equation 21).

        gelu(z) is z times the standard normal distribution function at z.
        """
        z = np.ascontiguousarray(error / np.where(deviation > 0, deviation, np.float32(1)))
        density = activations.compute("exponential", z * z * np.float32(-0.5))
        density *= np.float32(math.sqrt(2 / math.pi))
        twice = np.float32(2) * activations.compute("gelu", z)
        score = deviation * (twice - z + density - np.float32(1 / math.sqrt(math.pi)))
        return np.where(deviation > 0, score, abs(error))


class Coverage(BandMetric):
    """The share of labels between the lowest and highest quantile, or in a distribution's middle.

    The middle is the central 90 % of the distribution. With one quantile: the share of labels that
    are at most the quantile.
    """

    def of_quantiles(self, loss: Quantile, t: Floats, p: Floats) -> Floats:
        levels = loss.quantiles
        inside = t[..., 0] <= p[..., int(np.argmax(levels))]
        if len(levels) > 1:
            inside &= t[..., 0] >= p[..., int(np.argmin(levels))]
        return inside.astype(np.float32)

    def of_moments(self, error: Floats, deviation: Floats) -> Floats:
        return (abs(error) <= NORMAL_90 * deviation).astype(np.float32)


OF_BANDS: dict[str, type[BandMetric]] = {"crps": RankedProbabilityScore, "coverage": Coverage}
"""The metrics by name."""


def band_metric(name: str, loss: Loss | None) -> BandMetric:
    """Return the metric of this name for the outputs of this loss. Raises ArgumentError."""
    several = isinstance(loss, Quantile) and (name != "crps" or len(loss.quantiles) > 1)
    if not several and not isinstance(loss, GaussianNLL):
        received = "no loss" if loss is None else f"the loss {loss.name}"
        if isinstance(loss, Quantile):
            received += " of one level"
        raise ArgumentError(
            f"metric {name!r}: expected quantiles, or a mean and a deviation, received {received}. "
            f"Set the loss to quantile{' of several levels' if name == 'crps' else ''} or to "
            f"gaussian_nll, or leave {name!r} out"
        )
    assert isinstance(loss, Quantile | GaussianNLL)
    return OF_BANDS[name](loss, name)
