"""Normalization over the last axis, summed in one order and in float64."""

import numpy as np
from numba import types

from streamrnn.nn.simd import jit
from streamrnn.nn.simd.jit import D1, F1, F2, inline

_F64 = types.float64


@inline
def mean_and_scale(x_NF, n, epsilon):
    """Return the mean of row n, and 1 / sqrt(its variance + epsilon)."""
    features = x_NF.shape[1]
    mean = 0.0
    for k in range(features):
        mean += x_NF[n, k]
    mean /= features
    variance = 0.0
    for k in range(features):
        variance += (x_NF[n, k] - mean) ** 2
    return mean, 1.0 / np.sqrt(variance / features + epsilon)


@jit.on_demand("layer_norm", types.void(F2, F1, F1, _F64, F2))
def layer_norm_kernel(x_NF, gamma_F, beta_F, epsilon, y_NF):
    """Normalize rows to mean 0 and variance 1; then scale and shift them."""
    features = x_NF.shape[1]
    for n in range(x_NF.shape[0]):
        mean, scale = mean_and_scale(x_NF, n, epsilon)
        for k in range(features):
            y_NF[n, k] = (x_NF[n, k] - mean) * scale * gamma_F[k] + beta_F[k]


@jit.on_demand("layer_norm_back", types.void(F2, F1, _F64, F2, F2, D1, D1))
def layer_norm_back_kernel(x_NF, gamma_F, epsilon, dy_NF, dx_NF, dgamma_F, dbeta_F):
    """Write the gradient of the rows; add the gradients of gamma and beta, row after row."""
    features = x_NF.shape[1]
    for n in range(x_NF.shape[0]):
        mean, scale = mean_and_scale(x_NF, n, epsilon)
        total = along = 0.0
        for k in range(features):
            z, dz = (x_NF[n, k] - mean) * scale, np.float64(dy_NF[n, k]) * gamma_F[k]
            total += dz
            along += dz * z
            dgamma_F[k] += dy_NF[n, k] * z
            dbeta_F[k] += dy_NF[n, k]
        for k in range(features):
            z, dz = (x_NF[n, k] - mean) * scale, np.float64(dy_NF[n, k]) * gamma_F[k]
            dx_NF[n, k] = scale * (dz - (total + z * along) / features)


@jit.on_demand("root_norm", types.void(F2, F1, _F64, _F64, _F64, F2))
def root_norm_kernel(x_NF, gamma_F, count, epsilon, limit, y_NF):
    """Set y to x gamma / max(sqrt(sum of squares / count + epsilon), 1 / limit)."""
    features = x_NF.shape[1]
    for n in range(x_NF.shape[0]):
        total = 0.0
        for k in range(features):
            total += np.float64(x_NF[n, k]) ** 2
        scale = 1.0 / np.sqrt(total / count + epsilon)
        scale = limit if scale > limit else scale
        for k in range(features):
            y_NF[n, k] = x_NF[n, k] * scale * gamma_F[k]


@jit.on_demand("root_norm_back", types.void(F2, F1, _F64, _F64, _F64, F2, F2, D1))
def root_norm_back_kernel(x_NF, gamma_F, count, epsilon, limit, dy_NF, dx_NF, dgamma_F):
    """Write the gradient of the rows; add the gradient of gamma, row after row."""
    features = x_NF.shape[1]
    for n in range(x_NF.shape[0]):
        total = 0.0
        for k in range(features):
            total += np.float64(x_NF[n, k]) ** 2
        scale = 1.0 / np.sqrt(total / count + epsilon)
        limited = scale > limit
        scale = limit if limited else scale
        along = 0.0
        for k in range(features):
            z = x_NF[n, k] * scale
            along += np.float64(dy_NF[n, k]) * gamma_F[k] * z
            dgamma_F[k] += dy_NF[n, k] * z
        along = 0.0 if limited else along / count
        for k in range(features):
            dz = np.float64(dy_NF[n, k]) * gamma_F[k]
            dx_NF[n, k] = scale * (dz - x_NF[n, k] * scale * along)
