"""Which changes of a pipeline are let through."""

import pytest

from streamrnn.errors import CheckpointError
from streamrnn.stream.checkpoints import Manifest
from streamrnn.stream.checkpoints.starting import check_same_pipeline


def manifest(config, model="m" * 64):
    return Manifest(
        output="",
        commit=7,
        time="2026-01-02T03:04:05Z",
        complete=True,
        model=model,
        config=config,
        schema="",
    )


CONFIG = {
    "source.path": "logs",
    "source.order": "path",
    "source.key": ["id"],
    "source.features": ["x"],
    "source.nulls": "error",
    "source.batch_rows": 100,
    "source.late": "error",
    "window.kind": "carry",
    "window.lanes": 64,
    "window.steps": 128,
    "window.stride": 128,
    "model.path": "m.safetensors",
    "model.threads": 0,
    "output.emit": "every",
    "sink.path": "out",
    "checkpoint.every": 16,
    "checkpoint.keep": 1,
}


def same(**changes):
    now = {**CONFIG, **{key.replace("__", "."): value for key, value in changes.items()}}
    check_same_pipeline(manifest(CONFIG), "m" * 64, now, "out/weather")


def test_what_the_promises_let_change_may_change():
    same(
        source__path="other",
        source__order="time",
        source__batch_rows=1,
        source__late="drop",
        window__lanes=1,
        window__steps=1,
        window__stride=5,
        model__path="copy.safetensors",
        model__threads=3,
        sink__path="moved",
        checkpoint__every=1,
        checkpoint__keep=9,
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("source.key", ["id", "site"], 'source.key: was ["id"], is now ["id", "site"]'),
        ("source.features", ["y"], 'source.features: was ["x"], is now ["y"]'),
        ("source.nulls", 0.0, 'source.nulls: was "error", is now 0.0'),
        ("window.kind", "whole", 'window.kind: was "carry", is now "whole"'),
        ("output.emit", "last", 'output.emit: was "every", is now "last"'),
        ("output.last_of", 3, "output.last_of: was not set, is now 3"),
    ],
)
def test_what_would_change_rows_is_refused_with_both_sides(key, value, said):
    with pytest.raises(CheckpointError) as caught:
        same(**{key.replace(".", "__"): value})
    assert said in str(caught.value)
    assert "out/weather was written by another pipeline (commit 7, 2026-01-02" in str(caught.value)


def test_steps_and_stride_count_in_the_kind_independent():
    then = {**CONFIG, "window.kind": "independent"}
    now = {**then, "window.steps": 64, "window.stride": 64}
    with pytest.raises(
        CheckpointError, match=r"window\.steps: was 128, is now 64\n.*window\.stride"
    ):
        check_same_pipeline(manifest(then), "m" * 64, now, "out")


def test_another_model_is_refused_with_both_fingerprints():
    with pytest.raises(CheckpointError, match=r"fingerprint: was m{16}, is now n{16}"):
        check_same_pipeline(manifest(CONFIG), "n" * 64, CONFIG, "out")


def test_values_that_json_knows_otherwise_are_equal():
    now = {**CONFIG, "source.key": ("id",)}
    check_same_pipeline(manifest(CONFIG), "m" * 64, now, "out")
