"""A custom cell in training: a window forward with its states kept, and back through time.

The gradient of a weight is summed over the lanes, in their order, and within a lane over its steps,
from the last one to the first.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Bools, Floats
from streamrnn.nn import simd
from streamrnn.nn.kernels import threads
from streamrnn.nn.simd.arguments import Kernel

_LANES = 16
"""Number of lanes that have separate gradients of weights at a time."""

_NO_OUTPUTS = np.empty((0, 0, 0), np.float32)
MIN_THREADED_STEPS = 256
_loops: dict[tuple[Kernel, str], "_Loop"] = {}


class _Loop:
    """A loop around a function of one step: compiled, or in Python if Numba cannot compile it."""

    def __init__(self, make: Callable[..., Kernel], step: Kernel, owner: str, what: str) -> None:
        self._plain, self._compiled = make(step, plain=True), make(step)
        self._owner, self._what = owner, what
        self._refused = not simd.cell.is_compiled(self._compiled)

    def run(self, lanes: int, steps: int, *args: object) -> None:
        """Run all lanes, divided among threads."""
        if not self._refused:
            try:
                self._compiled(0, 0, *args)  # no lanes: only compiles, before any thread starts
            except Exception as error:  # noqa: BLE001 (Numba raises all sorts of errors)
                self._refused = True
                warnings.warn(
                    f"{self._owner}: Numba cannot compile its {self._what}; it runs in Python, "
                    f"many times slower. Numba's error: {error}",
                    stacklevel=2,
                )
        if self._refused:
            self._plain(0, lanes, *args)
        elif lanes * steps < MIN_THREADED_STEPS:
            self._compiled(0, lanes, *args)
        else:
            threads.by_lanes(lambda a, b: self._compiled(a, b, *args), lanes)


def _loop(make: Callable[..., Kernel], step: Kernel, owner: str, what: str) -> _Loop:
    if (step, what) not in _loops:
        _loops[step, what] = _Loop(make, step, owner, what)
    return _loops[step, what]


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
    y = _NO_OUTPUTS if y_BTU is None else y_BTU
    fixed = x_BTF, mask_BT, tuple(states), weights, held_BU, y, zero_masked, kept, tape.outs_BTU
    _loop(simd.cell_bptt.forward_loop, step, owner, "step").run(lanes, steps, *fixed)
    return tape


class CellBackward(NamedTuple):
    """Gradients of a window's inputs, of the states before it, and of the weights."""

    dx_BTF: Floats
    states: list[Floats]
    weights: list[Floats]


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
) -> CellBackward:
    """Return the gradients of the inputs, of the states before the window, and of the weights.

    They follow from the gradients of the outputs (`dy_BTU`), of the last outputs (`dheld_BU`) and
    of the final states (`ends`); None: zeros.
    """
    lanes, steps, _ = tape.x_BTF.shape
    dx = np.zeros_like(tape.x_BTF)
    outputs = lanes, tape.outs_BTU.shape[2]
    dheld = np.zeros(outputs, np.float32) if dheld_BU is None else dheld_BU.copy()
    dstates = tuple(
        np.zeros((lanes, *kept.shape[2:]), np.float32) if end is None else end.copy()
        for end, kept in zip(ends, tape.states, strict=True)
    )
    dy = _NO_OUTPUTS if dy_BTU is None else dy_BTU
    totals = [np.zeros(weight.shape, np.float32) for weight in weights]
    loop = _loop(simd.cell_bptt.back_loop, step_backward, owner, "step_backward")
    for begin in range(0, lanes, _LANES):
        end = min(begin + _LANES, lanes)
        own = tuple(np.zeros((end - begin, *weight.shape), np.float32) for weight in weights)
        cut = slice(begin, end)
        loop.run(
            end - begin,
            steps,
            *(tape.x_BTF[cut], tape.mask_BT[cut], tuple(kept[cut] for kept in tape.states)),
            *(weights, tape.outs_BTU[cut], dy[cut] if dy.size else dy, zero_masked),
            *(dheld[cut], tuple(state[cut] for state in dstates), dx[cut], own),
        )
        for total, of_lanes in zip(totals, own, strict=True):
            for of_lane in of_lanes:
                total += of_lane
    return CellBackward(dx, [*dstates], totals)


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
