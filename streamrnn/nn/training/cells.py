"""Cells in training: which can be trained; each kind's pass over a window, forward and back."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from streamrnn.base.arrays import Bools, Floats
from streamrnn.errors import UnsupportedError
from streamrnn.nn.kernels import cell as cell_kernel
from streamrnn.nn.kernels import layer_norm_lstm
from streamrnn.nn.kernels.activation import ACTIVATIONS, derivative_source
from streamrnn.nn.kernels.bptt import NO_FACTORS, Factors, Network
from streamrnn.nn.layers import LayerNormLSTMCell, StackedRNNCells
from streamrnn.nn.layers.cell import LayerCell
from streamrnn.nn.layers.gated import GatedCell
from streamrnn.nn.layers.registry import is_own
from streamrnn.nn.training.recording import Recording, total_of
from streamrnn.nn.training.step_check import check_step_backward

_Function: TypeAlias = Callable[..., None]


class CellWindow(NamedTuple):
    """What a cell runs over.

    mask: False where a step is absent. sequences: whether every output is wanted, else only the
    last.
    """

    x_BTF: Floats
    mask_BT: Bools | None
    zero_masked: bool
    sequences: bool


class CellGradients(NamedTuple):
    """Gradients of a window's inputs, None if not wanted, and of the states before it."""

    dx_BTF: Floats | None
    states: Sequence[Floats | None]


CellPullback: TypeAlias = Callable[
    [Floats | None, Floats | None, Sequence[Floats | None], bool, bool], CellGradients
]
"""From gradients of each output, of the last output and of the final states (None: zero), and
whether gradients of the inputs and of the first states are wanted."""


class CellPass(NamedTuple):
    """Each output (B, T, U) if wanted, the last one (B, U), and the way back."""

    y_BTU: Floats | None
    last_BU: Floats
    pullback: CellPullback


def check_cell(owner: object, cell: Any) -> None:
    """Raise UnsupportedError, naming the layer `owner`, unless a cell can be trained."""
    if type(cell) is StackedRNNCells:
        for inner in cell.runners:
            check_cell(owner, inner)
        return
    if not _is_built_in(cell):
        _check_custom(owner, cell)
        return
    for spec in cell.activations():
        if derivative_source(spec) != "value":
            supported = [name for name in ACTIVATIONS if derivative_source(name) == "value"]
            raise UnsupportedError(
                f"{owner}: training with the activation {spec!r} inside a recurrent layer is not "
                f"supported; use one of: {', '.join(sorted(supported))}"
            )


def _check_custom(owner: object, cell: Any) -> None:
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


def _is_built_in(cell: object) -> bool:
    return isinstance(cell, GatedCell) and is_own(type(cell))


def run_cell(
    cell: Any, window: CellWindow, states: list[Floats], held: Floats | None, recording: Recording
) -> CellPass:
    """Run a window through a cell; `states` and the held output are advanced, in place."""
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
    """Run a cell that has its own kernels."""
    x, mask, zero, sequences = window
    lanes, steps, features = x.shape
    call = recording.number_call()
    factors = _dropout_factors(cell, recording, call, lanes, features)
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


def _run_layer_norm(
    cell: LayerNormLSTMCell, window: CellWindow, states: list[Floats], recording: Recording
) -> CellPass:
    """Run a window; `states` are advanced in place."""
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

    def pullback(
        dy: Floats | None,
        dlast: Floats | None,
        ends: Sequence[Floats | None],
        inputs: bool,
        first: bool,
    ) -> CellGradients:
        reaching = [total_of([dlast, ends[0]]), ends[1]]
        gradients = layer_norm_lstm.run_back(
            weights,
            (of_gates, of_c),
            kept,
            factors,
            mask,
            None if dy is None else np.ascontiguousarray(dy),
            [None if end is None else np.ascontiguousarray(end) for end in reaching],
            zero_masked=zero,
            inputs=inputs,
        )
        names = ["kernel", "recurrent_kernel", "bias", *norms]
        for name, gradient in zip(names, gradients.weights, strict=True):
            recording.add(cell, name, gradient)
        return CellGradients(gradients.dx_BTF, gradients.states)

    return CellPass(y, states[0], pullback)


def _run_custom(
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
    tape = cell_kernel.run_forward(step, owner, x, mask, states, weights, held, y, zero_masked=zero)

    def pullback(
        dy: Floats | None,
        dlast: Floats | None,
        ends: Sequence[Floats | None],
        inputs: bool,
        first: bool,
    ) -> CellGradients:
        gradients = cell_kernel.run_back(
            step_backward, owner, tape, weights, dy, dlast, ends, zero_masked=zero
        )
        for name, gradient in zip(named, gradients.weights, strict=True):
            recording.add(holder, name, gradient)
        return CellGradients(gradients.dx_BTF if inputs else None, gradients.states)

    return CellPass(y, held, pullback)


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


def _dropout_factors(
    cell: Any, recording: Recording, call: int, lanes: int, features: int
) -> Factors:
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


def _holder(cell: Any) -> Any:
    """Return the object that has the weights: the layer in an adapter, else the cell."""
    return cell.layer if isinstance(cell, LayerCell) else cell


def _static(cell: Any, name: str) -> _Function | None:
    attribute = inspect.getattr_static(_holder(cell), name, None)
    return attribute.__func__ if isinstance(attribute, staticmethod) else None
