"""RG-LRU (De et al. 2024, arXiv 2402.19427, section 2.4): a gated linear recurrence.

The input of the cell has three values per unit: what it remembers, then the recurrence gate and the
input gate before their sigmoids, from a Dense that reads what is remembered:

    layers.Concatenate()([x, layers.Dense(2 * units)(x)])    # x of `units`
"""

import math
from typing import Any

from streamrnn import layers, register_layer

C = 8.0


class RGLRU(layers.Cell):
    """h' = a h + sqrt(1 - a^2) i x, with a = exp(-8 r softplus(decay)), r and i the gates."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, input_shape: Any) -> None:
        self.add_weight("decay", (self.units,), "zeros")

    @staticmethod
    def step(x: Any, states: Any, weights: Any, y: Any) -> None:
        (h,), (decay,) = states, weights
        for u in range(h.size):
            r = 1 / (1 + math.exp(-x[h.size + u]))
            i = 1 / (1 + math.exp(-x[2 * h.size + u]))
            a = math.exp(-C * r * math.log(1 + math.exp(decay[u])))
            h[u] = a * h[u] + math.sqrt(1 - a * a) * i * x[u]
            y[u] = h[u]

    @staticmethod
    def step_backward(
        x: Any, states: Any, weights: Any, y: Any, dy: Any, dstates: Any, dx: Any, dweights: Any
    ) -> None:
        (h,), (decay,), (dh,), (ddecay,) = states, weights, dstates, dweights
        for u in range(h.size):
            r = 1 / (1 + math.exp(-x[h.size + u]))
            i = 1 / (1 + math.exp(-x[2 * h.size + u]))
            s = math.log(1 + math.exp(decay[u]))
            a = math.exp(-C * r * s)
            root = math.sqrt(1 - a * a)
            d = dy[u] + dh[u]
            dlog = d * (a * h[u] - a * a / root * i * x[u])  # of log a
            dx[u] = d * root * i
            dx[h.size + u] = -C * s * dlog * r * (1 - r)
            dx[2 * h.size + u] = d * root * x[u] * i * (1 - i)
            ddecay[u] += -C * r * dlog / (1 + math.exp(-decay[u]))
            dh[u] = d * a


register_layer("RGLRU", RGLRU)
