"""The state table: gather, scatter, and a round trip through Arrow and files without a loss."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from selection import first_quick

from streamrnn.errors import ConfigError, DataError, MissingFileError, StateError
from streamrnn.states import Layout, StateTable, from_arrow, read_state_file, write_state_file
from streamrnn.stream.states import MATRIX, Held, KeyIndex, arrays, waiting_after
from streamrnn.stream.states import table as table_module

CARRY = Layout(
    keys=(pa.field("k", pa.string()), pa.field("day", pa.timestamp("s"))),
    time=pa.timestamp("s", "UTC"),
    states={"lstm/h": 3, "lstm/c": 3},
    previous={"a": pa.float32(), "i": pa.int64(), "s": pa.string()},
    fingerprint="f" * 64,
    layers={"lstm": [3]},
)
FIXED = Layout(
    keys=(pa.field("k", pa.date64()),),
    time=pa.date32(),
    states={},
    waiting={MATRIX: pa.list_(pa.float32(), 2), "i": pa.int64(), "s": pa.string()},
    waiting_rows=3,
    pending=(pa.field("k", pa.date64()), pa.field("y", pa.float32())),
)


ALL = np.arange(5)


def _initial(layout: Layout) -> dict[str, np.ndarray]:
    return {n: np.full(size, 0.5, np.float32) for n, size in layout.states.items()}


def _carry(streams: int = 5) -> StateTable:
    table = StateTable(CARRY, _initial(CARRY))
    names = pa.array([f"s{i}" for i in range(streams)])
    days = pa.array(np.arange(streams), pa.int64()).cast(pa.timestamp("s"))
    slots = table.find([names, days])
    rng = np.random.default_rng(7)
    table.scatter(
        slots, {n: rng.normal(size=(streams, 3)).astype(np.float32) for n in CARRY.states}
    )
    previous = {
        "a": (np.full(streams, 0.25), slots % 2 == 0),
        "i": (np.full(streams, 2**60), slots % 2 == 1),
        "s": (np.full(streams, "é", object), slots < 2),
    }
    table.advance(slots, slots * 10, slots + 1_700_000_000, previous, seen=slots > 0)
    return table


def _fixed() -> StateTable:
    table = StateTable(FIXED)
    slots = table.find([pa.array([0, 86_400_000, 172_800_000], pa.int64()).cast(pa.date64())])
    table.advance(slots, np.zeros(3, np.int64), slots, {})
    waiting = {
        MATRIX: np.arange(10, dtype=np.float32).reshape(5, 2),
        "i": np.arange(5),
        "s": np.full(5, "w", object),
    }
    table.wait(slots, np.array([0, 2, 3]), waiting)
    rows = pa.RecordBatch.from_arrays(
        [pa.array([172_800_000]).cast(pa.date64()), pa.array([1.5], pa.float32())],
        schema=pa.schema(FIXED.pending),
    )
    table.hold(Held(np.array([2]), rows))
    return table


@pytest.mark.parametrize("name", ["carry", "fixed", "empty", "one"])
@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
def test_a_table_comes_back_from_a_file_as_it_was(name: str, suffix: str, tmp_path: Path) -> None:
    """Every column, no stream, one and some; seconds and date64 too, which Parquet lacks."""
    table = {"carry": _carry, "fixed": _fixed, "empty": lambda: _carry(0), "one": lambda: _carry(1)}
    first = table[name]()
    path = str(tmp_path / f"t{suffix}")
    write_state_file(first.to_arrow(), path)
    layout = first.layout
    second = from_arrow(read_state_file(path), layout, _initial(layout), path)
    assert second.to_arrow().equals(first.to_arrow(), check_metadata=True)
    assert len(second) == len(first)
    if layout.pending and len(first):
        assert second.held.slots.tolist() == [2]


def test_columns_may_stand_in_any_order_and_keys_be_dictionaries() -> None:
    """What DuckDB or pandas make of an exported table."""
    exported = _carry().to_arrow()
    names = exported.schema.names[::-1]
    odd = exported.select(names)
    at = names.index("k")
    odd = odd.set_column(at, "k", odd.column("k").dictionary_encode())
    odd = odd.replace_schema_metadata(exported.schema.metadata)
    assert from_arrow(odd, CARRY, _initial(CARRY), "f").to_arrow().equals(exported)


def test_types_of_other_libraries_are_taken() -> None:
    """By the table as a whole; see test_lossless for each type."""
    ours = _carry().to_arrow()
    ours = _with("previous/i", pa.nulls(5, pa.int64()), ours)
    theirs = _with("previous/i", pa.nulls(5), ours)
    theirs = _with("steps", theirs.column("steps").cast(pa.uint8()), theirs)
    times = theirs.column("last_time").cast(pa.timestamp("us", "Etc/UTC"))  # as DuckDB has it
    theirs = _with("last_time", times, theirs)
    theirs = _with("k", theirs.column("k").cast(pa.large_string()), theirs)
    lists = pa.large_list(pa.field("element", pa.float32()))
    theirs = _with("lstm/h", pa.array(ours.column("lstm/h").to_pylist(), lists), theirs)
    theirs = pa.concat_tables([theirs.slice(0, 2), theirs.slice(2)])
    again = from_arrow(theirs, CARRY, _initial(CARRY), "f").to_arrow()
    assert again.equals(ours, check_metadata=True)


def test_some_streams_of_a_table_are_a_table() -> None:
    """Filtered, as initial state for a run on some streams."""
    exported = _carry().to_arrow()
    part = exported.filter(pa.array([False, True, False, True, False]))
    assert from_arrow(part, CARRY, _initial(CARRY), "f").to_arrow().equals(part.combine_chunks())


def test_layers_are_mapped_and_streams_stay_what_they_are() -> None:
    """A map says where a layer's state comes from, not that its streams are new."""
    theirs = _carry().to_arrow()
    layout = replace(CARRY, states={"decoder/h": 3, "other/h": 2}, fingerprint="g" * 64)
    initial = {"decoder/h": np.zeros(3, np.float32), "other/h": np.ones(2, np.float32)}
    with pytest.raises(StateError, match="another model"):
        from_arrow(theirs, layout, initial, "f")
    notes: list[str] = []
    table = from_arrow(theirs, layout, initial, "f", {"decoder": "lstm"}, notes=notes)
    got = table.to_arrow()
    assert got.column("decoder/h").to_pylist() == theirs.column("lstm/h").to_pylist()
    assert got.column("other/h").to_pylist() == [[1, 1]] * 5
    for name in ("k", "day", "steps", "last_time", "previous/a", "previous/i", "previous/s"):
        assert got.column(name).equals(theirs.column(name)), name
    assert notes == ["other/h is not in [state] map: it starts from its initial state"]


