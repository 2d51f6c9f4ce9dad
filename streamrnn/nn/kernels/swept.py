"""Recurrent cells whose sums are swept: where each keeps its gates, and how to pack its weights.

A cell is a `SweptKind` here, and in `simd.swept` the functions of vectors that `CELLS` has under
its name. Gates are letters, in Keras's order.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.nn import simd
from streamrnn.nn.kernels import packing
from streamrnn.nn.kernels.activation import Spec, applied
from streamrnn.nn.kernels.packing import Packed, WeightsLike
from streamrnn.nn.kernels.recurrent import CellStep, dense_product, unless_row_wise
from streamrnn.nn.simd.arguments import Kernel
from streamrnn.nn.simd.names import label


class Ahead(NamedTuple):
    """A sweep forward: the gates of its weights, and of the two biases with which each sum begins.

    "-" stands for a sum without a bias.
    """

    x_gates: str
    h_gates: str
    x_biases: str
    h_biases: str


class Back(NamedTuple):
    """A sweep back, over the gradients of the kept vectors from `first` on.

    `gates`: the gates of these vectors, in the state's weights. In the forward pass, these weights
    multiplied the kept vector `operand`; None: h.
    """

    first: int
    gates: str
    operand: int | None = None


class Peephole(NamedTuple):
    """Weights of c for the gate that is kept as vector `kept`.

    `after`: whether they multiply the c after the step, or before it.
    """

    kept: int
    after: bool


class SweptKind(NamedTuple):
    """A cell: where its gates are in the sweeps of a step, and in what training keeps of a step.

    `name`: the key of its functions in `simd.swept.CELLS`. `step(kernel, recurrent, bias, own,
    *activations)`: its step in NumPy. `biases`: number of rows of the bias: one, or one for the
    input and one for the state. `kept`: number of vectors kept of a step in training. `x_gates`:
    the gates of the input's weights to which the first of these vectors belong.
    """

    name: str
    gates: str
    ahead: tuple[Ahead, ...]
    step: Callable[..., CellStep]
    states: tuple[str, ...] = ("h",)
    biases: int = 1
    kept: int = 0
    x_gates: str = ""
    back: tuple[Back, ...] = ()
    keeps_fed: bool = False
    peepholes: tuple[Peephole, ...] = ()

    def columns(self, gates: str) -> list[int]:
        """Return the places of gates in Keras's order, -1 for "-".

        >>> PLAIN_LSTM.columns("of-")
        [3, 1, -1]
        """
        return [self.gates.find(gate) for gate in gates]

    def pack(
        self,
        kernel_FG: WeightsLike,
        recurrent_UG: WeightsLike,
        bias: Floats | None = None,
        own: Sequence[Floats] = (),
    ) -> Packed:
        """Pack weights in Keras's layout, with G = gates * U columns, for `recurrent.run`.

        `kernel_FG`, `recurrent_UG`: may be integers. `bias`: None, (G,), or if `biases` is 2
        (2, G): of the input, of the state. `own`: the units' own weights (peepholes), (U,) each.
        """
        n, units, gates = simd.jit.width(), recurrent_UG.shape[0], len(self.gates)
        if bias is None:
            bias = np.zeros((2, gates * units) if self.biases == 2 else gates * units, np.float32)
        rows = np.reshape(bias, (self.biases, gates, units))
        x, h = (packing.by_gate(weights, gates) for weights in (kernel_FG, recurrent_UG))
        word, rest = packing.word_of(kernel_FG), packing.rest_of(kernel_FG, recurrent_UG)
        vectors = packing.vectors_a_group(units, n, max(len(s.x_biases) for s in self.ahead))
        sweeps, starts = [], []
        for s in self.ahead:
            of_x, of_h = self.columns(s.x_gates), self.columns(s.h_gates)
            sweeps.append(([x[i] for i in of_x], [h[i] for i in of_h]))
            pairs = zip(self.columns(s.x_biases), self.columns(s.h_biases), strict=True)
            parts = [[rows[i, gate] for i, gate in enumerate(pair) if gate >= 0] for pair in pairs]
            # A bias alone keeps the sign of its zeros.
            starts.append([reduce(np.add, part) for part in parts])

        def compiled(activations: tuple[Spec, ...]) -> Kernel:
            make = lambda: self._cell().window(n, vectors, word, *activations)  # noqa: E731
            name = f"{self.name}-{n}x{vectors}"
            return simd.recurrent.entry(name, activations, len(self.states), make, word)

        return Packed(
            packing.packed(sweeps, starts, n, vectors, own, rest),
            packing.groups_of(units, n, vectors),
            unless_row_wise(
                compiled,
                lambda *activations: self.step(
                    packing.dequantized(kernel_FG),
                    packing.dequantized(recurrent_UG),
                    bias,
                    own,
                    *activations,
                ),
            ),
            partial(self.pack, kernel_FG, recurrent_UG, bias, own),
            lane_vectors=len(self.states) + len(self.ahead),
            word=word,
        )

    def in_training(
        self, n: int, ahead: int, back: int, activations: tuple[Spec, ...]
    ) -> tuple[Kernel, Kernel]:
        """Return the kernels forward and back, for groups of `ahead` and `back` vectors of `n`."""

        def passes() -> "simd.bptt.CellPasses":
            make = self._cell().passes
            assert make is not None, self.name
            return make(n, ahead, back, *activations)

        names, build = "-".join(map(label, activations)), simd.bptt
        forward, way_back = build.signatures(len(self.states))
        return (
            simd.jit.compiled(
                f"forward-{self.name}-{n}x{ahead}-{names}", lambda: build.forward(passes()), forward
            ),
            simd.jit.compiled(
                f"back-{self.name}-{n}x{back}-{names}", lambda: build.back(passes()), way_back
            ),
        )

    def _cell(self) -> "simd.bptt.SweptCell":
        return simd.swept.CELLS[self.name]


def _step_of_simple_rnn(
    kernel: Floats, recurrent: Floats, bias: Floats, own: Sequence[Floats], g: Spec
) -> CellStep:
    both = dense_product(np.concatenate([kernel, recurrent]), bias)
    return lambda x, h: (applied(g, both(np.concatenate([x, h], axis=1))),)


SIMPLE_RNN = SweptKind(
    name="simple_rnn",
    gates="h",
    ahead=(Ahead("h", "h", x_biases="h", h_biases="-"),),
    step=_step_of_simple_rnn,
    kept=1,
    x_gates="h",
    back=(Back(first=0, gates="h"),),
)
"""SimpleRNN: h' = g(x K + b + h R). The activation is for h; the state is [h_BU]."""


