"""A window through a custom cell that has `step` and `step_backward`."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from streamrnn.base.arrays import Floats
from streamrnn.errors import UnsupportedError
from streamrnn.nn.kernels import cell_bptt as kernel
from streamrnn.nn.layers.cell import LayerCell
from streamrnn.nn.training.cell_pass import CellGradients, CellPass, CellWindow
from streamrnn.nn.training.recording import Recording
from streamrnn.nn.training.step_check import check_step_backward

_Function: TypeAlias = Callable[..., None]


def check_custom_cell(owner: object, cell: Any) -> None:
    """Raise UnsupportedError, naming the layer `owner` and the cell, if it cannot be trained."""
    kind = type(_holder(cell)).__name__
    otherwise = "or freeze it as the first layer (trainable=False)"
    if getattr(cell, "step", None) is None:
        raise UnsupportedError(
            f"{owner}: training a cell {kind} with `call` is not supported; write it with `step` "
            f"and `step_backward` (see help(streamrnn.layers.Cell)), {otherwise}"
        )
    if _static(cell, "step_backward") is None:
        raise UnsupportedError(
            f"{owner}: training a cell {kind} needs a static method step_backward(x, states, "
            "weights, y, dy, dstates, dx, dweights) beside its `step` (see "
            f"help(streamrnn.layers.Cell)); write it, {otherwise}"
        )


def run_custom(
    cell: Any, window: CellWindow, states: list[Floats], held: Floats, recording: Recording
) -> CellPass:
    """Run a window; `states` and the held output are advanced in place."""
    x, mask, zero, sequences = window
    holder, step, step_backward = _holder(cell), cell.step, _static(cell, "step_backward")
    assert step_backward is not None
    named = recording.weights_of(holder)
    check_step_backward(cell, step, step_backward, named, x.shape[2])
    weights = tuple(named.values())
    y = recording.array((*x.shape[:2], cell.output_features())) if sequences else None
    owner = str(cell)
    tape = kernel.run_forward(step, owner, x, mask, states, weights, held, y, zero_masked=zero)

    def pullback(
        dy: Floats | None,
        dlast: Floats | None,
        ends: Sequence[Floats | None],
        inputs: bool,
        first: bool,
    ) -> CellGradients:
        gradients = kernel.run_back(
            step_backward, owner, tape, weights, dy, dlast, ends, zero_masked=zero
        )
        for name, gradient in zip(named, gradients.weights, strict=True):
            recording.add(holder, name, gradient)
        return CellGradients(gradients.dx_BTF if inputs else None, gradients.states)

    return CellPass(y, held, pullback)


def _holder(cell: Any) -> Any:
    """Return the object that has the weights: the layer in an adapter, else the cell."""
    return cell.layer if isinstance(cell, LayerCell) else cell


def _static(cell: Any, name: str) -> _Function | None:
    attribute = inspect.getattr_static(_holder(cell), name, None)
    return attribute.__func__ if isinstance(attribute, staticmethod) else None
