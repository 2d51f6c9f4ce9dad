"""Which axis of a graph's inputs and outputs is the batch, which one time.

Files do not say. The graph is run on zeros with a number of rows and of steps that occur nowhere
else in it: a layout of the inputs is right if these sizes arrive where the recurrent nodes want
them, and axes of the outputs are known by their sizes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from streamrnn.errors import ModelMismatchError, StreamRNNError
from streamrnn.formats.onnx.evaluate import Evaluator
from streamrnn.formats.onnx.graph import Value
from streamrnn.formats.onnx.wiring import Wiring

_PRIMES = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97)
_MAX_TRIED = 64


@dataclass(frozen=True)
class Place:
    """Axes of an array: "B" batch, "T" time, "1" the one step, "F" features."""

    axes: str

    def to_graph(self, x: Any) -> Any:
        """(B, T, F), (B, T), (B, F) or (B,) -> the graph's layout; one step where it takes one."""
        ours = [axis for axis in "BTF" if axis in self.axes]
        order = [ours.index(axis) for axis in self.axes if axis != "1"]
        x = np.transpose(x, order)
        at = self.axes.find("1")
        return np.ascontiguousarray(x if at < 0 else np.expand_dims(x, at))

    def from_graph(self, y: Any) -> Any:
        """The graph's layout -> (B, T, values) or (B, values)."""
        front = [self.axes.index(axis) for axis in "BT" if axis in self.axes]
        rest = [i for i in range(y.ndim) if i not in front]
        moved = np.transpose(y, front + rest)
        return np.ascontiguousarray(moved.reshape(*moved.shape[: len(front)], -1))


@dataclass(frozen=True)
class GraphLayout:
    """How arrays go in and out. one_step: the graph takes one step at a time.

    outputs: name -> place, units. states: input name -> (place, shape of one stream's).
    """

    inputs: Mapping[str, Place]
    outputs: Mapping[str, tuple[Place, int]]
    states: Mapping[str, tuple[Place, tuple[int, ...]]]
    one_step: bool

    @property
    def timeless(self) -> bool:
        """Do outputs have no time axis, so that a step's output needs a run of its own?"""
        return any("T" not in place.axes for place, _ in self.outputs.values())


def find_layout(evaluator: Evaluator, wiring: Wiring) -> GraphLayout:
    """The layout. Raises ModelMismatchError where none works, with what the graph said."""
    for label in evaluator.labels.values():
        if label not in evaluator.recurrent:
            raise ModelMismatchError(
                f"the weights of node {label!r} are inputs of the graph, which can only be called "
                "from Python"
            )
    rows, steps = _sizes(evaluator)
    said = "no layout fits"
    tried = 0
    for combination in _combinations(wiring):
        tried += 1
        if tried > _MAX_TRIED:
            break
        places, states = combination
        feeds = {
            v.name: np.zeros(_shape(v, place, rows, steps), v.dtype)
            for v, place in zip([*wiring.data, *_state_values(evaluator, wiring)],
                                [*places, *states], strict=True)
        }  # fmt: skip
        feeds |= {name: np.full(rows, steps, np.int32) for name in wiring.lengths}
        one_step = not any("T" in place.axes for place in places)
        if one_step:
            feeds |= {name: np.full(rows, 1, np.int32) for name in wiring.lengths}
        try:
            values = evaluator.run(feeds)
            _check_recurrent(evaluator, values, rows, 1 if one_step else steps)
            _check_states(wiring, dict(zip(wiring.states, states, strict=True)), feeds, values)
            outputs = _outputs(evaluator, wiring, values, rows, 0 if one_step else steps)
        except StreamRNNError as error:
            said = str(error)
            continue
        named = zip(wiring.states, states, strict=True)
        return GraphLayout(
            {v.name: place for v, place in zip(wiring.data, places, strict=True)},
            outputs,
            {n: (p, _without_batch(feeds[n].shape, p)) for n, p in named},
            one_step,
        )
    raise ModelMismatchError(
        "this graph cannot be run on streams, only called from Python: with other numbers of rows "
        f"and steps than those of its export {said}. Export it with dynamic axes for batch and time"
    )


