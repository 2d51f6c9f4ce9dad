"""Arrow data of a caller: its record batches, and its schema once it has been checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import pyarrow as pa

from streamrnn.errors import DTypeError
from streamrnn.stream.scoring.scorer import Scored
from streamrnn.stream.sources import (
    Feature,
    cast_columns,
    common_schema,
    new_names,
    select,
    with_new_names,
)
from streamrnn.stream.sources.renames import NamesInFiles

BATCH = "the batch"
"""What messages call the data of a call."""


class CheckedSchema(NamedTuple):
    """A valid schema of data, and how its record batches become those that are scored.

    `used` has the columns in use as the data has them, dictionaries decoded; `target` in the types
    to cast them to, which `origin` gave; `indices` are the columns, None if one is converted.
    `changed` is the number of columns whose type differs from that in `origin`.
    """

    schema: pa.Schema
    used: pa.Schema
    target: pa.Schema
    origin: str
    indices: list[int] | None
    changed: int

    @classmethod
    def of(
        cls,
        schema: pa.Schema,
        used: pa.Schema,
        expected: pa.Schema,
        origin: str,
        features: Mapping[str, Feature],
    ) -> Self:
        """Check the columns in use of a schema against those of `origin`, as a run checks files.

        Columns that are `features` alone may have any type that can be read. Raises DataError and
        DTypeError.
        """
        used, target = common_schema(expected, used, BATCH, origin, features)
        changed = sum(a.type != b.type for a, b in zip(used, expected, strict=True))
        as_it_is = all(schema.field(field.name).type == field.type for field in target)
        indices = [schema.get_field_index(name) for name in target.names] if as_it_is else None
        return cls(schema, used, target, origin, indices, changed)

    def cast(self, batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
        """Return the columns to score, converted; `first_row` is the number of its first row.

        Raises DataError for a value that the type to cast to cannot hold.
        """
        batch = select(batch, self.used)
        if self.used == self.target:
            return batch
        return cast_columns(batch, self.target, BATCH, first_row, self.origin)


def _table(data: object) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        return pa.table(data)
    raise DTypeError(
        "process: expected a RecordBatch, a Table, an object with the Arrow PyCapsule interface, "
        f"or a list of dicts, received {type(data).__name__}"
    )


def batches_of(data: object) -> tuple[list[pa.RecordBatch], pa.Schema]:
    """Return one record batch or none, and the schema. More than one if text takes over 2 GiB."""
    if isinstance(data, pa.RecordBatch):
        return [data], data.schema
    table = _table(data).combine_chunks()
    return table.to_batches(), table.schema


def apply_renames(
    batches: Sequence[pa.RecordBatch], schema: pa.Schema, renames: NamesInFiles
) -> tuple[list[pa.RecordBatch], pa.Schema]:
    """Return the record batches and the schema with new names for columns that have an old one."""
    schema = with_new_names(schema, new_names(schema.names, renames, BATCH))
    return [batch.rename_columns(schema.names) for batch in batches], schema


def rejects_of(scored: Sequence[Scored]) -> pa.RecordBatch | None:
    """Return the rejected rows of a call; None if there are none."""
    rejects = [item.rejects for item in scored if item.rejects is not None]
    if not rejects:
        return None
    return pa.Table.from_batches(rejects).combine_chunks().to_batches()[0]
