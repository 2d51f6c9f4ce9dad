"""Arrow values as Python values, for tables and for JSON."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

# Raised for values that Python's types cannot hold: nanoseconds, years beyond 9999, 77 digits.
_BEYOND = (ValueError, ArithmeticError)


def values(column: "pa.ChunkedArray") -> list[Any]:
    """Return the values of a column for Python, as Arrow's text if Python has no such value."""
    try:
        found: list[Any] = column.to_pylist()
    except _BEYOND:
        return [_value(scalar) for scalar in column]
    return found


def rows(table: "pa.Table") -> list[dict[str, Any]]:
    """Return the rows of a table, each as name -> value."""
    columns = [values(column) for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _value(scalar: "pa.Scalar") -> Any:
    import pyarrow as pa

    try:
        return scalar.as_py()
    except _BEYOND:
        if isinstance(scalar, pa.StructScalar):
            return {name: _value(field) for name, field in scalar.items()}
        if isinstance(scalar, pa.ListScalar):
            return [_value(item) for item in scalar]
        return scalar.cast(pa.string()).as_py()
