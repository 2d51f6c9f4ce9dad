"""Normalisation over the last axis, summed in one order and in float64."""

from typing import Any

from streamrnn import simd


def layer_norm(x_NF: Any, gamma_F: Any, beta_F: Any, epsilon: float, y_NF: Any) -> None:
    """Rows of `x_NF` normalised to mean 0 and variance 1, scaled and shifted, into `y_NF`."""
    simd.normalization.layer_norm_entry()(x_NF, gamma_F, beta_F, epsilon, y_NF)
