"""State tables whose columns are flat: there and back without loss."""

import numpy as np
import pyarrow as pa
import pytest

from streamrnn.errors import StateError
from streamrnn.states import Layout
from streamrnn.stream.states import flat_schema, from_flat, to_flat

PENDING = (pa.field("id", pa.string()), pa.field("y", pa.float32()), pa.field("_row", pa.int64()))
LAYOUT = Layout(
    keys=(pa.field("id", pa.string()), pa.field("site", pa.binary())),
    time=pa.timestamp("ns", "Europe/Rome"),
    states={"rnn/h": 3, "rnn/c": 1},
    previous={"a": pa.float32(), "word": pa.string()},
    waiting={"features": pa.list_(pa.float32(), 2), "n": pa.int64(), "word": pa.string()},
    waiting_rows=4,
    pending=PENDING,
    fingerprint="f",
)
NAN = np.frombuffer(b"\x01\x00\xc0\x7f", np.float32)[0]  # with a payload
ROWS = [
    {
        "id": "x",
        "site": b"\xff",
        "steps": 5,
        "last_time": 1_700_000_000_000_000_001,
        "rnn/h": [1.5, -0.0, 1e-45],
        "rnn/c": [NAN],
        "previous/a": None,
        "previous/word": "w",
        "waiting/features": [[1.0, 2.0], [3.0, 4.0]],
        "waiting/n": [2**62, -1],
        "waiting/word": ["", "é"],
        "pending": {"id": "x", "y": None, "_row": 0},
    },
    {
        "id": "y",
        "site": b"",
        "steps": 0,
        "last_time": None,
        "rnn/h": [0.0, 0.0, 0.0],
        "rnn/c": [7.0],
        "previous/a": 0.5,
        "previous/word": None,
        "waiting/features": [],
        "waiting/n": [],
        "waiting/word": [],
        "pending": None,
    },
]


def _table() -> pa.Table:
    return pa.Table.from_pylist([*ROWS, {**ROWS[0], "id": "z"}], schema=LAYOUT.schema())


def _bits(table: pa.Table) -> list[object]:
    """All values, floats by their bits."""
    columns: list[object] = []
    for column in table.columns:
        flat = column.combine_chunks()
        while pa.types.is_list(flat.type) or pa.types.is_fixed_size_list(flat.type):
            columns.append(flat.value_lengths().to_pylist())
            flat = flat.flatten()
        columns.append(flat.view(pa.int32()) if flat.type == pa.float32() else flat)
    return columns


@pytest.mark.parametrize("rows", [slice(0, 3), slice(1, 3), slice(0, 0), slice(2, 3)])
def test_a_table_comes_back_with_its_bits(rows: slice) -> None:
    """Also a part of one, in several pieces, as an engine returns it."""
    table = _table().slice(rows.start, rows.stop - rows.start)
    flat = to_flat(table)
    assert flat.schema == flat_schema(table.schema)
    kinds = {f.name: f.type for f in flat.schema}
    assert not any(pa.types.is_nested(k) for n, k in kinds.items() if n != "waiting/word")
    assert kinds["rnn/h"] == kinds["waiting/features"] == kinds["waiting/n"] == pa.binary()
    pieces = pa.concat_tables([flat.slice(i, 1) for i in range(len(flat))] or [flat])
    back = from_flat(pieces, table.schema, "t")
    assert back.schema.equals(LAYOUT.schema(), check_metadata=True)
    assert _bits(back) == _bits(table)


def test_a_flat_state_is_its_numbers_in_little_endian_order() -> None:
    flat = to_flat(_table())
    assert flat.column("rnn/c")[1].as_py() == np.array([7.0], "<f4").tobytes()
    assert flat.column("waiting/n")[0].as_py() == np.array([2**62, -1], "<i8").tobytes()


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("rnn/h", b"12345678", "row 1 .* column 'rnn/h': expected 12 bytes, received 8"),
        ("rnn/h", None, "row 1 .* column 'rnn/h': expected 12 bytes, received null"),
        (
            "waiting/n",
            b"123",
            "row 1 .* column 'waiting/n': expected a multiple of 8 bytes, received 3",
        ),
    ],
)
def test_a_value_of_another_size_is_refused(column: str, value: bytes | None, text: str) -> None:
    flat = to_flat(_table())
    values = [flat.column(column)[0].as_py(), value, flat.column(column)[2].as_py()]
    index = flat.schema.get_field_index(column)
    changed = flat.set_column(index, column, pa.array(values, pa.binary()))
    with pytest.raises(StateError, match=f"t: {text}"):
        from_flat(changed, LAYOUT.schema(), "t")
