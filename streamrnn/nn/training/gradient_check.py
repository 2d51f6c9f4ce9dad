"""Gradients that users write, compared with central differences of the values in float64.

A cell's step_backward is compared with its step, a loss's gradient with its values.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from streamrnn.base.arrays import Array, Doubles, Floats
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.kernels import cell as kernel
from streamrnn.nn.layers.structure import leaves

ENTRIES = 200
"""Largest number of compared entries of an array; from a larger array, this many are drawn."""

TOLERANCE = 1e-3
"""Tolerance, relative to an array's largest gradient. For a function that is smooth and computes in
float64, the tolerance is a hundredth of this."""

_SMALL = 1e-3
"""Gradients of an array are compared as if the largest were at least this."""

_WARM_STEPS = 3
"""Steps from the initial state to the state at which gradients are compared."""

_DIFFERENCES = 1e-5, 2.0**-8
"""Step sizes of the differences. The second is for a step that rounds to float32 inside."""

_ROWS = 8
"""Number of rows of the first batch on which the gradient of a loss is compared."""

_Entry: TypeAlias = tuple[tuple[int, ...], list[float], list[float]]
"""The index of an entry; its central differences, one for each of `_DIFFERENCES`; and its slopes
below and above, in order of size."""

_compared: set[tuple[Any, ...]] = set()


class _Point(NamedTuple):
    """The arguments of one step, in float64."""

    x: Doubles
    states: tuple[Doubles, ...]
    weights: tuple[Doubles, ...]

    def copy(self) -> "_Point":
        return _Point(self.x.copy(), *(tuple(a.copy() for a in part) for part in self[1:]))

    def arrays(self) -> list[Doubles]:
        return [self.x, *self.states, *self.weights]


def check_step_backward(
    cell: Any,
    step: Callable[..., None],
    step_backward: Callable[..., None],
    weights: dict[str, Floats],
    features: int,
) -> None:
    """Compare step_backward with step, once for all cells with these functions and shapes.

    Raises ArgumentError, naming the cell and the worst entry, if they differ; ArgumentError if they
    cannot be compared, or step_backward writes to what it may only read; and ShapeError if one of
    the functions reads or writes outside an array.
    """
    shapes = tuple((name, weight.shape) for name, weight in weights.items())
    key = step, step_backward, features, shapes, tuple(cell.state_shapes().values())
    if key in _compared:
        return
    outputs = cell.output_features()
    kernel.check_step(
        step, str(cell), features, [*cell.state_shapes().values()], [*weights.values()], outputs
    )
    random = np.random.default_rng(17)
    run = kernel.in_float64(step)

    def value(at: _Point) -> float:
        at, y = at.copy(), np.zeros(outputs)
        run(at.x, at.states, at.weights, y)
        parts = zip([y, *at.states], [of_y, *of_states], strict=True)
        return float(sum((one * other).sum() for one, other in parts))

    with np.errstate(all="ignore"):  # NumPy 1 would share a decorator's state among threads
        point = _point(cell, step, weights, features, random)
        of_y = random.normal(size=outputs)
        of_states = [random.normal(size=state.shape) for state in point.states]
        received = _received(cell, step, step_backward, point, of_y, of_states)
        slopes = [
            list(central_differences(lambda: value(point), array, random))
            for array in point.arrays()
        ]
    if not any(slopes):
        raise ArgumentError(
            f"{cell}: its step_backward cannot be compared with its step, which gives no finite "
            "output near the cell's weights"
        )
    names = ["x", *(f"states[{i}]" for i in range(len(point.states)))]
    names += [f"weights[{i}] ({name!r})" for i, name in enumerate(weights)]
    if where := worst_entry(names, received, slopes):
        raise ArgumentError(
            f"{cell}: its step_backward is not the derivative of its step. The gradient of "
            f"{where} (the entry that differs most; the expected value is a central difference "
            "of `step` in float64). "
            "help(streamrnn.layers.Cell) says what step_backward gets and writes"
        )
    _compared.add(key)


def worst_entry(
    names: Sequence[str], received: Sequence[Array], differences: Sequence[Sequence[_Entry]]
) -> str:
    """Describe the gradient farthest from its differences; "" if all are within the tolerance."""
    worst, where = 1.0, ""
    # The two differences of an entry disagree at a kink, and if a step rounds to float32 inside.
    smooth = all(
        abs(one - other) <= TOLERANCE * _scale(entries)
        for entries in differences
        for _, (one, other), _ in entries
    )
    tolerance = TOLERANCE / 100 if smooth else TOLERANCE
    for name, gradient, entries in zip(names, received, differences, strict=True):
        for index, pair, (low, high) in entries:
            got = float(gradient[index])
            # At a kink, any slope between the two of its sides is right.
            choices = *pair, min(max(got, low), high)
            expected = min(choices, key=lambda one: abs(one - got))
            error = abs(expected - got) / (tolerance * _scale(entries))
            if error > worst or not math.isfinite(got):
                worst = error if math.isfinite(got) else math.inf
                place = ", ".join(map(str, index))
                where = f"{name} at [{place}]: expected {expected:.6g}, received {got:.6g}"
    return where


def _scale(entries: Sequence[_Entry]) -> float:
    """Return the largest absolute difference of an array's entries, or _SMALL if that is larger."""
    return max(_SMALL, *(abs(expected) for _, pair, _ in entries for expected in pair))


