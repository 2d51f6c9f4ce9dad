"""Rules of recurrent layers: back-propagation through time, to the start of the window."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamrnn.arrays import Bools, Floats
from streamrnn.errors import UnsupportedError
from streamrnn.kernels.bptt import NO_FACTORS, Factors, Network
from streamrnn.kernels.gradients import FROM_VALUE, has_derivative
from streamrnn.layers import GRUCell, LSTMCell, SimpleRNNCell
from streamrnn.layers.bidirectional import Bidirectional
from streamrnn.layers.context import CallContext
from streamrnn.layers.rnn import RNN, reverse
from streamrnn.training.recording import Recorded, Recording, total_of


def check_cell(layer: RNN) -> None:
    """Raise UnsupportedError, naming the layer, unless its cell can be trained."""
    cell: Any = layer.runner
    if type(cell) not in (LSTMCell, GRUCell, SimpleRNNCell):
        raise UnsupportedError(
            f"{layer}: training a cell {type(cell).__name__} is not supported; use LSTM, GRU or "
            "SimpleRNN, one layer after the other, or freeze it as the first layer "
            "(trainable=False)"
        )
    for spec in cell.activations():
        if not has_derivative(spec, FROM_VALUE):
            raise UnsupportedError(
                f"{layer}: training with the activation {spec!r} inside a recurrent layer is not "
                f"supported; use one of: {', '.join(sorted(FROM_VALUE))}"
            )


def check_directions(layer: Bidirectional) -> None:
    """Raise UnsupportedError, naming the layer, unless both of its directions can be trained."""
    if layer.return_state or layer.merge_mode not in ("concat", "sum", "ave"):
        raise UnsupportedError(
            f"{layer}: training with return_state={layer.return_state} and "
            f"merge_mode={layer.merge_mode!r} is not supported; use one output, and merge_mode "
            "concat, sum or ave"
        )
    check_cell(layer.forward_layer)
    check_cell(layer.backward_layer)


def _kind(cell: Any) -> str:
    if type(cell) is GRUCell:
        return "gru" if cell.reset_after else "gru_before"
    return "lstm" if type(cell) is LSTMCell else "simple_rnn"


def recurrent(layer: RNN, inputs: Floats, context: CallContext, recording: Recording) -> Recorded:
    """Record a recurrent layer: of its inputs, and of the initial states of the call if it has any.

    The gradient stops at states that are carried from an earlier call.
    """
    cell: Any = layer.runner
    streams = context.kind == "stream"  # as in scoring: the caller's states, and all steps
    carries = layer.stateful and not streams
    if carries:
        context.remember(layer.memory)
    states, held = layer.begin(inputs, context)
    x, mask = inputs, _present(inputs, context)
    if layer.go_backwards:
        x, mask = reverse(x, None), None if mask is None else reverse(mask, None)
    x = np.ascontiguousarray(x)
    mask = None if mask is None else np.ascontiguousarray(mask)
    lanes, steps, features = x.shape
    call = recording.number_call()
    factors = _factors(cell, recording, call, lanes, features)
    kind, activations = _kind(cell), cell.activations()
    network: Network = recording.once(
        (call, kind, features, cell.units, activations, cell.use_bias),
        lambda: Network(kind, features, cell.units, activations, cell.use_bias),
    )
    tape = network.tape(lanes, steps, dropped=factors.h_BU.size > 0)
    sequences = layer.return_sequences or streams
    y = recording.array((lanes, steps, cell.units)) if sequences else None
    kernel, weights = recording.weight(cell, "kernel"), recording.weight(cell, "recurrent_kernel")
    assert kernel is not None
    assert weights is not None
    zero = layer.zero_output_for_mask
    network.forward(
        tape,
        (kernel, weights, recording.weight(cell, "bias")),
        x,
        factors,
        mask,
        states,
        y,
        zero_masked=zero,
    )
    last = states[0].copy()
    hidden = None if mask is None or not zero or not steps else ~mask[:, -1]
    if hidden is not None:
        last[hidden] = 0
    if carries:
        layer.memory.keep(states, held)
    outputs = [last if y is None else y]
    if layer.return_state and not streams:
        outputs += states

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        dy, *ends = dys
        ends = [*ends, *[None] * (len(states) - len(ends))]
        if y is None:
            if dy is not None and hidden is not None:
                dy = np.where(hidden[:, None], np.float32(0), dy)
            ends[0] = total_of([dy, ends[0]])
            dy = None
        contiguous = [None if end is None else np.ascontiguousarray(end) for end in ends]
        if dy is not None:
            dy = np.ascontiguousarray(dy)
        trains = recording.trains(cell)
        made = network.back(tape, dy, contiguous, factors, mask, zero_masked=zero, weights=trains)
        if made is not None:
            recording.add(cell, "kernel", made.kernel)
            recording.add(cell, "recurrent_kernel", made.recurrent)
            if made.bias is not None:
                recording.add(cell, "bias", made.bias)
        of_states: list[Floats | None] = [None] * (len(wanted) - 1)
        if any(wanted[1:]):
            of_states = [*network.state_gradients(tape, factors)]
        if not wanted[0]:
            return [None, *of_states]
        dx = recording.array(x.shape)
        network.input_gradients(tape, dx)
        if factors.x_BF.size:
            dx *= factors.x_BF[:, None]
        return [reverse(dx, None) if layer.go_backwards else dx, *of_states]

    masks = layer.compute_mask(inputs, context.mask)
    return Recorded(outputs, masks if isinstance(masks, list) else [masks], pullback)


def _present(inputs: Floats, context: CallContext) -> Bools | None:
    """Return the mask of a call, without the steps past a length."""
    mask: Bools | None = context.mask
    if context.lengths is None:
        return mask
    within = np.arange(inputs.shape[1]) < context.lengths[:, None]
    return within if mask is None else within & mask


def _factors(cell: Any, recording: Recording, call: int, lanes: int, features: int) -> Factors:
    """Draw the dropout of one call: a factor for each lane and input, and for each lane and unit.

    They are the same for all steps and gates. A rate of 1 drops nothing in GRU and LSTM.
    """
    drawn = []
    sizes = features, cell.units
    for which, (rate, size) in enumerate(
        zip((cell.dropout, cell.recurrent_dropout), sizes, strict=True)
    ):
        acts = recording.training and rate and (rate < 1 or cell.drops_at_one)
        drawn.append(
            recording.factors(cell.seed, call, which, (lanes, size), rate) if acts else NO_FACTORS
        )
    return Factors(*drawn)


def bidirectional(
    layer: Bidirectional, inputs: Floats, context: CallContext, recording: Recording
) -> Recorded:
    """Record both directions of a Bidirectional layer."""
    one = recurrent(layer.forward_layer, inputs, context, recording)
    other = recurrent(layer.backward_layer, inputs, context, recording)
    sequences = layer.return_sequences
    y, y_back = one.outputs[0], other.outputs[0]
    (merged,) = layer.merge(y, reverse(y_back, None) if sequences else y_back)
    units = y.shape[-1]

    def pullback(dys: Sequence[Floats | None], wanted: Sequence[bool]) -> list[Floats | None]:
        (dy,) = dys
        if dy is None:
            return [None]
        forward = backward = dy
        if layer.merge_mode == "concat":
            forward, backward = dy[..., :units], dy[..., units:]
        elif layer.merge_mode == "ave":
            forward = backward = dy / np.float32(2)
        if sequences:
            backward = reverse(backward, None)
        (dx,) = one.pullback([forward], wanted)
        (dx_back,) = other.pullback([backward], wanted)
        return [total_of([dx, dx_back])]

    return Recorded([merged], [layer.compute_mask(inputs, context.mask)], pullback)