def test_what_a_mapped_table_lacks_is_noted() -> None:
    """Of a pipeline without times and with other rules for nulls."""
    theirs = _carry().to_arrow().drop_columns(["last_time", "previous/i"])
    notes: list[str] = []
    table = from_arrow(theirs, CARRY, _initial(CARRY), "f", {"lstm": "lstm"}, notes=notes)
    assert [note.split(":")[0] for note in notes] == [
        "the state table has no last_time",
        "the state table has no previous/i",
    ]
    assert table.steps(ALL).tolist() == [0, 10, 20, 30, 40]
    assert not table.last_times(ALL)[1].any()
    assert not table.previous("i", ALL)[1].any()
    without = table.to_arrow()
    for ours, said in (
        (False, ["4 of 5 streams in the state table have steps but no last_time"]),
        (True, []),
    ):
        notes = []
        again = from_arrow(without, CARRY, _initial(CARRY), "f", same_pipeline=ours, notes=notes)
        assert again.to_arrow().equals(without)
        assert [note.split(":")[0] for note in notes] == said


def test_a_table_that_replaces_another_must_not_lose_times() -> None:
    """Nothing would count as late, in silence. What has none already may have none."""
    before = _carry()
    slots = np.array([2, 3])
    steps, times = before.steps(slots), before.last_times(slots)[0]
    before.advance(slots, steps, times, {}, seen=False)
    table = before.to_arrow()
    new = from_arrow(table, CARRY, _initial(CARRY), "f", before=before)
    assert new.to_arrow().equals(table)
    before.advance(slots[1:], steps[1:], times[1:], {})
    with pytest.raises(
        StateError, match=r"f: row 3 .*'last_time': last time is null, but the replaced"
    ):
        from_arrow(table, CARRY, _initial(CARRY), "f", before=before)
    reset = _with("steps", pa.array([0] * 5), table)
    with pytest.raises(
        StateError, match=r"f: row 3 .*'last_time': last time is null, but the replaced"
    ):
        from_arrow(reset, CARRY, _initial(CARRY), "f", before=before)
    for known in (_carry(0), _carry(2)):
        with pytest.raises(
            StateError, match=r"f: row 2 .*'last_time': last time is null, but .* has steps"
        ):
            from_arrow(table, CARRY, _initial(CARRY), "f", before=known)


def test_the_nearest_layer_of_a_map_counts() -> None:
    """A model within a model, whatever the order of the map."""
    layout = replace(CARRY, states={"a/b/h": 3, "a/c/h": 3})
    for order in (1, -1):
        mapping = dict([("a", "lstm"), ("a/b", "x")][::order])
        theirs = _carry().to_arrow()
        renamed = theirs.rename_columns({"lstm/h": "x/h", "lstm/c": "lstm/c/h"})
        theirs = renamed.replace_schema_metadata(theirs.schema.metadata)
        got = from_arrow(theirs, layout, _initial(layout), "f", mapping).to_arrow()
        assert got.column("a/b/h").equals(theirs.column("x/h"))
        assert got.column("a/c/h").equals(theirs.column("lstm/c/h"))


