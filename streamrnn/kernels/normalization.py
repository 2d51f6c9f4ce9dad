"""Normalisation over the last axis, summed in one order."""

import numpy as np

from streamrnn.kernels.jit import kernel


@kernel
def _layer_norm(x_NF, gamma_F, beta_F, epsilon, y_NF):
    for n in range(x_NF.shape[0]):
        mean = 0.0
        for k in range(x_NF.shape[1]):
            mean += x_NF[n, k]
        mean /= x_NF.shape[1]
        variance = 0.0
        for k in range(x_NF.shape[1]):
            variance += (x_NF[n, k] - mean) ** 2
        scale = 1.0 / np.sqrt(variance / x_NF.shape[1] + epsilon)
        for k in range(x_NF.shape[1]):
            y_NF[n, k] = (x_NF[n, k] - mean) * scale * gamma_F[k] + beta_F[k]


def layer_norm(x_NF, gamma_F, beta_F, epsilon, y_NF) -> None:
    """Rows of `x_NF` normalised to mean 0 and variance 1, then scaled and shifted, into `y_NF`."""
    _layer_norm(x_NF, gamma_F, beta_F, epsilon, y_NF)
