"""Another model on the state of the one before: `--new-model`, `[model] on_change`."""

import shutil
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline, Sequential, layers, load_model
from streamrnn.errors import CheckpointError, StateError
from streamrnn.outputs import compact, history, read_states, reset_streams, rewind
from streamrnn.stream.checkpoints import read_manifest, versions
from streamrnn.stream.scoring.summary import Summary

LOG = logs.random_log(400)
DAYS = (LOG.slice(0, 170), LOG.slice(170, 130), LOG.slice(300))


def model(seed: int, units: int = 5, name: str = "rnn") -> Sequential:
    """A GRU and a Dense with weights of their own."""
    found = Sequential(
        [layers.Input((None, 2)), layers.GRU(units, name=name), layers.Dense(1, name="score")]
    )
    rng = np.random.default_rng(seed)
    found.set_weights([rng.normal(0, 0.6, w.shape).astype(np.float32) for w in found.get_weights()])
    return found


@pytest.fixture
def base(workdir: Path) -> Path:
    """Two models of the same sizes, and the first of three days in `in`."""
    for seed in (1, 2):
        model(seed).save(f"m{seed}.safetensors")
    _day(0)
    return workdir


def _day(number: int) -> None:
    logs.write(DAYS[number], Path("in") / f"day-{number}.parquet")


def _run(weights: str, options: dict[str, Any] | None = None, **tables: Any) -> Summary:
    config = logs.config("in", weights, "out", **tables)
    return Pipeline.from_dict(config).run(**(options or {}))


def _rows(column: str = "score") -> dict[tuple[str, Any], Any]:
    table = pq.read_table("out")
    keys = zip(table["id"].to_pylist(), table["t"].to_pylist(), strict=True)
    return dict(zip(keys, table[column].to_pylist(), strict=True))


def _by_hand(models: list[Sequential]) -> dict[tuple[str, Any], float]:
    """Each day by its own model, on the states that the day before left: with layers alone."""
    found: dict[tuple[str, Any], float] = {}
    states: dict[str, Any] = {}
    for day, current in zip(DAYS, models, strict=True):
        gru = layers.GRU(5, return_sequences=True, return_state=True)
        gru.build((None, None, 2))
        gru.set_weights(current.layers[0].get_weights())
        dense = current.layers[1]
        ids = np.array(day["id"].to_pylist())
        for stream in sorted(set(ids)):
            rows = day.filter(pa.array(ids == stream))
            x = np.stack([rows["a"].to_numpy(), rows["b"].to_numpy()], axis=1)[None]
            h = states.get(stream, np.zeros((1, 5), np.float32))
            y, states[stream] = gru(x.astype(np.float32), initial_state=h)
            values = dense(y)[0, :, 0]
            found |= {
                (stream, time): float(value)
                for time, value in zip(rows["t"].to_pylist(), values, strict=True)
            }
    return found


