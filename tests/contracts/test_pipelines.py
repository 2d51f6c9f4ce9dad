"""Every kind of window and every emit mode keeps its contracts, or its row says why not."""

from itertools import product
from pathlib import Path
from typing import Any, get_args

import logs
import naive
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import rowwise
from contracts.declared import assert_declared
from contracts.rows_pipelines import EMITS, KINDS

from streamrnn import Input, Pipeline, Sequential, layers
from streamrnn.errors import StreamRNNError
from streamrnn.outputs import read_states
from streamrnn.stream.config.load import Config
from streamrnn.stream.config.schema import OutputSection, WindowSection
from streamrnn.stream.operators import KINDS as OPERATORS

pytestmark = pytest.mark.usefixtures("workdir")

FILE = "tests/contracts/rows_pipelines.py"
LOG = logs.random_log(400, streams=23, nulls=0.1, resets=0.03)
RULES = {"nulls": "previous", "reset": "new", "max_gap": "2h"}
CUTS: list[dict[str, dict[str, Any]]] = [
    {"source": {"batch_rows": 13}, "window": {"lanes": 3}, "model": {"threads": 2}},
    {"source": {"batch_rows": 170}, "window": {"lanes": 1}, "checkpoint": {"every": 1}},
    {"source": {"batch_rows": 3}, "model": {"threads": 1}},
]


def emits() -> tuple[str, ...]:
    """The modes that the pipeline file takes."""
    modes: tuple[str, ...] = get_args(OutputSection.model_fields["emit"].annotation)
    return modes


def test_every_kind_has_a_row() -> None:
    assert_declared("kind of window", OPERATORS, KINDS, FILE)
    assert set(OPERATORS) == set(get_args(WindowSection.model_fields["kind"].annotation))


def test_every_emit_mode_has_a_row() -> None:
    assert_declared("emit mode", emits(), EMITS, FILE)


def test_a_new_kind_or_emit_mode_without_a_row_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATORS, "sliding", OPERATORS["carry"])
    with pytest.raises(AssertionError, match=r"kind of window without a row.*\['sliding'\]"):
        test_every_kind_has_a_row()
    with pytest.raises(AssertionError, match=r"emit mode without a row.*\['first'\]"):
        assert_declared("emit mode", (*emits(), "first"), EMITS, FILE)


def both(contract: str) -> list[tuple[str, str]]:
    """Pairs of a kind and a mode, where the contract holds for both."""
    return [
        (kind, emit)
        for kind, emit in product(KINDS, EMITS)
        if not isinstance(getattr(KINDS[kind], contract), str)
        and not isinstance(getattr(EMITS[emit], contract), str)
    ]


def last_of(kind: str, emit: str) -> int | None:
    """Windows of independent rows give one row each, and count none."""
    return None if KINDS[kind].steps else EMITS[emit].last_of


def config(kind: str, emit: str, out: str = "out", **tables: dict[str, Any]) -> dict[str, Any]:
    """A pipeline over the folder `in`; `tables` come on top."""
    output: dict[str, Any] = {"emit": emit}
    if count := last_of(kind, emit):
        output["last_of"] = count
    network(kind).save("m.safetensors")
    window = {"kind": kind.partition("/")[0], **KINDS[kind].window, **tables.pop("window", {})}
    source = {**RULES, **tables.pop("source", {})}
    return logs.config(
        "in", "m.safetensors", out, output=output, window=window, source=source, **tables
    )


def network(kind: str) -> Any:
    steps = KINDS[kind].decoded
    model = logs.small_model("LSTM", units=6 * steps or 19, **KINDS[kind].model)
    if not steps:
        return model
    head = logs.small_model(units=6).layers[-1]
    return Sequential([Input((None, 2)), model.layers[0], layers.Reshape((steps, 6)), head])


def run(data: dict[str, Any], log: pa.Table, file: str = "0", group: int = 77) -> None:
    """One run of a pipeline, after a file was put into its folder."""
    logs.write(log, Path("in", f"{file}.parquet"), row_group=group)
    Pipeline.from_dict(data).run()


def found(out: str = "out") -> tuple[pa.Table, pa.Table]:
    """Output and states."""
    return pq.read_table(out).combine_chunks(), read_states(out).combine_chunks()


