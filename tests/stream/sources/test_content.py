"""The digest of rows: equal for equal rows in any order and any file, unequal otherwise."""

import datetime
import decimal
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn.errors import DTypeError
from streamrnn.stream.sources import Content, FileSource, hashes_of, list_files, sum_of

WORD = 1 << 64


def _batch(**columns: Any) -> pa.RecordBatch:
    return pa.record_batch(
        {n: c if isinstance(c, pa.Array) else pa.array(c) for n, c in columns.items()}
    )


def _of(**columns: Any) -> Content:
    return Content.of(_batch(**columns), None)


ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(width=32, allow_nan=False),
        st.none() | st.text(max_size=20),
        st.none() | st.booleans(),
        st.none() | st.lists(st.none() | st.integers(-5, 5), max_size=3),
    ),
    max_size=12,
)
TYPES = [pa.int64(), pa.float32(), pa.string(), pa.bool_(), pa.list_(pa.int8())]


def _rows(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = [pa.array([row[i] for row in rows], kind) for i, kind in enumerate(TYPES)]
    return pa.record_batch(columns, names=list("abcde"))


@pytest.mark.parametrize("before", range(18))
def test_a_text_has_one_hash_wherever_its_memory_ends(before: int) -> None:
    """Words are read where the texts are, and none beyond the last byte."""
    texts = [f"{'text' * 5}{size}"[-size:] for size in range(1, 20)]
    hashes = hashes_of([pa.array([*texts, "-" * 20])])
    for text, wanted in zip(texts, hashes[:-1], strict=True):
        for after in range(9):
            few = pa.array(["-" * before, text, "-" * after])
            assert hashes_of([few])[1] == wanted, (text, after)


@settings(max_examples=200, deadline=None)
@given(ROWS, st.data())
def test_order_and_cut_do_not_matter(rows: list[tuple[Any, ...]], data: st.DataObject) -> None:
    """Nor the order of the columns, nor what stands under a null, nor offsets of slices."""
    whole = Content.of(_rows(rows), None)
    shuffled = _rows(data.draw(st.permutations(rows)))
    cut = data.draw(st.integers(0, len(rows)))
    pieces = [shuffled.slice(0, cut), shuffled.slice(cut)]
    assert sum_of(Content.of(piece, None) for piece in pieces) == whole
    assert Content.of(shuffled.select(list("edcba")), None) == whole
    assert whole.rows == len(rows)


@settings(max_examples=200, deadline=None)
@given(ROWS.filter(len), st.data())
def test_another_value_is_another_digest(rows: list[tuple[Any, ...]], data: st.DataObject) -> None:
    """One cell changed, two rows that swap a value, or a row twice."""
    whole = Content.of(_rows(rows), None)
    row, column = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, 4))
    other = data.draw(ROWS.filter(len))[0][column]
    changed = [list(each) for each in rows]
    changed[row][column] = other
    same = sorted(map(repr, map(tuple, changed))) == sorted(map(repr, rows))
    assert (Content.of(_rows([tuple(each) for each in changed]), None) == whole) == same
    assert Content.of(_rows([*rows, rows[row]]), None) != whole


def test_values_do_not_wander_between_rows_or_columns() -> None:
    assert _of(a=[1, 2], b=[3, 4]) != _of(a=[1, 2], b=[4, 3])
    assert _of(a=[1, 2], b=[3, 4]) != _of(b=[1, 2], a=[3, 4])
    assert _of(a=["xy", "z"]) != _of(a=["x", "yz"])
    assert _of(a=[[1], [2, 3]]) != _of(a=[[1, 2], [3]])
    assert _of(a=[[1, 2]]) != _of(a=[[2, 1]])
    assert _of(a=[None, 0]) != _of(a=[0, 0])
    assert _of(a=[0.0]) != _of(a=[-0.0])


