"""The batch and time axes of a graph's inputs and outputs.

Files do not define them. The graph is run on zeros with numbers of rows and steps that occur
nowhere else in it: a layout of the inputs is valid if the recurrent nodes receive these sizes on
the expected axes; the axes of the outputs are identified by their sizes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ModelMismatchError, StreamRNNError
from streamrnn.plugins.onnx.evaluate import Evaluator
from streamrnn.plugins.onnx.graph import Value
from streamrnn.plugins.onnx.wiring import Wiring

_PRIMES = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
_MAX_TRIED = 64


@dataclass(frozen=True)
class Place:
    """Axes of an array: "B" batch, "T" time, "1" the one step, "F" features."""

    axes: str

    def to_graph(self, x: Array) -> Array:
        """Transpose (B, T, F), (B, T), (B, F) or (B,) to the graph's layout; add the axis "1"."""
        ours = [axis for axis in "BTF" if axis in self.axes]
        order = [ours.index(axis) for axis in self.axes if axis != "1"]
        x = np.transpose(x, order)
        position = self.axes.find("1")
        return np.ascontiguousarray(x if position < 0 else np.expand_dims(x, position))

    def from_graph(self, y: Array) -> Array:
        """Transpose the graph's layout to (B, T, values) or (B, values)."""
        front = [self.axes.index(axis) for axis in "BT" if axis in self.axes]
        rest = [i for i in range(y.ndim) if i not in front]
        moved = np.transpose(y, front + rest)
        return np.ascontiguousarray(moved.reshape(*moved.shape[: len(front)], -1))


@dataclass(frozen=True)
class GraphLayout:
    """The layouts of a graph's arrays. one_step: the graph processes one step per call.

    outputs: name -> (axes, units). states: input name -> (axes, shape of one stream's state).
    """

    inputs: Mapping[str, Place]
    outputs: Mapping[str, tuple[Place, int]]
    states: Mapping[str, tuple[Place, tuple[int, ...]]]
    one_step: bool

    @property
    def timeless(self) -> bool:
        """Whether an output lacks a time axis, so that each step needs its own run."""
        return any("T" not in place.axes for place, _ in self.outputs.values())


def find_layout(evaluator: Evaluator, wiring: Wiring) -> GraphLayout:
    """Find the layout. Raises ModelMismatchError, with the graph's last error, if none works."""
    for label in evaluator.labels.values():
        if label not in evaluator.recurrent:
            raise ModelMismatchError(
                f"the weights of node {label!r} are inputs of the graph, which can only be called "
                "from Python"
            )
    sizes = _sizes(evaluator)
    reason = "no layout fits"
    for places, states in islice(_combinations(wiring), _MAX_TRIED):
        try:
            return _layout(evaluator, wiring, places, states, *sizes)
        except StreamRNNError as error:
            reason = str(error)
    raise ModelMismatchError(
        "this graph cannot be run on streams, only called from Python: it fails for other numbers "
        f"of rows and steps than at its export ({reason}). Export it with dynamic axes for "
        "batch and time"
    )


def _layout(
    evaluator: Evaluator,
    wiring: Wiring,
    places: Sequence[Place],
    states: Sequence[Place],
    rows: int,
    steps: int,
) -> GraphLayout:
    """Return the layout in which the data and the states have these places.

    Raises a StreamRNNError that says why the graph does not have this layout.
    """
    by_name = {value.name: value for value in evaluator.graph.inputs}
    inputs = [*wiring.data, *(by_name[name] for name in wiring.states)]
    one_step = not any("T" in place.axes for place in places)

    def feeds(steps: int) -> dict[str, Array]:
        arrays = {
            v.name: np.zeros(_shape(v, place, rows, steps), v.dtype)
            for v, place in zip(inputs, [*places, *states], strict=True)
        }
        lengths = np.full(rows, 1 if one_step else steps, np.int32)
        return arrays | dict.fromkeys(wiring.lengths, lengths)

    first = feeds(steps)
    values = evaluator.run(first)
    _check_recurrent(evaluator, values, rows, one_step=one_step)
    shapes = {}
    for name, place in zip(wiring.states, states, strict=True):
        before, after = first[name].shape, values[str(wiring.states[name])].shape
        if len(place.axes) != len(before) or after != before:
            raise ModelMismatchError(
                f"state {name!r} has shape {before} and {wiring.states[name]!r} has {after}: "
                "expected equal shapes of two or three axes"
            )
        batch = place.axes.index("B")
        shapes[name] = place, before[:batch] + before[batch + 1 :]
    outputs = _outputs(evaluator, wiring, values, rows, 0 if one_step else steps)
    if not one_step:
        more = 2 * steps
        twice = _outputs(evaluator, wiring, evaluator.run(feeds(more)), rows, more)
        if changed := [name for name in outputs if twice[name] != outputs[name]]:
            raise ModelMismatchError(
                f"output {changed[0]!r} has another number of steps than the inputs: "
                f"{outputs[changed[0]][1]} values for {steps} steps, {twice[changed[0]][1]} for "
                f"{more}"
            )
    by_input = {v.name: place for v, place in zip(wiring.data, places, strict=True)}
    return GraphLayout(by_input, outputs, shapes, one_step)


