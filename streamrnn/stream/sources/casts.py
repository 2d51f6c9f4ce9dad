"""Lossless casts of a column to the type that it has in other files, and the values of decimals."""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Array, Bools
from streamrnn.errors import DataError

_EXACT = 1 << 53  # float64 can hold every integer below this
_DIGITS = {pa.float32(): 6, pa.float64(): 15}  # decimals with this many digits stay distinct
_DECIMAL = re.compile(r"decimal(32|64|128|256)\((\d+), (-?\d+)\)")
_ZONED = re.compile(r"timestamp\[(s|ms|us|ns), tz=(.+)\]")

_WIDEST = 76  # digits of the widest decimal
_POWERS = 22  # powers of ten up to here are exact in float64
_LEAST, _MOST = 1e-37, 1e37  # between these, float32 has all its digits


def type_named(text: str) -> pa.DataType | None:
    """Return the type whose text is `text`; None for other texts, and nested or extension types.

    >>> type_named("timestamp[us, tz=Europe/Rome]").tz
    'Europe/Rome'
    """
    if zoned := _ZONED.fullmatch(text):
        return pa.timestamp(*zoned.groups())
    try:
        if decimal := _DECIMAL.fullmatch(text):
            make: Callable[[int, int], pa.DataType] = getattr(pa, f"decimal{decimal[1]}")
            return make(int(decimal[2]), int(decimal[3]))
        kind = pa.type_for_alias(text)
    except ValueError:
        return None
    return kind if str(kind) == text else None


def may_cast(stored: pa.DataType, kind: pa.DataType) -> bool:
    """Return whether types are equal, or both are numbers, text or binary, or times.

    Timestamps must both have a zone, or both have none. Decimals may also stand in place of floats,
    and columns without values in place of any type. Whether each value can be cast is checked
    later, by the cast.
    """
    types = pa.types
    if stored == kind or types.is_null(stored):
        return True
    if types.is_timestamp(stored) and types.is_timestamp(kind):
        return (stored.tz is None) == (kind.tz is None)  # a zone does not change the instant
    if types.is_decimal(stored):
        return kind in _DIGITS
    return any(test(stored) and test(kind) for test in (is_text, _is_bytes, is_real))


def value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which values are used: dictionaries and runs decoded, views converted.

    Arrow lacks kernels for views and runs (no `take`, no `fill_null`).
    """
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return value_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(kind) else kind


def decoded(array: pa.Array) -> pa.Array:
    """Return values in their `value_type`, including views in a dictionary (as Polars has them)."""
    if pa.types.is_dictionary(array.type):
        return decoded(array.dictionary).take(array.indices)
    if pa.types.is_run_end_encoded(array.type):
        runs = pa.RunEndEncodedArray.from_arrays(array.run_ends, decoded(array.values))
        return pc.run_end_decode(runs.slice(array.offset, len(array)))
    kind = value_type(array.type)
    return array if array.type == kind else array.cast(kind)


def is_number(kind: pa.DataType) -> bool:
    """Return whether a feature of this type is read as numbers; true for type null, too."""
    types = pa.types
    tests = (*_NUMBERS, types.is_boolean, types.is_decimal, types.is_null)
    return any(test(kind) for test in tests)


def has_equality(kind: pa.DataType) -> bool:
    """Return whether values of a type can be keys, because equal values have equal bytes."""
    types = pa.types
    unequal = (types.is_floating, types.is_nested, types.is_null, types.is_interval)
    return not any(test(kind) for test in (*unequal, types.is_run_end_encoded))


def is_real(kind: pa.DataType) -> bool:
    """Return whether the values of a type are integers or floats."""
    return any(test(kind) for test in _NUMBERS)


@cache
def numpy_type(kind: pa.DataType) -> np.dtype[Any]:
    """Return the dtype of an Arrow type of numbers."""
    # `kind.to_pandas_dtype()` raises without pandas, up to pyarrow 19.
    dtype: np.dtype[Any] = pa.array([], kind).to_numpy(zero_copy_only=False).dtype
    return dtype


def zero_for_null(array: pa.Array) -> Array:
    """Return N numbers in the dtype of their type, with 0 for null."""
    # In pyarrow 19, `fill_null` does not support float16.
    buffers = [None, array.buffers()[1]]
    plain = pa.Array.from_buffers(array.type, len(array), buffers, offset=array.offset)
    values: Array = plain.to_numpy(zero_copy_only=False)
    if array.null_count:
        values = np.where(nulls_of(array), values.dtype.type(0), values)
    return values


def nulls_of(array: pa.Array) -> Bools:
    """Return which of N values (N,) are null."""
    nulls: Bools = array.is_null().to_numpy(zero_copy_only=False)
    return nulls


def in_type(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, Bools]:
    """Cast numbers to another type of numbers; also return which values (N,) stay equal.

    Integers and floats count as equal only below 2**53, so that the result is the same on any CPU.
    """
    nulls, raw = nulls_of(array), zero_for_null(array)
    with np.errstate(all="ignore"):
        values: Array = raw.astype(numpy_type(kind))
        fits: Bools = (values.astype(raw.dtype) == raw) & ((values < 0) == (raw < 0))
    if raw.dtype.kind == values.dtype.kind == "f":
        fits |= np.isnan(raw)
    elif "f" in (raw.dtype.kind, values.dtype.kind):
        fits &= (raw < _EXACT) & (raw > -_EXACT if raw.dtype.kind != "u" else True)
    return pa.array(values, kind, mask=nulls), fits


def fitted(array: pa.Array, kind: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Cast values to `kind`, with null if that loses a value; also return the rows of these."""
    return in_halves(array, lambda part: _exact(part, kind), kind)