KINDS = [
    pa.array([True, False, None]),
    *(pa.array([1, 2, None], kind) for kind in (pa.int8(), pa.uint16(), pa.int32(), pa.uint64())),
    pa.array([1.5, -2.5, None], pa.float16()),
    pa.array([1.5, -2.5, None], pa.float64()),
    pa.array([b"ab", b"c", None], pa.binary()),
    pa.array([b"ab", b"cd", None], pa.binary(2)),
    pa.array(["ab", "c", None], pa.large_string()),
    pa.array([decimal.Decimal("1.5"), decimal.Decimal("-7.25"), None], pa.decimal128(20, 2)),
    pa.array([decimal.Decimal("1.5"), decimal.Decimal("-7.25"), None], pa.decimal256(50, 2)),
    pa.array([datetime.date(2020, 1, 2), datetime.date(1960, 1, 2), None]),
    pa.array([1, 2, None], pa.timestamp("ns", "UTC")),
    pa.array([1, 2, None], pa.time64("us")),
    pa.array([1, 2, None], pa.duration("s")),
    pa.array([{"x": 1, "y": "a"}, {"x": 2, "y": None}, None]),
    pa.array([[1, 2], [], None], pa.large_list(pa.int64())),
    pa.array([[1, 2], [3, None], None], pa.list_(pa.int64(), 2)),
    pa.array([[("k", 1)], [("k", 2), ("l", 3)], None], pa.map_(pa.string(), pa.int64())),
    pa.array([[[1], [2]], [[3]], None], pa.list_(pa.list_(pa.int64()))),
]


@pytest.mark.parametrize("column", KINDS, ids=lambda column: str(column.type))
def test_every_type_has_a_digest(column: pa.Array) -> None:
    """Each of its values counts, null among them; also in a slice."""
    contents = [_of(a=column.slice(i, 1)) for i in range(3)]
    assert len({content.digest for content in contents}) == 3
    assert sum_of(contents) == _of(a=column)
    assert _of(a=pa.concat_arrays([column, column]).slice(2, 3)) == _of(
        a=pa.concat_arrays([column.slice(2), column.slice(0, 2)])
    )


WORDS = pa.dictionary(pa.int8(), pa.string())
HELD_IN_OTHER_WAYS = [
    (pa.string(), WORDS, ["a", "b", None]),
    (pa.list_(pa.string()), pa.list_(WORDS), [["a", "b"], ["b", None], None]),
    (pa.list_(pa.string(), 2), pa.list_(WORDS, 2), [["a", "b"], ["b", None], None]),
    (pa.struct({"x": pa.string()}), pa.struct({"x": WORDS}), [{"x": "a"}, {"x": "b"}, {"x": None}]),
    (
        pa.list_(pa.struct({"x": pa.list_(pa.string())})),
        pa.list_(pa.struct({"x": pa.list_(WORDS)})),
        [[{"x": ["a", "b"]}], [{"x": ["b"]}, None], []],
    ),
    (
        pa.map_(pa.string(), pa.string()),
        pa.map_(pa.string(), WORDS),
        [[("k", "a")], [("k", "b"), ("l", "a")], None],
    ),
    (pa.string(), pa.string_view(), ["a", "a string that is longer", None]),
    (pa.binary(), pa.binary_view(), [b"a", b"a string that is longer", None]),
    (
        pa.list_(pa.string()),
        pa.list_(pa.string_view()),
        [["a"], ["a string that is longer", None], None],
    ),
    (pa.list_(pa.int64()), pa.list_view(pa.int64()), [[1, 2], [], None]),
    (pa.list_(pa.int64()), pa.large_list_view(pa.int64()), [[1, 2], [], None]),
]


@pytest.mark.parametrize(("kind", "other", "rows"), HELD_IN_OTHER_WAYS, ids=str)
def test_the_digest_is_of_values_not_of_how_they_are_held(
    kind: pa.DataType, other: pa.DataType, rows: list[Any]
) -> None:
    """Whatever the order of a dictionary, and in lists, structs and maps as in columns."""
    expected = _of(a=pa.array(rows, kind))
    column = pa.array(rows, other)
    backwards = pa.array(rows[::-1], other)  # another order of the dictionary
    assert _of(a=column) == _of(a=backwards) == expected
    assert sum_of(_of(a=column.slice(i, 1)) for i in range(3)) == expected
    assert _of(a=pa.array([rows[0], rows[0], rows[2]], other)) != expected