def _sizes(evaluator: Evaluator) -> tuple[int, int]:
    """Return two numbers that occur neither as a size nor as a constant in the graph."""
    graph = evaluator.graph
    used: set[int] = set()
    for value in (*graph.inputs, *graph.outputs):
        used |= {n for n in value.dims if n}
    for array in graph.constants.values():
        used |= set(array.shape)
        if array.dtype.kind == "i" and array.size < 1000:
            used |= set(array.reshape(-1).tolist())
    free = [n for n in _PRIMES if n not in used]
    if len(free) < 2:
        raise ModelMismatchError(
            "the graph has almost all small primes as sizes or constants; two that it does not "
            "have are needed to identify batch and time"
        )
    return free[0], free[1]


def _combinations(wiring: Wiring) -> Iterator[tuple[list[Place], list[Place]]]:
    """Yield places of the data and of the states; all states have the same layout."""
    data = [_data_places(v) for v in wiring.data]
    in_time = (places for places in product(*data) if any("T" in p.axes for p in places))
    one_step = product(*([p for p in places if "T" not in p.axes] for places in data))
    for places in chain(in_time, one_step):
        for axes in ("FBF", "BFF", "BF", "FB") if wiring.states else ("",):
            yield list(places), [Place(axes)] * len(wiring.states)


def _data_places(value: Value) -> list[Place]:
    rank = len(value.dims)
    if value.dtype == "float32":
        layouts: dict[int, tuple[str, ...]] = {3: ("BTF", "TBF", "B1F", "1BF", "BFT"), 2: ("BF",)}
    else:
        layouts = {2: ("BT", "TB", "B1", "1B"), 1: ("B",)}
    places = [Place(axes) for axes in layouts.get(rank, ()) if _fits(value, axes)]
    if not places:
        raise ModelMismatchError(
            f"input {value.name!r} ({value.dtype}, {list(value.dims)}): expected features (batch, "
            "time, number of features) or integers (batch, time), in this order or time first"
        )
    return places


def _fits(value: Value, axes: str) -> bool:
    for axis, n in zip(axes, value.dims, strict=True):
        if axis == "F" and n is None:
            return False
        if (axis == "1" and n not in (None, 1)) or (axis == "T" and n == 1):
            return False
    return True


def _shape(value: Value, place: Place, rows: int, steps: int) -> tuple[int, ...]:
    if len(place.axes) != len(value.dims):
        return (1,) * len(value.dims)
    sizes = {"B": rows, "T": steps, "1": 1}
    return tuple(sizes.get(axis, n or 1) for axis, n in zip(place.axes, value.dims, strict=True))


def _check_recurrent(
    evaluator: Evaluator, values: Mapping[str, Array], rows: int, *, one_step: bool
) -> None:
    """Raise ModelMismatchError if a node reads another number of rows.

    The number of steps may differ, as a convolution can change it.
    """
    for recurrent in evaluator.recurrent.values():
        shape = values[recurrent.node.inputs[0]].shape
        batch = 0 if recurrent.batch_first else 1
        if shape[batch] != rows or (one_step and shape[1 - batch] != 1):
            raise ModelMismatchError(
                f"{recurrent.node}: expected X with the batch size of the inputs, and with one "
                f"step if they have only one, received shape {shape}"
            )


def _outputs(
    evaluator: Evaluator, wiring: Wiring, values: Mapping[str, Array], rows: int, steps: int
) -> dict[str, tuple[Place, int]]:
    carriers = set(wiring.states.values())
    outputs = {}
    for value in evaluator.graph.outputs:
        if value.name in carriers:
            continue
        shape = values[value.name].shape
        axes = "".join("B" if n == rows else "T" if n == steps else "F" for n in shape)
        if axes.count("B") != 1 or axes.count("T") > 1:
            raise ModelMismatchError(
                f"output {value.name!r} has shape {shape} for {rows} rows and {steps} steps: "
                "expected one entry per row"
            )
        units = [n for n, axis in zip(shape, axes, strict=True) if axis == "F"]
        outputs[value.name] = (Place(axes), int(np.prod(units, dtype=np.int64)))
    if not outputs:
        raise ModelMismatchError("the graph has no outputs except its states")
    return outputs
