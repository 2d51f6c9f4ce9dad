"""Positions of batches, and checkpoints that are resumed elsewhere."""

import copy
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pytest
from fresh import python
from kernelcases import WIDTHS
from selection import slow

from streamrnn import Pipeline, Sequential, layers, load_model
from streamrnn.errors import (
    AlreadyProcessed,
    ConfigError,
    DataError,
    DTypeError,
    MissingFileError,
    PositionError,
    StateError,
    UnsupportedError,
)

LOG = logs.random_log(300)
ROWS = LOG.combine_chunks().to_batches()[0]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in a folder of its own, which is the working directory."""
    folder = tmp_path / "a"
    folder.mkdir()
    logs.small_model().save(folder / "m.safetensors")
    monkeypatch.chdir(folder)
    return tmp_path


def _pipeline(**tables: Any) -> Pipeline:
    return Pipeline.from_dict(logs.config("in", "m.safetensors", None, **tables))


@pytest.mark.parametrize(
    ("first", "second", "before"),
    [
        (0, 7, -1),
        ("a", "b", ""),
        ("part-9", "part-10", "part-8"),
        ("9", "10", "1"),
        ("01", "1", "0"),  # the same number: by their text
        ("9" * 5000, "1" + "0" * 5000, "8" + "9" * 4999),
        (b"\x01", b"\x01\xff", b""),
        ([3, "x"], [3, "y"], (2, "z")),
        (["day-2", "9.csv", 7], ["day-10", "1.csv", 0], ["day-2", "8.csv", 9]),
        ([0, 1], [0, 5], [-1, 9]),
        (np.int64(3), np.uint8(200), np.int32(2)),
        ({0: 5}, {0: 6}, {0: 4}),
        ({"a": "part-9"}, {"a": "part-10"}, {"a": "part-8"}),
        ({b"\xff": b"1", 2: 2}, {2: 9, b"\xff": b"2"}, {2: 1}),
        ({np.int64(0): np.int64(5)}, {0: 6}, {0: np.int8(1)}),
    ],
)
def test_a_batch_counts_once(base: Path, first: Any, second: Any, before: Any) -> None:
    """Sent again, or one before it: refused, and the state is as it was."""
    pipeline = _pipeline()
    assert pipeline.position is None
    pipeline.process(ROWS.slice(0, 100), position=first)
    state = pipeline.state.to_arrow()
    refusals: list[tuple[Any, Any]] = [(first, AlreadyProcessed), (before, PositionError)]
    for again, error in refusals:
        with pytest.raises(error) as caught:
            pipeline.process(ROWS.slice(0, 100), position=again)
        expected = list(again) if isinstance(again, tuple) else again
        assert (caught.value.position, caught.value.last) == (expected, pipeline.position)
        assert pipeline.state.to_arrow() == state
    pipeline.process(ROWS.slice(100), position=second)
    assert pipeline.position == second
    whole = _pipeline()
    whole.process(ROWS)
    assert pipeline.state.to_arrow() == whole.state.to_arrow()


def test_each_partition_is_compared_alone(base: Path) -> None:
    """A batch names the partitions that it has rows of; one that is new is after all others."""
    pipeline = _pipeline()
    batches = [ROWS.slice(start, 10) for start in range(0, 100, 10)]
    for batch, position, merged in [
        (batches[0], {0: 5, 1: 9}, {0: 5, 1: 9}),
        (batches[1], {0: 6}, {0: 6, 1: 9}),
        (batches[2], {1: 20}, {0: 6, 1: 20}),  # a gap
        (batches[3], {2: 0, 0: 7}, {0: 7, 1: 20, 2: 0}),
    ]:
        pipeline.process(batch, position=position)
        assert pipeline.position == merged
    state = pipeline.state.to_arrow()
    for again in ({0: 7}, {2: 0}, {0: 7, 1: 20}, {0: 7, 1: 20, 2: 0}):
        with pytest.raises(AlreadyProcessed, match="equals the last one; nothing was scored"):
            pipeline.process(batches[4], position=again)
    for behind in ({0: 6}, {0: 8, 1: 19}, {0: 8, 1: 20}, {0: 7, 3: 1}, {0: 7, 1: 19}):
        with pytest.raises(PositionError) as caught:
            pipeline.process(batches[4], position=behind)
        assert not isinstance(caught.value, AlreadyProcessed)
        shown = {name: merged[name] for name in behind if name in merged}
        assert f"{shown!r}, received {behind!r}" in str(caught.value)
    assert pipeline.position == merged
    assert pipeline.state.to_arrow() == state


def test_a_smaller_position_says_nothing_about_its_rows(base: Path) -> None:
    pipeline = _pipeline()
    pipeline.process(ROWS.slice(0, 10), position=[0, 9])
    with pytest.raises(PositionError) as caught:
        pipeline.process(ROWS.slice(10, 10), position=[0, 8])
    text = str(caught.value)
    assert "[0, 9], received [0, 8]; nothing was scored" in text
    assert "is not known here" in text
    assert "positions of partitions belong in a dict" in text
    assert "in the state" not in text
    assert issubclass(PositionError, ValueError)
    assert PositionError.exit_code == 65


def test_what_a_refused_position_advises_loses_no_row(base: Path) -> None:
    """Rows that come late are scored at a later position, or each partition in its own batch."""
    pipeline = _pipeline()
    pipeline.process(ROWS.slice(0, 100), position="part-9")
    with pytest.raises(PositionError, match="send the others at a position after the last one"):
        pipeline.process(ROWS.slice(100), position="part-7")
    pipeline.process(ROWS.slice(100), position="part-9-7")
    partitions = _pipeline()
    partitions.process(ROWS.slice(0, 100), position={0: 9})
    with pytest.raises(PositionError, match="can be sent in batches of their own"):
        partitions.process(ROWS, position={0: 9, 1: 3})
    with pytest.raises(AlreadyProcessed):
        partitions.process(ROWS.slice(0, 100), position={0: 9})
    partitions.process(ROWS.slice(100), position={1: 3})
    whole = _pipeline()
    whole.process(ROWS)
    assert pipeline.state.to_arrow() == whole.state.to_arrow()
    assert partitions.state.to_arrow() == whole.state.to_arrow()


@pytest.mark.parametrize("first", [[1, 2], {0: 1}], ids=["list", "dict"])
def test_what_a_caller_does_to_a_position_does_not_matter(base: Path, first: Any) -> None:
    """Its own after the call, or the one that the pipeline returns."""
    pipeline = _pipeline()
    position = copy.copy(first)
    pipeline.process(ROWS.slice(0, 10), position=position)
    with pytest.raises(AlreadyProcessed) as caught:
        pipeline.process(ROWS.slice(0, 10), position=first)
    for each in (position, pipeline.position, caught.value.last):
        each[0] = 99  # type: ignore[index]
    assert pipeline.position == first


def test_a_batch_without_rows_has_no_partition(base: Path) -> None:
    pipeline = _pipeline()
    with pytest.raises(DTypeError, match="the position of each partition with rows"):
        pipeline.process(ROWS, position={})
    pipeline.process(ROWS.slice(0, 0), position={})
    pipeline.process(ROWS, position={0: 1})
    pipeline.process(LOG.slice(0, 0), position={})
    assert pipeline.position == {0: 1}


@pytest.mark.parametrize(
    "wrong", [1.5, True, object, [], [1.0], [[1]], {"a": 1.5}, {True: 1}, {0: [1]}, {None: 1}]
)
def test_what_is_no_position_is_refused(base: Path, wrong: Any) -> None:
    pipeline = _pipeline()
    with pytest.raises(DTypeError, match="expected a position that is"):
        pipeline.process(ROWS, position=wrong)
    pipeline.process(ROWS, position=1)


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (1, "2"),
        ([1], 2),
        ([1, 2], [3]),
        ("a", b"b"),
        ([0, 1], {0: 1}),
        ({0: 1}, [0, 2]),
        ({0: 1}, 2),
        ({0: 1}, {0: "2"}),
        ({0: 1}, {"0": 2}),  # partitions that went through JSON
        ({0: 1, "a": 2}, {1: 1, b"a": 2}),
    ],
)
def test_positions_are_of_one_type(base: Path, first: Any, other: Any) -> None:
    pipeline = _pipeline()
    pipeline.process(ROWS.slice(0, 10), position=first)
    with pytest.raises(DTypeError, match="expected a position like"):
        pipeline.process(ROWS.slice(10), position=other)
    with pytest.raises(ConfigError, match="would be scored twice"):
        pipeline.process(ROWS.slice(10))


def test_a_batch_that_fails_does_not_count(base: Path) -> None:
    pipeline = _pipeline()
    pipeline.process(ROWS.slice(0, 10), position=1)
    a = pa.array(np.full(10, np.nan))
    bad = pa.table(ROWS.slice(10, 10)).set_column(2, "a", a)
    with pytest.raises(DataError):
        pipeline.process(bad, position=2)
    assert pipeline.position == 1
    pipeline.process(ROWS.slice(10, 10), position=2)


def test_an_empty_batch_moves_the_position(base: Path) -> None:
    pipeline = _pipeline()
    pipeline.process(ROWS.slice(0, 0), position=1)
    pipeline.process(LOG.slice(0, 0), position=2)
    assert pipeline.position == 2


@pytest.mark.parametrize(
    "position", [5, "x", b"\xff", [1, "two", b"3"], {0: 1, "a": "b", b"\xff": b"\x00"}, {}]
)
def test_a_checkpoint_and_a_pickle_hold_the_position(base: Path, position: Any) -> None:
    pipeline = _pipeline()
    pipeline.process(ROWS.slice(0, 100 if position != {} else 0), position=position)
    pipeline.checkpoint("c.arrow")
    for again in (Pipeline.resume("c.arrow"), pickle.loads(pickle.dumps(pipeline))):
        assert again.position == (position or None)  # {}: no partition has one
        with pytest.raises(DTypeError if position == {} else AlreadyProcessed):
            again.process(ROWS, position=position)


def test_equal_positions_are_equal_bytes_in_a_checkpoint(base: Path) -> None:
    for name, order in (("a.arrow", [0, 1, 2]), ("b.arrow", [2, 0, 1])):
        pipeline = _pipeline()
        pipeline.process(ROWS, position=dict.fromkeys(order, 7))
        pipeline.checkpoint(name)
    assert Path("a.arrow").read_bytes() == Path("b.arrow").read_bytes()


@pytest.mark.parametrize("kind", [AlreadyProcessed, PositionError])
def test_the_error_can_be_pickled(base: Path, kind: type[AlreadyProcessed | PositionError]) -> None:
    error = pickle.loads(pickle.dumps(kind([1], [2])))
    assert (error.position, error.last) == ([1], [2])


ELSEWHERE = """
import json, sys
import pyarrow as pa
from streamrnn import Pipeline
checkpoint, model, change, rows, out = json.loads(sys.argv[1])
pipeline = Pipeline.resume(checkpoint, model, change)
with pa.ipc.open_file(rows) as file:
    scored = pipeline.process(file.read_all())
