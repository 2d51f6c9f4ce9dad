"""Custom cells that can be trained, and the same in plain Python."""

import math
from typing import Any

import naive
from nn.layers import kinds

from streamrnn import layers


class MinimalGatedUnit(kinds.MinimalGatedUnit):
    """Zhou et al. 2016, as in the documentation of Cell."""

    @staticmethod
    def step_backward(
        x: Any, states: Any, weights: Any, y: Any, dy: Any, dstates: Any, dx: Any, dweights: Any
    ) -> None:
        (h,), (kernel, recurrent, bias) = states, weights
        (dh,), (dkernel, drecurrent, dbias) = dstates, dweights
        units = h.size
        z, dz, to_h = bias.copy(), bias.copy(), h.copy()
        for k in range(x.size):
            for u in range(2 * units):
                z[u] += x[k] * kernel[k, u]
        for k in range(units):
            for u in range(units):
                z[u] += h[k] * recurrent[k, u]
        for u in range(units):
            z[u] = 1 / (1 + math.exp(-z[u]))
        for k in range(units):
            for u in range(units, 2 * units):
                z[u] += z[k] * h[k] * recurrent[k, u]
        for u in range(units):
            f, a, d = z[u], math.tanh(z[units + u]), dy[u] + dh[u]
            dz[units + u] = d * f * (1 - a * a)
            dz[u] = d * (a - h[u])
            to_h[u] = d * (1 - f)
        for k in range(units):
            through = dz[k] * 0
            for u in range(units, 2 * units):
                through += dz[u] * recurrent[k, u]
                drecurrent[k, u] += z[k] * h[k] * dz[u]
            dz[k] += through * h[k]
            to_h[k] += through * z[k]
        for u in range(units):
            dz[u] *= z[u] * (1 - z[u])
        for k in range(units):
            for u in range(units):
                to_h[k] += dz[u] * recurrent[k, u]
                drecurrent[k, u] += h[k] * dz[u]
        for k in range(x.size):
            for u in range(2 * units):
                dx[k] += dz[u] * kernel[k, u]
                dkernel[k, u] += x[k] * dz[u]
        for u in range(2 * units):
            dbias[u] += dz[u]
        for u in range(units):
            dh[u] = to_h[u]


class Echo(layers.Cell):
    """States of two ranks, and an output that is none of them; calls no function of C.

    a' = softsign(x K + w * the a before last); y = a' * last a, then the sum of a'.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.state_size = [units, (2, units)]
        self.output_size = units + 1

    def build(self, input_shape: Any) -> None:
        self.add_weight("kernel", (input_shape[-1], self.units))
        self.add_weight("echo", (self.units,))

    @staticmethod
    def step(x: Any, states: Any, weights: Any, y: Any) -> None:
        (a, past), (kernel, echo) = states, weights
        y[a.size] = 0
        for u in range(a.size):
            z = echo[u] * past[1, u]
            for k in range(x.size):
                z += x[k] * kernel[k, u]
            past[1, u], past[0, u] = past[0, u], a[u]
            a[u] = z / (1 + abs(z))
            y[u] = a[u] * past[0, u]
            y[a.size] += a[u]

    @staticmethod
    def step_backward(
        x: Any, states: Any, weights: Any, y: Any, dy: Any, dstates: Any, dx: Any, dweights: Any
    ) -> None:
        (a, past), (kernel, echo) = states, weights
        (da, dpast), (dkernel, decho) = dstates, dweights
        for u in range(a.size):
            z = echo[u] * past[1, u]
            for k in range(x.size):
                z += x[k] * kernel[k, u]
            after, slope = z / (1 + abs(z)), 1 / ((1 + abs(z)) * (1 + abs(z)))
            dz = (da[u] + dy[u] * a[u] + dy[a.size]) * slope
            da[u] = dpast[0, u] + dy[u] * after
            dpast[0, u] = dpast[1, u]
            dpast[1, u] = dz * echo[u]
            decho[u] += dz * past[1, u]
            for k in range(x.size):
                dkernel[k, u] += x[k] * dz
                dx[k] += kernel[k, u] * dz


def naive_echo(kernel: Any, echo: Any) -> naive.Cell:
    units = len(echo)

    def step(x: Any, states: Any) -> Any:
        a, last, before = states
        z = [
            sum(x[k] * kernel[k][u] for k in range(len(x))) + echo[u] * before[u]
            for u in range(units)
        ]
        new = [v / (1 + abs(v)) for v in z]
        return [*(n * o for n, o in zip(new, a, strict=True)), sum(new)], [new, a, last]

    return naive.custom(step, [units] * 3, units + 1)