def in_halves(
    array: pa.Array, convert: Callable[[pa.Array], pa.Array | None], kind: pa.DataType
) -> tuple[pa.Array, list[int]]:
    """Convert values to `kind`, with null in rows for which `convert` returns None; also these."""
    if (whole := convert(array)) is not None:
        return whole, []
    if len(array) == 1:
        return pa.nulls(1, kind), [0]
    half = len(array) // 2
    first, unfit = in_halves(array.slice(0, half), convert, kind)
    rest, others = in_halves(array.slice(half), convert, kind)
    return pa.concat_arrays([first, rest]), [*unfit, *(half + row for row in others)]


def cast_columns(
    batch: pa.RecordBatch,
    schema: pa.Schema,
    file: str,
    first_row: int,
    origin: str,
    unfit: dict[int, str] | None = None,
    *,
    types: bool = False,
) -> pa.RecordBatch:
    """Return a record batch whose columns are cast to the types of the schema.

    Raises DataError for a value that its type cannot hold. The message names the row by `file` and
    `first_row` (the number of the batch's first row), and `origin`, where the types come from.
    With `types`, it names the key of the pipeline file that widens an integer column. With `unfit`,
    such a value becomes null, and `unfit` receives the reason, by the number of its row.
    """
    if unfit is not None:
        batch, reasons = cast_what_fits(batch, schema, origin)
        unfit.update((first_row + row, why) for row, why in reasons.items())
        return batch
    arrays = []
    for field, array in zip(schema, batch.columns, strict=True):
        cast, kind = _exact(array, field.type), field.type
        if cast is None:
            # Cast one by one, 65,536 decimals of which none fits took 35 s.
            sizes = range(1, len(array))
            row = bisect_left(sizes, True, key=lambda n: _exact(array.slice(0, n), kind) is None)
            reason = _why_unfit(field, array, row, origin)
            advice = "Cast one of the two columns."
            if types and pa.types.is_floating(array.type) and pa.types.is_integer(kind):
                advice = f"Correct the value, or set {widening(field.name, kind)}"
            raise DataError(f"{file}: row {first_row + row} (from 0): {reason}. {advice}")
        arrays.append(cast)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def cast_what_fits(
    batch: pa.RecordBatch, schema: pa.Schema, origin: str
) -> tuple[pa.RecordBatch, dict[int, str]]:
    """Cast as `cast_columns` does, but make values null that the type in `schema` cannot hold.

    Also returns why, as row -> reason; the reason is about the first column with such a value.
    """
    arrays, reasons = [], dict[int, str]()
    for field, array in zip(schema, batch.columns, strict=True):
        cast = _exact(array, field.type)
        if cast is None:
            cast, unfit = fitted(array, field.type)
            reasons = {row: _why_unfit(field, array, row, origin) for row in unfit} | reasons
        arrays.append(cast)
    return pa.RecordBatch.from_arrays(arrays, schema=schema), reasons


def widening(name: str, kind: pa.DataType) -> str:
    """Return the key that makes a column of integers one of floats, for advice."""
    return f'[source] types = {{ {name} = "float64" }} (parts that are there keep {kind}).'


def _why_unfit(field: pa.Field, array: pa.Array, row: int, origin: str) -> str:
    return (
        f"column {field.name!r}: expected {field.type} as in {origin}, received "
        f"{shown(array, row)} ({array.type}), which {field.type} cannot hold"
    )


