"""Normalization over the last axis, summed in one order and in float64."""

from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn import simd


class Norm(NamedTuple):
    """Scale and offset of normalized values: (4U,) for the gates, (U,) for c."""

    gamma: Floats
    beta: Floats


def layer_norm(x_NF: Floats, gamma_F: Floats, beta_F: Floats, epsilon: float) -> Floats:
    """Return the rows of `x_NF`, normalized to mean 0 and variance 1, then scaled and shifted."""
    y_NF = np.empty_like(x_NF)
    simd.normalization.layer_norm_kernel()(x_NF, gamma_F, beta_F, epsilon, y_NF)
    return y_NF


def layer_norm_back(
    x_NF: Floats, gamma_F: Floats, epsilon: float, dy_NF: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the gradients of the rows, of gamma and of beta."""
    dx_NF = np.empty_like(x_NF)
    sums = np.zeros_like(gamma_F, np.float64), np.zeros_like(gamma_F, np.float64)
    simd.normalization.layer_norm_back_kernel()(x_NF, gamma_F, epsilon, dy_NF, dx_NF, *sums)
    return dx_NF, sums[0].astype(np.float32), sums[1].astype(np.float32)


class Root(NamedTuple):
    """Rows are multiplied by 1 / sqrt(sum of squares / divisor + epsilon), at most by `limit`."""

    divisor: float
    epsilon: float
    limit: float


def root_norm(x_NF: Floats, gamma_F: Floats, root: Root) -> Floats:
    """Return the rows of `x_NF`, normalized as `root` says and scaled by gamma."""
    y_NF = np.empty_like(x_NF)
    simd.normalization.root_norm_kernel()(x_NF, gamma_F, *root, y_NF)
    return y_NF


def root_norm_back(
    x_NF: Floats, gamma_F: Floats, root: Root, dy_NF: Floats
) -> tuple[Floats, Floats]:
    """Return the gradients of the rows and of gamma."""
    dx_NF, of_gamma = np.empty_like(x_NF), np.zeros_like(gamma_F, np.float64)
    simd.normalization.root_norm_back_kernel()(x_NF, gamma_F, *root, dy_NF, dx_NF, of_gamma)
    return dx_NF, of_gamma.astype(np.float32)
