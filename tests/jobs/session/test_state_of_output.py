"""`process` starts from the state of the pipeline's own output, or warns that it does not."""

import logging
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs.engines.in_process import TasksHere

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, ConfigError, DataError
from streamrnn.jobs.engines import opening
from streamrnn.outputs import export_state, read_states
from streamrnn.stream.checkpoints import read_manifest

LOG = logs.random_log(200, streams=6, nulls=0.1)
HALF = 120


@pytest.fixture(autouse=True)
def base(model_dir: Path) -> None:
    """The output of a run over the first half of a log: the folder `out`."""
    logs.write(LOG.slice(0, HALF), Path("in/0.parquet"))


def config(out: str | None = "out", **tables: Any) -> dict[str, Any]:
    tables["source"] = {"nulls": "previous", "max_gap": "2h", **tables.get("source", {})}
    return logs.config("in", "m.safetensors", out, **tables)


def run(out: str = "out", **tables: Any) -> None:
    Pipeline.from_dict(config(out, **tables)).run()


def next_run(**tables: Any) -> pa.Table:
    """The rows that a run writes of the second half; the output is as before it afterwards."""
    before = len(pq.read_table("out"))
    logs.write(LOG.slice(HALF), Path("in/1.parquet"))
    run(**tables)
    return pq.read_table("out").slice(before).combine_chunks()


def toml() -> str:
    Path("p.toml").write_text(
        '[source]\npath = "in"\nkey = "id"\ntime = "t"\nfeatures = ["a", "b"]\n'
        'nulls = "previous"\nmax_gap = "2h"\n[model]\npath = "m.safetensors"\n'
        '[sink]\npath = "out"\n'
    )
    return "p.toml"


def test_process_goes_on_where_the_last_run_ended() -> None:
    """Bit for bit as the next run; from TOML, from a dict, pickled before the first call."""
    run()
    pipelines = [
        Pipeline.from_toml(toml(), state="output"),
        Pipeline.from_toml(toml(), ["window.lanes=3"], state="output"),
        Pipeline.from_dict(config(), state="output"),
        pickle.loads(pickle.dumps(Pipeline.from_dict(config(), state="output"))),
    ]
    assert [pipeline.state.to_arrow() for pipeline in pipelines] == [read_states("out")] * 4
    scored = [pipeline.process(LOG.slice(HALF)) for pipeline in pipelines]
    expected = next_run()
    assert scored == [expected] * 4
    assert [pipeline.state.to_arrow() for pipeline in pipelines] == [read_states("out")] * 4


def test_the_shards_of_a_cluster_are_one_state(monkeypatch: pytest.MonkeyPatch) -> None:
    sharded = {"engine": {"type": "ray", "shards": 3, "epoch_rows": 50}}
    with monkeypatch.context() as patch:
        patch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere())
        run(**sharded)
    assert len(read_manifest("out").shards) == 3
    scored = Pipeline.from_dict(config(**sharded), state="output").process(LOG.slice(HALF))
    run(out="alone")
    assert scored == Pipeline.from_dict(config("alone"), state="output").process(LOG.slice(HALF))


def test_types_are_those_of_the_output() -> None:
    """So that the rows of both fit together; what a run refuses is refused."""
    run(output={"columns": ["id", "t", "a"]})
    other = {"id": pa.large_string(), "t": pa.timestamp("ns", "UTC"), "a": pa.float32()}
    rest = LOG.slice(HALF)
    a = pa.array([value and float(round(value)) for value in rest["a"].to_pylist()])
    rest = rest.set_column(2, "a", a)
    pipelines = [
        Pipeline.from_dict(config(output={"columns": ["id", "t", "a"]}), state="output")
        for _ in range(3)
    ]
    cast = rest.cast(pa.schema([(f.name, other.get(f.name, f.type)) for f in LOG.schema]))
    assert pipelines[0].process(cast) == pipelines[1].process(rest)
    wrong = rest.set_column(0, "id", pa.array(range(len(rest))))
    with pytest.raises(DataError, match=r"'id': expected string as in earlier rows, received int"):
        pipelines[2].process(wrong)


def test_before_the_first_commit_it_starts_from_the_initial_state(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """So the first run of a job is written like the others; it is said, as a path may be wrong."""
    export = Path("s.parquet")
    run(out="first")
    export_state("first", str(export))
    for tables, state in (({}, None), ({"state": {"init": str(export)}}, str(export))):
        caplog.clear()
        pipeline = Pipeline.from_dict(config("new/out", **tables), state="output")
        with caplog.at_level(logging.WARNING):
            scored = pipeline.process(LOG.slice(HALF))
        assert caplog.messages == [
            "new/out has no commit yet: streams start from the initial state"
        ]
        assert scored == Pipeline.from_dict(config(None), state=state).process(LOG.slice(HALF))
        assert not Path("new").exists()


def test_the_output_of_another_pipeline_is_refused() -> None:
    run()
    pipeline = Pipeline.from_dict(config(source={"nulls": 0}), state="output")
    with pytest.raises(CheckpointError, match=r"out was written by another pipeline .*\n.*nulls"):
        pipeline.process(LOG.slice(HALF))
    logs.small_model(units=5, use_bias=False).save("m.safetensors")
    with pytest.raises(CheckpointError, match="out was written by another model"):
        Pipeline.from_dict(config(), state="output").process(LOG.slice(HALF))


@pytest.mark.parametrize(("sink", "received"), [(None, "none"), ("-", "'-'")])
def test_a_pipeline_without_an_output_is_refused_at_once(sink: str | None, received: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[sink\] path .* received {received}\. .*\./output"):
        Pipeline.from_dict(config(sink), state="output")


def test_a_folder_of_that_name_has_a_path() -> None:
    run(out="output")
    expected = Pipeline.from_dict(config("output"), state="output").process(LOG.slice(HALF))
    for state in ("./output", Path("output")):
        assert Pipeline.from_dict(config(None), state=state).process(LOG.slice(HALF)) == expected


@pytest.fixture
def caught() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


def test_without_it_process_warns_once_of_an_output_with_a_state(
    caught: list[warnings.WarningMessage],
) -> None:
    """At the line of the call; following the warning ends it."""
    run()
    pipeline = Pipeline.from_toml(toml())
    pipeline.process(LOG.slice(HALF, 10))
    pipeline.process(LOG.slice(HALF + 10))
    (warning,) = caught
    assert warning.category is UserWarning
    assert warning.filename == __file__
    assert str(warning.message) == (
        "process starts from the initial state: out, the output of this pipeline, has the state of "
        '6 streams after commit 1. To start from it, load the pipeline with state="output".'
    )
    Pipeline.from_toml(toml(), state="output").process(LOG.slice(HALF))
    assert len(caught) == 1


def test_what_was_chosen_is_not_warned_of(caught: list[warnings.WarningMessage]) -> None:
    """A state, a checkpoint, an output without state or none, [state] init of the output itself."""
    fresh = Pipeline.from_dict(config())
    fresh.process(LOG.slice(0, HALF))
    fresh.checkpoint("c.arrow")
    run()
    for pipeline in (
        Pipeline.resume("c.arrow"),
        Pipeline.from_dict(config(), state=read_states("out")),
        Pipeline.from_dict(config(state={"init": "./out"})),
        Pipeline.from_dict(config("other")),
        Pipeline.from_dict(config(None)),
    ):
        pipeline.process(LOG.slice(HALF))
    assert caught == []
    Pipeline.from_dict(config(state={"init": "c.arrow"})).process(LOG.slice(HALF))
    assert "starts from [state] init: out" in str(caught[0].message)