def shown(array: pa.Array, row: int) -> str:
    """Format one value for a message."""
    one = decoded(array.slice(row, 1))
    try:  # Arrow formats times: Python's would lose nanoseconds, or overflow
        if pa.types.is_temporal(one.type):
            return str(one.cast(pa.string())[0].as_py())
        return repr(one[0].as_py())
    except UnicodeDecodeError:  # Parquet does not check that text is UTF-8
        return repr(one.cast(pa.large_binary())[0].as_py())
    except (OverflowError, ValueError):  # an unknown time zone, or a time in a list out of range
        if pa.types.is_timestamp(one.type):
            return shown(one.cast(pa.timestamp(one.type.unit, "UTC")), 0)
        return " ".join(one.to_string().split())


def named_values(names: Sequence[str], keys: Sequence[pa.Array], row: int) -> str:
    """Format a row of key columns for a message: `origin='JFK', flight=12`."""
    return ", ".join(f"{n}={shown(key, row)}" for n, key in zip(names, keys, strict=True))


def _exact(array: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """Cast values to `kind`; return None if a value would change, or cannot be cast.

    Arrow rounds floats silently. The floats nearest to decimals count as equal if the decimals can
    be restored from them.
    """
    if array.type == kind:
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), kind)
    if pa.types.is_decimal(array.type) and kind in _DIGITS:
        # Trailing zeros of a decimal need not be restored: 0.5 with scale 18 counts as 0.5.
        nulls, (values, fits) = nulls_of(array), nearest_floats(array, _DIGITS[kind])
        if not (fits | nulls).all():
            return None
        return pa.array(values.astype(numpy_type(kind)), kind, mask=nulls)
    floating = pa.types.is_floating(array.type)
    wide = pa.float64() if floating else array.type  # Arrow cannot compare float16
    try:
        result, original = array.cast(kind), array.cast(wide)
        if is_text(kind) or _is_bytes(kind):  # no need to compare
            return result
        same = pc.equal(result.cast(wide), original)
    except pa.ArrowException:
        return None
    if floating:
        same = pc.or_(same, pc.is_nan(original))
    return result if pc.all(same, min_count=0).as_py() else None


def is_text(kind: pa.DataType) -> bool:
    """Return whether the values of a type are strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


_NUMBERS = (pa.types.is_integer, pa.types.is_floating)


def nearest_floats(array: pa.Array, digits: int) -> tuple[Array, Bools]:
    """Return the nearest float64 (N,) of decimals, and which (N,) have at most `digits` digits.

    Trailing zeros do not count: 0.50 has one digit. A number that is too large or too small for
    float32 counts as having more digits. The floats of numbers with more digits, and of nulls, are
    undefined. (Arrow's cast multiplies by 0.1, and turns 0.3 into 0.30000000000000004.)
    """
    if not len(array):
        return np.zeros(0), np.zeros(0, bool)
    limit, scale, width = 10**digits, array.type.scale, array.type.byte_width
    word = min(width, 8)
    stored = np.frombuffer(array.buffers()[1], f"<i{word}").reshape(-1, width // word)
    stored = stored[array.offset :][: len(array)]
    unscaled = stored[:, 0].astype(np.int64)
    fits: Bools = (stored[:, 1:] == (unscaled >> 63)[:, np.newaxis]).all(axis=1)  # in int64
    fits &= (unscaled < limit) & (unscaled > -limit) & (abs(scale) <= _POWERS)
    values = np.zeros(len(array))
    power = float(10 ** abs(scale))
    values[fits] = unscaled[fits] / power if scale > 0 else unscaled[fits] * power  # rounded once
    others = np.flatnonzero(~(fits | nulls_of(array)))
    if len(others):
        # As text, since Arrow's division (and `trunc`) gives some wrong quotients near 2**64.
        wide = array.take(pa.array(others)).cast(pa.decimal256(_WIDEST, scale))
        texts = wide.cast(pa.string())
        significant = pc.utf8_trim(pc.replace_substring_regex(texts, "E.*|[.-]", ""), "0")
        values[others] = texts.cast(pa.float64())
        size = np.abs(values[others])
        fits[others] = pc.less_equal(pc.utf8_length(significant), digits).to_numpy(
            zero_copy_only=False
        )
        fits[others] &= ((size > _LEAST) & (size < _MOST)) | (size == 0)
    return values, fits
