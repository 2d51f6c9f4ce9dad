"""Rules of recurrent layers: back-propagation through time, to the start of the window.

Each kind of cell has its own pass over a window, forward and back.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from streamrnn.base.arrays import Bools, Floats
from streamrnn.errors import UnsupportedError
from streamrnn.nn.kernels import cell as cell_kernel
from streamrnn.nn.kernels import layer_norm_lstm
from streamrnn.nn.kernels.activation import ACTIVATIONS, derivative_source
from streamrnn.nn.kernels.bptt import NO_FACTORS, Factors, Network
from streamrnn.nn.layers import RNN, Bidirectional, LayerNormLSTMCell, StackedRNNCells
from streamrnn.nn.layers.cell import LayerCell
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.gated import GatedCell
from streamrnn.nn.layers.registry import is_own
from streamrnn.nn.layers.rnn import at_end, reverse
from streamrnn.nn.training.gradient_check import check_step_backward
from streamrnn.nn.training.recording import Recorded, Recording, total_of


class CellWindow(NamedTuple):
    """The window that a cell runs over.

    mask: False where a step is absent. zero_masked: whether outputs of absent steps are zeros.
    sequences: whether the outputs of all steps are wanted, or only the last output.
    """

    x_BTF: Floats
    mask_BT: Bools | None
    zero_masked: bool
    sequences: bool


class CellSlopes(NamedTuple):
    """Gradients of all outputs, of the last output and of the final states; None for zeros.

    inputs, first: whether gradients of the inputs and of the initial states are wanted.
    """

    dy_BTU: Floats | None
    dlast_BU: Floats | None
    states: Sequence[Floats | None]
    inputs: bool
    first: bool


CellGradients: TypeAlias = tuple[Floats | None, Sequence[Floats | None]]
"""Gradients of a window's inputs and of the states before the window; None if not wanted."""


class CellPass(NamedTuple):
    """The outputs of all steps, if wanted; the last output; and the backward pass."""

    y_BTU: Floats | None
    last_BU: Floats
    pullback: Callable[[CellSlopes], CellGradients]