@pytest.mark.parametrize("small", [0, versions.SMALL])
def test_another_model_takes_over_the_state_of_each_stream(
    base: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    """Steps, times and states stay: the rows are those of layers called by hand, bit for bit.

    A large state is not written again: the commit has the streams of its rows, as any other.
    """
    monkeypatch.setattr(versions, "SMALL", small)
    monkeypatch.setattr(versions, "_SHARE", 1000)
    _run("m1.safetensors")
    snapshot = read_manifest("out").shards[0].files[0]
    steps = read_states("out").select(["id", "steps", "last_time"])
    _day(1)
    summary = _run("m2.safetensors", {"new_model": "carry"})
    assert summary.rows == 130
    assert (read_manifest("out").shards[0].files[0] == snapshot) == (not small)
    assert any("the state was carried from model" in note for note in summary.state_notes)
    _day(2)
    assert _run("m2.safetensors").rows == 100  # it is the output's model now
    assert _rows() == _by_hand([model(1), model(2), model(2)])
    before = dict(zip(steps["id"].to_pylist(), steps["steps"].to_pylist(), strict=True))
    after = read_states("out")
    grown = dict(zip(after["id"].to_pylist(), after["steps"].to_pylist(), strict=True))
    assert all(grown[stream] >= before[stream] for stream in before)
    assert sum(grown.values()) == len(LOG)


def test_without_being_asked_another_model_is_refused_with_the_option_to_use(base: Path) -> None:
    _run("m1.safetensors")
    _day(1)
    with pytest.raises(CheckpointError, match="was written by another model") as caught:
        _run("m2.safetensors")
    assert "--new-model" in str(caught.value)
    with pytest.raises(CheckpointError, match="was written by another pipeline") as caught:
        _run("m2.safetensors", output={"warmup": 3})
    assert "--new-model" not in str(caught.value)
    with pytest.raises(CheckpointError, match=r"output\.warmup"):
        _run("m2.safetensors", {"new_model": "carry"}, output={"warmup": 3})


@pytest.mark.parametrize("window", [{}, {"kind": "independent", "steps": 6, "stride": 4}])
@pytest.mark.parametrize("output", [{}, {"emit": "final"}, {"warmup": 3}], ids=str)
def test_what_waits_and_what_is_held_stays(
    base: Path, window: dict[str, Any], output: dict[str, Any]
) -> None:
    """With the same weights under another name nothing differs from days of one model."""
    tables: dict[str, Any] = {"window": window, "output": {"names": ["y"], **output}}
    model(1, name="other").save("same.safetensors")
    changed = {"state": {"map": {"other": "rnn"}}, "model": {"on_change": "carry"}}
    for number in range(3):
        _day(number)
        Pipeline.from_dict(logs.config("in", "m1.safetensors", "expected", **tables)).run()
        config = logs.config("in", "m1.safetensors", "out", **tables, **changed)
        if number:
            config["model"]["path"] = "same.safetensors"
        else:
            del config["state"]
        Pipeline.from_dict(config).run()
    assert pq.read_table("out").equals(pq.read_table("expected"))
    states, expected = read_states("out"), read_states("expected")
    for name in expected.column_names:
        other = name.replace("rnn/", "other/")
        assert states[other].to_pylist() == expected[name].to_pylist(), name


def test_other_names_need_a_map_and_the_message_has_it(base: Path) -> None:
    model(2, name="gru_1").save("renamed.safetensors")
    _run("m1.safetensors")
    _day(1)
    with pytest.raises(StateError, match="the states of the new model differ") as caught:
        _run("renamed.safetensors", {"new_model": "carry"})
    assert "gru_1/h: 5 values in the new model, but the old model has no state 'gru_1/h'" in str(
        caught.value
    )
    assert '[state] map = { "gru_1" = "rnn" }' in str(caught.value)
    state = {"map": {"gru_1": "rnn"}}
    assert _run("renamed.safetensors", {"new_model": "carry"}, state=state).rows == 130
    _day(2)
    assert _run("renamed.safetensors", state=state).rows == 100
    assert _rows() == _by_hand([model(1), model(2), model(2)])


def test_other_sizes_are_refused_with_what_differs_alone(base: Path) -> None:
    model(2, units=7).save("wide.safetensors")
    _run("m1.safetensors")
    _day(1)
    with pytest.raises(StateError) as caught:
        _run("wide.safetensors", {"new_model": "carry"})
    assert "rnn/h: 7 values in the new model, 5 in 'rnn/h' of the old one" in str(caught.value)
    assert "--full-refresh" in str(caught.value)
    assert _run("m1.safetensors").rows == 130  # nothing was changed


def test_a_model_that_may_differ_is_no_reason_to_refuse(base: Path) -> None:
    """Where something else has changed, too: the message lists that alone."""
    _run("m1.safetensors")
    _day(1)
    with pytest.raises(CheckpointError) as refused:
        _run("m2.safetensors", {"new_model": "carry"}, window={"lanes": 4, "kind": "whole"})
    assert "was written by another pipeline" in str(refused.value)
    assert "window.kind" in str(refused.value)
    assert "model" not in str(refused.value)


def test_a_column_of_the_model_is_added_in_another_folder(base: Path) -> None:
    """An output has the same columns in all parts. Following the advice loses no row."""
    _run("m1.safetensors")
    _day(1)
    output = {"model_column": "model"}
    with pytest.raises(CheckpointError) as caught:
        _run("m1.safetensors", output=output)
    assert 'output.model_column: was null, is now "model"' in str(caught.value)
    assert 'set another [sink] path, and [state] init = "out". Or undo' in str(caught.value)
    follow = {"sink": {"path": "more"}, "state": {"init": "out"}}
    assert _run("m1.safetensors", output=output, **follow).rows == 130
    assert _run("m1.safetensors").rows == 130
    more, expected = pq.read_table("more"), pq.read_table("out").slice(170)
    assert more.drop_columns(["model"]).combine_chunks() == expected.combine_chunks()


def test_the_manifest_says_which_model_wrote_which_part(base: Path) -> None:
    """So does the column, if one is asked for; merging keeps them apart, and rewind goes back."""
    output = {"model_column": "model"}
    _run("m1.safetensors", output=output)
    _day(1)
    _run("m2.safetensors", {"new_model": "carry"}, output=output)
    first, second = (load_model(f"m{i}.safetensors").fingerprint() for i in (1, 2))
    assert [part.model for part in read_manifest("out").parts] == [first, second]
    assert [commit.model for commit in history("out")] == [first, second]
    assert [commit.newest.rpartition("/")[2] for commit in history("out")] == [
        "day-0.parquet",
        "day-1.parquet",
    ]
    shown = pq.read_table("out")["model"].to_pylist()
    assert shown == [first[:16]] * 170 + [second[:16]] * 130
    assert compact("out") is None
    rewind("out", 1)
    assert read_manifest("out").model == first
    assert _run("m1.safetensors", output=output).rows == 130


def test_a_model_with_nothing_new_to_read_changes_nothing(base: Path) -> None:
    _run("m1.safetensors")
    assert _run("m2.safetensors", {"new_model": "carry"}).nothing_new
    assert read_manifest("out").model == load_model("m1.safetensors").fingerprint()


def test_an_output_without_streams_takes_another_model(base: Path) -> None:
    """The state of no stream has a fingerprint too."""
    logs.write(DAYS[0].slice(0, 0), Path("in") / "day-0.parquet")
    _run("m1.safetensors")
    _day(1)
    _run("m2.safetensors", {"new_model": "carry"})
    _day(2)
    assert _run("m2.safetensors").rows == 100


def test_a_map_that_is_left_in_the_file_does_no_harm(base: Path) -> None:
    """The next model with the names of the last one is carried by them."""
    for seed in (2, 3):
        model(seed, name="gru_1").save(f"renamed{seed}.safetensors")
    _run("m1.safetensors")
    tables = {"state": {"map": {"gru_1": "rnn"}}, "model": {"on_change": "carry"}}
    for day in (1, 2):
        _day(day)
        config = logs.config("in", f"renamed{day + 1}.safetensors", "out", **tables)
        config["model"]["path"] = f"renamed{day + 1}.safetensors"
        summary = Pipeline.from_dict(config).run()
        mapped = any("[state] map: gru_1/h from rnn/h" in note for note in summary.state_notes)
        assert mapped == (day == 1)
    assert _rows() == _by_hand([model(1), model(2), model(3)])


def test_a_model_whose_outputs_have_other_names_takes_the_names_of_the_output(base: Path) -> None:
    """Keras counts the names of layers up with each model that is made."""
    other = Sequential(
        [layers.Input((None, 2)), layers.GRU(5, name="rnn"), layers.Dense(1, name="score_1")]
    )
    other.set_weights(model(2).get_weights())
    other.save("other.safetensors")
    _run("m1.safetensors")
    _day(1)
    with pytest.raises(CheckpointError, match=r"Set \[output\] names to the names in the output"):
        _run("other.safetensors", {"new_model": "carry"})
    _run("other.safetensors", {"new_model": "carry"}, output={"names": ["score"]})
    _day(2)
    _run("other.safetensors", output={"names": ["score"]})
    assert _rows() == _by_hand([model(1), model(2), model(2)])


def test_a_new_output_starts_from_the_state_of_another_model(base: Path) -> None:
    _run("m1.safetensors")
    _day(1)
    config = logs.config("in", "m2.safetensors", "two", state={"init": "out"})
    with pytest.raises(StateError, match="another model"):
        Pipeline.from_dict(config).run()
    assert Pipeline.from_dict(config).run(new_model="carry").rows == 130


def test_messages_have_the_digits_of_a_model_that_the_model_column_has(base: Path) -> None:
    _run("m1.safetensors", output={"model_column": "model"})
    (first,) = set(pq.read_table("out")["model"].to_pylist())
    config = logs.config("in", "m2.safetensors", "two", state={"init": "out"})
    with pytest.raises(StateError, match=rf"model {first}, layers"):
        Pipeline.from_dict(config).run()
    shutil.copy("m2.safetensors", "m1.safetensors")
    with pytest.raises(StateError, match=rf"model {first}\n"):
        reset_streams("out", ["s0"])


@pytest.mark.parametrize(
    ("weights", "tables"),
    [
        ("m2", {}),
        ("m1", {"output": {"warmup": 3}}),
        ("m1", {"output": {"names": ["other"]}}),
        ("m2", {"model": {"on_change": "carry"}, "source": {"nulls": "skip"}}),
        ("large", {"model": {"on_change": "carry"}}),
        ("renamed", {"model": {"on_change": "carry"}}),
    ],
)
def test_validate_refuses_what_a_run_would(base: Path, weights: str, tables: Any) -> None:
    """With the same text: another model, pipeline, column, or a state that does not fit."""
    model(3, units=6).save("large.safetensors")
    model(3, name="other").save("renamed.safetensors")
    _run("m1.safetensors")
    _day(1)
    pipeline = Pipeline.from_dict(logs.config("in", f"{weights}.safetensors", "out", **tables))
    messages = []
    for verb in (pipeline.validate, pipeline.run):
        with pytest.raises((CheckpointError, StateError)) as caught:
            verb()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_validate_takes_a_model_that_carries_the_state(base: Path) -> None:
    _run("m1.safetensors")
    carry = {"model": {"on_change": "carry"}}
    pipeline = Pipeline.from_dict(logs.config("in", "m2.safetensors", "out", **carry))
    (note,) = pipeline.validate()
    assert note.startswith("the state was carried from model ")
    assert Pipeline.from_dict(logs.config("in", "m1.safetensors", "out")).validate() == []
