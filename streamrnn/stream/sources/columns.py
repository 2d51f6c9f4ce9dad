"""Convert columns to arrays (numbers to float32), and collect the faults of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.stream.sources.casts import nulls_of, zero_for_null

if TYPE_CHECKING:
    from streamrnn.stream.sources.contract import Feature

_EXACT = 1 << 24  # float32 can hold every integer up to here
_INT64 = (1 << 63) - 1
_SET_NULLS = "set `nulls` for the column"
_SET_NAN = 'set nan = "null" for the column'
_FLOATS = frozenset(kind.id for kind in (pa.float16(), pa.float32(), pa.float64()))
_ALIKE = {pa.float32().id}, {pa.float64().id}


@dataclass
class Faults:
    """Rows that violate the contract, with the first reason for each, and advice on it."""

    codes: npt.NDArray[np.int32]
    reasons: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    @classmethod
    def of_rows(cls, rows: int) -> Faults:
        """Return an object without faults yet, for `rows` rows."""
        return cls(np.zeros(rows, np.int32))

    def add(self, rows: Bools, reason: str, advice: str = "") -> None:
        """Set the reason of the rows in a mask that have no reason yet.

        `advice` is what the user could do, such as "set `nulls` for the column"; "" for none.
        """
        index = np.flatnonzero(rows)
        if len(index):
            self.add_each(index, np.zeros_like(index), [reason], advice)

    def add_each(self, rows: Ints, which: Ints, reasons: Sequence[str], advice: str) -> None:
        """Set `reasons[which[i]]` for each row `rows[i]` that has no reason yet."""
        codes = which + len(self.reasons) + 1
        self.codes[rows] = np.where(self.codes[rows] == 0, codes, self.codes[rows])
        self.reasons += reasons
        self.advice += [advice] * len(reasons)

    def replace(self, reasons: Mapping[int, str]) -> None:
        """Set the reason of some rows, even if they have one already."""
        self.codes[list(reasons)] = np.arange(len(reasons)) + len(self.reasons) + 1
        self.reasons += reasons.values()
        self.advice += [""] * len(reasons)

    def reason(self, row: int) -> str:
        """Return the reason of a row whose code is not 0."""
        return self.reasons[int(self.codes[row]) - 1]

    def how_to_fix(self, row: int) -> str:
        """Return how to fix the row, as the start of a list of choices."""
        advice = self.advice[int(self.codes[row]) - 1]
        return f"Fix the data, {advice}," if advice else "Fix the data"


class PlainFloats:
    """Reads the columns of floats among F features, with one check for all their values."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._names = [feature.name for feature in features]
        self.bounded = any(f.valid is not None or f.clip is not None for f in features)
        # The last schema, the place of each feature in it, and whether all features are float32, or
        # all are float64.
        self._last: tuple[pa.Schema, list[int], bool] = pa.schema([]), [], False
        self.no_nulls = dict.fromkeys(range(len(self._names)), 0)

    def read(self, batch: pa.RecordBatch) -> tuple[Floats, dict[int, int]]:
        """Return N rows as float32 (N, F), nulls as NaN; and feature -> number of nulls.

        Columns of other types are 0 in the array and missing in the mapping. The mapping is empty
        if a value other than null is not finite in float32: then columns are checked one by one,
        because a row is reported with the fault of its first column.
        """
        schema, index, alike = self._last
        if not schema.equals(batch.schema):
            schema = batch.schema
            index = [schema.get_field_index(name) for name in self._names]
            alike = {schema.field(i).type.id for i in index} in _ALIKE
            self._last = schema, index, alike
        if alike:  # with few rows, converting column by column costs more than the model
            values = batch.select(index).to_tensor(null_to_nan=True).to_numpy()
            if values.dtype != np.float32:
                with np.errstate(over="ignore"):
                    values = values.astype(np.float32)
            finite = np.isfinite(values)
            if np.logical_and.reduce(finite, axis=None):
                return values, self.no_nulls
        else:
            values = np.zeros((batch.num_rows, len(index)), np.float32)
            with np.errstate(over="ignore"):
                for i, place in enumerate(index):
                    array = batch.column(place)
                    if array.type.id in _FLOATS:
                        values[:, i] = array.to_numpy(zero_copy_only=False)
            finite = np.isfinite(values)
        columns = [(i, batch.column(place)) for i, place in enumerate(index)]
        nulls = {i: array.null_count for i, array in columns if array.type.id in _FLOATS}
        plain = values.size - np.count_nonzero(finite) == sum(nulls.values())
        return values, nulls if plain else {}