def _point(
    cell: Any, step: Callable[..., None], weights: dict[str, Floats], features: int, random: Any
) -> _Point:
    """Return an input, weights near the cell's, and states a few steps after its initial states."""
    near = tuple(w + 0.1 * random.normal(size=w.shape) for w in weights.values())
    shapes = cell.state_shapes().values()
    initial = leaves([cell.get_initial_state(1)])
    states = tuple(
        np.array(state, np.float64).reshape(shape)
        for state, shape in zip(initial, shapes, strict=True)
    )
    run, y = kernel.in_float64(step), np.zeros(cell.output_features())
    for _ in range(_WARM_STEPS):
        run(random.normal(size=features), states, near, y)
    return _Point(random.normal(size=features), states, near)


def _received(
    cell: Any,
    step: Callable[..., None],
    step_backward: Callable[..., None],
    point: _Point,
    of_y: Doubles,
    of_states: Sequence[Doubles],
) -> list[Doubles]:
    """Return the result of step_backward at a point: gradients of x, of states and of weights."""
    after, y = point.copy(), np.zeros_like(of_y)
    kernel.in_float64(step)(after.x, after.states, after.weights, y)
    _check_indices(cell, step_backward, point, y)
    at, dx = point.copy(), np.zeros_like(point.x)
    dstates = tuple(state.copy() for state in of_states)
    # Ones, because step_backward has to add to the gradients of weights.
    dweights = tuple(np.ones_like(weight) for weight in point.weights)
    run = kernel.in_float64(step_backward)
    out = y.copy()
    run(at.x, at.states, at.weights, out, of_y.copy(), dstates, dx, dweights)
    read = {"x": (at.x, point.x), "y": (out, y)}
    pairs = zip(at.weights, point.weights, strict=True)
    read |= {f"weights[{i}]": pair for i, pair in enumerate(pairs)}
    for name, (now, before) in read.items():
        if not np.array_equal(now, before, equal_nan=True):
            raise ArgumentError(
                f"{cell}: its step_backward writes to {name}, which it may only read"
            )
    return [dx, *dstates, *(weight - 1.0 for weight in dweights)]


def _check_indices(
    cell: Any, step_backward: Callable[..., None], point: _Point, y: Doubles
) -> None:
    """Run step_backward once in Python: an index outside an array would crash compiled code."""
    at = point.copy()
    function = getattr(step_backward, "py_func", step_backward)
    zeros = point.copy()
    try:
        function(*at, y.copy(), y.copy(), zeros.states, zeros.x, zeros.weights)
    except IndexError as error:
        shapes = [array.shape for array in point.arrays()]
        raise ShapeError(
            f"{cell}: its step_backward reads or writes outside an array ({error}); x, the states "
            f"and the weights have the shapes {shapes}, y has {y.shape}"
        ) from error
    except Exception:  # noqa: BLE001 (some code runs in Numba only)
        return


def central_differences(
    value: Callable[[], float], array: Doubles, random: Any
) -> Iterator[_Entry]:
    """Yield the central differences of `value`, which reads `array`, for up to ENTRIES entries.

    Entries whose differences are not finite are left out. `array` is unchanged afterwards.
    """
    places, here = range(array.size), value()
    if array.size > ENTRIES:
        places = random.choice(array.size, ENTRIES, replace=False)
    for place in places:
        index = tuple(int(i) for i in np.unravel_index(place, array.shape))
        before, slopes, sides = array[index], list[float](), list[float]()
        for distance in _DIFFERENCES:
            array[index] = before + distance
            above = value()
            array[index] = before - distance
            below = value()
            array[index] = before
            slopes.append((above - below) / (2 * distance))
            sides = sides or sorted([(above - here) / distance, (here - below) / distance])
        if all(map(math.isfinite, [*slopes, *sides])):
            yield index, slopes, sides


def check_gradient(
    owner: object, call: Callable[..., Any], gradient: Callable[..., Any], t: Array, p: Array
) -> None:
    """Compare `gradient` with central differences of `call`, on the first rows of a batch.

    Raises ArgumentError if they differ.
    """
    truth, point = (array[:_ROWS].astype(np.float64) for array in (t, p))

    def value() -> float:
        return float(np.sum(call(truth.copy(), point.copy()), dtype=np.float64))

    with np.errstate(all="ignore"):
        received = np.asarray(gradient(truth.copy(), point.copy()))
        slopes = list(central_differences(value, point, np.random.default_rng(17)))
    if slopes and (where := worst_entry(["y_pred"], [received], [slopes])):
        raise ArgumentError(
            f"{owner}: its gradient is not the derivative of the sum of its values. The "
            f"gradient of {where} (the entry that differs most; the expected value is a central "
            "difference of the values in float64)"
        )