def recurrent(layer: RNN, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    """Record a recurrent layer, with gradients of its inputs and of initial states passed to it.

    The gradient stops at states that are carried from an earlier call.
    """
    lengths, mask = context.lengths, context.mask
    streams = context.kind == "stream"  # as in scoring: the caller's states, every output
    carries = layer.stateful and context.kind == "call"
    if carries:
        context.remember(layer.memory)
    states, held = layer.begin(inputs, context)
    x = inputs
    if lengths is not None:
        within = np.arange(inputs.shape[1]) < lengths[:, None]
        mask = within if mask is None else within & mask
    if layer.go_backwards:
        x, mask = reverse(x, lengths), None if mask is None else reverse(mask, lengths)
    x = np.ascontiguousarray(x)
    mask = None if mask is None else np.ascontiguousarray(mask)
    zero, sequences = layer.zero_output_for_mask, layer.return_sequences or streams
    ran = run_cell(layer.runner, CellWindow(x, mask, zero, sequences), states, held, recording)
    y, last = ran.y_BTU, ran.last_BU.copy()
    hidden = None
    if context.mask is not None and mask is not None and zero and x.shape[1]:
        hidden = ~at_end(mask, lengths)
        last[hidden] = 0
    if carries:
        layer.memory.keep(states, held)
    outputs = [last if y is None else y]
    if layer.return_state and not streams:
        outputs += states

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        dy, *ends = dys
        ends = [*ends, *[None] * (len(states) - len(ends))]
        dlast = None
        if y is None:
            if dy is not None and hidden is not None:
                dy = np.where(hidden[:, None], np.float32(0), dy)
            dy, dlast = None, dy
        if dy is not None:
            dy = np.ascontiguousarray(dy)
        dx, of_states = ran.pullback(CellSlopes(dy, dlast, ends, wanted[0], any(wanted[1:])))
        if dx is not None and layer.go_backwards:
            dx = reverse(dx, lengths)
        return [dx if wanted[0] else None, *of_states[: len(wanted) - 1]]

    masks = layer.compute_mask(inputs, context.mask)
    return Recorded(outputs, masks if isinstance(masks, list) else [masks], pullback)


def bidirectional(
    layer: Bidirectional, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    """Record both directions of a Bidirectional layer."""
    halves = layer.halves(context.initial_state)
    forward, backward = (
        recurrent(child, inputs, replace(context, initial_state=half), recording)
        for child, half in zip((layer.forward_layer, layer.backward_layer), halves, strict=True)
    )
    sequences, own_states = layer.return_sequences, len(forward.outputs) - 1
    y, y_back = forward.outputs[0], backward.outputs[0]
    if sequences:
        y_back = reverse(y_back, context.lengths)
    outputs = [*layer.merge(y, y_back), *forward.outputs[1:], *backward.outputs[1:]]
    merged = 2 if layer.merge_mode is None else 1

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        dy, dy_back = _shares(layer.merge_mode, dys[:merged], y, y_back)
        if sequences and dy_back is not None:
            dy_back = reverse(dy_back, context.lengths)
        ends = dys[merged : merged + own_states], dys[merged + own_states :]
        first = len(layer.forward_layer.runner.state_shapes())
        asked = [wanted[0], *wanted[1 : 1 + first]], [wanted[0], *wanted[1 + first :]]
        dx, *states = forward.pullback([dy, *ends[0]], asked[0])
        dx_back, *states_back = backward.pullback([dy_back, *ends[1]], asked[1])
        return [total_of([dx, dx_back]), *states, *states_back]

    masks = layer.compute_mask(inputs, context.mask)
    return Recorded(outputs, masks if isinstance(masks, list) else [masks], pullback)


def _shares(
    merge_mode: str | None, dys: Sequence[Floats | None], y: Floats, y_back: Floats
) -> tuple[Floats | None, Floats | None]:
    """Return the gradient of each direction's output, with the steps in the order of time."""
    if merge_mode is None:
        return dys[0], dys[1]
    (dy,) = dys
    if dy is None:
        return None, None
    if merge_mode == "concat":
        units = y.shape[-1]
        return dy[..., :units], dy[..., units:]
    if merge_mode == "mul":
        return dy * y_back, dy * y
    if merge_mode == "ave":
        return dy / np.float32(2), dy / np.float32(2)
    return dy, dy


# ---- cells


def check_cell(owner: object, cell: Any) -> None:
    """Raise UnsupportedError, naming the layer `owner`, unless a cell can be trained."""
    if type(cell) is StackedRNNCells:
        for inner in cell.runners:
            check_cell(owner, inner)
        return
    if not _is_built_in(cell):
        kind = type(_holder(cell)).__name__
        otherwise = "or freeze the layer (trainable=False) if nothing before it is trained"
        if getattr(cell, "step", None) is None:
            raise UnsupportedError(
                f"{owner}: training the cell {kind}, which has `call`, is not supported; write it "
                f"with `step` and `step_backward` (see help(streamrnn.layers.Cell)), {otherwise}"
            )
        if _static(cell, "step_backward") is None:
            raise UnsupportedError(
                f"{owner}: training the cell {kind} needs a static method step_backward(x, states, "
                "weights, y, dy, dstates, dx, dweights) beside its `step` (see "
                f"help(streamrnn.layers.Cell)); write it, {otherwise}"
            )
        return
    for spec in cell.activations():
        if derivative_source(spec) != "value":
            supported = [name for name in ACTIVATIONS if derivative_source(name) == "value"]
            raise UnsupportedError(
                f"{owner}: training with the activation {spec!r} inside a recurrent layer is not "
                f"supported; use one of: {', '.join(sorted(supported))}"
            )


def _is_built_in(cell: object) -> bool:
    return isinstance(cell, GatedCell) and is_own(type(cell))


def run_cell(
    cell: Any, window: CellWindow, states: list[Floats], held: Floats | None, recording: Recording
) -> CellPass:
    """Run a window through a cell; advance `states` and the held output in place."""
    if type(cell) is StackedRNNCells:
        return _run_stack(cell, window, states, held, recording)
    if type(cell) is LayerNormLSTMCell:
        return _run_layer_norm(cell, window, states, recording)
    if _is_built_in(cell):
        return _run_swept(cell, window, states, recording)
    assert held is not None
    return _run_custom(cell, window, states, held, recording)


def _run_swept(
    cell: Any, window: CellWindow, states: list[Floats], recording: Recording
) -> CellPass:
    x, mask, zero, sequences = window
    lanes, steps, features = x.shape
    call = recording.number_call()
    factors = _dropout_factors(cell, recording, call, lanes, features)
    key = cell.kind, features, cell.units, cell.activations(), cell.use_bias
    network: Network = recording.once((call, *key), lambda: Network(*key))
    tape = network.tape(lanes, steps, dropped=factors.h_BU.size > 0)
    y = recording.array((lanes, steps, cell.units)) if sequences else None
    weights = recording.weights_of(cell)
    network.forward(
        tape,
        (weights["kernel"], weights["recurrent_kernel"], weights.get("bias")),
        x,
        factors,
        mask,
        states,
        y,
        zero_masked=zero,
        peepholes=[w for name, w in weights.items() if name.endswith("peephole_weights")],
    )

    def pullback(slopes: CellSlopes) -> CellGradients:
        dy, dlast, ends, inputs, first = slopes
        reaching = _reaching(dlast, ends)
        trains = recording.trains(cell)
        gradients = network.back(
            tape, dy, reaching, factors, mask, zero_masked=zero, weights=trains
        )
        if gradients is not None:
            for name, gradient in zip(weights, gradients, strict=True):
                recording.add(cell, name, gradient)
        of_states = network.state_gradients(tape, factors) if first else [None] * len(states)
        if not inputs:
            return None, of_states
        dx = recording.array(x.shape)
        network.input_gradients(tape, dx)
        if factors.x_BF.size:
            dx *= factors.x_BF[:, None]
        return dx, of_states

    return CellPass(y, states[0], pullback)


def _run_layer_norm(
    cell: LayerNormLSTMCell, window: CellWindow, states: list[Floats], recording: Recording
) -> CellPass:
    x, mask, zero, sequences = window
    lanes, steps, features = x.shape
    factors = _dropout_factors(cell, recording, recording.number_call(), lanes, features)
    norms = [f"{norm}_{part}" for norm in cell.NORMS for part in ("gamma", "beta")]
    of_gates, of_c = cell.activations()
    y = recording.array((lanes, steps, cell.units)) if sequences else None
    kept = layer_norm_lstm.run_forward(
        cell.packed(), (of_gates, of_c), x, factors, mask, states, y, zero_masked=zero
    )
    own = recording.weights_of(cell)
    weights = layer_norm_lstm.NormWeights(
        own["kernel"],
        own["recurrent_kernel"],
        own.get("bias"),
        [own[name] for name in norms],
        cell.norm_epsilon,
    )

    def pullback(slopes: CellSlopes) -> CellGradients:
        dy, dlast, ends, inputs, _ = slopes
        of_weights, dx, of_states = layer_norm_lstm.run_back(
            weights,
            (of_gates, of_c),
            kept,
            factors,
            mask,
            None if dy is None else np.ascontiguousarray(dy),
            _reaching(dlast, ends),
            zero_masked=zero,
            inputs=inputs,
        )
        names = ["kernel", "recurrent_kernel", "bias", *norms]
        for name, gradient in zip(names, of_weights, strict=True):
            recording.add(cell, name, gradient)
        return dx, of_states

    return CellPass(y, states[0], pullback)


def _run_custom(
    cell: Any, window: CellWindow, states: list[Floats], held: Floats, recording: Recording
) -> CellPass:
    x, mask, zero, sequences = window
    holder, step, step_backward = _holder(cell), cell.step, _static(cell, "step_backward")
    assert step_backward is not None
    named = recording.weights_of(holder)
    check_step_backward(cell, step, step_backward, named, x.shape[2])
    weights = tuple(named.values())
    y = recording.array((*x.shape[:2], cell.output_features())) if sequences else None
    owner = str(cell)
    tape = cell_kernel.run_forward(step, owner, x, mask, states, weights, held, y, zero_masked=zero)

    def pullback(slopes: CellSlopes) -> CellGradients:
        dy, dlast, ends, inputs, _ = slopes
        dx, of_states, of_weights = cell_kernel.run_back(
            step_backward, owner, tape, weights, dy, dlast, ends, zero_masked=zero
        )
        for name, gradient in zip(named, of_weights, strict=True):
            recording.add(holder, name, gradient)
        return dx if inputs else None, of_states

    return CellPass(y, held, pullback)


def _run_stack(
    stack: StackedRNNCells,
    window: CellWindow,
    states: list[Floats],
    held: Floats | None,
    recording: Recording,
) -> CellPass:
    """Run a whole window through one cell after the other."""
    x, parts = window.x_BTF, stack.split_states(states)
    passes: list[CellPass] = []
    for cell, part in zip(stack.runners[:-1], parts[:-1], strict=True):
        size = len(x), cell.output_features()
        own = np.zeros(size, np.float32) if cell.holds_output else None
        inner = CellWindow(x, window.mask_BT, zero_masked=False, sequences=True)
        passes.append(run_cell(cell, inner, part, own, recording))
        y = passes[-1].y_BTU
        assert y is not None
        x = y
    last = run_cell(stack.runners[-1], window._replace(x_BTF=x), parts[-1], held, recording)
    passes.append(last)

    def pullback(slopes: CellSlopes) -> CellGradients:
        dy, dlast, ends, inputs, first = slopes
        of_states: list[Floats | None] = []
        of_ends = stack.split_states(list(ends))
        trained = [recording.trains(cell) for cell in stack.cells]
        for number in range(len(passes) - 1, -1, -1):
            wanted = inputs or first or any(trained[:number])
            of_cell = CellSlopes(dy, dlast, of_ends[number], wanted, first)
            dy, gradients = passes[number].pullback(of_cell)
            dlast = None
            of_states = [*gradients, *of_states]
            if not wanted:
                of_states = [None] * len(states)
                break
        return dy if inputs else None, of_states

    return CellPass(last.y_BTU, last.last_BU, pullback)


def _reaching(dlast: Floats | None, ends: Sequence[Floats | None]) -> list[Floats | None]:
    """Return the gradients of the final states, of which the first is also the last output."""
    reaching = [total_of([dlast, ends[0]]), *ends[1:]]
    return [None if end is None else np.ascontiguousarray(end) for end in reaching]


def _dropout_factors(
    cell: Any, recording: Recording, call: int, lanes: int, features: int
) -> Factors:
    """Draw the dropout of one call: a factor for each lane and input, and for each lane and unit.

    The factors are the same for all steps and gates. Outside training nothing is dropped. A rate of
    1 drops everything in a cell with `drops_at_one`, nothing in others.
    """

    def draw(which: int, size: int, rate: float) -> Floats:
        if not recording.training or not rate or (rate == 1 and not cell.drops_at_one):
            return NO_FACTORS
        return recording.factors(cell.seed, call, which, (lanes, size), rate)

    return Factors(draw(0, features, cell.dropout), draw(1, cell.units, cell.recurrent_dropout))


def _holder(cell: Any) -> Any:
    """Return the object that holds the weights: the layer in an adapter, or else the cell."""
    return cell.layer if isinstance(cell, LayerCell) else cell


def _static(cell: Any, name: str) -> Callable[..., None] | None:
    attribute = inspect.getattr_static(_holder(cell), name, None)
    return attribute.__func__ if isinstance(attribute, staticmethod) else None