def to_float32(array: pa.Array, feature: Feature, faults: Faults, counts: dict[str, int]) -> Floats:
    """Convert N numbers or booleans to float32 (N,), possibly a view; null becomes NaN.

    Faults: infinity, NaN if nan = "error", numbers beyond the range of float32, integers that
    float32 cannot hold exactly (including decimals of a type without digits after the point), and
    null if nulls = "error". Other decimals are rounded, as is float64. First, NaN becomes null if
    nan = "null", as do values outside `valid` (inclusive), then `clip` limits the other values,
    then a number in `nulls` replaces null.
    """
    kind = array.type
    if pa.types.is_null(kind):
        return limit(np.full(len(array), np.nan, np.float32), feature, faults, counts)
    nulls = nulls_of(array) if array.null_count else None
    decimals = array if pa.types.is_decimal(kind) else None
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif decimals is not None:
        array = array.cast(pa.float64())
    raw = zero_for_null(array)
    with np.errstate(over="ignore"):
        values: Floats = raw.astype(np.float32, copy=False)
    _note_loss(raw, values, feature, faults, counts)
    if decimals is not None and kind.scale <= 0:
        # float64 cannot decide this: it rounds 2**53 + 1 to a number that float32 can hold.
        wide = np.flatnonzero((np.abs(raw) > _EXACT) & np.isfinite(values))
        integers = map(int, decimals.take(pa.array(wide)).to_pylist())
        floats = map(int, values[wide].tolist())
        changed = [one != other for one, other in zip(integers, floats, strict=True)]
        _note_changed(wide[np.array(changed, bool)], feature.name, faults)
    if nulls is not None:
        values = np.where(nulls, np.float32(np.nan), values)
    return limit(values, feature, faults, counts)


def limit(values: Floats, feature: Feature, faults: Faults, counts: dict[str, int]) -> Floats:
    """Apply `valid`, `clip`, then `nulls` to float32 numbers, as `to_float32` does."""
    if feature.valid is not None:
        low, high = float32_limits(feature.valid)
        outside = (values < low) | (values > high)
        if outside.any():
            counts["out_of_range"] += int(outside.sum())
            values = np.where(outside, np.float32(np.nan), values)
    if feature.clip is not None:
        limited = values.clip(*float32_limits(feature.clip))
        changed = limited != values
        if changed.any():
            counts["clipped"] += int((changed & ~np.isnan(values)).sum())
        values = limited  # turns -0 into 0 at a limit of 0
    if feature.nulls in ("previous", "skip"):
        return values
    nulls = np.isnan(values)
    if not nulls.any():
        return values
    if feature.nulls == "error":
        causes = ["null"] + ["NaN"] * (feature.nan == "null")
        causes += ["outside `valid`"] * (feature.valid is not None)
        reason = f'value is {" or ".join(causes)}, and nulls = "error"'
        faults.add(nulls, f"column {feature.name!r}: {reason}", _SET_NULLS)
    else:
        values = np.where(nulls, np.float32(feature.nulls), values)
        counts["filled"] += int(nulls.sum())
    return values


@cache
def float32_limits(pair: tuple[float, float]) -> tuple[np.float32, np.float32]:
    """Return two limits as float32; a limit beyond the range of float32 becomes infinite."""
    with np.errstate(over="ignore"):
        return np.float32(pair[0]), np.float32(pair[1])


