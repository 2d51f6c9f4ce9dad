"""Calling a recurrent kernel: stand-ins for what is left out, and lanes split between threads."""

from collections.abc import Callable
from typing import Any

import numpy as np

from streamrnn.kernels import stepwise, threads
from streamrnn.kernels.activation import Spec, label

NO_LENGTHS = np.empty(0, np.int64)
NO_MASK = np.empty((0, 0), np.bool_)
NO_STATE = np.empty((0, 0), np.float32)
NO_OUTPUT = np.empty((0, 0, 0), np.float32)
ALONE = (0, 1, np.empty(0, np.float32), NO_LENGTHS)
"""part, parts, shared, gate of a thread that shares no lane."""


class Packed:
    """A recurrent layer's weights as its kernel reads them, and the kernels compiled for it.

    `groups`: of units, which threads may share. `build(*activations)` gives a kernel's name and a
    function that makes it; `plain(*activations)` the step in numpy that stands in where an
    activation is softmax; `again()` packs anew: how another process, perhaps on another CPU, gets
    a pickled one.
    """

    __slots__ = ("again", "bias", "build", "entries", "groups", "plain", "weights")

    def __init__(
        self,
        weights: Any,
        bias: Any,
        groups: int,
        build: Callable[..., tuple[str, Callable[[], Any]]],
        plain: Callable[..., stepwise.Step],
        again: Callable[[], Any],
    ) -> None:
        self.weights, self.bias, self.groups = weights, bias, groups
        self.build, self.plain, self.again = build, plain, again
        self.entries: dict[tuple[Spec, ...], Callable[..., None]] = {}

    def __reduce__(self) -> Any:
        return self.again, ()

    def entry(self, activations: tuple[Spec, ...]) -> Callable[..., None]:
        """The kernel for these activations, compiled on first use."""
        if "softmax" in activations:
            self.entries[activations] = stepwise.window(self.plain(*activations))
        if activations not in self.entries:
            from streamrnn.kernels import jit, recurrent

            name, make = self.build(*activations)
            full = "-".join([name, *map(label, activations)])
            self.entries[activations] = jit.compiled(full, make, recurrent.signature())
        return self.entries[activations]


def run(
    packed: Packed,
    activations: tuple[Spec, ...],
    x_BTF: Any,
    lengths_B: Any,
    mask_BT: Any,
    states: list[Any],
    y_BTU: Any,
    zero_masked: bool,
) -> None:
    """Take all lanes through a window.

    Raises:
        ValueError: an array is not C-contiguous, or the mask or lengths do not fit: a kernel would
            read or write beside it.
    """
    lanes, steps, _ = x_BTF.shape
    if not lanes or not steps:
        return
    entry = packed.entries.get(activations) or packed.entry(activations)
    h_BU = states[0]
    c_BU = states[1] if len(states) == 2 else NO_STATE
    if lengths_B is None:
        lengths_B = NO_LENGTHS
    elif lengths_B.shape != (lanes,):
        raise ValueError(f"expected {lanes} lengths, received shape {lengths_B.shape}")
    if mask_BT is None:
        mask_BT = NO_MASK
    elif mask_BT.shape != (lanes, steps):
        raise ValueError(f"expected a mask {(lanes, steps)}, received shape {mask_BT.shape}")
    if y_BTU is None:
        y_BTU = NO_OUTPUT
    for array in (x_BTF, lengths_B, mask_BT, h_BU, c_BU, y_BTU):
        if not array.flags.c_contiguous:
            raise ValueError(f"kernels take C-contiguous arrays, received strides {array.strides}")
    weights, bias = packed.weights, packed.bias
    window = (x_BTF, lengths_B, mask_BT, h_BU, c_BU, y_BTU, weights, bias)
    if not threads.pays(lanes * steps * weights.size):
        entry(*window, 0, lanes, zero_masked, *ALONE)
        return
    parts = threads.partners(lanes, weights.size, packed.groups)
    if (
        parts == 1
        or steps == 1
        or "softmax" in activations
        or not _together(entry, window, zero_masked, parts)
    ):
        threads.by_lanes(
            lambda first, last: entry(*window, first, last, zero_masked, *ALONE), lanes, lengths_B
        )


def _together(
    entry: Callable[..., None], window: tuple[Any, ...], zero_masked: bool, parts: int
) -> bool:
    """Several threads take all lanes, each some of their units; false if there are too few now."""
    from streamrnn.kernels import recurrent

    (lanes, _, features), bias = window[0].shape, window[-1]
    shared = np.zeros(recurrent.scratch(bias.size, lanes, features, parts), np.float32)
    gate = np.zeros(recurrent.ALONE + 1, np.int64)
    done = threads.together(
        lambda part: entry(*window, 0, lanes, zero_masked, part, parts, shared, gate),
        parts,
        give_up=lambda: gate.__setitem__(0, recurrent.NO_MEETING),
    )
    if done:
        threads.learn(slow=bool(gate[recurrent.ALONE]))
    return done
