"""Recurrent cells whose sums are swept: where each keeps its gates, and how to pack its weights.

A cell is a file here with its `SweptKind`, and a file of the same name in `simd` with functions of
vectors. Gates are letters, in Keras's order.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.nn import simd
from streamrnn.nn.kernels import packing, stepwise
from streamrnn.nn.kernels.activation import Spec
from streamrnn.nn.kernels.packing import Packed, WeightsLike
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

    `gates`: their gates in the state's weights. Going forward, these multiplied the kept vector
    `operand`, or h if it is None.
    """

    first: int
    gates: str
    operand: int | None = None


class Peephole(NamedTuple):
    """Weights of c that are added to a kept vector; `after`: they read the c of this step."""

    kept: int
    after: bool


class SweptKind(NamedTuple):
    """A cell: where its gates are in the sweeps of a step, and in what training keeps of a step.

    `name`: the key of its functions in `CELLS` of `simd`'s file `module`. `step(kernel, recurrent,
    bias, own, *activations)`: its step in NumPy (`stepwise`). `biases`: number of rows of the bias:
    one, or one for the input and one for the state. `kept`: number of vectors kept of a step in
    training. `x_gates`: the gates of the input's weights to which the first of these vectors
    belong.
    """

    name: str
    module: str
    gates: str
    ahead: tuple[Ahead, ...]
    step: Callable[..., stepwise.CellStep]
    states: tuple[str, ...] = ("h",)
    biases: int = 1
    kept: int = 0
    x_gates: str = ""
    back: tuple[Back, ...] = ()
    keeps_fed: bool = False
    peepholes: tuple[Peephole, ...] = ()

    def columns(self, gates: str) -> list[int]:
        """Return the places of gates in Keras's order, -1 for "-".

        >>> from streamrnn.nn.kernels.lstm import PLAIN
        >>> PLAIN.columns("of-")
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
        (2, G): of the input, of the state. `own` (U,) each: weights that a unit applies on its own.
        """
        n, units, gates = simd.jit.width(), recurrent_UG.shape[0], len(self.gates)
        if bias is None:
            bias = np.zeros((2, gates * units) if self.biases == 2 else gates * units, np.float32)
        rows = np.reshape(bias, (self.biases, gates, units))
        x, h = (packing.by_gate(weights, gates) for weights in (kernel_FG, recurrent_UG))
        word, rest = packing.word_of(kernel_FG), packing.rest_of(kernel_FG, recurrent_UG)
        vectors = packing.vectors_a_group(units, n, max(len(s.x_biases) for s in self.ahead))
        sweeps = [
            ([x[i] for i in self.columns(s.x_gates)], [h[i] for i in self.columns(s.h_gates)])
            for s in self.ahead
        ]
        return Packed(
            packing.packed(
                sweeps, [self._starts(s, rows) for s in self.ahead], n, vectors, own, rest
            ),
            packing.groups_of(units, n, vectors),
            stepwise.unless_row_wise(
                partial(self._kernel, n, vectors, word),
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

    def _starts(self, sweep: Ahead, rows: Array) -> list[Floats]:
        """Return the start of each sum of a sweep: one bias, or the sum of two."""
        pairs = zip(self.columns(sweep.x_biases), self.columns(sweep.h_biases), strict=True)
        parts = [[rows[i, gate] for i, gate in enumerate(pair) if gate >= 0] for pair in pairs]
        return [reduce(np.add, part) for part in parts]  # a bias alone keeps the sign of its zeros

    def _kernel(self, n: int, vectors: int, word: int, activations: tuple[Spec, ...]) -> Kernel:
        return simd.recurrent.entry(
            f"{self.name}-{n}x{vectors}",
            activations,
            len(self.states),
            lambda: self._compiled().window(n, vectors, word, *activations),
            word,
        )

    def in_training(
        self, n: int, ahead: int, back: int, activations: tuple[Spec, ...]
    ) -> tuple[Kernel, Kernel]:
        """Return the kernels forward and back, for groups of `ahead` and `back` vectors of `n`."""

        def passes() -> "simd.bptt.CellPasses":
            make = self._compiled().passes
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

    def _compiled(self) -> "simd.bptt.SweptCell":
        cells: dict[str, simd.bptt.SweptCell] = getattr(simd, self.module).CELLS
        return cells[self.name]