@pytest.mark.parametrize(("kind", "emit"), both("config"))
def test_the_pipeline_file_takes_them(kind: str, emit: str) -> None:
    """And comes back as it was from what it is written as."""
    parsed = Config.parse(config(kind, emit))
    assert (parsed.window.kind, parsed.output.emit) == (kind.partition("/")[0], emit)
    assert Config.parse(parsed.model_dump(mode="json", exclude_unset=True)) == parsed


@pytest.mark.parametrize(("kind", "emit"), both("oracle"))
def test_rows_and_values_are_as_the_oracle_says(kind: str, emit: str) -> None:
    run(config(kind, emit, source={"batch_rows": 60}), LOG)
    rows = LOG.to_pylist()
    for row, tick in zip(rows, LOG["t"].cast(pa.int64()).to_pylist(), strict=True):
        row["t"] = tick
    columns = [rowwise.Column(name, "previous") for name in ("a", "b")]
    settings = rowwise.Settings(columns, max_gap=7200e6, window=KINDS[kind].steps)
    *lstm, kernel, bias = network(kind).get_weights()
    model = rowwise.Model(naive.lstm(*lstm), kernel, bias)
    scored = rowwise.score(rows, model, settings, {})
    if callable(KINDS[kind].oracle):
        scored = KINDS[kind].oracle(scored, LOG["id"].to_pylist())
    wanted = EMITS[emit].oracle(scored, LOG["id"].to_pylist(), last_of(kind, emit))
    output, _ = found()
    kept = LOG.take([index for index, _, _ in wanted])
    assert output.select(["id", "t"]).equals(kept.select(["id", "t"]).combine_chunks())
    values = output["score"].to_pylist()
    assert [v is None for v in values] == [y is None for _, y, _ in wanted]
    pairs = [(v, y[0]) for v, (_, y, _) in zip(values, wanted, strict=True) if y]
    assert len(pairs) > 10
    np.testing.assert_allclose(*np.transpose(pairs), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "emit"), both("cut"))
def test_how_work_is_cut_changes_no_bit(kind: str, emit: str) -> None:
    """Record batches, row groups, lanes, threads, commits."""
    run(config(kind, emit), LOG, group=1000)
    whole = found()
    for number, cut in enumerate(CUTS):
        run(config(kind, emit, f"out{number}", **cut), LOG, group=(33, 400, 20)[number])
        assert found(f"out{number}") == whole


def assert_runs_can_be_cut(kind: str, emit: str, first: int) -> None:
    """The first rows in one run, the others in the next."""
    run(config(kind, emit, "whole"), LOG)
    wanted = found("whole")
    data = config(kind, emit, source={"batch_rows": 100})
    run(data, LOG.slice(0, first), "0")
    run(data, LOG.slice(first), "1")
    assert found() == wanted


@pytest.mark.parametrize(("kind", "emit"), both("runs"))
@pytest.mark.parametrize("first", [1, 233])
def test_where_a_run_ended_changes_no_bit(kind: str, emit: str, first: int) -> None:
    assert_runs_can_be_cut(kind, emit, first)


@pytest.mark.parametrize(("kind", "emit"), sorted({*product(KINDS, EMITS)} - {*both("runs")}))
def test_what_needs_one_run_is_refused_or_gives_other_rows(kind: str, emit: str) -> None:
    """A reason that has become wrong fails too."""
    with pytest.raises((AssertionError, StreamRNNError)):
        assert_runs_can_be_cut(kind, emit, 233)


@pytest.mark.parametrize(("kind", "emit"), both("apart"))
def test_a_stream_changes_no_bit_of_another(kind: str, emit: str) -> None:
    """Whether its values are huge, it is reset at every row, or it is not there at all."""
    run(config(kind, emit), LOG)
    others = pc.field("id") != "s1"
    wanted = [table.filter(others) for table in found()]
    own = pc.equal(LOG["id"], "s1")
    assert 50 < pc.sum(own).as_py() < 250
    wild = LOG.set_column(2, LOG.schema.field("a"), pc.if_else(own, 1e38, LOG["a"]))
    reset = LOG.set_column(4, LOG.schema.field("new"), pc.or_(own, LOG["new"]))
    for out, log in (("wild", wild), ("reset", reset), ("without", LOG.filter(others))):
        run(config(kind, emit, out), log)
        assert [table.filter(others) for table in found(out)] == wanted