def test_held_rows_that_find_no_place_are_noted() -> None:
    notes: list[str] = []
    from_arrow(_fixed().to_arrow(), replace(FIXED, pending=()), {}, "f", notes=notes)
    assert notes == ['1 rows held by emit = "final" in the state table are not written']


def _with(name: str, values: pa.Array, table: pa.Table | None = None) -> pa.Table:
    table = _carry(2).to_arrow() if table is None else table
    return table.set_column(table.schema.get_field_index(name), name, values)


def _meta(name: str, value: bytes) -> pa.Table:
    table = _carry(2).to_arrow()
    metadata = {**table.schema.metadata, b"streamrnn." + name.encode(): value}
    return table.replace_schema_metadata(metadata)


H = pa.list_(pa.float32(), 3)
NAN, INF = float("nan"), float("inf")
TIME = CARRY.time
ROW_1 = r"row 1 \(from 0\): stream k='s1', day=1970-01-01 00:00:01: "


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (_carry().to_arrow().drop_columns(["lstm/c"]), "column 'lstm/c' not found"),
        (_carry().to_arrow().drop_columns(["last_time"]), "column 'last_time' not found"),
        (_carry(2).to_arrow().replace_schema_metadata(), "without streamrnn metadata"),
        (_meta("format_version", b"\xff\xfe"), "received format version"),
        (_meta("fingerprint", b"\xff\xfe"), "state of another model"),
        (_with("k", pa.array(["a", None])), r"row 1 \(from 0\): stream k=None, .*'k': .* is null"),
        (_with("k", pa.array([1, 2])), "column 'k': expected string, received int64"),
        (_with("steps", pa.array([1, None])), ROW_1 + "column 'steps': .* received null"),
        (_with("steps", pa.array([1, -1])), ROW_1 + r"column 'steps': .* from 0 to 2\*\*62"),
        (_with("steps", pa.array([1, 2**62 + 1])), ROW_1 + r"column 'steps': .* from 0 to 2\*\*62"),
        (_with("steps", pa.array([1.0, 2.0])), "'steps': expected int64, received double"),
        (_with("lstm/h", pa.array([[1, 2, 3], None], H)), ROW_1 + "column 'lstm/h': state is null"),
        (
            _with("lstm/h", pa.array([[1, 2, 3], [1, None, 2]], H)),
            ROW_1 + ".* expected numbers, received null",
        ),
        (_with("lstm/h", pa.array([[1, 2, 3], [1, NAN, 2]], H)), ROW_1 + ".* NaN or infinity"),
        (_with("lstm/h", pa.array([[1, 2, 3], [1, INF, 2]], H)), ROW_1 + ".* NaN or infinity"),
        (_with("lstm/h", pa.array([[1, 2]] * 2, pa.list_(pa.float32(), 2))), r"expected .*\[3\]"),
        (
            _with("lstm/h", pa.array([[1, 2, 3], [1, 2]], pa.list_(pa.float32()))),
            ROW_1 + "column 'lstm/h': expected lists of size 3, received size 2",
        ),
        (
            _with("lstm/h", pa.array([[1, 2, 3], None], pa.large_list(pa.float32()))),
            ROW_1 + ".*is null",
        ),
        (_with("lstm/h", pa.array([[1.0, 2, 3]] * 2)), "expected .*, received list<item: double>"),
        (_with("k", pa.array([b"s0", b"s1"])), "'k': expected string, received binary"),
        (
            _with("steps", pa.array([1, 2**63], pa.uint64())),
            "int64, received uint64, .*without loss",
        ),
        (_with("last_time", pa.array([1.0, 2.0])), r"expected timestamp\[s.*received double"),
        (_with("last_time", pa.array([1, 2], pa.timestamp("us", "UTC"))), "without loss"),
        (_with("last_time", pa.array([1, 2], pa.timestamp("s", "Europe/Berlin"))), "expected"),
        (_with("previous/a", pa.array([1, NAN], pa.float32())), ROW_1 + ".*'previous/a': .* NaN"),
        (_with("previous/i", pa.array(["x", "y"])), "'previous/i': expected int64"),
        (_carry(2).to_arrow().append_column("lstm/h", pa.array([1, 2])), "'lstm/h': .* found 2"),
        (
            _carry(2).to_arrow().append_column("k", pa.array([1, 2])),
            "'k': expected once, found 2 times",
        ),
        (
            pa.concat_tables([_carry(2).to_arrow()] * 2),
            r"row 2 \(from 0\): stream k='s0', .* row 0 has the same key \(2 of 4 rows\)",
        ),
    ],
)
@pytest.mark.parametrize("mapping", [None, {"lstm": "lstm"}], ids=["plain", "mapped"])
def test_tables_that_do_not_belong_are_refused(
    table: pa.Table, message: str, mapping: dict[str, str] | None
) -> None:
    """Where, which column, which stream; expected and received."""
    if mapping and ("another model" in message or "column 'last_time' not found" in message):
        from_arrow(table, CARRY, _initial(CARRY), "here.parquet", mapping)
        return
    with pytest.raises(StateError, match=f"here.parquet: .*{message}"):
        from_arrow(table, CARRY, _initial(CARRY), "here.parquet", mapping)