def _step_of_gru(
    kernel: Floats, recurrent: Floats, bias: Floats, own: Sequence[Floats], f: Spec, g: Spec
) -> CellStep:
    """Make the step of a GRU: a 2-D bias means reset_after=True, a 1-D bias False."""
    cut = 2 * recurrent.shape[0]
    weights = np.concatenate([kernel, recurrent])
    of_x, of_h = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    gates = dense_product(weights[:, :cut], of_x[:cut] + of_h[:cut])
    x_part = dense_product(kernel[:, cut:], of_x[cut:])
    h_part = dense_product(recurrent[:, cut:], of_h[cut:])
    last = dense_product(weights[:, cut:], of_x[cut:])

    def step(x, h):
        both = np.split(gates(np.concatenate([x, h], axis=1)), 2, axis=1)
        update, reset = (applied(f, gate) for gate in both)
        if bias.ndim == 2:
            candidate = x_part(x) + reset * h_part(h)
        else:
            candidate = last(np.concatenate([x, reset * h], axis=1))
        return (update * h + (1 - update) * applied(g, candidate),)

    return step


GRU_AFTER = SweptKind(
    name="gru",
    gates="zrh",
    ahead=(Ahead("zrh", "zrh", x_biases="zrh-", h_biases="zr-h"),),
    step=_step_of_gru,
    biases=2,
    kept=4,
    x_gates="hzr",
    back=(Back(first=1, gates="zrh"),),
)
GRU_BEFORE = SweptKind(
    name="gru_before",
    gates="zrh",
    ahead=(
        Ahead("zr", "zr", x_biases="zr", h_biases="--"),
        Ahead("h", "h", x_biases="h", h_biases="-"),
    ),
    step=_step_of_gru,
    kept=4,
    x_gates="zrh",
    back=(Back(first=0, gates="zr"), Back(first=2, gates="h", operand=3)),
    keeps_fed=True,
)


