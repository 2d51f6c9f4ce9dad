"""Maps of layers (`[state] map`, `map=` of `Pipeline.resume`) that do not fit the state."""

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pytest

from streamrnn import Pipeline, Sequential, layers
from streamrnn.checkpoints import read_manifest
from streamrnn.errors import StateError

LOG = logs.random_log(300)
TYPO = {"rnn": "rnnX"}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models of the same layers, one of other names; a file of a log, and its output."""
    monkeypatch.chdir(tmp_path)
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
    return tmp_path


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
