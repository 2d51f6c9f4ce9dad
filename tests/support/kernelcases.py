"""The recurrent kernels as one table: weights, a call, the oracle's cell of the same weights."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import naive
import numpy as np
import pytest

from streamrnn.nn.kernels import (
    activation,
    conv1d,
    dense,
    integers,
    layer_norm_lstm,
    recurrent,
    swept,
    team,
    threads,
)
from streamrnn.nn.kernels.normalization import Norm
from streamrnn.nn.kernels.packing import Packed


class Kind(NamedTuple):
    """`own`: shapes of the weights after kernel, recurrent kernel and bias, in units."""

    pack: Callable[..., Packed]
    gates: int
    states: int
    cell: Callable[..., naive.Cell]
    options: dict[str, Any]
    own: tuple[tuple[int, ...], ...] = ()
    last: int = 0
    """How often the last activation is named beyond the first time."""
    precision: str = "float32"
    atol: float = 5e-6
    """How far h may be from the oracle in float64."""

    def activations(self, given: dict[str, Any]) -> tuple[Any, ...]:
        """Those of the kernel, Keras's names for them taken out of the options `given`."""
        both = given.pop("recurrent_activation", "sigmoid"), given.pop("activation", "tanh")
        return (both if self.gates > 1 else both[1:]) + both[1:] * self.last


def _layer_norm_lstm(kernel: Any, recurrent: Any, bias: Any, *own: Any) -> Packed:
    norms = Norm(*own[:2]), Norm(*own[2:4]), Norm(*own[4:])
    return layer_norm_lstm.pack(kernel, recurrent, bias, norms, 1e-3)


_PEEPHOLES = ((3, 1),)
_NORMS = ((4,), (4,), (4,), (4,), (1,), (1,))
WIDTHS = {
    "4, checked": {"STREAMRNN_SIMD": "4", "STREAMRNN_BOUNDSCHECK": "1", "NUMBA_OPT": "0"},
    "8": {"STREAMRNN_SIMD": "8", "NUMBA_OPT": "0"},
    "16": {"STREAMRNN_SIMD": "16"},
}
"""Environments of processes with other vectors, compiled as jobs of `.ci/run` do: once for both.

Optimization changes no bit: `.ci/run` compares hashes of kernels that were optimized at each width.
"""
FLOATS = {
    "lstm": Kind(swept.PLAIN_LSTM.pack, 4, 2, naive.lstm, {}),
    "gru": Kind(swept.pack_gru, 3, 1, naive.gru, {"reset_after": True}),
    "gru_before": Kind(swept.pack_gru, 3, 1, naive.gru, {"reset_after": False}),
    "simple_rnn": Kind(swept.SIMPLE_RNN.pack, 1, 1, naive.simple_rnn, {}),
    "peephole_lstm": Kind(swept.pack_peephole, 4, 2, naive.peephole_lstm, {}, _PEEPHOLES, 1),
    "layer_norm": Kind(_layer_norm_lstm, 4, 2, naive.layer_norm_lstm, {}, _NORMS),
}
INTEGERS = {
    f"{name}_{precision}": FLOATS[name]._replace(precision=precision, atol=atol)
    for precision, atol in (("int16", 5e-4), ("int8", 0.1))
    for name in ("lstm", "gru", "gru_before", "simple_rnn")
}
KINDS = FLOATS | INTEGERS


