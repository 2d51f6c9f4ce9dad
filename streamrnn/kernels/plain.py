"""Plain loops behind the seam of the kernels."""

import math

import numpy as np

from streamrnn.kernels.jit import inline, kernel

NAMES = (
    "linear", "tanh", "sigmoid", "relu", "hard_sigmoid", "hard_sigmoid_02", "elu", "selu",
    "softplus", "softsign", "silu", "gelu", "exponential", "leaky_relu", "relu6",
)  # fmt: skip
CODE = {name: code for code, name in enumerate(NAMES)}
f32 = np.float32


@inline
def act(code, x):
    if code == 0:
        return f32(x)
    if code == 1:
        return f32(math.tanh(x))
    if code == 2:
        return f32(1.0 / (1.0 + math.exp(-x)))
    if code == 3:
        return f32(0.0) if x < 0 else f32(x)
    if code == 4:
        return f32(min(max(x / 6.0 + 0.5, 0.0), 1.0))
    if code == 5:
        return f32(min(max(0.2 * x + 0.5, 0.0), 1.0))
    if code == 6:
        return f32(x) if x > 0 else f32(math.expm1(x))
    if code == 7:
        return f32(1.05070098 * (x if x > 0 else 1.67326324 * math.expm1(x)))
    if code == 8:
        return f32(max(x, 0.0) + math.log1p(math.exp(-abs(x))))
    if code == 9:
        return f32(x / (1.0 + abs(x)))
    if code == 10:
        return f32(x / (1.0 + math.exp(-x)))
    if code == 11:
        return f32(0.5 * x * (1.0 + math.erf(x * 0.7071067811865476)))
    if code == 12:
        return f32(math.exp(x))
    if code == 13:
        return f32(x) if x >= 0 else f32(0.2 * x)
    return f32(min(max(x, 0.0), 6.0))


@inline
def dot(start, x, w, column):
    """start + x by k, one product after the other."""
    total = start
    for k in range(x.shape[0]):
        total += x[k] * w[k, column]
    return total


@kernel
def elementwise(x, out, code):
    for i in range(x.size):
        out[i] = act(code, x[i])


@kernel
def softmax(x_NU, y_NU):
    for n in range(x_NU.shape[0]):
        top = x_NU[n, 0]
        for u in range(x_NU.shape[1]):
            top = max(top, x_NU[n, u])
        total = f32(0)
        for u in range(x_NU.shape[1]):
            y_NU[n, u] = math.exp(x_NU[n, u] - top)
            total += y_NU[n, u]
        for u in range(x_NU.shape[1]):
            y_NU[n, u] /= total


@kernel
def dense(x_NF, w_FU, bias_U, y_NU, code):
    for n in range(x_NF.shape[0]):
        for u in range(w_FU.shape[1]):
            y_NU[n, u] = act(code, dot(bias_U[u], x_NF[n], w_FU, u))


@kernel
def lstm(x, w, u, b, lengths, mask, h, c, y, f, g, zero):
    units = h.shape[1]
    new_h, new_c = np.empty(units, f32), np.empty(units, f32)
    for lane in range(x.shape[0]):
        for t in range(lengths[lane]):
            if mask[lane, t]:
                for j in range(units):
                    zi = dot(dot(b[j], x[lane, t], w, j), h[lane], u, j)
                    q = units + j
                    zf = dot(dot(b[q], x[lane, t], w, q), h[lane], u, q)
                    q = 2 * units + j
                    zg = dot(dot(b[q], x[lane, t], w, q), h[lane], u, q)
                    q = 3 * units + j
                    zo = dot(dot(b[q], x[lane, t], w, q), h[lane], u, q)
                    new_c[j] = act(f, zf) * c[lane, j] + act(f, zi) * act(g, zg)
                    new_h[j] = act(f, zo) * act(g, new_c[j])
                h[lane] = new_h
                c[lane] = new_c
            if y.size:
                y[lane, t] = h[lane]
                if zero and not mask[lane, t]:
                    y[lane, t] = 0


@kernel
def gru(x, w, u, b, lengths, mask, h, y, f, g, zero, after):
    units = h.shape[1]
    new_h, rh, zs = np.empty(units, f32), np.empty(units, f32), np.empty(units, f32)
    hh = np.empty(units, f32)
    for lane in range(x.shape[0]):
        for t in range(lengths[lane]):
            if mask[lane, t]:
                for j in range(units):
                    q = units + j
                    zs[j] = act(f, dot(dot(b[0, j] + b[1, j], x[lane, t], w, j), h[lane], u, j))
                    r = act(f, dot(dot(b[0, q] + b[1, q], x[lane, t], w, q), h[lane], u, q))
                    q = 2 * units + j
                    if after:
                        hh[j] = dot(b[0, q], x[lane, t], w, q) + r * dot(b[1, q], h[lane], u, q)
                    rh[j] = r * h[lane, j]
                for j in range(units):
                    q = 2 * units + j
                    if not after:
                        hh[j] = dot(dot(b[0, q] + b[1, q], x[lane, t], w, q), rh, u, q)
                    new_h[j] = zs[j] * h[lane, j] + (f32(1) - zs[j]) * act(g, hh[j])
                h[lane] = new_h
            if y.size:
                y[lane, t] = h[lane]
                if zero and not mask[lane, t]:
                    y[lane, t] = 0


@kernel
def simple_rnn(x, w, u, b, lengths, mask, h, y, g, zero):
    units = h.shape[1]
    new_h = np.empty(units, f32)
    for lane in range(x.shape[0]):
        for t in range(lengths[lane]):
            if mask[lane, t]:
                for j in range(units):
                    new_h[j] = act(g, dot(dot(b[j], x[lane, t], w, j), h[lane], u, j))
                h[lane] = new_h
            if y.size:
                y[lane, t] = h[lane]
                if zero and not mask[lane, t]:
                    y[lane, t] = 0


def whole(x_BTF, lengths_B, mask_BT, y_BTU):
    """Stand-ins for what was left out."""
    lanes, steps = x_BTF.shape[:2]
    if lengths_B is None:
        lengths_B = np.full(lanes, steps, np.int64)
    if mask_BT is None:
        mask_BT = np.ones((lanes, steps), np.bool_)
    if y_BTU is None:
        y_BTU = np.empty((0, 0, 0), np.float32)
    return lengths_B, mask_BT, y_BTU