def test_views_that_share_or_cross_their_values_count_as_lists() -> None:
    views = pa.ListViewArray.from_arrays(
        pa.array([1, 0, 0], pa.int32()), pa.array([2, 2, 0], pa.int32()), pa.array([1, 2, 3])
    )
    assert _of(a=views) == _of(a=[[2, 3], [1, 2], []])


def test_maps_need_not_fit_into_python() -> None:
    """Times beyond the year 9999, and bytes that are no UTF-8 though their type says text."""
    late = pa.map_(pa.string(), pa.timestamp("s"))
    maps = [pa.array([[("k", time)]], late) for time in (1 << 55, (1 << 55) + 1)]
    assert _of(a=maps[0]) != _of(a=maps[1])
    text = pa.StringArray.from_buffers(1, pa.array([b"\xff"]).buffers()[1], pa.py_buffer(b"\xff"))
    odd = pa.MapArray.from_arrays([0, 1], text, pa.array([1]))
    assert _of(a=odd) != _of(a=pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())))


def test_a_union_is_refused_rather_than_compared_by_its_layout() -> None:
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(DTypeError, match=r"sparse_union.* cannot be compared"):
        _of(a=union)


def test_a_column_of_nulls_without_a_type_is_the_same_everywhere() -> None:
    assert _of(a=pa.nulls(2), b=[1, 2]) == _of(a=pa.nulls(2), b=[2, 1])


def test_the_digest_is_what_it_was_when_manifests_were_written() -> None:
    """It stands in manifests: another one would take all files for changed."""
    found = Content.of(
        _batch(
            id=["a", "bb", "a string that is longer"],
            t=pa.array([3, 1, None], pa.timestamp("us")),
            x=pa.array([1.5, None, -2.0], pa.float32()),
            n=pa.array([1, 2, 3], pa.int64()),
            flag=[True, None, False],
        ),
        "t",
    )
    assert found == Content(3, 6687830930501684672, 1, 3)


def _plain_digest(rows: list[dict[str, bytes | int]]) -> int:
    """The rule in Python's integers: numbers as words, texts as bytes."""
    mixed, other = 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
    total = 0
    for row in rows:
        value = 0
        for name, cell in row.items():
            factor = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") | 1
            if isinstance(cell, bytes):
                text = len(cell) * mixed % WORD
                for at in range(0, len(cell), 8):
                    text = (text ^ int.from_bytes(cell[at : at + 8], "little")) * mixed % WORD
                    text ^= text >> 32
                cell = text
            value = (value + cell * factor) % WORD
        for number in (mixed, other):
            value = (value ^ (value >> 33)) * number % WORD
        total += value ^ (value >> 33)
    return total % WORD


def test_the_kernels_follow_the_rule() -> None:
    """Against the same rule in plain Python."""
    rng = np.random.default_rng(1)
    texts = ["x" * int(n) + str(n) for n in rng.integers(0, 30, 200)]
    small = rng.integers(0, 2**32, 200, dtype=np.uint32)
    wide = rng.integers(0, 2**64, 200, dtype=np.uint64)
    rows = [
        {"t": text.encode(), "s": int(s), "w": int(w)}
        for text, s, w in zip(texts, small, wide, strict=True)
    ]
    assert _of(t=texts, s=small, w=wide).digest == _plain_digest(rows)


def test_the_content_of_files_is_that_of_their_rows(tmp_path: Path) -> None:
    """Whole and in part, whatever the compression, the row groups and the batches are."""
    rng = np.random.default_rng(2)
    table = pa.table(
        {
            "id": [f"s{i % 7}" for i in range(1000)],
            "t": pa.array(np.arange(1000), pa.timestamp("us")),
            "x": rng.normal(size=1000),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=90)
    pq.write_table(table, tmp_path / "b.parquet", compression="zstd", row_group_size=512)
    found = set()
    for rows in (7, 64, 5000):
        source = FileSource(list_files(str(tmp_path)), ["id", "t", "x"], rows, time="t")
        found |= {(source.content(file), source.content(file, 333)) for file in source.files}
    ((whole, part),) = found
    assert whole == Content.of(table.combine_chunks().to_batches()[0], "t")
    assert part == Content.of(table.slice(0, 333).combine_chunks().to_batches()[0], "t")
    assert (whole.rows, whole.first, whole.last) == (1000, 0, 999)
