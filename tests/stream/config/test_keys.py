"""Every key is declared free or fixed, and one that an old output lacks counts as its default."""

import re

import pytest

from streamrnn.errors import CheckpointError
from streamrnn.stream.checkpoints import Manifest, check_same_pipeline
from streamrnn.stream.config import FREE, Config, value_of

PIPELINE = {
    "source": {
        "path": "in",
        "key": "id",
        "time": "t",
        "features": ["a", {"name": "b.c", "clip": [0, 1]}],
    },
    "model": {"path": "m.safetensors"},
    "sink": {"path": "out"},
}
FIXED = frozenset(
    {
        "source.key",
        "source.time",
        "source.features",
        "source.features.*.valid",
        "source.features.*.clip",
        "source.features.*.nulls",
        "source.features.*.nan",
        "source.features.*.vocabulary",  # its content
        "source.features.*.oov",
        "source.features.*.embed",  # of the model
        "source.time_features",
        "source.time_zone",
        "source.types",
        "source.nulls",
        "source.nan",
        "source.reset",
        "source.max_gap",
        "source.repeated",
        "source.sort",
        "window.kind",
        "window.steps",  # free in kind carry
        "window.stride",  # free except in kind independent
        "model.inputs",
        "model.state",
        "output.emit",
        "output.last_of",
        "output.columns",
        "output.warmup",
        "output.model_column",
        "target.as",  # if it is "change", so is target.column
        "sink.format",
        "sink.partition_by",
        "state.init",
        "state.idle",
    }
)
KEYS = {
    re.sub(r"^source\.features\..+\.(\w+)$", r"source.features.*.\1", key)
    for key in Config.parse(PIPELINE).canonical()
}


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_key_is_declared_once(key: str) -> None:
    """In FREE a new key that may change between two runs of one output, else in the table above."""
    assert (key in FREE) + (key in FIXED) == 1


def test_no_key_is_declared_that_is_none() -> None:
    assert FREE | FIXED == KEYS


def _manifest(config: dict[str, object]) -> Manifest:
    return Manifest(
        output="", commit=1, time="", complete=True, model="m", config=config, schema=""
    )


@pytest.mark.parametrize("key", sorted(Config.parse(PIPELINE).canonical()))
def test_an_output_that_is_older_than_a_key_is_resumed(key: str) -> None:
    """As long as the key has its default; required keys are in every output."""
    now = Config.parse(PIPELINE).canonical()
    then = {name: value for name, value in now.items() if name != key}
    set_here = {"source.key", "source.time", "source.features", "source.features.b.c.clip"}
    if key in set_here | {"output.columns"}:
        with pytest.raises(CheckpointError, match=re.escape(key)):
            check_same_pipeline(_manifest(then), "m", now, "out")
    else:
        check_same_pipeline(_manifest(then), "m", now, "out")


def test_a_default_may_follow_from_another_key() -> None:
    """An output that is older than `stride` has windows that begin every `steps` rows."""
    window = {"kind": "independent", "steps": 6}
    now = Config.parse({**PIPELINE, "window": window}).canonical()
    then = {name: value for name, value in now.items() if name != "window.stride"}
    check_same_pipeline(_manifest(then), "m", now, "out")
    with pytest.raises(CheckpointError, match=r"window\.stride: was not set, is now 4"):
        check_same_pipeline(_manifest(then), "m", {**now, "window.stride": 4}, "out")


def test_a_default_that_is_not_used_is_told() -> None:
    """Beside what the output has: not set."""
    now = {**Config.parse(PIPELINE).canonical(), "output.warmup": 5}
    then = {name: value for name, value in now.items() if name != "output.warmup"}
    with pytest.raises(CheckpointError, match=r"output\.warmup: was not set, is now 5"):
        check_same_pipeline(_manifest(then), "m", now, "out")
    assert value_of("output.warmup", then) == 0
