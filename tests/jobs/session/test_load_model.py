"""Another model while a session goes on."""

import logging
import threading
import time
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from selection import first_quick

from streamrnn import Model, Pipeline, layers
from streamrnn.errors import (
    CheckpointError,
    ConfigError,
    DTypeError,
    MissingFileError,
    ModelMismatchError,
    StateError,
)
from streamrnn.outputs import read_states
from streamrnn.stream.checkpoints import read_manifest
from streamrnn.stream.scoring import compiling

LOG = logs.random_log(240, streams=9, nulls=0.1)
COMPILE = compiling._CODE


@pytest.fixture(autouse=True)
def folder(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models. The process that compiles beside a session does nothing where it is not tested."""
    monkeypatch.setattr(compiling, "_CODE", "")
    logs.small_model().save("old.safetensors")
    model = logs.small_model()
    model.set_weights([w + np.float32(0.1) for w in model.get_weights()])
    model.save("tuned.safetensors")
    logs.small_model("LSTM").save("other.safetensors")


def pipeline(weights: str = "old", out: str = "out", **tables: Any) -> Pipeline:
    source = {"nulls": "previous"}
    data = logs.config("in", f"{weights}.safetensors", out, source=source, **tables)
    return Pipeline.from_dict(data)


def run_in_pieces(model: str, on_change: str, out: str = "pieces") -> None:
    """What a session should be: two runs, the second with another model."""
    for number, (weights, change) in enumerate((("old", "error"), (model, on_change))):
        logs.write(LOG.slice(120 * number, 120), Path(f"in/{number}.parquet"))
        pipeline(weights, out, model={"on_change": change}).run()


@pytest.mark.parametrize(
    ("model", "on_change"), [("tuned", "carry"), ("tuned", "reset"), ("other", "reset")]
)
def test_another_model_takes_over_as_in_a_run(model: str, on_change: Any) -> None:
    run_in_pieces(model, on_change)
    with pipeline().session() as session:
        session.process(LOG.slice(0, 120), position=1)
        session.load_model(f"{model}.safetensors", on_change)
        assert read_manifest("out").rows == 120  # with the model that computed them
        session.process(LOG.slice(120), position=2)
        assert (session.counts.rows, session.position) == (240, 2)
    assert pq.read_table("out") == pq.read_table("pieces")
    found, expected = read_states("out"), read_states("pieces")
    assert found == expected
    assert found.schema.equals(expected.schema, check_metadata=True)  # which names the model
    assert [part.model for part in read_manifest("out").parts] == [
        part.model for part in read_manifest("pieces").parts
    ]
    with pipeline().session() as session, pytest.raises(CheckpointError, match="another model"):
        session.process(LOG.slice(0, 1))
    with pipeline(model).session() as session:
        assert session.position == 2


def test_states_are_not_copied_if_they_are_the_same() -> None:
    with pipeline().session() as session:
        session.process(LOG.slice(0, 120))
        table = session._calls.scorer.table
        before = {name: table.states(name) for name in table.layout.states}
        session.load_model("tuned.safetensors", "carry")
        for name, array in before.items():
            assert np.shares_memory(session._calls.scorer.table.states(name), array)
        session.process(LOG.slice(120, 60))
        session.load_model("old.safetensors", "carry")
        session.process(LOG.slice(180))
    parts = read_manifest("out").parts
    assert [part.rows for part in parts] == [120, 60, 60]
    assert parts[0].model == parts[2].model != parts[1].model


@pytest.mark.parametrize("committed", [False, True])
def test_a_model_may_come_before_the_first_call(committed: bool) -> None:
    if committed:
        logs.write(LOG.slice(0, 120), Path("in/0.parquet"))
        pipeline().run()
    with pipeline().session() as session:
        session.load_model("tuned.safetensors", "carry")
        session.process(LOG.slice(120))
    run_in_pieces("tuned", "carry")
    expected = pq.read_table("pieces") if committed else None
    if expected is None:
        logs.write(LOG.slice(120), Path("alone/0.parquet"))
        Pipeline.from_dict(
            logs.config("alone", "tuned.safetensors", "a", source={"nulls": "previous"})
        ).run()
        expected = pq.read_table("a")
    assert pq.read_table("out") == expected


def test_a_model_that_does_not_fit_leaves_the_one_before() -> None:
    model = logs.small_model(units=6)
    model.save("wide.safetensors")
    logs.small_model(features=3).save("three.safetensors")
    named = layers.Dense(1, name="other")
    other = type(model)([layers.Input((None, 2)), layers.GRU(5, name="rnn"), named])
    other.save("named.safetensors")
    with pipeline().session() as session:
        session.process(LOG.slice(0, 120))
        for path, on_change, error, message in (
            ("wide", "carry", StateError, "states of the new model differ"),
            ("three", "carry", Exception, "features"),
            ("named", "carry", ConfigError, "expected the same outputs as before, score; received"),
            ("none", "carry", MissingFileError, "none.safetensors"),
            ("tuned", "replay", ConfigError, r"End the session.*run .* --new-model replay"),
            ("tuned", "error", ConfigError, r'expected "carry" or "reset", received \'error\''),
        ):
            with pytest.raises(error, match=message):
                session.load_model(f"{path}.safetensors", on_change)  # type: ignore[arg-type]
        session.process(LOG.slice(120))
    logs.write(LOG, Path("in/0.parquet"))
    pipeline(out="whole").run()
    assert pq.read_table("out") == pq.read_table("whole")
    assert len(read_manifest("out").parts) == 1


def test_a_model_that_does_not_fit_the_last_commit_leaves_the_one_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also before the first call, which needs the model."""
    logs.small_model(units=6).save("wide.safetensors")
    model, two = logs.small_model(), layers.Dense(2, name="score")
    other = type(model)([layers.Input((None, 2)), layers.GRU(5, name="rnn"), two])
    other.save("two.safetensors")
    with pipeline().session() as session:
        session.process(LOG.slice(0, 120))
    with pipeline().session() as session:
        with pytest.raises(StateError, match="states of the new model differ"):
            session.load_model("wide.safetensors", "carry")
        with pytest.raises(CheckpointError, match="the columns of out differ"):
            session.load_model("two.safetensors", "reset")
        session.process(LOG.slice(120))
    assert not caplog.messages
    logs.write(LOG, Path("in/0.parquet"))
    pipeline(out="whole").run()
    assert pq.read_table("out") == pq.read_table("whole")


def test_a_model_that_reads_integers_refuses_the_floats_of_the_one_before() -> None:
    """Whose columns have been checked, but for the model before."""
    for name, ids in (("floats", False), ("ids", True)):
        a = layers.Input((None, 1), name="a")
        k = (
            layers.Input((None,), dtype="int64", name="k")
            if ids
            else layers.Input((None, 1), name="k")
        )
        steps = layers.Concatenate()([a, layers.Embedding(5, 3)(k) if ids else k])
        out = layers.Dense(1, name="score")(layers.GRU(2, return_sequences=True)(steps))
        Model([a, k], out).save(f"{name}.safetensors")
    source = {"nulls": "error", "features": ["a", "k"]}
    data = logs.config("in", "floats.safetensors", "out", source=source)
    data["model"]["inputs"] = {"a": "a", "k": "k"}
    rows = LOG.drop_columns("a").append_column("a", pa.array([0.5] * 240))
    whole, rows = (rows.append_column("k", pa.array([k] * 240)) for k in (1, 1.5))
    with Pipeline.from_dict(data).session() as session:
        session.process(whole.slice(0, 10))
        session.process(rows.slice(10, 10))
        session.load_model("ids.safetensors", "reset")
        with pytest.raises(DTypeError, match="column 'k': expected integer, received double"):
            session.process(rows.slice(20, 10))
        session.process(whole.slice(20, 10))


def test_a_model_of_fixed_steps_goes_on_as_the_output_began() -> None:
    model = logs.small_model()
    cut = type(model)(
        [
            layers.Input((4, 2)),
            layers.GRU(5, return_sequences=True, name="rnn"),
            layers.Dense(1, name="score"),
        ]
    )
    cut.set_weights(model.get_weights())
    cut.save("cut.safetensors")
    data = logs.config("in", "old.safetensors", "out", source={"nulls": "previous"})
    with Pipeline.from_dict(data).session() as session:
        with pytest.raises(ModelMismatchError, match=r"\[window\] kind: required"):
            session.load_model("cut.safetensors", "carry")
        session.process(LOG.slice(0, 120))
        session.load_model("cut.safetensors", "carry")
        session.process(LOG.slice(120))


def test_kernels_are_compiled_in_another_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The child has what it needs; one that fails is a warning."""
    monkeypatch.setattr(compiling, "_CODE", COMPILE)
    loaded = pipeline("tuned").loaded
    ran = []
    monkeypatch.setattr(compiling, "_run_model", ran.append)
    compiling.compile_beside(loaded)
    assert not caplog.records
    monkeypatch.setattr(compiling, "_CODE", "raise SystemExit(3)")
    compiling.compile_beside(loaded)
    assert ran == [loaded, loaded]
    (record,) = caplog.records
    assert (record.levelno, "exit status 3" in record.getMessage()) == (logging.WARNING, True)


@pytest.mark.parametrize("loaded", first_quick([["tuned"], ["tuned", "old", "tuned"]]), ids=len)
def test_calls_go_on_while_a_model_is_loaded(
    loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of each call are of one model, those after the last swap of the last one.

    Slow: three models, one after another.
    """
    monkeypatch.setattr(compiling, "_CODE", COMPILE)
    number, most = 0, 60
    all_rows = most * (1 + len(loaded))
    with pipeline("old").session() as session:

        def calls() -> None:
            nonlocal number
            while number < all_rows:
                if number < most:
                    session.process(LOG.slice(number, 1))
                    number += 1
                time.sleep(0.005)

        thread = threading.Thread(target=calls)
        thread.start()
        for model in loaded:
            session.load_model(f"{model}.safetensors", "carry")
            most += 60
        thread.join()
    rows, models = 0, []
    state: pa.Table | None = None
    for part in read_manifest("out").parts:
        models.append(part.model)
        weights = "tuned" if len(models) % 2 == 0 else "old"
        piece = LOG.slice(rows, part.rows)
        source = {"nulls": "previous"}
        config = logs.config("x", f"{weights}.safetensors", None, source=source)
        config["model"]["on_change"] = "carry"
        job = Pipeline.from_dict(config, state=state)
        assert job.process(piece) == pq.read_table(f"out/{part.name}"), len(models)
        state = job.state.to_arrow()
        rows += part.rows
    assert rows == all_rows
    assert len(models) == 1 + len(loaded)
    assert len(set(models)) == 2
