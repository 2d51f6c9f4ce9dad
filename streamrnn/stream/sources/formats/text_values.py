"""Values written as text: the type of a column of them, and its values in that type."""

from bisect import bisect_left

import pyarrow as pa
import pyarrow.compute as pc

NULLS = (
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
    *("1.#QNAN", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null"),
)
"""What pyarrow reads as null in columns of numbers or times; in columns of text, only ""."""

_TIMES = (
    pa.date32(),
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
    pa.timestamp("ns"),
    pa.timestamp("ns", "UTC"),
)
_KINDS = (pa.int64(), pa.bool_(), *_TIMES, pa.float64())
# A time's offset other than UTC.
_OFFSET = "[+-](?:(?:0[1-9]|1[0-9])(?::?[0-9]{2})?|00:?(?:0[1-9]|[1-5][0-9]))$"
# Not exact as a float64.
_LONG_INTEGER = r"^-?[0-9]{17,}$"


class UnfitTextError(ValueError):
    """A text, in a row (from 0), that is not a value of a type."""

    def __init__(self, row: int, value: str) -> None:
        super().__init__(value)
        self.row = row
        self.value = value


def infer(texts: pa.StringArray) -> pa.DataType:
    """Return the type of texts: int64, bool, date, timestamp, double, or else string.

    Null if there are none. A timestamp has microseconds, or nanoseconds if texts have these, and is
    in UTC if the texts have offsets. A text that looks like a number, but would not be kept as
    written, is a string: "007", "0x1f", integers that int64 cannot hold.

    >>> infer(pa.array(["007", "12"])), infer(pa.array(["7", "12"]))
    (DataType(string), DataType(int64))
    """
    values = _without_nulls(texts).drop_null()
    if not len(values):
        return pa.null()
    for kind in _KINDS:
        if _cast(values, kind) is not None:
            exact = kind != pa.float64() or not _any(
                pc.match_substring_regex(values, _LONG_INTEGER)
            )
            return kind if exact and not _any(_padded(values, kind)) else pa.string()
    return pa.string()


def infer_time(texts: pa.StringArray) -> pa.DataType:
    """Return the type of texts that are dates or timestamps; string for others."""
    values = texts.drop_null()
    if not len(values):
        return pa.null()
    return next((kind for kind in _TIMES if _cast(values, kind) is not None), pa.string())


def parse_texts(texts: pa.StringArray, kind: pa.DataType, *, padded: bool = False) -> pa.Array:
    """Return texts as values of a type.

    Raises UnfitTextError for the first invalid one. Unless `padded`, a text with a leading zero is
    not an integer, because "007" would become 7.
    """
    if pa.types.is_string(kind):
        return texts
    if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind) or kind == pa.binary():
        return texts.cast(kind)
    values = _cast(texts, kind)
    if values is None or (pa.types.is_floating(kind) and _any(pc.is_nan(values))):
        texts = _without_nulls(texts)
        values = _cast(texts, kind)
    zeros = pc.index(pa.array([], pa.bool_()) if padded else _padded(texts, kind), True).as_py()
    if values is None or zeros >= 0:
        # The first with a leading zero, or one before it.
        sizes = range(1, len(texts) if zeros < 0 else zeros + 1)
        row = bisect_left(sizes, True, key=lambda rows: _cast(texts.slice(0, rows), kind) is None)
        raise UnfitTextError(row, texts[row].as_py())
    return values


def note_offset(offsets: dict[str, str], field: pa.Field, texts: pa.StringArray) -> None:
    """Record, by column, an offset other than UTC that texts of times have.

    >>> offsets = {}
    >>> times = pa.array(["2013-01-01T05:00Z", "2013-07-01T05:00:00-04:00"])
    >>> note_offset(offsets, pa.field("t", pa.timestamp("us", "UTC")), times)
    >>> offsets
    {'t': '-04:00'}
    """
    kind = field.type
    if field.name in offsets or not pa.types.is_timestamp(kind) or kind.tz != "UTC":
        return
    row = pc.index(pc.match_substring_regex(texts, _OFFSET), True).as_py()
    if row >= 0:
        offsets[field.name] = str(pc.extract_regex(texts[row], f"(?P<offset>{_OFFSET})")["offset"])


def _cast(texts: pa.StringArray, kind: pa.DataType) -> pa.Array | None:
    if pa.types.is_null(kind):
        return pa.nulls(len(texts)) if texts.null_count == len(texts) else None
    try:
        return texts.cast(kind)
    except pa.ArrowException:
        return None


def _padded(texts: pa.StringArray, kind: pa.DataType) -> pa.BooleanArray:
    """Return which texts of integers have a leading zero; an empty array for other types."""
    if not pa.types.is_integer(kind):
        return pa.array([], pa.bool_())
    zero = pc.or_(pc.starts_with(texts, "0"), pc.starts_with(texts, "-0"))
    if not _any(zero):
        return zero
    return pc.and_(zero, pc.match_substring_regex(texts, "^-?0[0-9xX]"))


def _without_nulls(texts: pa.StringArray) -> pa.StringArray:
    null = pc.is_in(texts, pa.array(NULLS))
    return pc.if_else(null, pa.scalar(None, texts.type), texts) if _any(null) else texts


def _any(mask: pa.BooleanArray) -> bool:
    return bool(pc.any(mask, min_count=0).as_py())