def _sizes(evaluator: Evaluator) -> tuple[int, int]:
    """Two numbers that are no size, and no number, in the graph."""
    graph = evaluator.graph
    taken: set[int] = set()
    for value in (*graph.inputs, *graph.outputs):
        taken |= {n for n in value.dims if n}
    for array in graph.constants.values():
        taken |= set(array.shape)
        if array.dtype.kind == "i" and array.size < 1000:
            taken |= set(array.reshape(-1).tolist())
    free = [n for n in _PRIMES if n not in taken]
    if len(free) < 2:
        raise ModelMismatchError("the graph's sizes leave none to tell batch and time apart")
    return free[0], free[1]


def _combinations(wiring: Wiring) -> Iterator[tuple[list[Place], list[Place]]]:
    data = [_data_places(v) for v in wiring.data]
    states = [[Place(axes) for axes in ("FBF", "BFF", "BF", "FB")] for _ in wiring.states]
    for kind in ("T", "1"):
        some = [[p for p in places if kind in p.axes or "T" not in p.axes] for places in data]
        if kind == "1":
            some = [[p for p in places if "T" not in p.axes] for places in data]
        for places in product(*some):
            if kind == "T" and not any("T" in place.axes for place in places):
                continue
            for chosen in zip(*states, strict=True) if states else [()]:
                yield list(places), list(chosen)


def _data_places(value: Value) -> list[Place]:
    rank = len(value.dims)
    if value.dtype == "float32":
        known: dict[int, tuple[str, ...]] = {3: ("BTF", "TBF", "B1F", "1BF"), 2: ("BF",)}
    else:
        known = {2: ("BT", "TB", "B1", "1B"), 1: ("B",)}
    places = [Place(axes) for axes in known.get(rank, ()) if _fits(value, axes)]
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


def _state_values(evaluator: Evaluator, wiring: Wiring) -> list[Value]:
    by_name = {v.name: v for v in evaluator.graph.inputs}
    return [by_name[name] for name in wiring.states]


def _shape(value: Value, place: Place, rows: int, steps: int) -> tuple[int, ...]:
    if len(place.axes) != len(value.dims):
        return (1,) * len(value.dims)
    sizes = {"B": rows, "T": steps, "1": 1}
    return tuple(sizes.get(axis, n or 1) for axis, n in zip(place.axes, value.dims, strict=True))


def _without_batch(shape: tuple[int, ...], place: Place) -> tuple[int, ...]:
    at = place.axes.index("B")
    return shape[:at] + shape[at + 1 :]


def _check_recurrent(
    evaluator: Evaluator, values: Mapping[str, Any], rows: int, steps: int
) -> None:
    for found in evaluator.recurrent.values():
        shape = values[found.node.inputs[0]].shape
        expected = (rows, steps) if found.batch_first else (steps, rows)
        if shape[:2] != expected:
            raise ModelMismatchError(f"{found.node} reads X of shape {shape}")


def _check_states(
    wiring: Wiring,
    places: Mapping[str, Place],
    feeds: Mapping[str, Any],
    values: Mapping[str, Any],
) -> None:
    for name, place in places.items():
        taken, made = feeds[name].shape, values[str(wiring.states[name])].shape
        if len(place.axes) != len(taken) or made != taken:
            raise ModelMismatchError(
                f"state {name!r} takes shape {taken} and {wiring.states[name]!r} gives {made}: "
                "expected equal shapes of two or three axes"
            )


def _outputs(
    evaluator: Evaluator, wiring: Wiring, values: Mapping[str, Any], rows: int, steps: int
) -> dict[str, tuple[Place, int]]:
    carriers = set(wiring.states.values())
    found = {}
    for value in evaluator.graph.outputs:
        if value.name in carriers:
            continue
        shape = values[value.name].shape
        axes = "".join("B" if n == rows else "T" if n == steps else "F" for n in shape)
        if axes.count("B") != 1 or axes.count("T") > 1:
            raise ModelMismatchError(
                f"output {value.name!r} of shape {shape} for {rows} rows and {steps} steps has not "
                "one row for each"
            )
        units = [n for n, axis in zip(shape, axes, strict=True) if axis == "F"]
        found[value.name] = (Place(axes), int(np.prod(units, dtype=np.int64)))
    if not found:
        raise ModelMismatchError("the graph has no output beside its states")
    return found
