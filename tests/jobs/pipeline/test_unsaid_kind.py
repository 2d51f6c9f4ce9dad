"""A model of a fixed number of steps, and a pipeline file that does not say the kind of window."""

import json
import shutil
from pathlib import Path
from typing import Any

import logs
import pyarrow.parquet as pq
import pytest
from command_line import run_command

from streamrnn import Input, Pipeline, Sequential, layers
from streamrnn.errors import ModelMismatchError

LOG = logs.random_log(170, streams=4)
BOTH = r'kind = "independent", steps = 7, stride = 1: what predict gives[\s\S]*kind = "carry": '


def _of_steps(steps: int | None = 7, **options: Any) -> Sequential:
    shape = {"batch_shape": (1, steps, 2)} if options.get("stateful") else {"shape": (steps, 2)}
    return Sequential([Input(**shape), layers.GRU(3, **options), layers.Dense(1, name="score")])


def _config(base: Path, made: Sequential, **tables: dict[str, Any]) -> dict[str, Any]:
    made.save(base / "m.safetensors")
    source = logs.write(LOG.slice(0, 120), base / "in" / "a.parquet")
    return logs.config(
        str(Path(source).parent), str(base / "m.safetensors"), str(base / "out"), **tables
    )


def _begun_without_the_key(config: dict[str, Any]) -> None:
    """A run as before the key was required: the model's inputs declare no steps."""
    file = Path(config["model"]["path"])
    kept = file.read_bytes()
    Pipeline.from_dict({**config, "window": {"kind": "carry"}}).run()
    file.write_bytes(kept)


def _add_a_file(config: dict[str, Any]) -> None:
    logs.write(LOG.slice(120, 30), Path(config["source"]["path"]) / "b.parquet")


def test_it_is_refused_with_both_answers(tmp_path: Path) -> None:
    config = _config(tmp_path, _of_steps())
    batch = pq.read_table(tmp_path / "in")
    for use in (
        lambda p: p.run(),
        lambda p: p.validate(),
        lambda p: p.explain(),
        lambda p: p.preview(5),
        lambda p: p.process(batch),
    ):
        with pytest.raises(ModelMismatchError, match=BOTH):
            use(Pipeline.from_dict(config))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("window", [
    {"kind": "carry"}, {"kind": "whole"}, {"kind": "independent", "steps": 7, "stride": 1},
])  # fmt: skip
def test_each_answer_runs(tmp_path: Path, window: dict[str, Any]) -> None:
    pipeline = Pipeline.from_dict(_config(tmp_path, _of_steps(), window=window))
    (note,) = [note for note in pipeline.validate() if "7 steps" in note]
    assert f"kind is {window['kind']}" in note
    plan = pipeline.explain()
    assert plan["kind_because"] == "set by [window] kind"
    assert note in plan["notes"]
    summary = pipeline.run()
    assert summary.rows == 120
    assert not summary.state_notes


def test_set_and_the_environment_answer_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _config(tmp_path, _of_steps())
    file = tmp_path / "p.toml"
    tables = {name: config[name] for name in ("source", "model", "sink")}
    text = "\n".join(
        f"[{name}]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        for name, table in tables.items()
    )
    file.write_text(text)
    code, _, err = run_command(capsys, "validate", file)
    assert code == ModelMismatchError.exit_code
    assert "more: streamrnn guide keras-model" in err
    assert run_command(capsys, "validate", file, "--set", "window.kind=carry")[0] == 0
    file.write_text(f'{text}\n[window]\nkind = "${{KIND}}"\n')
    monkeypatch.setenv("KIND", "carry")
    assert run_command(capsys, "validate", file)[0] == 0


@pytest.mark.parametrize("made", [
    _of_steps(None), _of_steps(1), _of_steps(stateful=True),
], ids=["any", "one", "stateful"])  # fmt: skip
def test_other_models_need_no_answer(tmp_path: Path, made: Sequential) -> None:
    pipeline = Pipeline.from_dict(_config(tmp_path, made))
    assert not [note for note in pipeline.validate() if "steps" in note]
    assert pipeline.explain()["kind_because"] == "the default"
    assert pipeline.run().rows == 120


def test_an_output_begun_without_the_key_keeps_carry(tmp_path: Path) -> None:
    """With the bits of a run that says it, and a note; `process` from its state too."""
    config = _config(tmp_path, _of_steps())
    _begun_without_the_key(config)
    shutil.copytree(tmp_path / "out", tmp_path / "said")
    _add_a_file(config)
    plan = Pipeline.from_dict(config).explain()
    assert plan["kind"] == "carry"
    assert plan["kind_because"] == "the output began with it, and [window] kind is not set"
    summary = Pipeline.from_dict(config).run()
    assert summary.rows == 30
    (note,) = summary.state_notes
    assert "the model's inputs have 7 steps, and kind is carry" in note
    assert 'Add kind = "carry"' in note
    said = {**config, "window": {"kind": "carry"}, "sink": {"path": str(tmp_path / "said")}}
    assert not Pipeline.from_dict(said).run().state_notes
    assert pq.read_table(tmp_path / "out").equals(pq.read_table(tmp_path / "said"))
    live = Pipeline.from_dict(config, state="output")
    more = LOG.slice(150)
    checkpoint = tmp_path / "live.arrow"
    scored = live.process(more.slice(0, 10)), live.checkpoint(checkpoint)
    assert scored[0].num_rows == 10
    resumed = Pipeline.resume(checkpoint).process(more.slice(10))
    assert resumed.equals(live.process(more.slice(10)))


def test_an_output_that_starts_over_needs_the_answer(tmp_path: Path) -> None:
    config = _config(tmp_path, _of_steps())
    _begun_without_the_key(config)
    with pytest.raises(ModelMismatchError, match=BOTH):
        Pipeline.from_dict(config).run(full_refresh=True)
    assert Pipeline.from_dict(config).run().nothing_new


def test_carry_is_no_answer_for_layers_that_cannot(tmp_path: Path) -> None:
    made = Sequential([Input((7, 2)), layers.Flatten(), layers.Dense(1)])
    with pytest.raises(ModelMismatchError) as error:
        Pipeline.from_dict(_config(tmp_path, made)).validate()
    assert 'kind = "independent", steps = 7, stride = 1' in str(error.value)
    assert 'kind = "carry" is not possible: layer' in str(error.value)


def test_a_fit_needs_the_answer_too(tmp_path: Path) -> None:
    """The model would be trained in one kind, and served in another."""
    config = _config(tmp_path, _of_steps())
    init = str((tmp_path / "m.safetensors").rename(tmp_path / "first.safetensors"))
    config |= {"target": {"column": "a", "rows": 1}, "train": {"init": init, "epochs": 1}}
    with pytest.raises(ModelMismatchError, match=BOTH):
        Pipeline.from_dict(config).fit()
