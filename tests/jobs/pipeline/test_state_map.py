"""Maps of layers (`[state] map`, `map=` of `Pipeline.resume`) that do not fit the state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pytest

from streamrnn import Pipeline, Sequential, layers
from streamrnn.errors import StateError
from streamrnn.stream.checkpoints import read_manifest

LOG = logs.random_log(300)
TYPO = {"rnn": "rnnX"}


@pytest.fixture
def base(workdir: Path) -> Path:
    """Two models of the same layers, one of other names; a file of a log, and its output."""
    for seed, names in ((1, ("rnn", "top")), (2, ("rnn", "top")), (3, ("low", "high"))):
        model = Sequential(
            [
                layers.Input((None, 2)),
                layers.GRU(5, name=names[0], return_sequences=True),
                layers.GRU(5, name=names[1]),
                layers.Dense(1, name="score"),
            ]
        )
        rng = np.random.default_rng(seed)
        weights = [rng.normal(0, 0.6, w.shape).astype(np.float32) for w in model.get_weights()]
        model.set_weights(weights)
        model.save(f"m{seed}.safetensors")
    logs.write(LOG.slice(0, 200), Path("in") / "1.parquet")
    Pipeline.from_dict(_config("m1")).run()
    logs.write(LOG.slice(200), Path("in") / "2.parquet")
    pipeline = Pipeline.from_dict({**_config("m1"), "sink": {}})
    pipeline.process(LOG.slice(0, 200))
    pipeline.checkpoint("c.arrow")
    return workdir


def _config(model: str, **tables: Any) -> dict[str, Any]:
    return logs.config("in", f"{model}.safetensors", "out", **tables)


@pytest.mark.parametrize("model", ["m1", "m2"])
def test_a_run_refuses_an_origin_that_the_state_does_not_have(base: Path, model: str) -> None:
    """Whether the model has changed or not, before anything is written."""
    config = _config(model, state={"map": TYPO})
    config["model"]["on_change"] = "carry"
    message = r"'rnn' from 'rnnX'.* Did you mean 'rnn'\? Expected one of rnn, top"
    for verb in (Pipeline.from_dict(config).validate, Pipeline.from_dict(config).run):
        with pytest.raises(StateError, match=message):
            verb()
    assert read_manifest("out").commit == 1


@pytest.mark.parametrize("model", [None, "m2.safetensors"])
def test_resume_refuses_an_origin_that_the_checkpoint_does_not_have(
    base: Path, model: str | None
) -> None:
    message = r"^c\.arrow: .*'rnn' from 'rnnX'.* Did you mean 'rnn'\? Expected one of rnn, top"
    with pytest.raises(StateError, match=message):
        Pipeline.resume("c.arrow", model, on_change="carry", map=TYPO)


def test_a_map_that_an_unchanged_model_would_not_use_is_refused(base: Path) -> None:
    swapped = {"rnn": "top", "top": "rnn"}
    message = "'rnn' from 'top': the model has not changed"
    with pytest.raises(StateError, match=message):
        Pipeline.resume("c.arrow", map=swapped)
    with pytest.raises(StateError, match=message):
        Pipeline.from_dict(_config("m1", state={"map": swapped})).run()
    Pipeline.resume("c.arrow", "m2.safetensors", on_change="carry", map=swapped)


def test_a_map_for_the_next_model_does_no_harm(base: Path) -> None:
    names = {"low": "rnn", "high": "top"}
    assert Pipeline.from_dict(_config("m1", state={"map": names})).run().rows == 100


def test_a_job_may_pass_the_same_map_each_time(base: Path) -> None:
    """Once the state has the new names, the map is that of an earlier change."""
    names = {"low": "rnn", "high": "top"}
    first = Pipeline.resume("c.arrow", "m3.safetensors", on_change="carry", map=names)
    first.checkpoint("c.arrow")
    again = Pipeline.resume("c.arrow", "m3.safetensors", on_change="carry", map=names)
    assert again.state.to_arrow().equals(first.state.to_arrow())


CELLS: dict[str, Callable[[], layers.Layer]] = {
    "simple": lambda: layers.SimpleRNN(5, name="rnn"),
    "gru": lambda: layers.GRU(5, name="rnn"),
    "cell of gru": lambda: layers.RNN(layers.GRUCell(5), name="rnn"),
    "gru, reset before": lambda: layers.GRU(5, reset_after=False, name="rnn"),
    "lstm": lambda: layers.LSTM(5, name="rnn"),
    "lstm, peepholes": lambda: layers.RNN(layers.PeepholeLSTMCell(5), name="rnn"),
    "lstm, normed": lambda: layers.RNN(layers.LayerNormLSTMCell(5), name="rnn"),
    "simple, stacked": lambda: layers.RNN([layers.SimpleRNNCell(5)], name="rnn"),
    "gru, stacked": lambda: layers.RNN([layers.GRUCell(5)], name="rnn"),
}


def _save(name: str, *cells: layers.Layer) -> None:
    inputs = layers.Input((None, 2))
    Sequential([inputs, *cells, layers.Dense(1, name="score")]).save(f"{name}.safetensors")


def _checkpoint(cell: str) -> None:
    _save("old", CELLS[cell]())
    pipeline = Pipeline.from_dict({**_config("old"), "sink": {}})
    pipeline.process(LOG.slice(0, 200))
    pipeline.checkpoint("old.arrow")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("simple", "simple"),
        ("gru", "cell of gru"),
        ("gru, reset before", "gru"),
        ("lstm", "lstm, peepholes"),
        ("lstm, peepholes", "lstm"),
        ("gru, stacked", "gru, stacked"),
    ],
)
def test_a_state_is_carried_to_its_own_class_of_cell(base: Path, old: str, new: str) -> None:
    """In a layer or alone. Before or after its product, the reset of a GRU changes how it computes
    its output, not that it carries its output; without peepholes an LSTM is one with zeros."""
    _checkpoint(old)
    _save("new", CELLS[new]())
    resumed = Pipeline.resume("old.arrow", "new.safetensors", on_change="carry")
    resumed.process(LOG.slice(200))


@pytest.mark.parametrize(
    ("old", "new", "received", "expected"),
    [
        ("simple", "gru", "SimpleRNNCell", "GRUCell"),
        ("gru", "simple", "GRUCell", "SimpleRNNCell"),
        ("lstm", "lstm, normed", "LSTMCell", "LayerNormLSTMCell"),
        ("gru, stacked", "simple, stacked", "GRUCell", "SimpleRNNCell"),
    ],
)
@pytest.mark.parametrize("mapping", [None, {"rnn": "rnn"}])
def test_a_state_is_not_carried_to_another_class_of_cell(
    base: Path, old: str, new: str, received: str, expected: str, mapping: dict[str, str] | None
) -> None:
    """However alike names and sizes are: the numbers mean something else there."""
    _checkpoint(old)
    _save("new", CELLS[new]())
    with pytest.raises(StateError, match="the states of the new model differ") as refused:
        Pipeline.resume("old.arrow", "new.safetensors", on_change="carry", map=mapping)
    assert f"h: a state of {expected} in the new model, of {received} in 'rnn/" in str(
        refused.value
    )


def test_exchanged_names_are_refused_with_the_map_that_helps(base: Path) -> None:
    """A run says what it expected, and starts nothing; the map that it proposes works."""
    cells = (layers.SimpleRNN, layers.GRU)
    for name, order in (("old", "ab"), ("new", "ba")):
        _save(
            name,
            *(cell(5, name=n, return_sequences=True) for cell, n in zip(cells, order, strict=True)),
        )
    config = _config("old", sink={"path": "swapped"})
    logs.write(LOG.slice(0, 200), Path("in") / "1.parquet")
    (Path("in") / "2.parquet").unlink()
    Pipeline.from_dict(config).run()
    logs.write(LOG.slice(200), Path("in") / "2.parquet")
    config["model"]["path"] = "new.safetensors"
    with pytest.raises(StateError) as refused:
        Pipeline.from_dict(config).run(new_model="carry")
    assert str(refused.value) == (
        "the state of swapped: the states of the new model differ:\n"
        "  b/h: a state of SimpleRNNCell in the new model, of GRUCell in 'b/h' of the old one\n"
        "  a/h: a state of GRUCell in the new model, of SimpleRNNCell in 'a/h' of the old one\n"
        'If only the layers\' names differ, set [state] map = { "b" = "a", "a" = "b" }, or '
        "start over with --full-refresh."
    )
    assert read_manifest("swapped").commit == 1
    config["state"] = {"map": {"b": "a", "a": "b"}}
    assert Pipeline.from_dict(config).run(new_model="carry").rows == 100


def test_the_map_of_an_initial_state_is_checked_as_well(base: Path) -> None:
    _checkpoint("simple")
    _save("new", CELLS["gru"]())
    second = Pipeline.from_dict(
        {**_config("new"), "sink": {}, "state": {"init": "old.arrow", "map": {"rnn": "rnn"}}}
    )
    with pytest.raises(
        StateError,
        match=r"old\.arrow: \[state\] map: .*\n  rnn/h: a state of GRUCell in the new model, of "
        r"SimpleRNNCell in 'rnn/h' of the old one\nMap each layer to a layer of its class",
    ):
        second.process(LOG.slice(200))


def test_a_state_that_names_no_classes_is_carried_by_names_and_sizes(base: Path) -> None:
    """One of another program."""
    _save("old", CELLS["simple"]())
    _save("new", CELLS["gru"]())
    first = Pipeline.from_dict({**_config("old"), "sink": {}})
    first.process(LOG.slice(0, 200))
    table = first.state.to_arrow()
    entries = {k: v for k, v in table.schema.metadata.items() if k != b"streamrnn.classes"}
    config = {**_config("new", state={"map": {"rnn": "rnn"}}), "sink": {}}
    second = Pipeline.from_dict(config, state=table.replace_schema_metadata(entries))
    second.process(LOG.slice(200))