def pack_gru(
    kernel_FG: WeightsLike,
    recurrent_UG: WeightsLike,
    bias: Floats | None = None,
    *,
    reset_after: bool = True,
) -> Packed:
    """Pack weights in Keras's layout for `recurrent.run`.

    `kernel_FG` (F, 3U), `recurrent_UG` (U, 3U), `bias` None, (3U,), or with `reset_after` (2, 3U):
    first of the input, then of the state. The first activation is for the gates, the second for h;
    the state is [h_BU]. Kernels may be integers.
    """
    both = np.zeros((2, 3 * recurrent_UG.shape[0]), np.float32)
    if bias is not None:
        both[: np.size(bias) // both.shape[1]] = np.reshape(bias, (-1, both.shape[1]))
    if reset_after:
        return GRU_AFTER.pack(kernel_FG, recurrent_UG, both)
    return GRU_BEFORE.pack(kernel_FG, recurrent_UG, both[0] + both[1])


def _step_of_lstm(
    kernel: Floats,
    recurrent: Floats,
    bias: Floats,
    own: Sequence[Floats],
    f: Spec,
    g: Spec,
    of_c: Spec | None = None,
    *,
    coupled: bool = False,
) -> CellStep:
    """Make the step. `own`: three peepholes, or none. `of_c`: the activation of c; None: `g`."""
    gates = dense_product(np.concatenate([kernel, recurrent]), bias)

    def step(x, h, c):
        i, forget, new, o = np.split(gates(np.concatenate([x, h], axis=1)), 4, axis=1)
        if own:
            i, forget = i + own[0] * c, forget + own[1] * c
        i = applied(f, i)
        c = (1 - i if coupled else applied(f, forget)) * c + i * applied(g, new)
        o = o + own[2] * c if own else o
        return applied(f, o) * applied(of_c or g, c), c

    return step


PLAIN_LSTM = SweptKind(
    name="lstm",
    gates="ifco",
    ahead=(Ahead("ifco", "ifco", x_biases="ifco", h_biases="----"),),
    step=_step_of_lstm,
    states=("h", "c"),
    kept=4,
    x_gates="ifco",
    back=(Back(first=0, gates="ifco"),),
)
"""The first activation is for the gates i, f and o, the second for the candidate and c. The states
are [h_BU, c_BU]."""

PEEPHOLE = PLAIN_LSTM._replace(
    name="peephole_lstm",
    peepholes=(
        Peephole(kept=0, after=False),
        Peephole(kept=1, after=False),
        Peephole(kept=3, after=True),
    ),
)
_COUPLED = PEEPHOLE._replace(name="coupled_lstm", step=partial(_step_of_lstm, coupled=True))


def pack_peephole(
    kernel_FG: Floats,
    recurrent_UG: Floats,
    bias_G: Floats | None = None,
    peepholes_3U: Floats | Sequence[Floats] | None = None,
    *,
    coupled: bool = False,
) -> Packed:
    """Pack weights with peepholes (Gers and Schmidhuber 2000) of i, f and o; None: zeros.

    i and f use the c before the step, o the c after it. If `coupled`, f is 1 - i. The
    activations are for the gates, the candidate and c.
    """
    own = np.zeros((3, recurrent_UG.shape[0]), np.float32) if peepholes_3U is None else peepholes_3U
    kind = _COUPLED if coupled else PEEPHOLE
    return kind.pack(kernel_FG, recurrent_UG, bias_G, list(own))
