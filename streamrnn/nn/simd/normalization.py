"""Normalisation over the last axis, summed in one order and in float64."""

import functools

import numpy as np
from numba import types

from streamrnn.base.arrays import Doubles, Floats
from streamrnn.nn.simd import jit
from streamrnn.nn.simd.arguments import Kernel


@functools.cache
def layer_norm_entry() -> Kernel:
    """Return the kernel: (x_NF, gamma_F, beta_F, epsilon, y_NF)."""
    f1, f2 = types.Array(types.float32, 1, "C"), types.Array(types.float32, 2, "C")
    signature = types.void(f2, f1, f1, types.float64, f2)
    return jit.compiled("layer_norm", lambda: _layer_norm, signature)


@jit.kernel
def _layer_norm(
    x_NF: Floats, gamma_F: Floats, beta_F: Floats, epsilon: float, y_NF: Floats
) -> None:
    features = x_NF.shape[1]
    for n in range(x_NF.shape[0]):
        mean = 0.0
        for k in range(features):
            mean += x_NF[n, k]
        mean /= features
        variance = 0.0
        for k in range(features):
            variance += (x_NF[n, k] - mean) ** 2
        scale = 1.0 / np.sqrt(variance / features + epsilon)
        for k in range(features):
            y_NF[n, k] = (x_NF[n, k] - mean) * scale * gamma_F[k] + beta_F[k]


@functools.cache
def layer_norm_back_entry() -> Kernel:
    """Return the kernel: (x_NF, gamma_F, epsilon, dy_NF, dx_NF, dgamma_F, dbeta_F).

    It adds the gradients of gamma and beta, in float64, row after row.
    """
    f1, f2 = types.Array(types.float32, 1, "C"), types.Array(types.float32, 2, "C")
    d1 = types.Array(types.float64, 1, "C")
    signature = types.void(f2, f1, types.float64, f2, f2, d1, d1)
    return jit.compiled("layer_norm_back", lambda: _layer_norm_back, signature)


@jit.kernel
def _layer_norm_back(
    x_NF: Floats,
    gamma_F: Floats,
    epsilon: float,
    dy_NF: Floats,
    dx_NF: Floats,
    dgamma_F: Doubles,
    dbeta_F: Doubles,
) -> None:
    features = x_NF.shape[1]
    for n in range(x_NF.shape[0]):
        mean = 0.0
        for k in range(features):
            mean += x_NF[n, k]
        mean /= features
        variance = 0.0
        for k in range(features):
            variance += (x_NF[n, k] - mean) ** 2
        scale = 1.0 / np.sqrt(variance / features + epsilon)
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


@functools.cache
def root_norm_entry() -> Kernel:
    """Return the kernel: (x_NF, gamma_F, count, epsilon, limit, y_NF).

    y = x gamma / sqrt(sum of squares / count + epsilon), where the divisor is at least 1 / limit.
    """
    f1, f2 = types.Array(types.float32, 1, "C"), types.Array(types.float32, 2, "C")
    d = types.float64
    signature = types.void(f2, f1, d, d, d, f2)
    return jit.compiled("root_norm", lambda: _root_norm, signature)


@jit.kernel
def _root_norm(
    x_NF: Floats, gamma_F: Floats, count: float, epsilon: float, limit: float, y_NF: Floats
) -> None:
    features = x_NF.shape[1]
    for n in range(x_NF.shape[0]):
        total = 0.0
        for k in range(features):
            total += np.float64(x_NF[n, k]) ** 2
        scale = 1.0 / np.sqrt(total / count + epsilon)
        scale = limit if scale > limit else scale
        for k in range(features):
            y_NF[n, k] = x_NF[n, k] * scale * gamma_F[k]


@functools.cache
def root_norm_back_entry() -> Kernel:
    """Return the kernel: (x_NF, gamma_F, count, epsilon, limit, dy_NF, dx_NF, dgamma_F).

    It adds the gradient of gamma, in float64, row after row.
    """
    f1, f2 = types.Array(types.float32, 1, "C"), types.Array(types.float32, 2, "C")
    d, d1 = types.float64, types.Array(types.float64, 1, "C")
    signature = types.void(f2, f1, d, d, d, f2, f2, d1)
    return jit.compiled("root_norm_back", lambda: _root_norm_back, signature)


@jit.kernel
def _root_norm_back(
    x_NF: Floats,
    gamma_F: Floats,
    count: float,
    epsilon: float,
    limit: float,
    dy_NF: Floats,
    dx_NF: Floats,
    dgamma_F: Doubles,
) -> None:
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