ITEM = pa.list_(pa.float32(), 2)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (MATRIX, [[], [[1, 2], None], []], "row 1 .*a waiting value is null"),
        (MATRIX, [[], [[1, 2], [1, None]], []], "row 1 .*received null"),
        (MATRIX, [[], [[1, 2], [1, NAN]], []], "row 1 .*received NaN"),
        (MATRIX, [[], [], [[1, 2]] * 4], "row 2 .*expected at most 3 rows .* received up to 4"),
        ("i", [[], [1], []], "row 1 .*number of waiting rows differs"),
        ("s", [[], ["a", None], ["a"] * 3], "row 1 .*a waiting value is null"),
    ],
)
def test_rows_that_cannot_wait_are_refused(name: str, values: list[Any], message: str) -> None:
    table = _fixed().to_arrow()
    column = pa.array(values, pa.list_(FIXED.waiting[name]))
    with pytest.raises(StateError, match=f"f: {message}"):
        from_arrow(_with(f"waiting/{name}", column, table), FIXED, {}, "f")


def test_a_row_that_waits_and_is_too_short_is_refused() -> None:
    """In lists that may be of any length; the row is that of the table."""
    column = pa.array([[], [[1, 2], [1]], [[1, 2]]], pa.list_(pa.list_(pa.float32())))
    table = _with(f"waiting/{MATRIX}", column, _fixed().to_arrow())
    with pytest.raises(StateError, match=r"row 1 .*expected lists of size 2, received size 1"):
        from_arrow(table, FIXED, {}, "f")


def test_more_waiting_rows_than_a_window_has_are_refused() -> None:
    """A table of windows with more steps."""
    with pytest.raises(StateError, match=r"row 2 .* expected at most 2 rows .* received up to 3"):
        from_arrow(_fixed().to_arrow(), replace(FIXED, waiting_rows=2), {}, "f")


def test_rows_that_wait_are_held_to_the_windows() -> None:
    """After 7 steps of windows of 4 rows, every 3 rows, the last of the first waits, and 3 more."""
    layout = replace(FIXED, stride=3)
    assert waiting_after(np.arange(9), 4, 3).tolist() == [0, 1, 2, 3, 1, 2, 3, 1, 2]
    table = _fixed()
    slots = np.arange(3)
    table.advance(slots, np.array([0, 5, 6]), None, {})
    exported = table.to_arrow()
    assert from_arrow(exported, layout, {}, "f").to_arrow().equals(exported)
    table.advance(slots[1:2], np.array([4]), None, {})
    with pytest.raises(StateError, match=r"row 1 .*steps = 4, stride = 3: the state is from other"):
        from_arrow(table.to_arrow(), layout, {}, "f")


def test_a_held_row_needs_its_place() -> None:
    table = _fixed()
    kept = {"_row": pa.array([7]), "_computed": pa.array([None], pa.bool_())}
    fields = [
        *table.layout.pending,
        pa.field("_row", pa.int64()),
        pa.field("_computed", pa.bool_()),
    ]
    table.layout = replace(FIXED, pending=tuple(fields))
    slots, rows = table.held
    assert rows is not None
    columns = [*rows.columns, *kept.values()]
    table.hold(Held(slots, pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))))
    with pytest.raises(StateError, match=r"row 2 .*'pending': _computed of the held row is null"):
        from_arrow(table.to_arrow(), table.layout, {}, "f")


@pytest.mark.parametrize("layout", [CARRY, replace(FIXED, stride=2)], ids=["carry", "fixed"])
def test_a_layout_is_read_from_its_own_schema(layout: Layout) -> None:
    """What `state import` holds a table to."""
    again = Layout.of(layout.schema(), layout.waiting_rows, layout.stride)
    assert again == replace(layout, keys=again.keys, pending=again.pending)
    assert again.schema().equals(layout.schema(), check_metadata=True)


def test_each_state_has_a_type_of_its_own() -> None:
    """In memory, in Arrow, and in the layout that is read from there; all of today are float32."""
    layout = replace(CARRY, types={"lstm/c": pa.float64()})
    assert Layout.of(layout.schema(), 0, 0).types == layout.types
    table = from_arrow(_wide(_carry().to_arrow()), layout, None, "f")
    assert {n: table.states(n).dtype for n in layout.states} == {
        "lstm/h": np.float32,
        "lstm/c": np.float64,
    }
    assert table.to_arrow() == _wide(_carry().to_arrow())
    table.move(np.array([3, 1]), np.array([False, True]), lambda states: states["lstm/c"].fill(0.1))
    assert table.states("lstm/c")[[1, 3]].tolist() == [[0.1] * 3] * 2
    with pytest.raises(StateError, match=r"'lstm/c': expected fixed_size_list<item: double>\[3\]"):
        from_arrow(_with("lstm/c", pa.array([[1, 2]] * 2)), layout, None, "f")


