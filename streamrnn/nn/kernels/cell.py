"""The loops around a custom cell: stream by stream, step by step; in training also backward.

A step is a function of one stream, `step(x_F, states, weights, y_U)`. As a stream never shares an
instruction with another, its bits cannot depend on the batch, the chunk or the thread. In training
a window keeps the states before each step. The gradient of a weight is summed over the lanes, in
their order, and within a lane over its steps, from the last one to the first.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Bools, Floats, Ints
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn import simd
from streamrnn.nn.kernels import threads
from streamrnn.nn.kernels.recurrent import NO_OUTPUT
from streamrnn.nn.simd.arguments import Kernel

MIN_THREADED_STEPS = 256
"""Smallest number of steps that are divided among threads: a call in another thread costs 20 µs, a
step of a small cell 0.2 µs."""

_LANES = 16
"""Number of lanes that have separate gradients of weights at a time."""

_loops: dict[Kernel, Kernel] = {}
_training_loops: dict[tuple[Kernel, str], tuple["_Loop", Kernel]] = {}


class _Loop:
    """A compiled loop around a function of one step; `refused` if Numba cannot compile it."""

    def __init__(self, loop: Kernel, owner: str, what: str) -> None:
        self._loop, self._owner, self._what = loop, owner, what
        self.refused = not simd.cell.is_compiled(loop)

    def ran(self, lanes: int, steps: int, *args: object, lengths_B: Ints | None = None) -> bool:
        """Run all lanes, many steps on several threads; if `refused`, run none and return False."""
        if not self.refused:
            try:
                self._loop(0, 0, *args)  # no lanes: only compiles, before any thread starts
            except Exception as error:  # noqa: BLE001 (Numba raises all sorts of errors)
                self.refused = True
                warnings.warn(
                    f"{self._owner}: Numba cannot compile its {self._what}; it runs in Python, "
                    f"many times slower. Numba's error: {error}",
                    stacklevel=3,
                )
        if self.refused:
            return False
        if lanes * steps < MIN_THREADED_STEPS:
            self._loop(0, lanes, *args)
        else:
            threads.by_lanes(lambda a, b: self._loop(a, b, *args), lanes, lengths_B)
        return True


def driver_of(step: Kernel, owner: str) -> Kernel:
    """Return a driver that runs `step`, compiled on its first call.

    The driver takes (x_BTF, lengths_B | None, mask_BT | None, [state_B…], weights, held_BU, y_BTU |
    None, zero_masked). States, held output and y are written in place, as in the other kernels. If
    Numba cannot compile the step, it runs in Python, with one warning that gives the reason. Cells
    with the same step share the compiled code. `owner` is the cell's name in messages.
    """
    if step not in _loops:
        _loops[step] = simd.cell.loop_around(step)
    loop = _Loop(_loops[step], owner, "step")
    checked: set[tuple[object, ...]] = set()

    def run(x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked):
        x_BTF = x_BTF.copy()  # a step may change its inputs, which are also others'
        if not loop.refused:
            arrays = (*(state[:0] for state in states), *weights)
            shapes = (x_BTF.shape[2], held_BU.shape[1], *(array.shape for array in arrays))
            if shapes not in checked:
                of_states = [state.shape[1:] for state in states]
                check_step(step, owner, x_BTF.shape[2], of_states, weights, held_BU.shape[1])
                checked.add(shapes)
            lanes, steps = x_BTF.shape[:2]
            lengths = np.full(lanes, steps, np.int64) if lengths_B is None else lengths_B
            mask = np.ones((lanes, steps), np.bool_) if mask_BT is None else mask_BT
            y = NO_OUTPUT if y_BTU is None else y_BTU
            args = x_BTF, lengths, mask, tuple(states), weights, held_BU, y, zero_masked
            if loop.ran(lanes, steps, *args, lengths_B=lengths_B):
                return
        run_plain(step, x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked)

    return run


def check_step(
    step: Kernel,
    owner: str,
    features: int,
    states: Sequence[tuple[int, ...]],
    weights: Sequence[Floats],
    outputs: int,
) -> None:
    """Run one step in Python, which finds an index outside an array before compiled code crashes.

    The inputs and states of the step, of these shapes, are zeros. Raises ShapeError, naming the
    cell, and ArgumentError if the step writes to a weight. Other errors in Python are ignored here.
    """
    x, y = np.zeros(features, np.float32), np.zeros(outputs, np.float32)
    lane = tuple(np.zeros(shape, np.float32) for shape in states)
    read_only = tuple(np.broadcast_to(weight, weight.shape) for weight in weights)
    try:
        with np.errstate(all="ignore"):
            getattr(step, "py_func", step)(x, lane, read_only, y)
    except IndexError as error:
        raise ShapeError(
            f"{owner}: its step reads or writes outside an array ({error}); x is ({features},), "
            f"the states are {[*states]}, the weights {[w.shape for w in weights]}, y is "
            f"({outputs},)"
        ) from error
    except Exception as error:  # some code runs in Numba only
        if isinstance(error, ValueError) and "read-only" in str(error):
            raise ArgumentError(
                f"{owner}: its step writes to a weight, which it may only read; what changes from "
                "step to step is a state"
            ) from error


def run_plain(
    step, x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked
) -> None:
    """Run the loop of a driver in Python, for a step that is not compiled."""
    for b in range(x_BTF.shape[0]):
        lane = tuple(state[b] for state in states)
        for t in range(x_BTF.shape[1] if lengths_B is None else lengths_B[b]):
            keep = mask_BT is None or mask_BT[b, t]
            if keep:
                step(x_BTF[b, t], lane, weights, held_BU[b])
            if y_BTU is not None:
                y_BTU[b, t] = 0 if zero_masked and not keep else held_BU[b]


def _in_training(make: Callable[..., Kernel], step: Kernel, owner: str, what: str) -> Kernel:
    """Return a function of (lanes, steps, *args) that runs a loop.

    The loop runs in Python if Numba cannot compile it.
    """
    if (step, what) not in _training_loops:
        _training_loops[step, what] = _Loop(make(step), owner, what), make(step, plain=True)
    loop, plain = _training_loops[step, what]

    def run(lanes: int, steps: int, *args: object) -> None:
        if not loop.ran(lanes, steps, *args):
            plain(0, lanes, *args)

    return run


class CellTape(NamedTuple):
    """What is kept of a window: inputs, mask, states before each step and outputs of each step."""

    x_BTF: Floats
    mask_BT: Bools
    states: tuple[Floats, ...]
    outs_BTU: Floats


def run_forward(
    step: Kernel,
    owner: str,
    x_BTF: Floats,
    mask_BT: Bools | None,
    states: Sequence[Floats],
    weights: tuple[Floats, ...],
    held_BU: Floats,
    y_BTU: Floats | None,
    *,
    zero_masked: bool,
) -> CellTape:
    """Advance `states` and the held output, write outputs to `y_BTU`, and return the tape."""
    lanes, steps, _ = x_BTF.shape
    if mask_BT is None:
        mask_BT = np.ones((lanes, steps), np.bool_)
    kept = tuple(np.zeros((lanes, steps, *state.shape[1:]), np.float32) for state in states)
    tape = CellTape(x_BTF, mask_BT, kept, np.zeros((lanes, steps, held_BU.shape[1]), np.float32))
    run = _in_training(simd.cell.forward_loop, step, owner, "step")
    x, y = x_BTF.copy(), NO_OUTPUT if y_BTU is None else y_BTU  # a step may change its inputs
    fixed = x, mask_BT, tuple(states), weights, held_BU, y, zero_masked, kept, tape.outs_BTU
    run(lanes, steps, *fixed)
    return tape


def run_back(
    step_backward: Kernel,
    owner: str,
    tape: CellTape,
    weights: tuple[Floats, ...],
    dy_BTU: Floats | None,
    dheld_BU: Floats | None,
    ends: Sequence[Floats | None],
    *,
    zero_masked: bool,
) -> tuple[Floats, list[Floats], list[Floats]]:
    """Return the gradients of the inputs, of the states before the window, and of the weights.

    They follow from the gradients of the outputs (`dy_BTU`), of the outputs held after the window
    (`dheld_BU`) and of the final states (`ends`); None: zeros.
    """
    lanes, steps, _ = tape.x_BTF.shape
    dx = np.zeros_like(tape.x_BTF)
    outputs = lanes, tape.outs_BTU.shape[2]
    dheld = np.zeros(outputs, np.float32) if dheld_BU is None else dheld_BU.copy()
    dstates = tuple(
        np.zeros((lanes, *kept.shape[2:]), np.float32) if end is None else end.copy()
        for end, kept in zip(ends, tape.states, strict=True)
    )
    dy = NO_OUTPUT if dy_BTU is None else dy_BTU
    totals = [np.zeros(weight.shape, np.float32) for weight in weights]
    run = _in_training(simd.cell.back_loop, step_backward, owner, "step_backward")
    for begin in range(0, lanes, _LANES):
        end = min(begin + _LANES, lanes)
        own = tuple(np.zeros((end - begin, *weight.shape), np.float32) for weight in weights)
        cut = slice(begin, end)
        run(
            end - begin,
            steps,
            *(tape.x_BTF[cut], tape.mask_BT[cut], tuple(kept[cut] for kept in tape.states)),
            *(weights, tape.outs_BTU[cut], dy[cut] if dy.size else dy, zero_masked),
            *(dheld[cut], tuple(state[cut] for state in dstates), dx[cut], own),
        )
        for total, of_lanes in zip(totals, own, strict=True):
            for of_lane in of_lanes:
                total += of_lane
    return dx, [*dstates], totals


def in_float64(function: Kernel) -> Callable[..., None]:
    """Return a function of one step for arrays of float64: compiled, if Numba can compile it."""
    compiled = simd.cell.compiled_step(function)
    plain = getattr(function, "py_func", function)
    refused: list[Exception] = []

    def run(*args: object) -> None:
        if not refused:
            try:
                compiled(*args)
            except Exception as error:  # noqa: BLE001 (Numba raises all sorts of errors)
                refused.append(error)
            else:
                return
        plain(*args)

    return run