with pa.ipc.new_file(out, scored.schema) as file:
    file.write_table(scored)
pipeline.checkpoint(out + ".arrow")
"""


def _resume_elsewhere(
    base: Path, checkpoint: Path, model: str | None, change: str | None, width: str
) -> pa.Table:
    """Score the last rows in another process, folder and vector width."""
    folder = base / "b"
    folder.mkdir(exist_ok=True)
    with pa.ipc.new_file(folder / "rows", LOG.schema) as file:
        file.write_table(LOG.slice(200))
    arguments = json.dumps([str(checkpoint), model, change, "rows", "out"])
    python("-c", ELSEWHERE, arguments, cwd=folder, **WIDTHS[width])
    return pa.ipc.open_file(folder / "out").read_all()


@pytest.mark.parametrize("width", ["4, checked", "16"])
@slow
def test_a_checkpoint_with_its_model_is_resumed_anywhere(base: Path, width: str) -> None:
    """Made in one folder, which is removed, and resumed in another one.

    Slow: other widths of vectors, compiled anew; a checkpoint is resumed elsewhere in other tests.
    """
    pipeline = _pipeline()
    pipeline.process(LOG.slice(0, 200))
    checkpoint = base / "c.arrow"
    pipeline.checkpoint(checkpoint, include_model=True)
    expected = pipeline.process(LOG.slice(200))
    pipeline.checkpoint(base / "expected.arrow", include_model=True)
    os.chdir(base)
    shutil.rmtree(base / "a")
    assert _resume_elsewhere(base, checkpoint, None, None, width) == expected
    again = (base / "b" / "out.arrow").read_bytes()  # has the model, too
    assert again == (base / "expected.arrow").read_bytes()


def test_paths_in_a_checkpoint_are_absolute(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = _pipeline()
    pipeline.process(LOG.slice(0, 200))
    pipeline.checkpoint("c.arrow")
    expected = pipeline.process(LOG.slice(200))
    monkeypatch.chdir(base)
    resumed = Pipeline.resume("a/c.arrow")
    assert resumed.process(LOG.slice(200)) == expected
    assert resumed.config.source.path == str(base / "a" / "in")


def test_a_model_that_moved_is_named(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = _pipeline()
    pipeline.process(LOG.slice(0, 200))
    pipeline.checkpoint("c.arrow")
    expected = pipeline.process(LOG.slice(200))
    Path("m.safetensors").rename("moved.safetensors")
    with pytest.raises(MissingFileError):
        Pipeline.resume("c.arrow")
    resumed = Pipeline.resume("c.arrow", model="moved.safetensors")
    assert resumed.process(LOG.slice(200)) == expected


def test_another_model_is_refused_or_takes_over_the_state(base: Path) -> None:
    """The rows are those of the same state under the other weights, bit for bit."""
    pipeline = _pipeline()
    pipeline.process(LOG.slice(0, 200))
    pipeline.checkpoint("c.arrow")
    other = load_model("m.safetensors")
    other.set_weights([w * np.float32(0.5) for w in other.get_weights()])
    other.save("other.safetensors")
    with pytest.raises(StateError, match="another model"):
        Pipeline.resume("c.arrow", model="other.safetensors")
    resumed = Pipeline.resume("c.arrow", "other.safetensors", on_change="carry")
    same = {"model": {"path": "other.safetensors"}, "state": {"map": {"rnn": "rnn"}}}
    by_init = Pipeline.from_dict(
        logs.config("in", "m.safetensors", None, **same), state=pipeline.state.to_arrow()
    )
    last = LOG.slice(200)
    assert resumed.process(last) == by_init.process(last)
    ours, theirs = resumed.state.to_arrow(), by_init.state.to_arrow()
    assert ours.equals(theirs)


def _two_layers(first: int, second: str, path: str) -> None:
    """A model of two recurrent layers."""
    Sequential(
        [
            layers.Input((None, 2)),
            layers.GRU(first, name="rnn", return_sequences=True),
            layers.GRU(4, name=second, return_sequences=True),
            layers.Dense(1, name="score"),
        ]
    ).save(path)


def test_what_resume_advises_for_another_model_works(base: Path) -> None:
    _two_layers(5, "top", "m.safetensors")
    _two_layers(5, "upper", "renamed.safetensors")
    _two_layers(6, "top", "larger.safetensors")
    config = logs.config("in", "m.safetensors", None)
    pipeline = Pipeline.from_dict(config)
    pipeline.process(LOG.slice(0, 200))
    pipeline.checkpoint("c.arrow")
    with pytest.raises(StateError, match="another model") as caught:
        Pipeline.resume("c.arrow", "renamed.safetensors")
    assert 'Pipeline.resume(CHECKPOINT, MODEL, on_change="carry")' in str(caught.value)
    assert "[state] map" not in str(caught.value)
    with pytest.raises(StateError, match="differ") as caught:
        Pipeline.resume("c.arrow", "renamed.safetensors", on_change="carry")
    assert """on_change="carry", map={'upper': 'top'})""" in str(caught.value)
    assert "--full-refresh" not in str(caught.value)
    names = {"upper": "top"}
    resumed = Pipeline.resume("c.arrow", "renamed.safetensors", on_change="carry", map=names)
    old = pipeline.state.to_arrow()
    new = resumed.state.to_arrow()
    assert new["upper/h"].equals(old["top/h"])
    assert new["rnn/h"].equals(old["rnn/h"])
    resumed.process(LOG.slice(200))
    with pytest.raises(StateError, match="'nope' is not a layer"):
        Pipeline.resume("c.arrow", "renamed.safetensors", on_change="carry", map={"nope": "top"})
    with pytest.raises(StateError, match=r"rnn/h: 6 values in the new model, 5") as caught:
        Pipeline.resume("c.arrow", "larger.safetensors", on_change="carry")
    assert "Pipeline.from_toml(FILE, ['state.map={ this = \"other\" }']" in str(caught.value)
    tables = {"state": {"map": {"top": "top"}}}
    larger = logs.config("in", "larger.safetensors", None, **tables)
    started = Pipeline.from_dict(larger, state="c.arrow")
    started.process(LOG.slice(0, 0))
    assert started.state.to_arrow()["top/h"].equals(old["top/h"])
    assert started.state.to_arrow()["steps"].equals(old["steps"])


def test_a_model_file_that_changed_is_not_included(base: Path) -> None:
    pipeline = _pipeline()
    pipeline.process(LOG.slice(0, 200))
    logs.small_model(units=3).save("m.safetensors")
    with pytest.raises(UnsupportedError, match="not the model that was loaded"):
        pipeline.checkpoint("c.arrow", include_model=True)
    Path("m.safetensors").unlink()
    with pytest.raises(MissingFileError):
        pipeline.checkpoint("c.arrow", include_model=True)
    assert not Path("c.arrow").exists()


def test_another_model_is_refused_with_advice_first_and_only_what_differs(base: Path) -> None:
    _two_layers(5, "top", "m.safetensors")
    _two_layers(5, "upper", "renamed.safetensors")
    pipeline = _pipeline()
    pipeline.process(LOG.slice(0, 20))
    pipeline.checkpoint("c.arrow")
    with pytest.raises(StateError) as caught:
        Pipeline.resume("c.arrow", "renamed.safetensors")
    first, received, expected = str(caught.value).split("\n")
    assert first.endswith('Pipeline.resume(CHECKPOINT, MODEL, on_change="carry").')
    assert received.startswith("  received: model ")
    assert 'layers that differ: {"top": {"class": "GRU"' in received
    assert 'layers that differ: {"upper": {"class": "GRU"' in expected
    assert "rnn" not in received + expected
    other = load_model("m.safetensors")
    other.set_weights([w * np.float32(0.5) for w in other.get_weights()])
    other.save("other.safetensors")
    with pytest.raises(StateError) as caught:
        Pipeline.resume("c.arrow", "other.safetensors")
    assert "layers the same, with other weights or options" in str(caught.value)
    assert "GRU" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"map": ["a"]}, r'^map: expected a mapping .*\{"new": "old"\}, received list$'),
        ({"map": {"a": 1}}, r"^map: expected a mapping .*, received 'a': 1$"),
        ({"map": "a"}, r"^map: expected a mapping .*, received str$"),
        (
            {"on_change": "keep"},
            r"""^on_change: expected "error", "replay", "carry" or "reset", received 'keep'$""",
        ),
        ({"model": 3}, r"^model: expected the path of a model file, received int\."),
        ({"model": logs.small_model()}, r"received Sequential\. Save the model first, with "),
    ],
    ids=["list", "number", "text", "on_change", "integer", "model"],
)
def test_arguments_of_resume_are_checked(
    base: Path, arguments: dict[str, Any], message: str
) -> None:
    pipeline = _pipeline()
    pipeline.process(LOG.slice(0, 20))
    pipeline.checkpoint("c.arrow")
    with pytest.raises(ConfigError, match=message):
        Pipeline.resume("c.arrow", **arguments)
