"""Rules of recurrent layers: back-propagation through time, to the start of the window."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamrnn.base.arrays import Bools, Floats
from streamrnn.nn.layers.bidirectional import Bidirectional
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.rnn import RNN, reverse
from streamrnn.nn.training.cells import CellWindow, check_cell, run_cell
from streamrnn.nn.training.recording import Recorded, Recording, total_of


def check_recurrent(layer: RNN) -> None:
    """Raise UnsupportedError, naming the layer, unless its cell can be trained."""
    check_cell(layer, layer.runner)


def check_directions(layer: Bidirectional) -> None:
    """Raise UnsupportedError, naming the layer, unless both of its directions can be trained."""
    check_recurrent(layer.forward_layer)
    check_recurrent(layer.backward_layer)


def recurrent(layer: RNN, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    """Record a recurrent layer, with gradients of its inputs and of initial states that are passed.

    The gradient stops at states that are carried from an earlier call.
    """
    lengths = context.lengths
    streams = context.kind == "stream"  # as in scoring: the caller's states, and all steps
    carries = layer.stateful and context.kind == "call"
    if carries:
        context.remember(layer.memory)
    states, held = layer.begin(inputs, context)
    x, mask = inputs, _present(inputs, context)
    if layer.go_backwards:
        x, mask = reverse(x, lengths), None if mask is None else reverse(mask, lengths)
    x = np.ascontiguousarray(x)
    mask = None if mask is None else np.ascontiguousarray(mask)
    zero, sequences = layer.zero_output_for_mask, layer.return_sequences or streams
    ran = run_cell(layer.runner, CellWindow(x, mask, zero, sequences), states, held, recording)
    y, last = ran.y_BTU, ran.last_BU.copy()
    hidden = None
    if mask is not None and lengths is None and zero and x.shape[1]:
        hidden = ~mask[:, -1]
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
        gradients = ran.pullback(dy, dlast, ends, wanted[0], any(wanted[1:]))
        dx = gradients.dx_BTF
        if dx is not None and layer.go_backwards:
            dx = reverse(dx, lengths)
        return [dx if wanted[0] else None, *gradients.states[: len(wanted) - 1]]

    masks = layer.compute_mask(inputs, context.mask)
    return Recorded(outputs, masks if isinstance(masks, list) else [masks], pullback)


def _present(inputs: Floats, context: CallContext) -> Bools | None:
    """Return the mask of a call, without the steps past a length."""
    mask: Bools | None = context.mask
    if context.lengths is None:
        return mask
    within = np.arange(inputs.shape[1]) < context.lengths[:, None]
    return within if mask is None else within & mask


def bidirectional(
    layer: Bidirectional, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    """Record both directions of a Bidirectional layer."""
    halves: Any = (None, None)
    if context.initial_state is not None:
        halves = layer.halves(context.initial_state)
    forward, backward = (
        recurrent(child, inputs, context.with_initial_state(half), recording)
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
    """Return the gradients of the outputs of both directions, in the order of time."""
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
