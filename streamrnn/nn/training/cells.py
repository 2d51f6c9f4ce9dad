"""Cells in training: which can be trained, and a window through each kind."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import UnsupportedError
from streamrnn.nn.kernels.activation import ACTIVATIONS, derivative_source
from streamrnn.nn.kernels.bptt import Network
from streamrnn.nn.layers import LayerNormLSTMCell, StackedRNNCells
from streamrnn.nn.layers.gated import GatedCell
from streamrnn.nn.layers.registry import is_own
from streamrnn.nn.training.cell_pass import CellGradients, CellPass, CellWindow, dropout_factors
from streamrnn.nn.training.custom_cells import check_custom_cell, run_custom
from streamrnn.nn.training.layer_norm_cell import run_layer_norm
from streamrnn.nn.training.recording import Recording, total_of


def _is_built_in(cell: object) -> bool:
    return isinstance(cell, GatedCell) and is_own(type(cell))


def check_cell(owner: object, cell: Any) -> None:
    """Raise UnsupportedError, naming the layer `owner`, unless a cell can be trained."""
    if type(cell) is StackedRNNCells:
        for inner in cell.runners:
            check_cell(owner, inner)
        return
    if not _is_built_in(cell):
        check_custom_cell(owner, cell)
        return
    for spec in cell.activations():
        if derivative_source(spec) != "value":
            supported = [name for name in ACTIVATIONS if derivative_source(name) == "value"]
            raise UnsupportedError(
                f"{owner}: training with the activation {spec!r} inside a recurrent layer is not "
                f"supported; use one of: {', '.join(sorted(supported))}"
            )


def run_cell(
    cell: Any, window: CellWindow, states: list[Floats], held: Floats | None, recording: Recording
) -> CellPass:
    """Run a window through a cell; `states` and the held output are advanced, in place."""
    if type(cell) is StackedRNNCells:
        return _run_stack(cell, window, states, held, recording)
    if type(cell) is LayerNormLSTMCell:
        return run_layer_norm(cell, window, states, recording)
    if _is_built_in(cell):
        return _run_swept(cell, window, states, recording)
    assert held is not None
    return run_custom(cell, window, states, held, recording)


def _run_swept(
    cell: Any, window: CellWindow, states: list[Floats], recording: Recording
) -> CellPass:
    """Run a cell that has kernels of its own."""
    x, mask, zero, sequences = window
    lanes, steps, features = x.shape
    call = recording.number_call()
    factors = dropout_factors(cell, recording, call, lanes, features)
    key = cell.kind, features, cell.units, cell.activations(), cell.use_bias
    network: Network = recording.once((call, *key), lambda: Network(*key))
    tape = network.tape(lanes, steps, dropped=factors.h_BU.size > 0)
    y = recording.array((lanes, steps, cell.units)) if sequences else None
    weights = recording.weights_of(cell)
    own = [name for name in weights if name.endswith("peephole_weights")]
    network.forward(
        tape,
        (weights["kernel"], weights["recurrent_kernel"], weights.get("bias")),
        x,
        factors,
        mask,
        states,
        y,
        zero_masked=zero,
        peepholes=[weights[name] for name in own],
    )

    def pullback(
        dy: Floats | None,
        dlast: Floats | None,
        ends: Sequence[Floats | None],
        inputs: bool,
        first: bool,
    ) -> CellGradients:
        reaching = [total_of([dlast, ends[0]]), *ends[1:]]
        contiguous = [None if end is None else np.ascontiguousarray(end) for end in reaching]
        trains = recording.trains(cell)
        gradients = network.back(
            tape, dy, contiguous, factors, mask, zero_masked=zero, weights=trains
        )
        if gradients is not None:
            recording.add(cell, "kernel", gradients.kernel)
            recording.add(cell, "recurrent_kernel", gradients.recurrent)
            if gradients.bias is not None:
                recording.add(cell, "bias", gradients.bias)
            for name, gradient in zip(own, gradients.peepholes, strict=True):
                recording.add(cell, name, gradient)
        of_states: Sequence[Floats | None] = [None] * len(states)
        if first:
            of_states = network.state_gradients(tape, factors)
        if not inputs:
            return CellGradients(None, of_states)
        dx = recording.array(x.shape)
        network.input_gradients(tape, dx)
        if factors.x_BF.size:
            dx *= factors.x_BF[:, None]
        return CellGradients(dx, of_states)

    return CellPass(y, states[0], pullback)


def _run_stack(
    stack: StackedRNNCells,
    window: CellWindow,
    states: list[Floats],
    held: Floats | None,
    recording: Recording,
) -> CellPass:
    """Run a whole window through one cell after the other."""
    x = window.x_BTF
    passes: list[CellPass] = []
    parts = stack.split_states(states)
    for number, (cell, part) in enumerate(zip(stack.runners, parts, strict=True), start=1):
        is_last = number == len(parts)
        inner = window._replace(x_BTF=x)
        if not is_last:
            inner = CellWindow(x, window.mask_BT, zero_masked=False, sequences=True)
        own = held
        if not is_last:
            size = len(x), cell.output_features()
            own = np.zeros(size, np.float32) if cell.holds_output else None
        ran = run_cell(cell, inner, part, own, recording)
        passes.append(ran)
        if ran.y_BTU is not None:
            x = ran.y_BTU

    def pullback(
        dy: Floats | None,
        dlast: Floats | None,
        ends: Sequence[Floats | None],
        inputs: bool,
        first: bool,
    ) -> CellGradients:
        of_states: list[Floats | None] = []
        of_ends = stack.split_states(list(ends))
        trained = [recording.trains(cell) for cell in stack.cells]
        for number in range(len(passes) - 1, -1, -1):
            wanted = inputs or first or any(trained[:number])
            gradients = passes[number].pullback(dy, dlast, of_ends[number], wanted, first)
            dy, dlast = gradients.dx_BTF, None
            of_states = [*gradients.states, *of_states]
            if not wanted:
                of_states = [None] * len(states)
                break
        return CellGradients(dy if inputs else None, of_states)

    return CellPass(passes[-1].y_BTU, passes[-1].last_BU, pullback)
