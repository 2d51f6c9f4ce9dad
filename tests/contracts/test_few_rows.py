"""Few rows a call give the bits of many: for every layer, kind, emit mode and rule for rows.

Plain rows, about which nothing is to be decided, are read by one kernel; others take the long way.
Segments of equal length go through the model in one window as they stand, others are packed into
lanes; the rules for rows are the same functions on both ways. So a rule that is changed changes
both. `STREAMRNN_LOGS=50 pytest tests/contracts/test_few_rows.py` takes more logs than two.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pytest
from contracts import models
from contracts.declared import holding
from contracts.rows_graphs import LAYERS
from contracts.rows_layers import READS
from contracts.rows_pipelines import EMITS, KINDS
from nn.layers.kinds import assert_same
from selection import first_quick, slow

from streamrnn import Pipeline
from streamrnn.models import StepPlan, StepRunner
from streamrnn.stream.operators import CarryOperator, Emitter, carry
from streamrnn.stream.states import StateTable
from streamrnn.stream.windows import by_stream
from streamrnn.stream.windows.sorted_rows import NO_ROWS

pytestmark = pytest.mark.usefixtures("workdir")

LOGS = int(os.environ.get("STREAMRNN_LOGS", "2"))
Tables = dict[str, dict[str, Any]]
_CARRIED = {"nulls": "previous", "reset": "new", "max_gap": "1h"}
_LENIENT = {"bad": "reject", "max_rejects": 1000, "nulls": "previous"}
RULES: dict[str, Tables] = {
    "previous, resets, gaps": {"source": _CARRIED},
    "idle": {"source": _CARRIED, "state": {"idle": "40m"}, "output": {"warmup": 2}},
    "skip": {"source": {"nulls": "skip", "late": "apply"}},
    "a number": {"source": {"nulls": 0.5}},
    "limits": {"source": {**_LENIENT, "valid": [-1, 2], "late": "drop"}},
    "rejects": {"source": {**_LENIENT, "late": "reject", "repeated": "reject"}},
    "repeated": {"source": {**_LENIENT, "late": "drop", "repeated": "skip"}},
    "warmup": {"source": _CARRIED, "output": {"warmup": 3}},
    "time features": {"source": {**_CARRIED, "time_features": ["hour", "day_of_week"]}},
    "int16": {"source": _CARRIED, "model": {"precision": "int16"}},
    "int8": {"source": _CARRIED, "model": {"precision": "int8"}},
    "gaps": {"source": {"nulls": "previous", "max_gap": "1h", "late": "apply"}},
    "clip": {"source": {**_LENIENT, "valid": [-1, 2], "clip": [-0.5, 1.5], "late": "drop"}},
    "two keys": {"source": {**_CARRIED, "key": ["id", "part"]}},
    "numbers as keys": {"source": {**_CARRIED, "key": "part"}},
}
MODES = [
    (kind, emit)
    for kind, emit in product(KINDS, EMITS)
    if not kind.startswith("whole") and not (kind.startswith("independent") and emit == "last")
]


def log(rows: int = 700, seed: int = 7, *, late: bool = True) -> pa.RecordBatch:
    """Nulls, resets and gaps; with `late`, late, repeated and invalid rows."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 90, rows) ** 2 // 90  # some streams have many rows, most a few
    minutes = np.cumsum(rng.integers(0, 3, rows)) - rng.integers(0, 200 if late else 1, rows)
    a, b = rng.normal(size=(2, rows))
    a[rng.random(rows) < 0.02 * late] = np.inf
    columns = {
        "id": pa.array([f"s{i}" for i in ids]),
        "part": pa.array(ids % 3),
        "t": pa.array(minutes * 60_000_000).cast(pa.timestamp("us", "UTC")),
        "a": pa.array(a, mask=rng.random(rows) < 0.05),
        "b": pa.array(b, mask=rng.random(rows) < 0.05),
        "new": pa.array(rng.random(rows) < 0.2),
    }
    return pa.record_batch(columns)


def pipeline(tables: Tables, kind: str = "carry", emit: str = "every") -> Pipeline:
    output: dict[str, Any] = {"emit": emit, **tables.get("output", {})}
    if emit == "last":
        output["last_of"] = EMITS[emit].last_of
    source = dict(tables["source"])
    limits = {name: source.pop(name) for name in ("valid", "clip") if name in source}
    if limits:
        source["features"] = [{"name": "a", **limits}, "b"]
    features = 2 + 2 * len(source.get("time_features", ()))
    logs.small_model("LSTM", units=9, features=features, **KINDS[kind].model).save("m.safetensors")
    data = logs.config(
        "unused",
        "m.safetensors",
        None,
        output=output,
        window={"kind": kind.partition("/")[0], **KINDS[kind].window},
        source=source,
        model=tables.get("model", {}),
        state=tables.get("state", {}),
    )
    data["source"].pop("path")
    return Pipeline.from_dict(data)


def cuts(rows: int, seed: int) -> Iterator[slice]:
    """Mostly few rows, many now and then."""
    rng, first = np.random.default_rng(seed), 0
    while first < rows:
        size = int(rng.integers(70, 150) if rng.random() < 0.02 else rng.integers(0, 9))
        yield slice(first, first + size)
        first += size


