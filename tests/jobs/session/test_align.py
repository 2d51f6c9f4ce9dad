"""Answers that line up: a row for each row, and why one has no output."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline, Sequential, layers
from streamrnn.errors import ConfigError, DataError, DTypeError, LateRowError
from streamrnn.outputs import read_states

pytestmark = pytest.mark.usefixtures("model_dir")

INDEPENDENT = {"window": {"kind": "independent", "steps": 4, "stride": 2}}


def pipeline(out: str | None = None, **tables: Any) -> Pipeline:
    return Pipeline.from_dict(logs.config("in", "m.safetensors", out, **tables))


def rows(*items: tuple[str | None, int, float | None]) -> pa.Table:
    """Rows of a key, a minute and a value."""
    minute = logs.random_log(1)["t"][0].as_py().replace(hour=0, minute=0)
    return pa.Table.from_pylist(
        [
            {"id": key, "t": minute.replace(minute=time), "a": a, "b": 1, "new": False}
            for key, time, a in items
        ],
        schema=logs.SCHEMA,
    )


def reasons(answer: pa.Table) -> list[str | None]:
    """The reasons of an answer, whose rows have values if they have none."""
    found = answer["reason"].to_pylist()
    assert [value is not None for value in answer["score"].to_pylist()] == [
        reason is None for reason in found
    ]
    return found


@pytest.mark.parametrize("late", ["error", "drop", "reject", "apply"])
@pytest.mark.parametrize("repeated", ["score", "skip", "reject", "error"])
@pytest.mark.parametrize("bad", ["error", "reject"])
def test_each_reason_under_each_policy(late: str, repeated: str, bad: str) -> None:
    """A refused row changes nothing: the others are scored as if it were not there."""
    source = {"late": late, "repeated": repeated, "bad": bad, "nulls": "skip"}
    data = rows(
        ("s", 5, 1.0), (None, 6, 1.0), ("s", 4, 1.0), ("s", 5, 2.0), ("s", 7, None), ("s", 8, 1.0)
    )
    job = pipeline("out", source=source)
    with job.session() as session:
        answer = session.process(data, align=True)
        counts = session.counts
    expected = [
        None,
        "rejected: column 'id': key is null",
        None if late == "apply" else "late",
        None if repeated == "score" else "repeated",
        "skipped",
        None,
    ]
    assert reasons(answer) == expected
    assert answer.select(["id", "t"]) == data.select(["id", "t"])
    assert (counts.rows, counts.rejected, counts.skipped, counts.repeated) == (6, 1, 1, 1)
    assert counts.dropped_late == (late != "apply")
    assert job.rejects is None
    assert not Path("out.rejects").exists()
    accepted = [r is None or r == "skipped" for r in expected]
    other = pipeline(source={**source, "late": "apply", "repeated": "score"})
    alone = other.process(data.filter(pa.array(accepted)))
    assert answer.filter(pa.array(accepted)).drop_columns(["reason"]) == alone
    assert read_states("out") == other.state.to_arrow()
    assert pq.read_table("out") == alone
    again = pipeline("out", source=source)
    with again.session() as session:
        assert session.process(rows(("s", 9, 1.0)), align=True)["reason"].to_pylist() == [None]


def test_a_limit_of_rejects_does_not_apply_and_is_not_used_up() -> None:
    job = pipeline(source={"bad": "reject", "max_rejects": 1})
    bad = rows(*[(None, 1, 1.0)] * 5)
    assert len(job.process(bad, align=True)) == 5
    assert job.rejects is None
    job.process(bad.slice(0, 1))
    with pytest.raises(DataError, match="max_rejects = 1"):
        job.process(bad.slice(0, 1))


def test_without_align_an_error_fails_the_call_and_the_state_is_untouched() -> None:
    job = pipeline()
    job.process(rows(("s", 5, 1.0)))
    before = job.state.to_arrow()
    for bad, error in (
        (rows(("s", 6, 1.0), (None, 7, 1.0)), DataError),
        (rows(("s", 4, 1.0)), LateRowError),
    ):
        with pytest.raises(error):
            job.process(bad)
    assert job.state.to_arrow() == before
    assert job.counts.rows == 1


def test_a_null_with_nothing_before_it_is_skipped() -> None:
    job = pipeline(source={"nulls": "previous"})
    answer = job.process(rows(("s", 1, None), ("s", 2, 1.0), ("s", 3, None)), align=True)
    assert reasons(answer) == ["skipped", None, None]


def test_warmup_and_waiting() -> None:
    steps = rows(*[("s", time, 1.0) for time in range(6)])
    for tables, expected in (
        ({"output": {"warmup": 2}}, ["warmup", "warmup", None, None, None, None]),
        (INDEPENDENT, [*["waiting"] * 3, None, "waiting", None]),
        ({"output": {"emit": "last", "last_of": 3}}, [*["waiting"] * 2, None] * 2),
        (
            {"output": {"emit": "last", "last_of": 2, "warmup": 2}},
            ["waiting", "warmup", "waiting", None, "waiting", None],
        ),
    ):
        answer = pipeline(**tables).process(steps, align=True)
        assert reasons(answer) == expected, tables
        written = pipeline(**tables).process(steps)
        if "emit" in tables.get("output", {}):
            emitted = [reason != "waiting" for reason in expected]
            answer = answer.filter(pa.array(emitted))
        assert answer.drop_columns(["reason"]) == written, tables


def test_rows_that_cannot_be_answered_name_the_column() -> None:
    data = rows(("s", 1, 1.0)).append_column("reason", pa.array(["x"]))
    with pytest.raises(ConfigError, match=r"align: the output has a column 'reason'"):
        pipeline(output={"columns": ["id", "reason"]}).process(data, align=True)
    with pytest.raises(ConfigError, match="align: the output has a column 'reason'"):
        pipeline(output={"names": ["reason"]}).process(data, align=True)
    assert len(pipeline(output={"names": ["reason"]}).process(data)) == 1


def test_kinds_of_data_and_no_rows() -> None:
    data = rows(("s", 1, 1.0), ("s", 0, 1.0))
    expected = pipeline().process(data, align=True)
    (batch,) = data.combine_chunks().to_batches()
    assert pa.table(pipeline().process(batch, align=True)) == expected
    dicts = pipeline().process(data.to_pylist(), align=True)
    assert dicts["reason"] == expected["reason"]
    for nothing in (data.slice(0, 0), []):
        answer = pipeline().process(nothing, align=True)
        assert (len(answer), answer.column_names) == (0, expected.column_names)


@pytest.mark.parametrize("seed", range(6))
def test_random_cuts_with_and_without_align(seed: int) -> None:
    """Rows that have an output, and the states, are those of calls without `align`."""
    rng = np.random.default_rng(seed)
    log = logs.random_log(300, streams=7, seed=seed, nulls=0.1, resets=0.03, jitter=6)
    keys = pa.array(log["id"].to_pylist(), mask=rng.random(300) < 0.03)
    log = log.set_column(0, "id", keys)
    tables: dict[str, Any] = [{}, INDEPENDENT, {"output": {"emit": "last", "last_of": 2}}][seed % 3]
    source = {"late": "drop", "repeated": "skip", "bad": "reject", "nulls": "previous"}
    source |= {"reset": "new", "max_gap": "40m"}
    plain = pipeline(source=source, **tables)
    aligned = pipeline("out", source=source, **tables)
    ends = sorted({300, *rng.integers(0, 300, 12).tolist()})
    outputs, answers = [], []
    with aligned.session() as session:
        start = 0
        for end in ends:
            outputs.append(plain.process(log.slice(start, end - start)))
            answers.append(session.process(log.slice(start, end - start), align=True))
            start = end
        counts = session.counts
    answer, output = pa.concat_tables(answers), pa.concat_tables(outputs)
    assert answer["t"] == log["t"]
    assert len(pc.unique(answer["reason"])) > 4
    scored = answer.filter(pc.is_null(answer["reason"])).drop_columns(["reason"])
    assert scored == output.filter(pc.is_valid(output["score"]))
    assert pq.read_table("out") == output
    assert read_states("out") == plain.state.to_arrow()
    assert counts == plain.counts


def test_a_value_that_its_column_cannot_hold_fails_no_other_row() -> None:
    """In Arrow data and in dicts; without `align` the call fails, and the state is untouched."""
    big = 2**40
    other = logs.SCHEMA.set(3, pa.field("b", pa.int64()))
    output = {"columns": ["id", "t", "b"]}
    job, alone = pipeline(output=output), pipeline(output=output)
    for each in (job, alone):
        each.process(rows(("s", 1, 1.0), ("r", 1, 1.0)))
    data = rows(("s", 2, 1.0), ("r", 2, 2.0), ("s", 3, 3.0)).cast(other)
    data = data.set_column(3, other.field(3), pa.array([1, big, -big]))
    before = job.state.to_arrow()
    with pytest.raises(DataError, match=r"row 3 .*column 'b': expected int32 .*cannot hold"):
        job.process(data)
    assert job.state.to_arrow() == before
    answer = job.process(data, align=True)
    reason = answer["reason"].to_pylist()
    assert reason[0] is None
    for text, value in zip(reason[1:], (big, -big), strict=True):
        assert text.startswith(
            f"rejected: column 'b': expected int32 as in earlier rows, received {value}"
        )
    assert answer["b"].to_pylist() == [1, None, None]
    assert answer["id"].to_pylist() == ["s", "r", "s"]
    wanted = alone.process(data.slice(0, 1).cast(logs.SCHEMA), align=True)
    assert answer.slice(0, 1).equals(wanted)
    assert job.state.to_arrow() == alone.state.to_arrow()


def test_a_dict_with_a_value_of_another_kind_fails_no_other_row() -> None:
    good = rows(("s", 1, 1.0), ("s", 2, 2.0), ("r", 2, 2.0)).to_pylist()
    job, alone = pipeline(), pipeline()
    for each in (job, alone):
        each.process(rows(("s", 0, 1.0)))
    time = good[0]["t"].replace(minute=9)
    odd = [
        {"id": 5, "t": time, "a": 1.0, "b": 1},
        {"id": "s", "t": "noon", "a": 1.0, "b": 1},
        {"id": "s", "t": time, "a": "warm", "b": 1},
        {"id": "s", "t": time, "a": [1.0], "b": 1},
        {"id": "s", "t": time.replace(tzinfo=None), "a": 1.0, "b": 1},
    ]
    mixed = [good[0], *odd[:3], good[1], *odd[3:], good[2]]
    before = job.state.to_arrow()
    with pytest.raises(DataError):
        job.process(mixed)
    assert job.state.to_arrow() == before
    answer = job.process(mixed, align=True)
    reason = answer["reason"].to_pylist()
    assert [text is None for text in reason] == [row in good for row in mixed]
    for text, name in zip(filter(None, reason), ("id", "t", "a", "a", "t"), strict=True):
        assert re.match(rf"rejected: (\[source\] features: )?column '{name}'", text)
    assert answer["id"].to_pylist() == ["s", None, "s", "s", "s", "s", "s", "r"]
    wanted = alone.process(good, align=True)
    assert answer.filter(pc.is_null(answer["reason"])).equals(wanted)
    assert job.state.to_arrow() == alone.state.to_arrow()
    assert (job.counts.rows, job.counts.rejected) == (9, 5)
    all_odd = job.process(odd, align=True)
    assert all_odd["reason"].null_count == 0
    with pytest.raises(DTypeError, match="expected a dict"):
        job.process([5], align=True)


def test_of_dicts_that_fit_alone_but_not_together_the_later_ones_are_refused() -> None:
    job, alone = pipeline(), pipeline()
    for each in (job, alone):
        each.process(rows(("s", 0, 1.0)))
    plain = rows(*(("s", minute, float(minute)) for minute in range(1, 9))).to_pylist()
    odd = {3: Decimal("0.5"), 4: "warm", 6: Decimal("1.5")}
    mixed = [row | ({"a": odd[i]} if i in odd else {}) for i, row in enumerate(plain)]
    answer = job.process(mixed, align=True)
    reason = answer["reason"].to_pylist()
    assert {i for i, text in enumerate(reason) if text is not None} == {*odd}
    expected = "rejected: column 'a': expected a float as in row 1, received a decimal"
    assert reason[3].startswith(f"{expected}: Decimal('0.5')")
    good = alone.process([row for i, row in enumerate(plain) if i not in odd], align=True)
    assert answer.filter(pc.is_null(answer["reason"])).equals(good)
    assert job.state.to_arrow() == alone.state.to_arrow()


@pytest.mark.parametrize("first", [False, True])
def test_a_dict_that_does_not_fit_fails_no_other_one(first: bool) -> None:
    """Without its key or time, or with a value that no row can have; also in the first call."""
    job, alone = pipeline(), pipeline()
    good = rows(("s", 1, 1.0), ("r", 1, 1.0)).to_pylist()
    text = {**good[0], "a": "warm"}
    if not first:
        for each in (job, alone):
            each.process(rows(("s", 0, 1.0)))
        for missing in ("id", "t"):
            row = {name: value for name, value in text.items() if name != missing}
            (fit,) = job.process([row | {"a": 1.0}], align=True)["reason"].to_pylist()
            assert (
                fit
                == f"rejected: column {missing!r}: {'key' if missing == 'id' else 'time'} is null"
            )
            both = job.process([row, row | {"a": 1.0}], align=True)["reason"].to_pylist()
            assert "expected number or boolean, received string" in both[0]
            assert both[1] == fit
    unkeyed = {name: value for name, value in good[0].items() if name != "id"}
    answer = job.process([text, unkeyed, *good], align=True)
    assert [reason is None for reason in answer["reason"].to_pylist()] == [False, False, True, True]
    assert answer.slice(2).equals(alone.process(good, align=True))
    assert job.state.to_arrow() == alone.state.to_arrow()


def test_dicts_without_a_key_cannot_be_the_first_rows() -> None:
    with pytest.raises(DataError, match="column 'id' not found"):
        pipeline().process([{"t": 1, "a": 1.0, "b": 2}], align=True)


def test_an_output_that_is_not_finite_fails_no_other_row() -> None:
    """The row that caused it is refused; later rows of its stream go on from the state before."""
    model = Sequential([layers.Input((None, 2)), layers.SimpleRNN(1, activation="relu", name="r")])
    model.set_weights([np.full(w.shape, 1.0, np.float32) for w in model.get_weights()])
    model.save("m.safetensors")
    output = {"names": ["score"]}
    job, alone = pipeline("out", output=output), pipeline(output=output)
    values = [("s", 1, 1.0), ("s", 2, 3e38), ("r", 2, 1.0), ("s", 3, 3e38), ("s", 4, 2.0)]
    with job.session() as session:
        session.process(rows(("s", 0, 3e38)), align=True)
        alone.process(rows(("s", 0, 3e38)))
        with pytest.raises(DataError, match="the model returned inf"):
            session.process(rows(*values))
        answer = session.process(rows(*values), align=True)
        reason = "rejected: output 'score': the model returned inf for finite features"
        assert answer["reason"].to_pylist() == [None, reason, None, reason, None]
        wanted = alone.process(rows(values[0], values[2], values[4]), align=True)
        assert answer.filter(pc.is_null(answer["reason"])).equals(wanted)
        again = session.process(rows(("s", 5, 1.0), ("s", 6, 3e38)), align=True)
        assert again["reason"].to_pylist() == [None, reason]
        alone.process(rows(("s", 5, 1.0)))
        assert (session.counts.rows, session.counts.rejected) == (8, 3)
    assert read_states("out") == alone.state.to_arrow()
    assert not Path("out.rejects").exists()


def _overflowing() -> None:
    """A model whose state can overflow, and whose output cannot."""
    model = Sequential(
        [
            layers.Input((None, 2)),
            layers.SimpleRNN(1, activation="relu", name="r"),
            layers.Dense(1, activation="sigmoid", name="score"),
        ]
    )
    model.set_weights([np.full(w.shape, 1.0, np.float32) for w in model.get_weights()])
    model.save("m.safetensors")


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_a_state_that_is_not_finite_fails_no_other_row(many: bool, together: bool) -> None:
    """As for outputs: one row a stream, several, and so many that they are packed into lanes."""
    _overflowing()
    job, alone = pipeline("out"), pipeline()
    events = [("s", 1, 3e38), ("s", 2, 3e38), ("s", 3, 0.0), ("s", 4, 3e38), ("s", 5, 1.0)]
    calm = [(f"q{n}", n % 60, 1.0) for n in range(1500 if many else 5)]
    with job.session() as session:
        session.process(rows(*calm, ("s", 0, 1.0)))
        alone.process(rows(*calm, ("s", 0, 1.0)))
        session.commit()
        if together:
            both = rows(*events, *calm)
            with pytest.raises(DataError, match=r"row .*the model returned inf .*a carried st"):
                session.process(both)
            got = session.process(both, align=True)["reason"].to_pylist()[: len(events)]
        else:
            one_by_one = [rows(event, *calm) for event in events]
            got = [session.process(each, align=True)["reason"][0].as_py() for each in one_by_one]
        reason = "rejected: state 'r/h': the model returned inf for finite features"
        assert got == [None, reason, None, reason, None]
        for _ in range(1 if together else len(events)):
            alone.process(rows(*calm))
        alone.process(rows(events[0], events[2], events[4]))
    assert read_states("out") == alone.state.to_arrow()
    with pipeline("out").session() as session:
        assert session.process(rows(("s", 9, 1.0))).num_rows == 1


@pytest.mark.parametrize("streams", [4, 1500])
def test_a_run_does_not_commit_a_state_that_is_not_finite(streams: int) -> None:
    _overflowing()
    Path("in").mkdir()
    calm = [(f"q{n}", n % 60, 1.0) for n in range(streams)]
    pq.write_table(rows(*calm, ("s", 0, 3e38)), "in/1.parquet")
    assert pipeline("out").run().rows_out == streams + 1
    before = read_states("out")
    pq.write_table(rows(*calm, ("q1", 2, 1.0), ("s", 2, 3e38)), "in/2.parquet")
    with pytest.raises(DataError, match=rf"2.parquet: row {streams + 1}.*state 'r/h': .* inf for"):
        pipeline("out").run()
    assert read_states("out") == before