def _wide(table: pa.Table) -> pa.Table:
    kind = pa.list_(pa.float64(), 3)
    return _with("lstm/c", pa.array(table.column("lstm/c").to_pylist(), kind), table)


def test_a_layer_named_like_a_column_of_the_table_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'previous/a'. Rename the layer"):
        replace(CARRY, states={"previous/a": 3})


def test_a_key_named_like_a_column_of_the_table_is_refused() -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match="column 'steps' has the name of a column of the state"):
        replace(CARRY, keys=(pa.field("steps", pa.int64()),))


def test_gather_copies_and_a_fresh_lane_has_the_initial_state() -> None:
    """The table changes when it is scattered to, not before; other rows never."""
    table = _carry()
    before = table.to_arrow()
    slots = np.array([3, 1])
    out = {name: np.empty((2, 3), np.float32) for name in CARRY.states}
    table.gather(slots, np.array([False, True]), out)
    assert out["lstm/h"][0].tolist() == table.states("lstm/h")[3].tolist()
    assert out["lstm/h"][1].tolist() == [0.5] * 3
    out["lstm/h"] += 1
    assert table.to_arrow().equals(before)
    table.scatter(slots, out)
    after = table.to_arrow()
    keep = pa.array([0, 2, 4])
    assert after.take(keep).equals(before.take(keep))
    assert after.column("lstm/h")[3].as_py() == pytest.approx(
        [x + 1 for x in before.column("lstm/h")[3].as_py()]
    )


def test_what_reading_gives_is_no_way_to_write() -> None:
    """Copies, or memory that refuses it: the table is the only writer of a stream's memory."""
    table = _carry()
    before = table.to_arrow()
    with pytest.raises(ValueError, match="read-only"):
        table.states("lstm/h")[0, 0] = 9
    table.steps(ALL)[:] = 9
    for array in (*table.last_times(ALL), *table.previous("i", ALL)):
        array[:] = 9
    assert table.to_arrow().equals(before)
    fixed = _fixed()
    before, slots = fixed.to_arrow(), np.arange(3)
    fixed.waiting_counts(slots)[:] = 1
    fixed.waiting("i", slots, np.array([0, 2, 3]))[:] = 9
    with pytest.raises(ValueError, match="read-only"):
        fixed.held.slots[0] = 1
    assert fixed.to_arrow().equals(before)


def test_states_are_one_array_that_new_streams_do_not_move() -> None:
    """A view of the table, from its first streams to its last: no call copies all of them."""
    table = StateTable(Layout((pa.field("k", pa.int64()),), None, {"h": 4}), None)
    table.find([pa.array(np.arange(5_000))])
    first = table.states("h")
    table.find([pa.array(np.arange(200_000))])
    assert table.states("h").shape == (200_000, 4)
    table.scatter(np.array([4_999, 199_999]), {"h": np.array([[1] * 4, [2] * 4], np.float32)})
    assert first[4_999].tolist() == [1] * 4
    assert table.states("h")[199_999].tolist() == [2] * 4


def test_what_is_handed_out_does_not_change_with_the_table() -> None:
    """A user keeps the state of yesterday while today's rows are scored."""
    table = _carry()
    kept = table.to_arrow()
    text = kept.to_pydict()
    nines = np.full(5, 9)
    table.scatter(ALL, {"lstm/h": np.full((5, 3), 9, np.float32)})
    table.advance(ALL, nines, nines, {"i": (nines, nines > 0)})
    assert kept.to_pydict() == text


