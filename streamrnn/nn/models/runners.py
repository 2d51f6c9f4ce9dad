"""How a pipeline runs a model: a step per row with carried state, or each row as a sequence.

Also what a model expects of its inputs: the ids it accepts, scaling, and an example.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, repeat
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Floats, Ints
from streamrnn.errors import ModelMismatchError, ShapeError
from streamrnn.nn.layers.context import CallContext, CallKind
from streamrnn.nn.layers.embedding import CategoryEncoding, Embedding
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.scaling import Normalization
from streamrnn.nn.layers.structure import leaves
from streamrnn.nn.layers.symbol import Symbol
from streamrnn.nn.models.graph import Graph, Step, positions_of
from streamrnn.nn.models.model import Model, flat_layers
from streamrnn.nn.models.steps import MISFITS, InputRows, fixed_steps, flat_steps, with_steps


class StepRunner:
    """Compute each row's output as if its stream ended with the row, however windows are cut.

    A recurrent layer with return_sequences=False returns sequences here, too. Raises
    ModelMismatchError, naming the layer, if a layer needs more of the time axis than the past
    steps.

    state_spec: state name -> number of float32 values of one stream ("lstm/h": 64), in order.
    state_classes: state name -> class of its cell or layer ("LSTMCell"), where it is known.
    outputs: (output layer's name, units), in order.
    own: None for each output, which has no steps of its own.
    Threads may share an instance: a run changes only the states passed to it.
    """

    call_kind: CallKind = "stream"

    def __init__(self, model: Model) -> None:
        self.model = model
        _require_inference(model)
        specs = zip(model.graph.inputs, model.input_specs, strict=True)
        ids = {id(s) for s, (_, shape, of) in specs if of != "float32" and len(shape) == 1}
        _require_stepwise(model.graph, "", ids)
        self.outputs = _outputs_of(model)
        self.own: list[int | None] = [None] * len(self.outputs)
        masked = _masked_paths(model.graph, [False] * len(model.graph.inputs), "")
        self.state_spec = {
            name: int(np.prod(shape))
            for name, shape in model.stream_states().items()
            if not name.endswith("/y") or name in masked
        }
        self.state_classes = {
            name: of for name, of in model.stream_classes().items() if name in self.state_spec
        }

    def initial_state(self, n: int) -> dict[str, Floats]:
        """Return the initial states of n streams: name -> (n, size) float32."""
        initial = self.model.stream_initial(n)
        return {
            name: np.ascontiguousarray(initial[name].reshape(n, size))
            for name, size in self.state_spec.items()
        }

    def run(
        self, inputs: Sequence[Array], lengths_B: Ints | None, states: Mapping[str, Floats]
    ) -> list[Floats]:
        """Return one array (B, T, U) per model output, undefined past a row's length.

        inputs: (B, T, F) of float32, or (B, T) of int64, strings, or float32 without features.
        lengths_B: steps of each row, 0 allowed; None: all steps. states: name -> C-contiguous
        float32 (B, size), overwritten with the states after each row's last step; a row without
        steps keeps the bytes of its states.
        """
        context = CallContext(kind=self.call_kind, lengths=lengths_B, states=states)
        with np.errstate(all="ignore"):  # values past a length are undefined, infinities included
            outputs, _ = self.model.graph.run(inputs, [None] * len(inputs), context)
        return outputs

    def run_once(self, inputs: Sequence[Array], lengths_B: Ints) -> list[Floats]:
        """Return the outputs of `run` from the initial states."""
        return self.run(inputs, lengths_B, self.initial_state(len(lengths_B)))


class StepPlan:
    """`StepRunner.run` without lengths, for inputs in the shapes of `inputs`.

    For one step of float32 inputs, through built-in layers without masks, arrays are bound to the
    kernels once: with a few rows, this saves most of the time of a call.

    states: as for `run`; the caller writes the initial states to these arrays.
    overflowed: whether the last `run` left a state that is NaN or infinite.
    Several threads must not use an instance at once.
    """

    def __init__(self, runner: StepRunner, inputs: Sequence[Array]) -> None:
        lanes, graph = len(inputs[0]), runner.model.graph
        sizes = runner.state_spec
        self._values = np.zeros(lanes * sum(sizes.values()), np.float32)
        self._finite = bytearray(len(self._values))
        self._flags = np.frombuffer(self._finite, bool)
        self.overflowed = False
        ends = accumulate(lanes * size for size in sizes.values())
        self.states = {
            name: self._values[end - lanes * size : end].reshape(lanes, size)
            for (name, size), end in zip(sizes.items(), ends, strict=True)
        }
        self._calls: list[Callable[[], object]] | None = None
        self._runner = runner
        one_step = all(array.dtype == np.float32 and array.shape[1] == 1 for array in inputs)
        # Layer.bind supports these layers, called with inputs alone.
        plain = not any(step.node.kwargs for step in graph.steps)
        if one_step and plain and all(_without_masks(step.node.layer) for step in graph.steps):
            self._inputs = [array.copy() for array in inputs]
            context = CallContext(kind=runner.call_kind, states=self.states)
            with np.errstate(all="ignore"):
                self._outputs, self._calls = graph.bind(self._inputs, context)

    def run(self, inputs: Sequence[Array]) -> list[Floats]:
        """Return one array (B, T, U) per model output; `states` are advanced in place."""
        if self._calls is None:
            outputs = self._runner.run(inputs, None, self.states)
        else:
            for array, values in zip(self._inputs, inputs, strict=True):
                array[...] = values  # faster than np.copyto
            for call in self._calls:
                call()
            outputs = [array.copy() for array in self._outputs]
        np.isfinite(self._values, self._flags)
        self.overflowed = 0 in self._finite  # takes half the time of all()
        return outputs


def _require_inference(model: Model, path: str = "") -> None:
    """Raise ModelMismatchError for a call in the graph that always has training=True."""
    for step in model.graph.steps:
        layer = step.node.layer
        if step.training:
            raise ModelMismatchError(
                f"layer {path + layer.name!r} ({type(layer).__name__}) is called with "
                "training=True inside the model: outputs of a pipeline would be random, or depend "
                "on other rows. Build the model without training=True, with the same weights"
            )
        if isinstance(layer, Model):
            _require_inference(layer, f"{path}{layer.name}/")


def _without_masks(layer: Layer) -> bool:
    """Return whether a layer and all inside it are built in, make no mask, and are not Models."""
    return (
        layer.is_built_in()
        and not (isinstance(layer, Model) or layer.makes_mask)
        and all(map(_without_masks, layer.children().values()))
    )


def _mismatch(path: str, step: Step, reason: str) -> ModelMismatchError:
    return ModelMismatchError(
        f"layer {path + step.node.layer.name!r} ({type(step.node.layer).__name__}) cannot run "
        f"one step per row: {reason}"
    )


def _outputs_of(model: Model) -> list[tuple[str, int]]:
    """Return (layer's name, units) of each output.

    Raises ModelMismatchError for an output that is neither a vector nor a vector for each step.
    """
    outputs = []
    for symbol in model.graph.outputs:
        if len(symbol.shape) not in (2, 3) or symbol.shape[-1] is None:
            raise ModelMismatchError(
                f"output {symbol.layer.name!r} has shape {symbol.shape}: expected (batch, units) "
                "or (batch, time, units), with a known number of units. Join axes with Reshape or "
                "TimeDistributed(Flatten()); keep the last one with keepdims=True, or with a slice "
                "as in x[..., 0:1]"
            )
        outputs.append((symbol.layer.name, int(symbol.shape[-1])))
    return outputs


def _require_stepwise(graph: Graph, path: str, ids: set[int]) -> None:
    """Raise ModelMismatchError for a layer that cannot run one step per row.

    ids: id(symbol) of each input that has one id, or one text, per step.
    """
    used = {id(s) for step in graph.steps for s in step.node.symbols}
    used |= {id(symbol) for symbol in graph.outputs}
    for step in graph.steps:
        layer, node = step.node.layer, step.node
        if node.kwargs.get("initial_state") is not None:
            raise _mismatch(path, step, "its initial state is passed by the model")
        if any(id(symbol) in used for symbol in node.outputs[1:]) and layer.takes_state:
            raise _mismatch(path, step, "its state at the end of the sequence is used")
        if isinstance(layer, Model):
            pairs = zip(layer.graph.inputs, node.symbols, strict=True)
            inner = {id(symbol) for symbol, outer in pairs if id(outer) in ids}
            _require_stepwise(layer.graph, f"{path}{layer.name}/", inner)
            continue
        read = [symbol.layer.name for symbol in node.symbols if id(symbol) in ids]
        if read and layer.input_dtype == "float32":
            raise _mismatch(path, step, f"it reads the ids of input {read[0]!r} as numbers")
        inputs: list[Symbol] = list(leaves(node.inputs))
        ranks = {len(symbol.shape) for symbol in inputs}
        if len(ranks) > 1:
            raise _mismatch(path, step, "it combines sequences with inputs without a time axis")
        shapes = [symbol.shape for symbol in inputs]
        reason = layer.why_not_stepwise(shapes if isinstance(node.inputs, list) else shapes[0])
        if reason:
            raise _mismatch(path, step, reason)


def _masked_paths(graph: Graph, masked_inputs: Sequence[bool], path: str) -> set[str]:
    """Return the names of held outputs that a mask can reach."""
    masked = {id(s) for s, m in zip(graph.inputs, masked_inputs, strict=True) if m}
    paths: set[str] = set()
    for step in graph.steps:
        layer = step.node.layer
        inputs_masked = [id(symbol) in masked for symbol in step.node.symbols]
        if isinstance(layer, Model):
            paths |= _masked_paths(layer.graph, inputs_masked, f"{path}{step.path}/")
        elif any(inputs_masked):
            paths.add(f"{path}{step.path}/y")
        if any(inputs_masked) or any(inner.makes_mask for inner in flat_layers(layer)):
            masked |= {id(symbol) for symbol in step.node.outputs}
    return paths


class SequenceRunner:
    """Run each row of a batch from the initial state, up to its own length.

    `own`: the `own_steps` of each output, which are then values of one vector (B, U x steps), all
    steps of the first unit first; empty if outputs stay as they are. `last`: how many of the last
    steps of a row each input reads; None for all.

    outputs: (output layer's name, units, times its own steps), in order.
    sequences: whether each output has a time axis.
    state_spec, state_classes: empty, as no state is carried.
    fixed: the only number of steps that the model accepts, and a layer that depends on it, or None.
    ragged: whether rows of a batch may have different lengths in one pass.
    Threads may share an instance: a run changes nothing.
    """

    call_kind: CallKind = "whole"

    def __init__(self, model: Model, own: Sequence[int | None] = (), last: InputRows = ()) -> None:
        self.model, self.last = model, last
        _require_inference(model)
        outputs = _outputs_of(model)
        self.own = list(own) or [None] * len(outputs)
        of_steps = list(zip(outputs, model.graph.outputs, self.own, strict=True))
        self.outputs = [(name, units * (steps or 1)) for (name, units), _, steps in of_steps]
        self.sequences = [len(symbol.shape) > 2 and not steps for _, symbol, steps in of_steps]
        self.state_spec: dict[str, int] = {}
        self.state_classes: dict[str, str] = {}
        self.fixed = fixed_steps(model, last)
        self.ragged = not any(last) and all(  # a custom layer has to say that it is stepwise, too
            layer.ragged and (layer.stepwise or layer.is_built_in()) for layer in flat_layers(model)
        )

    def initial_state(self, n: int) -> dict[str, Floats]:
        """Return an empty dictionary: no state is carried."""
        return {}

    def run(self, inputs: Sequence[Array], lengths_B: Ints | None = None) -> list[Floats]:
        """Return outputs: (B, T, U), undefined past a row's length, or (B, U), at the row's end.

        inputs: (B, T, F) of float32, or (B, T) of int64, strings, or float32 without features.
        """
        if lengths_B is None or self.ragged:
            return self._run(inputs, lengths_B)
        # A layer changes the time axis or combines its steps: only rows of one length run at once.
        outputs: list[Floats] = []
        for length in np.unique(lengths_B)[::-1]:
            rows = np.flatnonzero(lengths_B == length)
            cut = [np.ascontiguousarray(x[rows, :length]) for x in inputs]
            parts = self._run(cut, None)
            if not outputs:  # the longest rows come first, so these arrays hold all others
                outputs = [np.zeros((len(lengths_B), *y.shape[1:]), np.float32) for y in parts]
            for output, y in zip(outputs, parts, strict=True):
                if output.ndim > 2:
                    output[rows, : y.shape[1]] = y
                else:
                    output[rows] = y
        return outputs if outputs else self._run(inputs, None)

    run_once = run

    def resized(self, steps: int) -> tuple[str, int] | None:
        """Return an output whose number of steps is not the inputs' `steps`, and that number.

        Raises ShapeError if the model does not accept this number of steps.
        """
        if steps < (most := max(filter(None, self.last), default=0)):
            raise ShapeError(f"an input reads the last {most} rows")
        try:
            shapes = self.model.graph.infer(with_steps(self.model, steps, self.last))
        except MISFITS as error:
            raise ShapeError(str(error)) from error
        for (name, _), shape, own in zip(self.outputs, shapes, self.own, strict=True):
            if len(shape) > 2 and not own and shape[1] is not None and shape[1] != steps:
                return name, shape[1]
        return None

    def read(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the steps that each input reads."""
        pairs = zip(inputs, self.last or repeat(None), strict=False)
        return [np.ascontiguousarray(x[:, -n:]) if n else x for x, n in pairs]

    def _run(self, inputs: Sequence[Array], lengths_B: Ints | None) -> list[Floats]:
        inputs = self.read(inputs)
        context = CallContext(kind=self.call_kind, lengths=lengths_B)
        with np.errstate(all="ignore"):  # values past a length are undefined, infinities included
            outputs, _ = self.model.graph.run(inputs, [None] * len(inputs), context)
        pairs = zip(outputs, self.own, strict=True)
        return [flat_steps(y) if steps else y for y, steps in pairs]


# ---- inputs


class IdLimit(NamedTuple):
    """Ids from 0 to `size` - 1 are valid; `layer` is the layer that reads them."""

    size: int
    layer: str


def id_limits(model: Model) -> dict[str, IdLimit]:
    """Return the smallest limit of the layers that read an input as ids, by the input's name.

    An input that no layer reads as ids is left out.
    """
    by_input = {}
    for symbol in model.graph.inputs:
        limits = []
        for layer in _readers(model.graph, symbol):
            if isinstance(layer, Embedding):
                limits.append(IdLimit(layer.input_dim, str(layer)))
            elif isinstance(layer, CategoryEncoding) and layer.num_tokens is not None:
                limits.append(IdLimit(layer.num_tokens, str(layer)))
        if limits:
            by_input[symbol.layer.name] = min(limits)
    return by_input


def _readers(graph: Graph, symbol: Symbol) -> Iterator[Layer]:
    """Yield the layers that read a symbol, including layers inside models."""
    for node in graph.consumers(symbol):
        if isinstance(node.layer, Model):
            inner = node.layer.graph
            for position in positions_of(symbol, node):
                yield from _readers(inner, inner.inputs[position])
        else:
            yield node.layer


def input_scaling(model: Model) -> dict[str, tuple[Floats, Floats]]:
    """Return mean and deviation, (F,) or (1,), of a `Normalization` that reads each input.

    An input that no `Normalization` reads is left out; one with invert=True does not count.
    """
    by_input = {}
    for symbol in model.graph.inputs:
        for node in model.graph.consumers(symbol):
            layer = node.layer
            if isinstance(layer, Normalization) and not layer.invert:
                mean, variance = layer.mean, layer.variance
                if mean is None or variance is None:
                    mean, variance = layer.get_weights()[:2]
                by_input[symbol.layer.name] = np.ravel(mean), np.sqrt(np.ravel(variance))
    return by_input


def example_inputs(model: Model, rows: int, steps: int) -> list[Array]:
    """Return an array for each input of the model.

    A float32 input with more than one axis gets zeros (rows, steps, F). Any other input gets
    (rows, steps) of the first value in its lookup's vocabulary, or else of zeros or "".
    """
    inputs = []
    for symbol, (_, shape, dtype) in zip(model.graph.inputs, model.input_specs, strict=True):
        if dtype == "float32" and len(shape) > 1:
            inputs.append(np.zeros((rows, steps, shape[-1] or 1), np.float32))
            continue
        kind, value = (object, "") if dtype == "string" else (dtype, 0)
        readers = _readers(model.graph, symbol)
        entries = (entry for layer in readers for entry in getattr(layer, "vocabulary", ()))
        inputs.append(np.full((rows, steps), next(entries, value), kind))
    return inputs
