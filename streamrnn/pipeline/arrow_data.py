"""Arrow data of a caller: its record batches, and its schema once it has been checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from streamrnn.errors import DTypeError
from streamrnn.scoring.scorer import Scored


class CheckedSchema(NamedTuple):
    """A valid schema of data; the columns in use, and their indices if none needs a cast."""

    schema: pa.Schema
    used: pa.Schema
    indices: list[int] | None

    def require_types_of(self, earlier: pa.Schema, name: str) -> None:
        """Raise DTypeError unless the columns in use have the types that they had in `earlier`."""
        for field in earlier:
            if self.used.field(field.name).type != field.type:
                raise DTypeError(
                    f"{name}: column {field.name!r}: expected {field.type} as in the first call, "
                    f"received {self.used.field(field.name).type}"
                )


def column_indices(schema: pa.Schema, used: pa.Schema) -> list[int] | None:
    """Return the index of each column in use; None if one of them needs a cast."""
    if any(schema.field(field.name).type != field.type for field in used):
        return None
    return [schema.get_field_index(field.name) for field in used]


def _table(data: object) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        return pa.table(data)
    raise DTypeError(
        "process: expected a RecordBatch, a Table, or an object with the Arrow PyCapsule "
        f"interface, received {type(data).__name__}"
    )


def batches_of(data: object) -> tuple[list[pa.RecordBatch], pa.Schema]:
    """Return one record batch or none, and the schema. More than one if text takes over 2 GiB."""
    if isinstance(data, pa.RecordBatch):
        return [data], data.schema
    table = _table(data).combine_chunks()
    return table.to_batches(), table.schema


def rejects_of(scored: Sequence[Scored]) -> pa.RecordBatch | None:
    """Return the rejected rows of a call; None if there are none."""
    rejects = [item.rejects for item in scored if item.rejects is not None]
    if not rejects:
        return None
    return pa.Table.from_batches(rejects).combine_chunks().to_batches()[0]