@pytest.mark.parametrize("make", ["carry", "fixed"])
@pytest.mark.parametrize("seed", range(3))
def test_a_copy_is_the_table_as_it_was_whatever_is_written_before_it_ends(
    make: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at once, of which one begins later: slices of some streams, and writes between them."""
    monkeypatch.setattr(arrays, "_SLICE", 300)
    rng = np.random.default_rng(seed)
    table = _carry(40) if make == "carry" else _fixed()
    number = [1000]

    def write() -> None:
        if rng.random() < 0.2 and table.streams > 3:
            hold(ALL)
            table.drop(np.sort(rng.permutation(table.streams)[:2]))
        slots = rng.permutation(table.streams)[: int(rng.integers(1, 4))]
        for work in rng.permutation(len(works))[:2]:
            works[work](slots)

    def advance(slots: Any) -> None:
        values = rng.integers(0, 9, len(slots))
        previous = {"i": (values, values > 4)} if "i" in table.layout.previous else {}
        table.advance(slots, values, values, previous, seen=values > 2)

    def scatter(slots: Any) -> None:
        names = table.layout.states
        table.scatter(slots, {n: rng.random((len(slots), 3), np.float32) for n in names})

    def move(slots: Any) -> None:
        if table.layout.states:
            slots = np.sort(slots)
            table.move(slots, slots > 7, lambda views: views["lstm/h"].fill(9))

    def wait(slots: Any) -> None:
        if table.layout.waiting:
            counts = rng.integers(0, 3, len(slots))
            total = int(counts.sum())
            matrix = rng.random((total, 2), np.float32)
            rows = {MATRIX: matrix, "i": np.arange(total), "s": np.full(total, "z", object)}
            table.wait(slots, counts, rows)

    def add(slots: Any) -> None:
        number[0] += 1
        day = pa.array([number[0] * 86_400_000], pa.int64())
        kind = table.layout.keys[-1].type
        keys = (
            [pa.array([f"s{number[0]}"]), day.cast(kind)] if make == "carry" else [day.cast(kind)]
        )
        table.find(keys)

    def hold(slots: Any) -> None:
        table.hold(Held(np.zeros(0, np.int64), None))

    works = [advance, scatter, move, wait, add, hold, table.reset]
    first, expected = table.copied(), table.to_arrow()
    slots = np.flatnonzero(rng.random(table.streams) < 0.3)
    some, of_them = table.copied(slots), table.to_arrow(slots)
    write()
    second, later = table.copied(), table.to_arrow()
    monkeypatch.setattr(arrays.time, "sleep", lambda _: write())
    assert first.finish().equals(expected, check_metadata=True)
    assert some.schema.equals(of_them.schema, check_metadata=True)
    assert some.finish().equals(of_them, check_metadata=True)
    assert table.copied(slots[:0]).finish().equals(table.to_arrow(slots[:0]), check_metadata=True)
    assert second.finish().equals(later, check_metadata=True)
    assert not table.to_arrow().equals(expected)


def test_only_what_is_dirty_is_handed_out_for_a_commit() -> None:
    """New streams are dirty; a stream of a change that failed comes anew as a new one."""
    table = _carry(3)
    assert table.dirty().tolist() == [0, 1, 2]
    table.mark_clean()
    keys = [pa.array(["new"]), pa.array([0], pa.int64()).cast(pa.timestamp("s"))]

    def fail() -> Any:
        slots = table.find(keys)
        table.advance(slots, slots + 2, slots, {"a": (slots, slots > 0)})
        table.scatter(slots, {"lstm/h": np.full((1, 3), 7, np.float32)})
        raise DataError("late")

    with pytest.raises(DataError, match="late"):
        table.change(fail)
    assert table.find(keys, add=False).tolist() == [-1]
    assert table.find(keys).tolist() == [3]
    assert table.dirty().tolist() == [3]
    row = table.to_arrow(np.array([3])).to_pylist()[0]
    assert (row["steps"], row["last_time"], row["previous/a"]) == (0, None, None)
    assert row["lstm/h"] == [0.5] * 3


def test_files_that_are_no_state_tables_are_told(tmp_path: Path) -> None:
    """Another suffix, nothing there, something else there."""
    with pytest.raises(ConfigError, match=r"ending in \.parquet or \.arrow"):
        write_state_file(_carry().to_arrow(), str(tmp_path / "t.csv"))
    with pytest.raises(MissingFileError, match="no such state table"):
        read_state_file(str(tmp_path / "t.arrow"))
    for suffix in (".arrow", ".parquet"):
        (tmp_path / f"t{suffix}").write_bytes(b"something else" * 10)
        with pytest.raises(DataError, match="not a readable state table"):
            read_state_file(str(tmp_path / f"t{suffix}"))


def test_no_line_of_python_runs_stream_by_stream() -> None:
    """They are found, written out and read in by columns, some ten thousand streams at a time."""
    streams = 500_000
    _out_and_in_again(500)  # compiles what is compiled
    assert _lines_of(partial(_out_and_in_again, streams)) < streams / 20
    assert _lines_of(lambda: [str(stream) for stream in range(1000)]) > 1000


def _lines_of(work: Callable[[], object]) -> int:
    """Lines of Python that work runs, each turn of a loop counted, and functions that they call."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before, profiled = sys.gettrace(), sys.getprofile()
    sys.settrace(trace)
    sys.setprofile(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        sys.setprofile(profiled)
    return count


def _out_and_in_again(streams: int) -> None:
    layout = Layout((pa.field("k", pa.string()),), None, {"h": 4}, waiting={"i": pa.int64()})
    layout = replace(layout, waiting_rows=2)
    table = StateTable(layout)
    everyone = np.arange(streams)
    table.find([pa.array(everyone).cast(pa.string())])
    table.wait(everyone, np.ones_like(everyone), {"i": everyone})
    exported = table.to_arrow()
    assert (
        from_arrow(exported, layout, {"h": np.zeros(4, np.float32)}, "f")
        .to_arrow()
        .equals(exported)
    )


def test_streams_found_ahead_leave_the_states_of_others_alone() -> None:
    """As when a record batch is prepared while the one before it is computed."""
    table = StateTable(CARRY, _initial(CARRY))

    def keys(*numbers: int) -> list[pa.Array]:
        days = pa.array(numbers, pa.int64()).cast(pa.timestamp("s"))
        return [pa.array([f"s{i}" for i in numbers]), days]

    first = table.find(keys(0, 1, 2), room=False)
    table.find(keys(3, 1, 4), room=False)
    table.make_room(3)
    table.scatter(first, {name: np.full((3, 3), 7, np.float32) for name in CARRY.states})
    last = table.find(keys(*range(2000)), room=False)
    table.make_room(5)
    table.make_room(2000)
    for name in CARRY.states:
        array = table.states(name)
        assert (array[:3] == 7).all()
        assert (array[3 : len(last)] == 0.5).all()


def test_streams_of_a_change_that_failed_begin_anew() -> None:
    """Their room in the arrays is used again, and holds what the change wrote."""
    table = _carry(2)
    before = table.to_arrow()
    days = pa.array(np.arange(5), pa.int64()).cast(pa.timestamp("s"))
    keys = [pa.array([f"s{i}" for i in range(5)]), days]

    def fail() -> Any:
        slots = table.find(keys)
        table.scatter(slots[2:], {n: np.full((3, 3), 7, np.float32) for n in CARRY.states})
        raise DataError("late")

    with pytest.raises(DataError, match="late"):
        table.change(fail)
    table.find(keys)
    assert table.to_arrow().slice(0, 2).equals(before)
    for name in CARRY.states:
        assert (table.states(name)[2:5] == 0.5).all()


def _dropped(table: StateTable, slots: list[int]) -> list[dict[str, Any]]:
    """What is left, by key, when the streams of these slots are dropped."""
    rows = table.to_arrow().to_pylist()
    return sorted((row for slot, row in enumerate(rows) if slot not in slots), key=_key)


def _key(row: dict[str, Any]) -> Any:
    return row["k"], row["day"]


@pytest.mark.parametrize("slots", [[], [0], [4], [1, 2], [3, 4], [0, 4], [0, 1, 2, 3], [*range(5)]])
def test_dropped_streams_are_gone_and_new_ones_begin_in_their_slots(slots: list[int]) -> None:
    """The last ones move there, with all they have, and are found; only moved ones are dirty."""
    table = _carry()
    table.mark_clean()
    expected = _dropped(table, slots)
    keys = table.key_arrays()
    table.drop(np.array(slots, np.int64))
    assert sorted(table.to_arrow().to_pylist(), key=_key) == expected
    assert len(table) == 5 - len(slots)
    assert table.dirty().tolist() == [slot for slot in slots if slot < len(table)]
    found = table.lookup(keys)
    assert [slot for slot in range(5) if found[slot] < 0] == slots
    again = table.find(keys)
    assert sorted(again.tolist()) == list(range(5))
    for slot in slots:
        row = table.to_arrow(again[[slot]]).to_pylist()[0]
        assert (row["steps"], row["last_time"], row["previous/s"]) == (0, None, None)
        assert row["lstm/h"] == row["lstm/c"] == [0.5] * 3


@pytest.mark.parametrize("seed", first_quick(range(3)))
def test_any_history_of_streams_leaves_what_a_dict_has(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New streams, rows, lookups and drops, with keys of any length in two columns.

    Slow: more draws.
    """
    monkeypatch.setattr(table_module, "_TOGETHER", 7)
    rng = np.random.default_rng(seed)
    fields = pa.field("k", pa.string()), pa.field("n", pa.int64())
    table = StateTable(Layout(fields, pa.int64(), {"h": 1}), None)
    known: dict[tuple[str, int], tuple[int, float]] = {}
    renewed: list[KeyIndex] = []
    become = KeyIndex.become

    def counted(index: KeyIndex, other: KeyIndex) -> None:
        become(index, other)
        renewed.append(other)

    monkeypatch.setattr(KeyIndex, "become", counted)
    for time in range(400):
        texts = [str(n) * int(n % 4 + 1) for n in rng.integers(0, 3000, rng.integers(1, 40))]
        keys = list(dict.fromkeys((text, len(text) % 3) for text in texts))
        arrays = [pa.array([k for k, _ in keys]), pa.array([n for _, n in keys], pa.int64())]
        wanted = [known.get(key, (-1, 0.0))[0] for key in keys]
        found = table.lookup(arrays)
        assert [table.steps(found[[i]])[0] if s >= 0 else -1 for i, s in enumerate(found)] == wanted
        slots, values = table.find(arrays), rng.random((len(keys), 1), np.float32)
        table.advance(slots, np.full(len(keys), time), np.full(len(keys), time), {})
        table.scatter(slots, {"h": values})
        known |= {key: (time, float(values[i, 0])) for i, key in enumerate(keys)}
        if rng.random() < 0.1:
            table.mark_clean()
            dropped = table.drop_idle(10)
            gone = [key for key, (last, _) in known.items() if last < time - 20]
            assert dropped == (len(gone) if 8 * len(gone) >= max(8, len(known)) else 0)
            known = {k: v for k, v in known.items() if not dropped or k not in gone}
        assert len(table) == len(known)
    rows = table.to_arrow().to_pylist()
    assert {(r["k"], r["n"]): (r["steps"], r["h"][0]) for r in rows} == known
    some = rng.permutation(len(table))[:9]
    assert table.to_arrow(some).to_pylist() == [rows[slot] for slot in some]
    assert len(renewed) > 3


def test_a_drop_holds_the_lock_for_a_few_streams_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others add streams between two steps, and rows to such that were to be dropped."""
    monkeypatch.setattr(table_module, "_TOGETHER", 10)
    table = _timed([*[0] * 95, *[1000] * 5])
    table.mark_clean()
    steps = []
    for dropped in table.dropping(100):
        steps.append(dropped)
        new, old = [pa.array([1000 + len(steps)])], [pa.array([len(steps)])]
        for key in (new, old):
            table.advance(table.find(key), np.array([1]), np.array([1000]), {})
    assert max(steps) == 10
    assert sum(steps) == 95 - 8  # 1 to 8 had had a row when it was their turn, 9 and 10 came again
    left = sorted(table.to_arrow()["k"].to_pylist())
    assert left == [*range(1, 11), *range(95, 100), *range(1001, 1001 + len(steps))]
    assert table.lookup([pa.array(left)]).tolist() == [
        table.to_arrow()["k"].to_pylist().index(key) for key in left
    ]


def test_a_drop_that_is_interrupted_at_any_line_has_happened_or_not() -> None:
    slots = [0, 2, 3]
    before = _carry().to_arrow()
    whole = _carry()
    whole.drop(np.array(slots))
    after, outcomes = whole.to_arrow(), set()
    for line in count(1):
        table = _carry()
        if not _interrupted_at(line, partial(table.drop, np.array(slots))):
            break
        found = table.to_arrow()
        assert found.equals(before) or found.equals(after), line
        outcomes.add(found.num_rows)
        assert table.lookup(_carry().key_arrays()).max() < len(table)
    assert outcomes == {5, 2}


def _interrupted_at(line: int, work: Callable[[], object]) -> bool:
    """Interrupt a change of a state table at its n-th line; return False if it had ended."""
    left = line

    def interrupt(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if "/stream/states/" not in frame.f_code.co_filename:
            return None
        left -= event == "line"
        if not left:
            sys.settrace(None)
            raise KeyboardInterrupt
        return interrupt

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def _timed(times: list[int | None]) -> StateTable:
    """Streams 0, 1, … with their last times (None: none)."""
    table = StateTable(Layout((pa.field("k", pa.int64()),), pa.int64(), {"h": 1}), None)
    slots = table.find([pa.array(np.arange(len(times)))])
    seen = np.array([time is not None for time in times])
    table.advance(slots, slots, np.array([time or 0 for time in times]), {}, seen)
    return table


def test_idle_streams_are_dropped_when_they_are_many_have_no_new_row_and_hold_none() -> None:
    times = [100, None, 59, 60, -(2**63), 80]
    table = _timed(times)
    table.mark_clean()
    assert table.newest is None
    table.advance(np.array([3]), np.array([1]), np.array([59]), {})
    table.hold(Held(np.array([5]), pa.RecordBatch.from_pydict({"y": [1]})))
    assert table.drop_idle(20) == 0
    table.hold(Held(np.zeros(0, np.int64), None))
    assert table.drop_idle(20) == 2  # slots 2 and 4: 3 has had a row
    assert table.newest == 100
    assert table.to_arrow()["k"].to_pylist() == [0, 1, 5, 3]
    table.mark_clean()
    assert table.drop_idle(2**63) == 0
    assert table.drop_idle(20) == 1
    many = _timed([*range(1000, 1014), 5, 100])
    many.mark_clean()
    assert many.drop_idle(400) == 2  # an eighth
    few = _timed([*range(1000, 1015), 5])
    few.mark_clean()
    assert few.drop_idle(400) == 0


def test_times_loaded_have_a_newest_one() -> None:
    loaded = StateTable.from_arrow(_timed([7, None, 9]).to_arrow())
    assert loaded.newest == 9
    assert StateTable.from_arrow(_timed([None]).to_arrow()).newest is None
