"""Arrow tables as arrays: rows are samples, columns are features."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.base.display import closest
from streamrnn.errors import ArgumentError, DataError, ShapeError
from streamrnn.nn.models import Model, Sequential


def is_table(x: Any) -> bool:
    """Return whether this is a pyarrow.Table or RecordBatch, without importing pyarrow."""
    return hasattr(x, "column_names") and hasattr(x, "schema")


def arrays_of_table(model: Model, table: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Return x, y and sample_weight of a table as arrays.

    y, weight: names of columns (y also a list of them), or arrays. All other columns are features,
    in their order; a model with several inputs takes them by the names of its inputs. Raises
    ArgumentError for a model that needs sequences, DataError for nulls and text.
    """
    _refuse_sequences(model)
    names = list(table.column_names)
    taken: list[str] = []
    if isinstance(y, str) or (isinstance(y, list) and y and all(isinstance(n, str) for n in y)):
        taken += _checked_columns(model, "y", [y] if isinstance(y, str) else y, names)
        y = _stacked(model, table, taken)
    if isinstance(weight, str):
        chosen = _checked_columns(model, "sample_weight", [weight], names)
        taken += chosen
        weight = _column(model, table, chosen[0])
    features = [name for name in names if name not in taken]
    if model.built and len(model.input_specs) > 1:
        inputs = _checked_columns(
            model, "inputs", [name for name, _, _ in model.input_specs], features
        )
        return {name: _column(model, table, name)[:, None] for name in inputs}, y, weight
    if model.built and (units := model.input_specs[0][1][0]) not in (None, len(features)):
        raise ShapeError(
            f"{model}: expected a table with {units} columns of features, received "
            f"{len(features)}: {', '.join(features)}; select() those in the order of the model"
        )
    return _stacked(model, table, features), y, weight


def _refuse_sequences(model: Model) -> None:
    if model.built:
        sequences = any(len(shape) != 1 for _, shape, _ in model.input_specs)
    else:
        sequences = isinstance(model, Sequential) and any(
            getattr(layer, "sequence_input", False) for layer in model.layers
        )
    if sequences:
        raise ArgumentError(
            f"{model}: rows of a table are samples (batch, features), and this model needs "
            "sequences; Pipeline.windows() makes them from the rows of streams: "
            "fit(list(pipeline.windows()))"
        )


def _checked_columns(
    model: Model, argument: str, wanted: Sequence[str], names: Sequence[str]
) -> list[str]:
    for name in wanted:
        if name not in names:
            near = closest(name, names)
            raise ArgumentError(
                f"{model}: {argument}: the table has no column {name!r}"
                f"{f'; did you mean {near!r}' if near else ''}? It has: {', '.join(names)}"
            )
    return list(wanted)


def _stacked(model: Model, table: Any, names: Sequence[str]) -> Array:
    columns = [_column(model, table, name) for name in names]
    if not columns:
        raise ShapeError(f"{model}: the table has no columns of features")
    return np.stack(columns, axis=1)


def _column(model: Model, table: Any, name: str) -> Array:
    column = table.column(name)
    if column.null_count:
        raise DataError(
            f"{model}: column {name!r} has {column.null_count} nulls; fill them, or drop the rows"
        )
    array: Array = np.asarray(column)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{model}: column {name!r} must have numbers, received {column.type}")
    return array
