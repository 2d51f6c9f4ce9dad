"""Columns that went through other libraries: the same values in another type, or an error."""

import datetime
from typing import Any

import pyarrow as pa
import pytest

from streamrnn.stream.states.incoming import UnfitValueError, converted

DAY = datetime.date(2020, 1, 2)
NOON = datetime.datetime(2020, 1, 2, 12, tzinfo=datetime.UTC)
STRUCT = pa.struct({"k": pa.date64(), "y": pa.float32(), "text": pa.string()})
PAIRS = pa.list_(pa.list_(pa.float32(), 2))
COLUMNS: list[tuple[pa.DataType, list[Any]]] = [
    (pa.string(), ["a", None, "a string that is longer", ""]),
    (pa.binary(), [b"a", None, b"\xff"]),
    (pa.list_(pa.float32(), 3), [[1, 2, 3], None, [4, None, 6], [7, 8, 9]]),
    (PAIRS, [[], [[1, 2], None, [3, 4]], None, [[5, None]]]),
    (pa.list_(pa.string()), [["a", "b"], None, [None], []]),
    (STRUCT, [{"k": DAY, "y": 1.5, "text": "held"}, None, {"k": None, "y": None, "text": None}]),
]
TEXTS = {
    "large": (pa.large_string(), pa.large_binary()),
    "view": (pa.string_view(), pa.binary_view()),
    "plain": (pa.string(), pa.binary()),
}


def _elsewhere(kind: pa.DataType, texts: tuple[pa.DataType, pa.DataType], lists: Any) -> Any:
    """What another library holds values of a type in."""
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return texts[pa.types.is_binary(kind)]
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return lists(pa.field("element", _elsewhere(kind.value_type, texts, lists)))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _elsewhere(f.type, texts, lists)) for f in kind])
    return kind


@pytest.mark.parametrize(("kind", "rows"), COLUMNS, ids=str)
@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("lists", [pa.list_, pa.large_list], ids=["list", "large list"])
def test_strings_and_lists_of_other_libraries_are_taken(
    kind: pa.DataType, rows: list[Any], texts: str, lists: Any
) -> None:
    """pandas and Polars know no lists of a fixed size, or other strings; also in slices."""
    theirs = pa.array(rows, _elsewhere(kind, TEXTS[texts], lists))
    for start, stop in ((0, len(rows)), (1, 3), (2, 2)):
        found = converted(theirs.slice(start, stop - start), kind)
        found.validate(full=True)
        assert found.equals(pa.array(rows[start:stop], kind))
        assert found.type == kind


@pytest.mark.parametrize(
    ("theirs", "kind"),
    [
        (pa.array([1, None, 255], pa.uint8()), pa.int64()),
        (pa.array([1, None, 255], pa.uint64()), pa.int64()),
        (pa.array([DAY, None], pa.date32()), pa.date64()),
        (pa.array([NOON, None], pa.timestamp("ns", "UTC")), pa.timestamp("s", "UTC")),
        (pa.array([NOON, None], pa.timestamp("us", "Etc/UTC")), pa.timestamp("us", "UTC")),
        (pa.array(["a", None, "a"]).dictionary_encode(), pa.string()),
        (pa.DictionaryArray.from_arrays([0, None], pa.array(["a"], pa.string_view())), pa.string()),
        (pa.nulls(3), pa.list_(pa.float32(), 2)),
        (pa.array([b"ab", None], pa.binary()), pa.binary(2)),
    ],
    ids=lambda each: str(getattr(each, "type", each)),
)
def test_widths_units_and_columns_of_nulls_are_taken(theirs: pa.Array, kind: pa.DataType) -> None:
    found = converted(theirs, kind)
    assert found.type == kind
    assert found.to_pylist() == theirs.to_pylist()


def test_a_list_of_another_length_is_refused_with_its_row() -> None:
    theirs = pa.array([[1, 2], None, [3]], pa.list_(pa.float32()))
    with pytest.raises(UnfitValueError, match="lists of size 2, received size 1") as caught:
        converted(theirs, pa.list_(pa.float32(), 2))
    assert caught.value.row == 2
    nested = pa.array([[], [[1, 2]], None, [[1, 2], [3]]], pa.list_(pa.list_(pa.float32())))
    with pytest.raises(UnfitValueError, match="received size 1") as caught:
        converted(nested, PAIRS)
    assert caught.value.row == 3


@pytest.mark.parametrize(
    ("theirs", "kind"),
    [
        (pa.array([1.0]), pa.int64()),
        (pa.array([[1.0, 2.0]]), pa.list_(pa.float32(), 2)),
        (pa.array([[1, 2]], pa.list_(pa.float32(), 2)), pa.list_(pa.float32(), 3)),
        (pa.array([b"a"]), pa.string()),
        (pa.array([{"x": 1}]), pa.struct({"y": pa.int64()})),
        (pa.array([NOON], pa.timestamp("s", "UTC")), pa.timestamp("s", "Europe/Berlin")),
        (pa.array([NOON], pa.timestamp("s", "UTC")), pa.timestamp("s")),
    ],
    ids=lambda each: str(getattr(each, "type", each)),
)
def test_types_of_other_things_are_refused(theirs: pa.Array, kind: pa.DataType) -> None:
    """Whether there are rows or not."""
    for rows in (theirs, theirs.slice(0, 0)):
        with pytest.raises(TypeError):
            converted(rows, kind)


@pytest.mark.parametrize(
    ("theirs", "kind"),
    [
        (pa.array([2**63], pa.uint64()), pa.int64()),
        (pa.array([1], pa.timestamp("us")), pa.timestamp("s")),
        (pa.array([b"abc"], pa.binary()), pa.binary(2)),
    ],
    ids=lambda each: str(getattr(each, "type", each)),
)
def test_values_that_would_change_are_refused(theirs: pa.Array, kind: pa.DataType) -> None:
    with pytest.raises(pa.ArrowInvalid):
        converted(theirs, kind)
