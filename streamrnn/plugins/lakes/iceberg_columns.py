"""The columns and partitions of an Iceberg table, made those of an output that started over."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa


def types_of(fields: Iterable[Any]) -> list[tuple[str, str, bool]]:
    """Return what columns are but for their ids."""
    return [(field.name, str(field.field_type), field.required) for field in fields]


def set_columns(transaction: Any, wanted: Any, folders: Sequence[pa.Field]) -> None:
    """Give a table these columns, in this order, and one partition for each of the folders.

    Columns of another type are made anew: the table will have no file of before.
    """
    with transaction.update_spec() as spec:
        for field in transaction.table_metadata.spec().fields:
            spec.remove_field(field.name)
    now = types_of(transaction.table_metadata.schema().fields)
    stay = {column[0] for column in now if column in types_of(wanted.fields)}
    with transaction.update_schema(allow_incompatible_changes=True) as update:
        for name, *_ in now:
            if name not in stay:
                update.delete_column(name)
    with transaction.update_schema(allow_incompatible_changes=True) as update:
        before = None
        for field in wanted.fields:
            if field.name not in stay:
                update.add_column(field.name, field.field_type, required=field.required)
            if before is None:
                update.move_first(field.name)
            else:
                update.move_after(field.name, before)
            before = field.name
    divide_by(transaction, folders)


def divide_by(transaction: Any, folders: Sequence[pa.Field]) -> None:
    """Give a table without partitions one for each of the folders.

    Their names are unlike those of columns and of earlier partitions: a column could not be removed
    and come back otherwise.
    """
    number = len(transaction.table_metadata.partition_specs)
    with transaction.update_spec() as spec:
        for field in folders:
            spec.add_field(field.name, "identity", f"{field.name}_partition_{number}")


def is_divided_by(table: Any, folders: Sequence[pa.Field]) -> bool:
    """Return whether a table has one partition for each of the folders, and no other."""
    fields, schema = table.spec().fields, table.schema()
    found = [(schema.find_column_name(item.source_id), str(item.transform)) for item in fields]
    return found == [(field.name, "identity") for field in folders]
