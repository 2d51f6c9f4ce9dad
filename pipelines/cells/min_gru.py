"""minGRU (Feng et al. 2024, arXiv 2410.01201): a GRU whose gates do not read the state.

The input of the cell has two values per unit, candidate and gate before their functions:

    Sequential([Input((None, 8)), layers.Dense(2 * 24), layers.RNN(MinGRU(24), ...)])
"""

import math
from typing import Any

from streamrnn import layers, register_layer


class MinGRU(layers.Cell):
    """h' = (1 - z) h + z g(v), z = sigmoid(x[units:]), v = x[:units]; g keeps h positive."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    @staticmethod
    def step(x: Any, states: Any, weights: Any, y: Any) -> None:
        (h,) = states
        for u in range(h.size):
            z = 1 / (1 + math.exp(-x[h.size + u]))
            g = x[u] + 0.5 if x[u] >= 0 else 1 / (1 + math.exp(-x[u]))
            h[u] += z * (g - h[u])
            y[u] = h[u]

    @staticmethod
    def step_backward(
        x: Any, states: Any, weights: Any, y: Any, dy: Any, dstates: Any, dx: Any, dweights: Any
    ) -> None:
        (h,), (dh,) = states, dstates
        for u in range(h.size):
            z = 1 / (1 + math.exp(-x[h.size + u]))
            s = 1 / (1 + math.exp(-x[u]))
            d = dy[u] + dh[u]
            g, slope = (x[u] + 0.5, 1.0) if x[u] >= 0 else (s, s * (1 - s))
            dx[u] = d * z * slope
            dx[h.size + u] = d * (g - h[u]) * z * (1 - z)
            dh[u] = d * (1 - z)


register_layer("MinGRU", MinGRU)
