"""Batch: rows of a model's inputs with truths and weights; class weights, rows to reset, tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats
from streamrnn.base.display import closest
from streamrnn.errors import ArgumentError, DataError, ShapeError
from streamrnn.nn.layers import RNN, Layer
from streamrnn.nn.layers.context import Memory
from streamrnn.nn.models import Model, Sequential
from streamrnn.nn.training.loss import numbers_of


class Batch(NamedTuple):
    """Rows of a model's inputs with their masks, and targets and sample weights for each output.

    reset: True for rows that start from initial states. labelled: 1 for a step with a label; 0 for
    a step without one, which plain metrics do not count.
    """

    inputs: list[Array]
    masks: list[Array | None]
    y: list[Any]
    weights: list[Array | None]
    reset: Bools | None = None
    labelled: Floats | None = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.inputs[0])

    def take(self, rows: Any) -> "Batch":
        """Return some of the rows, selected by a slice or by row numbers."""
        return Batch(
            [array[rows] for array in self.inputs],
            [None if mask is None else np.ascontiguousarray(mask[rows]) for mask in self.masks],
            [None if y is None else y[rows] for y in self.y],
            [None if weight is None else weight[rows] for weight in self.weights],
        )


def class_weights(y: Array, by_class: Any, rank: int) -> Floats:
    """Return the weight of each sample (B,), or step (B, T): 1 if its class is not in by_class.

    y: whole numbers, with or without a last axis of size 1, or one-hot; rank: the output's number
    of axes.
    """
    if not isinstance(by_class, Mapping):
        raise ArgumentError(
            "class_weight must be a dictionary, class -> weight, received "
            f"{type(by_class).__name__}"
        )
    classes = numbers_of("class_weight", y)
    if y.ndim == rank and y.shape[-1] == 1:
        classes = y[..., 0]
    elif y.ndim == rank:
        classes = y.argmax(axis=-1)
    weights = np.ones(classes.shape, np.float32)
    for number, weight in by_class.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 0:
            raise ArgumentError(
                f"class_weight: expected the ids of classes, as in {{0: 1, 1: 20}}, received "
                f"{number!r}"
            )
        is_number = isinstance(weight, int | float | np.number) and not isinstance(weight, bool)
        if not is_number or not 0 <= weight < math.inf:
            raise ArgumentError(
                f"class_weight: the weight of class {number} must be a number, 0 or more, received "
                f"{weight!r}"
            )
        weights[classes == int(number)] = float(weight)
    if classes.dtype.kind == "f" and not (classes == np.rint(classes)).all():
        raise DataError("class_weight: y must be classes: whole numbers, or one-hot")
    return weights


def memories(layer: Layer) -> list[Memory]:
    """Return the memories of all stateful recurrent layers that a model or layer is or contains."""
    if isinstance(layer, RNN):
        return [layer.memory] if layer.stateful else []
    return [memory for child in layer.children().values() for memory in memories(child)]


def checked_reset(model: Model, reset: Any, rows: int) -> Bools:
    """Return the rows to reset as (B,) bool. Raises ShapeError, ArgumentError."""
    reset_B: Bools = np.asarray(reset)
    if reset_B.dtype != np.bool_ or reset_B.shape != (rows,):
        raise ShapeError(
            f"{model}: reset must be an array of bool with the shape ({rows},), a value for each "
            f"row, received {reset_B.dtype} {reset_B.shape}"
        )
    if not memories(model):
        raise ArgumentError(
            f"{model}: reset= needs a layer that carries state, made with stateful=True"
        )
    return reset_B


# ---- tables: rows are samples, columns are features


def is_table(x: Any) -> bool:
    """Return whether this is a pyarrow.Table or RecordBatch, without importing pyarrow."""
    return hasattr(x, "column_names") and hasattr(x, "schema")


def arrays_of_table(model: Model, table: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Return x, y and sample_weight of a table as arrays.

    y: a column name, a list of column names, or an array; weight: a column name or an array. The
    other columns are features, in their order; a model with several inputs takes the columns that
    have the names of its inputs, and no others. Raises ArgumentError for a model that needs
    sequences and for missing columns, ShapeError for another number of features, DataError for
    nulls and text.
    """
    if model.built:
        sequences = any(len(shape) != 1 for _, shape, _ in model.input_specs)
    else:
        sequences = isinstance(model, Sequential) and any(
            getattr(layer, "sequence_input", False) for layer in model.layers
        )
    if sequences:
        raise ArgumentError(
            f"{model}: rows of a table are samples (batch, features), but this model needs "
            "sequences; Pipeline.windows() makes sequences from the rows of streams: "
            "fit(list(pipeline.windows()))"
        )
    names = list(table.column_names)
    taken: list[str] = []
    if isinstance(y, str) or (isinstance(y, list) and y and all(isinstance(n, str) for n in y)):
        taken += [y] if isinstance(y, str) else y
        _check_columns(model, "y", taken, names)
        y = _stacked(model, table, taken)
    if isinstance(weight, str):
        _check_columns(model, "sample_weight", [weight], names)
        taken.append(weight)
        weight = _column(model, table, weight)
    features = [name for name in names if name not in taken]
    if model.built and len(model.input_specs) > 1:
        inputs = [name for name, _, _ in model.input_specs]
        _check_columns(model, "inputs", inputs, features)
        return {name: _column(model, table, name)[:, None] for name in inputs}, y, weight
    if model.built and (units := model.input_specs[0][1][0]) not in (None, len(features)):
        raise ShapeError(
            f"{model}: expected a table with {units} columns of features, received "
            f"{len(features)}: {', '.join(features)}; select() columns in the model's order"
        )
    return _stacked(model, table, features), y, weight


def _check_columns(
    model: Model, argument: str, wanted: Sequence[str], names: Sequence[str]
) -> None:
    for name in wanted:
        if name not in names:
            near = closest(name, names)
            raise ArgumentError(
                f"{model}: {argument}: the table has no column {name!r}"
                f"{f'; did you mean {near!r}?' if near else '.'} It has: {', '.join(names)}"
            )


def _stacked(model: Model, table: Any, names: Sequence[str]) -> Array:
    columns = [_column(model, table, name) for name in names]
    if not columns:
        raise ShapeError(f"{model}: the table has no columns of features besides y and weights")
    return np.stack(columns, axis=1)


def _column(model: Model, table: Any, name: str) -> Array:
    column = table.column(name)
    if column.null_count:
        raise DataError(
            f"{model}: column {name!r} has nulls ({column.null_count}); fill them, or drop their "
            "rows"
        )
    array: Array = np.asarray(column)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{model}: column {name!r} must have numbers, received {column.type}")
    return array
