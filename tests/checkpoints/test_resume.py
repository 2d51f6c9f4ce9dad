"""Which files are read next, and which changes of a pipeline are let through."""

import pytest

from streamrnn.checkpoints import Manifest, UsedFile
from streamrnn.checkpoints.resume import check_same, plan_sources
from streamrnn.errors import CheckpointError
from streamrnn.sources import Position


class Present:
    """A file of a source, as far as a plan looks at it; it counts how often it was read."""

    def __init__(self, path, size=10, mtime_ns=1, content="a"):
        self.path, self.size, self.mtime_ns, self.content = path, size, mtime_ns, content
        self.read = 0

    def identity(self):
        self.read += 1
        return self.content


def manifest(*files, position=None, model="m" * 64, config=None):
    used = tuple(UsedFile(path, 10, 1, "a") for path in files)
    return Manifest(
        output="",
        commit=7,
        time="2026-01-02T03:04:05Z",
        complete=position is None,
        model=model,
        config=config or {},
        schema="",
        sources=used,
        position=position,
    )


def paths(plan):
    return [file.path for file in plan.files]


def test_at_the_first_start_everything_is_new():
    plan = plan_sources(None, [Present("a"), Present("b")], force=False)
    assert paths(plan) == ["a", "b"]
    assert plan.position is None


def test_only_new_files_are_read_in_their_order():
    present = [Present("a"), Present("aa"), Present("b"), Present("c")]
    assert paths(plan_sources(manifest("a", "b"), present, force=False)) == ["aa", "c"]


def test_nothing_new():
    assert paths(plan_sources(manifest("a"), [Present("a")], force=False)) == []


def test_the_file_of_the_position_comes_first():
    here = Position("b", 1, 5, 105, False)
    present = [Present("a"), Present("aa"), Present("b"), Present("c")]
    plan = plan_sources(manifest("a", "b", position=here), present, force=False)
    assert paths(plan) == ["b", "aa", "c"]
    assert plan.position == here


def test_used_files_that_vanished_are_listed():
    plan = plan_sources(manifest("a", "b"), [Present("b"), Present("c")], force=False)
    assert plan.vanished == ("a",)
    assert paths(plan) == ["c"]


def test_the_file_of_the_position_must_not_vanish():
    here = Position("b", 1, 5, 105, False)
    with pytest.raises(CheckpointError, match=r"b is gone: .*row 105 \(from 0\)"):
        plan_sources(manifest("a", "b", position=here), [Present("a")], force=False)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (Present("a", size=11), "a: 10 bytes when it was read, 11 bytes now"),
        (
            Present("a", mtime_ns=2, content="b"),
            "a: 10 bytes when it was read, 10 bytes now, other",
        ),
    ],
)
def test_a_changed_file_is_refused_by_name_or_passed_over_with_force(changed, said):
    with pytest.raises(CheckpointError, match=said) as caught:
        plan_sources(manifest("a", "b"), [changed, Present("b")], force=False)
    assert "--full-refresh" in str(caught.value)
    assert "--force" in str(caught.value)
    plan = plan_sources(manifest("a", "b"), [changed, Present("b"), Present("c")], force=True)
    assert plan.changed == ("a",)
    assert paths(plan) == ["c"]


def test_many_changed_files_are_counted():
    files = [f"f{n:02}" for n in range(30)]
    with pytest.raises(CheckpointError, match=r"30 files(?s:.*)and 20 more"):
        plan_sources(manifest(*files), [Present(path, size=1) for path in files], force=False)


def test_a_file_that_was_only_touched_is_as_it_was():
    assert paths(plan_sources(manifest("a"), [Present("a", mtime_ns=99)], force=False)) == []


def test_an_untouched_file_is_not_read():
    file = Present("a")
    plan_sources(manifest("a"), [file], force=False)
    assert file.read == 0


CONFIG = {
    "source.path": "logs",
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
    check_same(manifest(config=CONFIG), "m" * 64, now, "out/weather")


def test_what_the_promises_let_change_may_change():
    same(
        source__path="other",
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
        ("source.key", ["id", "site"], 'source.key: ["id"] then, ["id", "site"] now'),
        ("source.features", ["y"], 'source.features: ["x"] then, ["y"] now'),
        ("source.nulls", 0.0, 'source.nulls: "error" then, 0.0 now'),
        ("window.kind", "whole", 'window.kind: "carry" then, "whole" now'),
        ("output.emit", "last", 'output.emit: "every" then, "last" now'),
        ("output.last_of", 3, "output.last_of: not set then, 3 now"),
    ],
)
def test_what_would_change_rows_is_refused_with_both_sides(key, value, said):
    with pytest.raises(CheckpointError) as caught:
        same(**{key.replace(".", "__"): value})
    assert said in str(caught.value)
    assert "out/weather was written by another pipeline (commit 7, 2026-01-02" in str(caught.value)


def test_steps_and_stride_count_in_the_kind_fixed():
    then = {**CONFIG, "window.kind": "fixed"}
    now = {**then, "window.steps": 64, "window.stride": 64}
    with pytest.raises(CheckpointError, match=r"window\.steps: 128 then, 64 now\n.*window\.stride"):
        check_same(manifest(config=then), "m" * 64, now, "out")


def test_another_model_is_refused_with_both_fingerprints():
    with pytest.raises(CheckpointError, match=r"fingerprint: m{16} then, n{16} now"):
        check_same(manifest(config=CONFIG), "n" * 64, CONFIG, "out")


def test_values_that_json_knows_otherwise_are_equal():
    now = {**CONFIG, "source.key": ("id",)}
    check_same(manifest(config=CONFIG), "m" * 64, now, "out")