def result(one: Pipeline, batches: list[pa.RecordBatch]) -> dict[str, Any]:
    """All that a caller sees: output rows, rejects, counts, state."""
    out, rejects = [], []
    for batch in batches:
        out.append(one.process(batch))
        if one.rejects is not None:
            rejects.append(one.rejects)
    if one.config.output.emit == "final":
        out = [one.finish()]
    return {
        "output": pa.Table.from_batches(out).combine_chunks(),
        "rejects": pa.Table.from_batches(rejects).combine_chunks() if rejects else None,
        "counts": one.counts,
        "state": one.state.to_arrow(),
    }


def outcomes(
    tables: Tables, kind: str = "carry", emit: str = "every", seed: int = 1
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What few rows a call give, and what all rows in one call do."""
    rows = log(seed=6 + seed, late=tables["source"].get("bad") == "reject")
    parts = [rows[cut] for cut in cuts(len(rows), seed)]
    few = result(pipeline(tables, kind, emit), parts)
    return few, result(pipeline(tables, kind, emit), [rows])


def assert_equal(few: dict[str, Any], many: dict[str, Any]) -> None:
    for name, value in many.items():
        assert few[name] == value, name


def in_type(rows: pa.RecordBatch, name: str, kind: pa.DataType) -> pa.RecordBatch:
    """Return the rows with a column in another type; streams keep distinct keys."""
    column = rows.column(name)
    if name == "id":
        numbers = [int(text.removeprefix("s")) for text in column.to_pylist()]
        column = pa.array(numbers, pa.int32() if kind == pa.date32() else pa.int64())
        if kind == pa.binary(4):
            column = pa.array([b"%4d" % number for number in numbers])
        elif not (pa.types.is_temporal(kind) or pa.types.is_integer(kind)):
            column = column.cast(pa.string())
    if name == "t":  # hours and seconds as integers
        column = column.cast(pa.int64()) if kind != pa.uint16() else pa.array(range(len(column)))
    column = (
        column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind, False)
    )
    return rows.set_column(rows.schema.get_field_index(name), name, column)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> dict[bool, int]:
    """How many record batches were plain, and how many were not."""
    counts = {True: 0, False: 0}
    real = StateTable.plain

    def counted(*given: Any) -> Any:
        found = real(*given)
        counts[found is not None] += 1
        return found

    monkeypatch.setattr(StateTable, "plain", counted)
    return counts


# --- both ways ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", first_quick(holding(LAYERS, "cut")))
@pytest.mark.parametrize("steps", [1, 3])
def test_a_window_of_full_lanes_needs_no_lengths(name: str, steps: int) -> None:
    """Outputs and states of a layer on a stream, with == of bits. Slow: all layers but one."""
    row = LAYERS[name]
    runner = StepRunner(models.with_weights(row.made()))
    inputs = [np.ascontiguousarray(x[:, :steps]) for x in READS[row.reads]]
    lanes = len(inputs[0])
    one, two = runner.initial_state(lanes), runner.initial_state(lanes)
    for _ in range(2):
        found = runner.run(inputs, None, one)
        assert_same(found, runner.run(inputs, np.full(lanes, steps), two))
        assert_same([*one.values()], [*two.values()])


@pytest.mark.parametrize("name", holding(LAYERS, "cut"))
def test_a_plan_of_one_step_gives_the_bits_of_other_windows(name: str) -> None:
    """Step after step in the same arrays; what it returned before stays as it is."""
    row = LAYERS[name]
    runner = StepRunner(models.with_weights(row.made()))
    steps = [[np.ascontiguousarray(x[:, t : t + 1]) for x in READS[row.reads]] for t in range(3)]
    states = runner.initial_state(len(steps[0][0]))
    plan = StepPlan(runner, steps[2])
    for state, values in states.items():
        plan.states[state][:] = values
    outputs = [y for inputs in steps for y in plan.run(inputs)]
    assert_same(outputs, [y for inputs in steps for y in runner.run(inputs, None, states)])
    assert_same([*plan.states.values()], [*states.values()])


@pytest.mark.parametrize("name", RULES)
def test_a_rule_gives_few_rows_the_bits_of_many(name: str) -> None:
    few, many = outcomes(RULES[name])
    assert_equal(few, many)


@pytest.mark.parametrize(("kind", "emit"), MODES)
def test_a_kind_and_a_mode_give_few_rows_the_bits_of_many(kind: str, emit: str) -> None:
    few, many = outcomes(RULES["rejects"], kind, emit)
    assert_equal(few, many)
    assert few["rejects"].num_rows > 10


@slow
@pytest.mark.parametrize("seed", range(2, 2 + LOGS))
@pytest.mark.parametrize("name", RULES)
def test_any_cut_of_a_rule_gives_the_same_bits(name: str, seed: int) -> None:
    """Slow: more logs and ways to cut them for each rule, in every kind and mode."""
    for kind, emit in MODES:
        assert_equal(*outcomes(RULES[name], kind, emit, seed))


TYPES: dict[str, tuple[pa.DataType, ...]] = {
    "id": (
        *(pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()),
        *(pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.binary(4)),
        *(pa.date32(), pa.timestamp("s"), pa.timestamp("us", "UTC"), pa.decimal128(20, 2)),
        pa.dictionary(pa.int32(), pa.string()),  # decoded
    ),
    "a": (pa.float32(), pa.float64()),
    "t": (pa.timestamp("s"), pa.timestamp("ns", "UTC"), pa.int64()),
}
CONVERTED = {"a": pa.decimal128(20, 9), "t": pa.uint16()}
"""Types whose values are not read where they are."""


@pytest.mark.parametrize("kind", ["carry", "independent"])
@pytest.mark.parametrize(
    ("name", "type_"),
    [*((name, t) for name, some in TYPES.items() for t in some), *CONVERTED.items()],
    ids=str,
)
def test_a_type_gives_plain_rows_the_bits_of_others(
    kind: str, name: str, type_: pa.DataType, plain: dict[bool, int]
) -> None:
    """Plain record batches and others take turns, if the type can be read where it is.

    With kind independent none is: its windows need the rows that wait.
    """
    rows = in_type(log(late=False), name, type_)
    tables = {"source": _LENIENT}
    few = result(pipeline(tables, kind), [rows[cut] for cut in cuts(len(rows), 3)])
    can = kind == "carry" and type_ != CONVERTED.get(name)
    assert (min(plain.values()) > 20) == can
    assert_equal(few, result(pipeline(tables, kind), [rows]))


def test_few_and_many_rows_go_different_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests above compare one way with itself."""
    seen = {"few": 0, "packed": 0}
    few: Callable[..., Any] = CarryOperator._few
    pack = carry.pack_lanes

    def counted_few(*given: Any) -> Any:
        seen["few"] += 1
        return few(*given)

    def counted_pack(*given: Any) -> Any:
        seen["packed"] += 1
        return pack(*given)

    monkeypatch.setattr(CarryOperator, "_few", counted_few)
    monkeypatch.setattr(carry, "pack_lanes", counted_pack)
    rows = log()
    result(pipeline(RULES["rejects"]), [rows])
    assert seen == {"few": 0, "packed": 1}
    result(pipeline(RULES["rejects"]), [rows[cut] for cut in cuts(len(rows), 1)])
    assert seen["few"] > 20
    assert seen["packed"] > 5


# --- rules --------------------------------------------------------------------------------------

Change = Callable[[pytest.MonkeyPatch], None]


def _judged(**changes: Any) -> Change:
    real = by_stream.judge_times

    def mutant(*arguments: Any) -> Any:
        return real(*arguments)._replace(**changes)

    return lambda patch: patch.setattr(by_stream, "judge_times", mutant)


def _no_reset(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(by_stream, "resets", lambda rows, order, *_: (np.zeros(len(order), bool), {}))


def _no_idle(patch: pytest.MonkeyPatch) -> None:
    real = by_stream.resets

    def mutant(*arguments: Any) -> Any:
        given = list(arguments)
        given[-1] = replace(given[-1], max_gap=60 * 60_000_000, idle=None)  # that of the file
        return real(*given)

    patch.setattr(by_stream, "resets", mutant)


def _nothing_filled(patch: pytest.MonkeyPatch) -> None:
    real = by_stream.fill_nulls

    def mutant(*arguments: Any) -> Any:
        given = list(arguments)
        given[-2] = replace(given[-2], previous=frozenset())
        return real(*given)

    patch.setattr(by_stream, "fill_nulls", mutant)


def _none_rejected(patch: pytest.MonkeyPatch) -> None:
    real = by_stream.kept_and_rejected
    patch.setattr(by_stream, "kept_and_rejected", lambda *given: (real(*given)[0], NO_ROWS))


def _no_warmup(patch: pytest.MonkeyPatch) -> None:
    real = Emitter._by_row
    patch.setattr(Emitter, "_by_row", lambda self, *given: real(replace(self, warmup=0), *given))


def _every_row(patch: pytest.MonkeyPatch) -> None:
    real = Emitter.rows
    patch.setattr(Emitter, "rows", lambda self, *given: real(replace(self, last_of=1), *given))


MUTANTS: dict[str, tuple[str, str, Change]] = {
    "late": ("rejects", "every", _judged(late=None)),
    "repeated": ("repeated", "every", _judged(repeated=None)),
    "reset": ("previous, resets, gaps", "every", _no_reset),
    "idle": ("idle", "every", _no_idle),
    "nulls": ("previous, resets, gaps", "every", _nothing_filled),
    "rejected": ("rejects", "every", _none_rejected),
    "warmup": ("warmup", "every", _no_warmup),
    "emit": ("previous, resets, gaps", "last", _every_row),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_changed_rule_changes_both_ways(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule is written twice: it is changed in one place, and neither result is as before."""
    rule, emit, change = MUTANTS[name]
    tables = RULES[rule]
    before = outcomes(tables, emit=emit)
    change(monkeypatch)
    after = outcomes(tables, emit=emit)
    for old, new in zip(before, after, strict=True):
        with pytest.raises(AssertionError):
            assert_equal(new, old)