def _note_loss(
    raw: Array, values: Floats, feature: Feature, faults: Faults, counts: dict[str, int]
) -> None:
    name = feature.name
    if raw.dtype.kind == "f":
        bad = ~np.isfinite(values)
        if bad.any():
            nan, expected = np.isnan(raw), f"column {name!r}: expected a finite number"
            if feature.nan == "null":
                counts["nan"] += int(nan.sum())
            else:
                faults.add(nan, f"{expected}, received NaN", _SET_NAN)
            faults.add(np.isinf(raw), f"{expected}, received infinity")
            faults.add(bad & np.isfinite(raw), f"column {name!r}: number overflows float32")
    elif raw.dtype.itemsize > 2:
        signed = raw.dtype.kind == "i"
        wide = np.flatnonzero((raw > _EXACT) | (raw < -_EXACT) if signed else raw > _EXACT)
        size = raw[wide].astype(np.int64).view(np.uint64)
        if signed:
            size = np.where(raw[wide] < 0, -size, size)
        # float32 can hold integers whose highest and lowest set bits span at most 24 bits.
        _note_changed(wide[(size >> np.uint64(24)) >= (size & -size)], name, faults)


def _note_changed(rows: Ints, name: str, faults: Faults) -> None:
    if len(rows):
        reason = f"column {name!r}: integer is not exactly representable as float32"
        faults.add_each(rows, np.zeros_like(rows), [reason], "")


def to_identifiers(
    array: pa.Array, feature: Feature, faults: Faults, counts: dict[str, int]
) -> tuple[Array, Bools]:
    """Convert a column to int64 or text (object); also return which values are present.

    Nulls are replaced, by the value of `nulls`, or by 0 or "", which do not count as present.
    """
    name, kind, nulls = feature.name, feature.kind, feature.nulls
    if pa.types.is_null(array.type):
        array = pa.nulls(len(array), pa.string() if kind == "string" else pa.int64())
    missing = nulls_of(array) if array.null_count else None
    if kind == "string":
        array = array.fill_null("") if missing is not None else array
        encoded = array.dictionary_encode()
        texts, invalid = _texts(encoded.dictionary)
        rows = encoded.indices.to_numpy()
        values = texts[rows] if len(texts) else np.zeros(0, object)
        if invalid.any():
            faults.add(invalid[rows], f"column {name!r}: text is not valid UTF-8")
    else:
        raw = zero_for_null(array)
        values = raw.astype(np.int64)
        if raw.dtype == np.uint64:
            faults.add(raw > np.uint64(_INT64), f"column {name!r}: integer overflows int64")
    if missing is not None:
        if nulls == "error":
            faults.add(missing, f'column {name!r}: value is null, and nulls = "error"', _SET_NULLS)
        if nulls in ("error", "previous", "skip"):
            return values, ~missing
        values[missing] = nulls if kind == "string" else int(nulls)
        counts["filled"] += int(missing.sum())
    return values, np.ones(len(array), bool)


def check_ids(values: Ints, feature: Feature, faults: Faults) -> None:
    """Add a fault for each of N ids that is negative, or not below `feature.ids`."""
    size = feature.ids or 0
    outside = values.view(np.uint64) >= size  # negative ids become large numbers
    if not outside.any():
        return
    rows = np.flatnonzero(outside)
    ids, which = np.unique(values[rows], return_inverse=True)
    reasons = [
        f"column {feature.name!r}: expected an id from 0 to {size - 1}, as the model has, "
        f"received {value}"
        for value in ids.tolist()
    ]
    faults.add_each(rows, which, reasons, "use the model that has these ids")


def _texts(array: pa.Array) -> tuple[Array, Bools]:
    """Return texts as objects, and which are not valid UTF-8: Parquet does not check."""
    try:
        return np.array(array.to_pylist(), object), np.zeros(len(array), bool)
    except UnicodeDecodeError:
        raw = array.cast(pa.large_binary()).to_pylist()
        texts = [value.decode(errors="replace") for value in raw]
        invalid = [text.encode() != value for text, value in zip(texts, raw, strict=True)]
        return np.array(texts, object), np.array(invalid)