class Case:
    """A recurrent layer with random weights. One set of activations, as each is a compilation."""

    def __init__(self, kind: str, features: int = 5, units: int = 20, bias: bool = True) -> None:
        self.kind, self.units, self.features = KINDS[kind], units, features
        rng = np.random.default_rng(7)
        columns = self.kind.gates * units
        shapes = [(features, columns), (units, columns), (columns,)]
        if self.kind.options.get("reset_after"):
            shapes[2] = (2, columns)
        scale = 1.5 / np.sqrt(units + features)
        self.weights = [(rng.standard_normal(s) * scale).astype(np.float32) for s in shapes]
        if not bias:
            self.weights[2] = None
        for *rows, last in self.kind.own:
            own = rng.standard_normal((*rows, last * units)).astype(np.float32)
            self.weights.append(own if kind == "peephole_lstm" else 1 + 0.3 * own)
        self.given = list(self.weights)
        self.packed = self.pack(*self.given)

    def pack(self, kernel: Any, recurrent: Any, *rest: Any) -> Packed:
        """Pack the weights; where they are integers, `weights` become their values."""
        if self.kind.precision != "float32":
            self.integers = (
                integers.rounded(kernel, self.kind.precision, factors=True),
                integers.rounded(recurrent, self.kind.precision, factors=False),
            )
            kernel, recurrent = self.integers
            self.weights = [kernel.floats(), recurrent.floats(), *rest]
        return self.kind.pack(kernel, recurrent, *rest, **self.kind.options)

    def window(self, lanes: int, steps: int, seed: int = 1) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return rng.standard_normal((lanes, steps, self.features)).astype(np.float32)

    def start(self, lanes: int, seed: int = 2) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        shape = (self.kind.states, lanes, self.units)
        return list((rng.standard_normal(shape) * 0.5).astype(np.float32))

    def run(
        self,
        x: np.ndarray,
        states: list[np.ndarray],
        lengths: Any = None,
        mask: Any = None,
        fill: float = -7.0,
        **options: Any,
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Outputs and states afterwards; nothing given is changed. `fill`: what is not written."""
        after = [state.copy() for state in states]
        y = np.full((*x.shape[:2], self.units), fill, np.float32)
        lengths = None if lengths is None else np.asarray(lengths, np.int64)
        x = np.ascontiguousarray(x)
        mask = None if mask is None else np.ascontiguousarray(mask)
        names = self.kind.activations(options)
        recurrent.run(self.packed, names, x, lengths, mask, after, y, **options)
        return y, after

    def expected(self, x: np.ndarray, states: list[np.ndarray], **options: Any) -> Any:
        """Outputs and states of the oracle, in float64."""
        cell = self.kind.cell(*self.weights, **self.kind.options)
        y, _, after = naive.layer(cell, x, states, **options)
        return np.array(y), [np.array(state) for state in after]


def share_lanes(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Let threads share any lanes, however little work there is, and never back off.

    Returns what is reported of each call: whether a thread went on alone.
    """
    monkeypatch.setattr(threads, "MIN_PRODUCTS", 0)
    monkeypatch.setattr(threads, "SHARE", 1)
    monkeypatch.setattr(team, "MOST_BACK_OFF", 0)
    monkeypatch.setattr(team, "_team", team._Team())
    alone: list[bool] = []
    monkeypatch.setattr(team, "report_latency", lambda slow: alone.append(slow))
    return alone


def digest(kinds: list[str]) -> str:
    """A hash of what the kernels compute, to compare processes that compile them differently."""
    bits = hashlib.sha256()
    for kind in kinds:
        for lanes in (1, 2, 11):
            case = Case(kind)
            y, states = case.run(case.window(lanes, 9), case.start(lanes))
            for array in (y, *states):
                bits.update(array.tobytes())
    rng = np.random.default_rng(3)
    x, kernel = (rng.standard_normal(s).astype(np.float32) for s in ((13, 7), (7, 37)))
    for units in (37, 2):
        y = np.empty((13, units), np.float32)
        packed = dense.pack(np.ascontiguousarray(kernel[:, :units]))
        dense.run(packed, x, y, activation="softmax")
        bits.update(y.tobytes())
    for precision in sorted({KINDS[kind].precision for kind in kinds} - {"float32"}):
        for y in rows_of_integers(precision):
            bits.update(y.tobytes())
    activation.run("tanh", x, x)
    bits.update(x.tobytes())
    return bits.hexdigest()


def rows_of_integers(precision: str) -> list[np.ndarray]:
    """Outputs of a Dense and a convolution whose weights are integers."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((3, 13, 7)).astype(np.float32)
    made = [np.empty((3, 13, 37), np.float32) for _ in range(2)]
    kernels = (rng.standard_normal(s).astype(np.float32) for s in ((7, 37), (3, 7, 37)))
    one, several = (integers.rounded(kernel, precision, factors=True) for kernel in kernels)
    dense.run(dense.pack(one), x.reshape(39, 7), made[0].reshape(39, 37))
    past = rng.standard_normal((3, 4, 7)).astype(np.float32)
    conv1d.run(conv1d.pack(several, dilation=2), x, None, None, past, made[1])
    return made
