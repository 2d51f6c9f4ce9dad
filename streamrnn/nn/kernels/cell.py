"""The loop around a custom cell: stream by stream, step by step.

A step is a function of one stream, `step(x_F, states, weights, y_U)`. As a stream never shares an
instruction with another, its bits cannot depend on the batch, the chunk or the thread.
"""

import warnings

import numpy as np

from streamrnn.errors import ShapeError
from streamrnn.nn import simd
from streamrnn.nn.kernels import threads
from streamrnn.nn.simd.arguments import Kernel

_loops: dict[Kernel, Kernel] = {}

_MIN_THREADED_STEPS = 256
"""Smallest number of steps that are divided among threads: a call in another thread costs 20 µs, a
step of a small cell 0.2 µs."""


def driver_of(step: Kernel, owner: str) -> Kernel:
    """Return a driver that runs `step`, compiled on its first call.

    The driver takes (x_BTF, lengths_B | None, mask_BT | None, [state_B…], weights, held_BU, y_BTU |
    None, zero_masked). States, held output and y are written in place, as in the other kernels. If
    Numba cannot compile the step, it runs in Python, with one warning that gives the reason. Cells
    with the same step share the compiled code. `owner` is the cell's name in messages.
    """
    if step not in _loops:
        _loops[step] = simd.cell.loop_around(step)
    loop = _loops[step]
    refused: list[Exception | str] = [] if simd.cell.is_compiled(loop) else ["NUMBA_DISABLE_JIT"]
    checked: set[tuple[object, ...]] = set()

    def run(x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked):
        if not refused:
            arrays = (*(state[:0] for state in states), *weights)
            shapes = (x_BTF.shape[2], held_BU.shape[1], *(array.shape for array in arrays))
            if shapes not in checked:
                function = getattr(step, "py_func", step)
                _check_indices(function, owner, x_BTF, states, weights, held_BU)
                checked.add(shapes)
            args = _filled(x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked)
            try:
                loop(0, 0, *args)  # no lanes: only compiles, before any thread starts
            except Exception as error:  # noqa: BLE001 (Numba raises all sorts of errors)
                refused.append(error)
                warnings.warn(
                    f"{owner}: Numba cannot compile its step; it runs in Python, many times "
                    f"slower. Numba's error: {error}",
                    stacklevel=2,
                )
            else:
                lanes, steps = x_BTF.shape[:2]
                if lanes * steps < _MIN_THREADED_STEPS:
                    loop(0, lanes, *args)
                else:
                    threads.by_lanes(lambda a, b: loop(a, b, *args), lanes, lengths_B)
                return
        run_plain(step, x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked)

    return run


def _check_indices(step, owner, x_BTF, states, weights, held_BU) -> None:
    """Run one step in Python, which finds an index outside an array before compiled code crashes.

    The inputs and states of the step are zeros. Raises ShapeError, naming the cell. Other errors in
    Python are ignored here.
    """
    x = np.zeros(x_BTF.shape[2], np.float32)
    lane = tuple(np.zeros(state.shape[1:], np.float32) for state in states)
    try:
        with np.errstate(all="ignore"):
            step(x, lane, weights, np.zeros(held_BU.shape[1], np.float32))
    except IndexError as error:
        raise ShapeError(
            f"{owner}: its step reads or writes outside an array ({error}); x is ({x.size},), the "
            f"states are {[state.shape for state in lane]}, the weights "
            f"{[w.shape for w in weights]}, y is ({held_BU.shape[1]},)"
        ) from error
    except Exception:  # noqa: BLE001 (some code runs in Numba only)
        return


def _filled(x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked):
    """Return the arguments of the loop, with arrays in place of None."""
    lanes, steps = x_BTF.shape[:2]
    if lengths_B is None:
        lengths_B = np.full(lanes, steps, np.int64)
    if mask_BT is None:
        mask_BT = np.ones((lanes, steps), np.bool_)
    if y_BTU is None:
        y_BTU = np.empty((0, 0, 0), np.float32)
    return x_BTF, lengths_B, mask_BT, tuple(states), weights, held_BU, y_BTU, zero_masked


def run_plain(
    step, x_BTF, lengths_B, mask_BT, states, weights, held_BU, y_BTU, zero_masked
) -> None:
    """Run the same loop in Python, for a step that is not compiled."""
    for b in range(x_BTF.shape[0]):
        lane = tuple(state[b] for state in states)
        for t in range(x_BTF.shape[1] if lengths_B is None else lengths_B[b]):
            keep = mask_BT is None or mask_BT[b, t]
            if keep:
                step(x_BTF[b, t], lane, weights, held_BU[b])
            if y_BTU is not None:
                y_BTU[b, t] = 0 if zero_masked and not keep else held_BU[b]
