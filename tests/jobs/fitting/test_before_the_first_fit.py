"""`windows` and `validate` of a pipeline whose model has not been trained yet."""

import json
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pytest
from command_line import run_command
from jobs.fitting import fits

from streamrnn import Pipeline
from streamrnn.errors import ConfigError, DataError, MissingFileError

NOTE = "no such file yet. All else was checked, with an untrained model"


def _arrays(pipeline: Pipeline) -> list[list[np.ndarray[Any, Any]]]:
    return [[*w.inputs, w.lengths, w.reset, w.rows, w.y, w.weight] for w in pipeline.windows()]


def test_windows_are_those_of_the_model_to_come(tmp_path: Path) -> None:
    """By [model] layers, or [train] init; nothing is written. They train a model elsewhere."""
    logs.write(fits.log(), tmp_path / "in/a.parquet")
    logs.small_model().save(tmp_path / "init.safetensors")
    init = {"train": {"init": str(tmp_path / "init.safetensors")}, "model": {"layers": []}}
    before = [_arrays(Pipeline.from_dict(fits.config(tmp_path, **tables))) for tables in ({}, init)]
    assert not (tmp_path / "model.safetensors").exists()
    logs.small_model().save(tmp_path / "model.safetensors")
    with_file = fits.config(tmp_path, model={"layers": []})
    expected = _arrays(Pipeline.from_dict(with_file))
    assert len(expected) > 2
    for windows in before:
        np.testing.assert_equal(windows, expected)


def test_a_model_file_that_nothing_stands_for_is_missed(tmp_path: Path) -> None:
    """As without layers, with layers whose weights are in the file, or where a run has scored."""
    logs.write(fits.log(), tmp_path / "in/a.parquet")
    dense = {"type": "Dense", "units": 1, "weights": "w"}
    for layers in ([], [{"type": "GRU", "units": 2, "weights": "rnn"}, dense]):
        pipeline = Pipeline.from_dict(fits.config(tmp_path, model={"layers": layers}, train={}))
        with pytest.raises(MissingFileError, match=r"model\.safetensors: no such model file"):
            pipeline.windows()
    fits.fit(tmp_path)
    Pipeline.from_dict(fits.config(tmp_path)).run()
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(MissingFileError, match=r"model\.safetensors: no such model file"):
        Pipeline.from_dict(fits.config(tmp_path)).validate()


def test_validate_checks_all_but_the_model_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says so, until there is one."""
    logs.write(fits.log(), tmp_path / "in/a.parquet")
    pipeline = Pipeline.from_dict(fits.config(tmp_path))
    notes = pipeline.validate()
    assert NOTE in notes[0]
    assert {facts["mean"] for facts in pipeline.feature_statistics()} == {None}
    path = tmp_path / "p.toml"
    path.write_text(
        f'[source]\npath = "{tmp_path}/in"\nkey = "id"\ntime = "t"\nfeatures = ["a", "b"]\n'
        f'nulls = "previous"\n[model]\npath = "{tmp_path}/model.safetensors"\n'
        'layers = [{ type = "GRU", units = 2 }, { type = "Dense", units = 1 }]\n'
        f'[sink]\npath = "{tmp_path}/out"\n[target]\ncolumn = "b"\nrows = 1\n[train]\nepochs = 1\n'
    )
    code, out, _ = run_command(capsys, "validate", path, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["valid"]
    assert NOTE in found["notes"][0]
    assert [feature["name"] for feature in found["features"]] == ["a", "b"]
    pipeline.fit()
    assert not any(NOTE in note for note in pipeline.validate())
    assert all(facts["mean"] for facts in pipeline.feature_statistics())


def test_validate_finds_what_is_wrong_beside_the_model_file(tmp_path: Path) -> None:
    logs.write(fits.log(), tmp_path / "in/a.parquet")
    with pytest.raises(ConfigError, match=r"\[output\] names: the model returns 1 value"):
        Pipeline.from_dict(fits.config(tmp_path, output={"names": ["x", "y"]})).validate()
    with pytest.raises(DataError, match="column 'c' not found"):
        Pipeline.from_dict(fits.config(tmp_path, source={"features": ["a", "c"]})).validate()
