"""Normalisation over the last axis, summed in one order and in float64."""

from typing import NamedTuple

from streamrnn import simd
from streamrnn.arrays import Floats


class Norm(NamedTuple):
    """Scale and offset of normalised values: (4U,) of the gates, (U,) of c."""

    gamma: Floats
    beta: Floats


def layer_norm(x_NF: Floats, gamma_F: Floats, beta_F: Floats, epsilon: float, y_NF: Floats) -> None:
    """Write rows of `x_NF`, normalised to mean 0 and variance 1, scaled and shifted, to `y_NF`."""
    simd.normalization.layer_norm_entry()(x_NF, gamma_F, beta_F, epsilon, y_NF)
