"""The oracle of layers whose weights are integers: plain Python integers and fractions.

It imports nothing of streamrnn and no numpy. Every sum is an integer of any size, every float32 a
fraction that is rounded once, to even. Activations are given: functions of a list of floats.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Vector = list[float]
Activation = Callable[[Vector], Vector]


def rounded(value: Fraction) -> float:
    """The nearest float32, the even one of two. Fractions of normal floats only."""
    if value == 0:
        return 0.0
    exponent = math.frexp(float(value))[1] - 24
    ulp = Fraction(2) ** exponent
    result = float(round(value / ulp) * ulp)
    assert struct.unpack("f", struct.pack("f", result))[0] == result
    return result


def fma(a: float, b: float, c: float) -> float:
    """a * b + c, rounded once."""
    return rounded(Fraction(a) * Fraction(b) + Fraction(c))


@dataclass
class Weights:
    """Weights (K, G): integers, scales (G,), factors (K,), and the largest integer of a row."""

    integers: list[list[int]]
    scales: Vector
    factors: Vector
    top: int

    def sums(self, row: Vector, starts: Vector) -> Vector:
        """starts + row @ weights, in integers but for one fma a column."""
        values = [
            rounded(Fraction(v) * Fraction(f)) for v, f in zip(row, self.factors, strict=True)
        ]
        largest = max(abs(v) for v in values)
        if largest < 2.0**-100:
            scale, integers = 0.0, [0] * len(values)
        else:
            scale = rounded(Fraction(largest) / self.top)
            inverse = rounded(self.top / Fraction(largest))
            integers = [round(Fraction(v) * Fraction(inverse)) for v in values]
        made = []
        for column, start in enumerate(starts):
            total = sum(q * w[column] for q, w in zip(integers, self.integers, strict=True))
            assert -(2**31) <= total < 2**31, "a sum needs more than 32 bits"
            factor = rounded(Fraction(scale) * Fraction(self.scales[column]))
            made.append(fma(rounded(Fraction(total)), factor, start))
        return made


def _gates(z: Vector, units: int) -> list[Vector]:
    return [z[start : start + units] for start in range(0, len(z), units)]


def lstm(x: Weights, h: Weights, bias: Vector, f: Activation, g: Activation) -> Any:
    """The step of an LSTM: row, states -> states, h first."""

    def step(row: Vector, states: list[Vector]) -> list[Vector]:
        i, forget, new, o = _gates(h.sums(states[0], x.sums(row, bias)), len(states[0]))
        kept = [
            rounded(Fraction(a) * Fraction(b)) for a, b in zip(f(forget), states[1], strict=True)
        ]
        c = [fma(*terms) for terms in zip(f(i), g(new), kept, strict=True)]
        return [[rounded(Fraction(a) * Fraction(b)) for a, b in zip(f(o), g(c), strict=True)], c]

    return step


def _blend(update: Vector, old: Vector, new: Vector) -> Vector:
    made = []
    for z, before, candidate in zip(update, old, new, strict=True):
        rest = rounded(1 - Fraction(z))
        made.append(fma(z, before, rounded(Fraction(rest) * Fraction(candidate))))
    return made


def gru(x: Weights, h: Weights, bias: list[Vector], f: Activation, g: Activation) -> Any:
    """The step of a GRU with reset_after. bias: of the input, of the state."""

    def step(row: Vector, states: list[Vector]) -> list[Vector]:
        (old,) = states
        units = len(old)
        both = [rounded(Fraction(a) + Fraction(b)) for a, b in zip(*bias, strict=True)]
        from_x = x.sums(row, both[: 2 * units] + bias[0][2 * units :])
        z = h.sums(old, from_x[: 2 * units] + bias[1][2 * units :])
        update, reset, inner = _gates(z, units)
        terms = zip(f(reset), inner, from_x[2 * units :], strict=True)
        return [_blend(f(update), old, g([fma(*three) for three in terms]))]

    return step


def gru_before(x: Weights, h: Weights, bias: Vector, f: Activation, g: Activation) -> Any:
    """The step of a GRU without reset_after: the candidate's product is of r * h."""

    def step(row: Vector, states: list[Vector]) -> list[Vector]:
        (old,) = states
        units = len(old)
        from_x = x.sums(row, bias)
        update, reset, _ = _gates(h.sums(old, from_x), units)
        inner = [rounded(Fraction(a) * Fraction(b)) for a, b in zip(f(reset), old, strict=True)]
        candidate = h.sums(inner, from_x)[2 * units :]
        return [_blend(f(update), old, g(candidate))]

    return step


def simple_rnn(x: Weights, h: Weights, bias: Vector, g: Activation) -> Any:
    """The step of a SimpleRNN."""
    return lambda row, states: [g(h.sums(states[0], x.sums(row, bias)))]


def dense(w: Weights, bias: Vector, g: Activation, rows: list[Vector]) -> list[Vector]:
    """A Dense layer of each row."""
    return [g(w.sums(row, bias)) for row in rows]


def conv1d(
    w: Weights, bias: Vector, g: Activation, rows: list[Vector], past: list[Vector], dilation: int
) -> list[Vector]:
    """A causal convolution of one sequence; `past`: the (taps - 1) * dilation inputs before it."""
    series = past + rows
    taps = len(past) // dilation + 1
    windows = [series[t : t + len(past) + 1 : dilation] for t in range(len(rows))]
    assert all(len(window) == taps for window in windows)
    return dense(w, bias, g, [[v for step in window for v in step] for window in windows])


CELLS = {"lstm": lstm, "gru": gru, "gru_before": gru_before, "simple_rnn": simple_rnn}


def sequence(step: Any, rows: list[Vector], states: list[Vector]) -> tuple[list[Vector], Any]:
    """The h of each step, and the states after the last one."""
    made = []
    for row in rows:
        states = step(row, states)
        made.append(states[0])
    return made, states
