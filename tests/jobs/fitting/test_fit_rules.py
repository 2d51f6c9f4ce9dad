"""What a fit refuses to do in silence."""

import dataclasses
import json
import os
import threading
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from jobs.fitting import fits
from jobs.fitting.test_fit import train

from streamrnn import Input, Pipeline, Sequential, layers, load_model
from streamrnn.errors import CheckpointError, ConfigError, DataError
from streamrnn.jobs.fitting import FitFolder

STILL = {"name": "sgd", "learning_rate": 0.0}
FILE = "model.safetensors"


def steps(folder: Path) -> dict[str, int]:
    return {row["id"]: row["steps"] for row in fits.state(folder).to_pylist()}


def test_a_trained_normalization_is_kept(tmp_path: Path) -> None:
    """Files of Keras have a count of 0, also after `adapt`."""
    model = Sequential([Input((None, 2)), layers.Normalization(), layers.GRU(6), layers.Dense(1)])
    mean, variance, count = np.float32([3, 4]), np.float32([2, 1]), np.float32(0)
    model.layers[0].set_weights([mean, variance, count])
    model.save(tmp_path / "keras.safetensors")
    tables = train(init=str(tmp_path / "keras.safetensors"), optimizer=STILL, epochs=1)
    fits.fit(tmp_path, {**tables, "model": {"path": str(tmp_path / FILE), "layers": []}})
    fitted = load_model(tmp_path / FILE)
    assert fitted.fingerprint() == load_model(tmp_path / "keras.safetensors").fingerprint()


def test_a_model_in_the_unit_of_the_target_stays_so(tmp_path: Path) -> None:
    """Its errors without training are those of persistence, which it computes."""
    model = Sequential([Input((None, 2)), layers.Dense(1)])
    model.set_weights([np.float32([[0], [1]]), np.float32([0])])
    model.save(tmp_path / "now.safetensors")
    tables = train(init=str(tmp_path / "now.safetensors"), optimizer=STILL, epochs=1)
    tables["train"] |= {"validation": {"streams": 0.5}, "burn_in": 0}
    tables["model"] = {"path": str(tmp_path / FILE), "layers": []}
    best = fits.fit(tmp_path, tables).best
    assert best["val_rmse"] == pytest.approx(best["persistence_rmse"])
    assert not load_model(tmp_path / FILE).layers[-1].name.startswith("rescaling")


def test_a_file_that_comes_during_a_fit_waits_for_the_next_one(tmp_path: Path) -> None:
    """Neither the model nor the state has seen it; --continue reads it."""
    table = fits.log()
    logs.write(table.slice(0, 500), tmp_path / "in" / "a.parquet")

    def arrives(_: Any) -> None:
        logs.write(table.slice(500), tmp_path / "in" / "b.parquet")

    assert fits.fit(tmp_path, progress=arrives).rows == 500
    assert sum(steps(tmp_path).values()) <= 500
    assert fits.fit(tmp_path, extend=True).rows == 400


def test_a_file_that_changes_during_a_fit_is_noticed(tmp_path: Path) -> None:
    def changes(_: Any) -> None:
        logs.write(fits.log().slice(0, 60), tmp_path / "in" / "a.parquet")

    with pytest.raises(CheckpointError, match=r"a\.parquet changed while the fit read it"):
        fits.fit(tmp_path, progress=changes)
    assert not (tmp_path / FILE).exists()


def test_an_interrupted_fit_resumes_without_the_files_that_came_since(tmp_path: Path) -> None:
    table = fits.log()
    for name in ("one", "two"):
        logs.write(table.slice(0, 500), tmp_path / name / "in" / "a.parquet")
    fits.fit(tmp_path / "one")
    stop = threading.Event()
    fits.fit(tmp_path / "two", progress=lambda _: stop.set(), stop=stop)
    logs.write(table.slice(500), tmp_path / "two" / "in" / "b.parquet")
    summary = fits.fit(tmp_path / "two")
    assert any("1 new file not read" in note for note in summary.notes)
    assert fits.digest(tmp_path / "one") == fits.digest(tmp_path / "two")
    assert fits.fit(tmp_path / "two", extend=True).rows == 400


def test_burn_in_counts_from_the_start_of_a_stream(tmp_path: Path) -> None:
    """A stream that begins shortly before the cut, or before --continue, has still its burn-in."""
    rows = 30
    times = pa.array(np.arange(rows) * 60_000_000, pa.timestamp("us", "UTC"))
    table = pa.table(
        {
            "id": ["s"] * rows,
            "t": times,
            "a": np.arange(rows) * 1.0,
            "b": pa.array(range(rows), pa.int32()),
            "new": [False] * rows,
        }
    )
    logs.write(table, tmp_path / "in" / "a.parquet")
    tables = train(burn_in=12, validation={"since": "1970-01-01T00:08"}, epochs=1)
    tables["target"] = {"column": "b", "rows": 0}
    with pytest.raises(ConfigError, match="no training row has a label that counts"):
        fits.fit(tmp_path, tables)
    tables["train"] |= {"burn_in": 5}
    summary = fits.fit(tmp_path, tables)
    assert (summary.labels, summary.validation_rows) == (3, 22)

    logs.write(table.slice(0, 10), tmp_path / "days" / "in" / "a.parquet")
    tables = train(burn_in=4, epochs=1)
    tables["target"] = {"column": "b", "rows": 0}
    assert fits.fit(tmp_path / "days", tables).labels == 6
    logs.write(table.slice(10), tmp_path / "days" / "in" / "b.parquet")
    tables["train"]["burn_in"] = 14
    assert fits.fit(tmp_path / "days", tables, extend=True).labels == 20 - 4


@pytest.mark.parametrize("loss", ["mse", "binary_crossentropy"])
def test_labels_that_never_count(loss: str, tmp_path: Path) -> None:
    tables = train(loss=loss, burn_in=10_000, metrics=[])
    with pytest.raises(ConfigError, match=r"label that counts.*burn_in"):
        fits.fit(tmp_path, tables)


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ({"horizon": "17us"}, r"rows that are exactly \[target\] horizon apart"),
        ({"rows": 10_000}, r"more rows than \[target\] rows"),
    ],
)
def test_horizons_at_which_no_stream_has_a_row(
    target: dict[str, Any], advice: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"no training row has a label.*{advice}"):
        fits.fit(tmp_path, {**train(), "target": {"column": "b", "rows": 0, **target}})


def test_a_validation_that_cannot_judge(tmp_path: Path) -> None:
    table = fits.log()
    late = pc.greater_equal(table["t"], pa.scalar("2024-01-01T20:00:00Z").cast(table["t"].type))
    null = pc.if_else(late, pa.scalar(None, pa.int32()), table["b"])
    names = [*table.column_names[:3], "b", "new", "y"]
    logs.write(table.append_column("y", null).select(names), tmp_path / "in" / "a.parquet")
    tables = {**fits.validated(), "target": {"column": "y", "rows": 0}}
    tables["train"]["validation"] = {"since": "2024-01-01T20:00"}
    with pytest.raises(ConfigError, match="no validation row has a label"):
        fits.fit(tmp_path, tables)
    with pytest.raises(ConfigError, match="patience needs validation"):
        fits.fit(tmp_path, train(patience=3))
    since = {"validation": {"since": "2030-01-01"}}
    with pytest.raises(ConfigError, match="which patience needs"):
        fits.fit(tmp_path, train(patience=3, **since))
    (note,) = fits.fit(tmp_path, train(**since)).notes
    assert "no row is in [train] validation" in note


def test_a_model_file_that_is_gone_is_written_again(tmp_path: Path) -> None:
    fits.fit(tmp_path)
    data = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).unlink()
    assert fits.fit(tmp_path).nothing_new
    assert (tmp_path / FILE).read_bytes() == data
    logs.small_model().save(tmp_path / FILE)
    with pytest.raises(ConfigError, match="--overwrite"):
        fits.fit(tmp_path)
    assert fits.fit(tmp_path, overwrite=True).nothing_new
    assert (tmp_path / FILE).read_bytes() == data
    (tmp_path / FILE).unlink()
    logs.write(fits.log(1100).slice(900), tmp_path / "in" / "b.parquet")
    assert fits.fit(tmp_path, extend=True).rows == 200


def test_after_and_the_initial_state_are_part_of_a_fit(tmp_path: Path) -> None:
    table = fits.log()
    for number in (0, 1):
        logs.write(table.slice(450 * number, 450), tmp_path / "in" / f"{number}.parquet")
    after = {**fits.config(tmp_path)["source"], "after": {"path": "0.parquet"}}
    assert fits.fit(tmp_path, {"source": after}).rows == 450
    with pytest.raises(CheckpointError, match=r"source\.after"):
        fits.fit(tmp_path)
    other = tmp_path / "other"
    logs.write(table.slice(0, 450), other / "in" / "a.parquet")
    fits.fit(other)
    state = {"init": str(other / "model.safetensors.fit" / "state.parquet")}
    with pytest.raises(CheckpointError, match="the initial state: None then"):
        fits.fit(tmp_path, {"source": after, "state": state})


def test_quantiles_are_not_compared_as_means(tmp_path: Path) -> None:
    stack = [*fits.LAYERS[:2], {"type": "Dense", "units": 3}]
    tables = fits.validated()
    tables["train"] |= {"loss": {"quantile": [0.1, 0.5, 0.9]}, "metrics": []}
    tables["model"] = {"path": str(tmp_path / FILE), "layers": stack}
    best = fits.fit(tmp_path, tables).best
    assert "val_loss" in best
    assert "val_rmse" not in best
    tables["train"]["metrics"] = ["mae"]
    with pytest.raises(ConfigError, match=r"\[train\] metrics: .*'mae': it does not fit 3 outputs"):
        fits.fit(tmp_path, tables, full_refresh=True)


def test_a_source_without_a_new_row_has_nothing_new(tmp_path: Path) -> None:
    fits.fit(tmp_path)
    os.utime(tmp_path / "in" / "a.parquet")
    assert fits.fit(tmp_path, train(seed=3), extend=True).nothing_new


def test_advice_leads_somewhere(tmp_path: Path) -> None:
    stop = threading.Event()
    fits.fit(tmp_path, fits.validated(), progress=lambda _: stop.set(), stop=stop)
    with pytest.raises(CheckpointError, match=r"not finished. Resume it without --continue"):
        fits.fit(tmp_path, fits.validated(), extend=True)
    fits.fit(tmp_path, fits.validated())
    state = tmp_path / "model.safetensors.fit" / "state.parquet"
    state.unlink()
    with pytest.raises(CheckpointError, match=r"state.parquet, the state after .* is gone"):
        fits.fit(tmp_path, fits.validated(), extend=True)
    fits.fit(tmp_path, train(state=False), full_refresh=True)
    assert not state.exists()
    with pytest.raises(ConfigError, match="the last fit saved no state"):
        fits.fit(tmp_path, train(state=False), extend=True)


def test_a_feature_too_large_to_standardize_is_named(tmp_path: Path) -> None:
    table = fits.log()
    a = pa.array(np.where(np.arange(len(table)) % 7, 1.0, 1e38))
    logs.write(table.set_column(2, "a", a), tmp_path / "in" / "a.parquet")
    with pytest.raises(DataError, match=r"feature 0 \(from 0\) has the variance .*clip"):
        fits.fit(tmp_path)


def test_nothing_to_train(tmp_path: Path) -> None:
    frozen = [{**layer, "trainable": False} for layer in fits.LAYERS]
    with pytest.raises(ConfigError, match="is trainable"):
        fits.fit(tmp_path, {"model": {"path": str(tmp_path / FILE), "layers": frozen}})
    one = {"train": {**train()["train"], "loss": "categorical_crossentropy", "metrics": []}}
    with pytest.raises(ConfigError, match="an output for each class"):
        fits.fit(tmp_path, one)


def test_frozen_layers_keep_their_weights(tmp_path: Path) -> None:
    stack = [fits.LAYERS[0], {**fits.LAYERS[1], "trainable": False}, fits.LAYERS[2]]
    fits.fit(tmp_path, {"model": {"path": str(tmp_path / FILE), "layers": stack}})
    before = load_model(tmp_path / "model.safetensors.fit" / "initial.safetensors")
    after = load_model(tmp_path / FILE)
    for one, two in zip(before.layers[1].get_weights(), after.layers[1].get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (before.layers[2].get_weights()[0] != after.layers[2].get_weights()[0]).any()


def test_folders_and_edited_commits(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"\[model\] path"):
        fits.fit(tmp_path)
    (tmp_path / FILE).rmdir()
    fits.fit(tmp_path)
    folder = FitFolder(tmp_path / FILE)
    commit = folder.read()
    assert commit is not None
    commit.record = dataclasses.make_dataclass("Other", ["done"])(True)
    folder.commit(commit)
    with pytest.raises(CheckpointError, match="commit was edited"):
        fits.fit(tmp_path)
    (tmp_path / "model.safetensors.fit" / "commit").unlink()
    (tmp_path / "model.safetensors.fit" / "commit").mkdir()
    with pytest.raises(CheckpointError, match="commit"):
        fits.fit(tmp_path)


def test_a_stop_while_rows_are_read(tmp_path: Path) -> None:
    """It need not wait for the end of the log."""
    stop = threading.Event()
    stop.set()
    summary = fits.fit(tmp_path, stop=stop)
    assert (summary.interrupted, summary.committed, summary.rows) == (True, False, 0)
    assert not (tmp_path / "model.safetensors.fit").exists()
    json.dumps(summary.as_dict())


def test_a_link_to_a_model_stays_one(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / FILE).symlink_to(tmp_path / "made" / FILE)
    fits.fit(tmp_path)
    assert (tmp_path / FILE).is_symlink()
    assert (tmp_path / "made" / FILE).exists()
    assert Pipeline.from_dict(fits.config(tmp_path)).run().rows == fits.ROWS


def test_no_row_is_read_before_the_keys_are_checked(tmp_path: Path) -> None:
    """A log is long; here it would be refused, too, as it is no Parquet file."""
    logs.write(fits.log(), tmp_path / "in" / "a.parquet")
    data = (tmp_path / "in" / "a.parquet").read_bytes()
    (tmp_path / "in" / "a.parquet").write_bytes(b"\0" * 60 + data[60:])  # rows, not the footer
    for keys in (
        {"optimizer": {"name": "adma"}},
        {"metrics": ["rsquared"]},
        {"validation": {"since": "soon"}},
        {"until": "soon"},
        {"loss": "sparse_categorical_crossentropy", "metrics": []},
    ):
        with pytest.raises(ConfigError):
            fits.fit(tmp_path, train(**keys))
    with pytest.raises(DataError):
        fits.fit(tmp_path)
    assert pq.ParquetFile(tmp_path / "in" / "a.parquet").metadata.num_rows == fits.ROWS


def test_evaluate_knows_the_quantiles_of_a_fit(tmp_path: Path) -> None:
    stack = [*fits.LAYERS[:2], {"type": "Dense", "units": 3}]
    tables = train(loss={"quantile": [0.1, 0.5, 0.9]}, metrics=[])
    tables["model"] = {"path": str(tmp_path / FILE), "layers": stack}
    fits.fit(tmp_path, tables)
    pipeline = Pipeline.from_dict(fits.config(tmp_path, **tables))
    pipeline.run()
    assert "pinball" in pipeline.evaluate().table.column_names


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"optimizer": {"name": "adma"}}, "adam"),
        ({"validation": {"since": "soon"}}, "validation.since"),
        ({"metrics": ["rsquared"]}, "rsquared"),
        ({"loss": {"quantile": [0.1, 0.9]}, "metrics": []}, "1 outputs"),
    ],
)
def test_validate_checks_the_fit(keys: dict[str, Any], text: str, tmp_path: Path) -> None:
    """Before the first fit, too: a note says that the model is missing then."""
    logs.write(fits.log(), tmp_path / "in" / "a.parquet")
    with pytest.raises(ConfigError, match=text):
        Pipeline.from_dict(fits.config(tmp_path, **train(**keys))).validate()
    missing, *_ = Pipeline.from_dict(fits.config(tmp_path)).validate()
    assert "streamrnn fit" in missing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    fits.fit(tmp_path)
    assert not any("fit" in note for note in Pipeline.from_dict(fits.config(tmp_path)).validate())
    noted = Pipeline.from_dict(fits.config(tmp_path, **train(**keys))).validate()
    assert any(note.startswith("runs are not affected, but fit would refuse") for note in noted)


def test_validate_checks_a_fit_with_the_defaults_of_train(tmp_path: Path) -> None:
    """The table [train] may be left out."""
    logs.write(fits.log(), tmp_path / "in" / "a.parquet")
    data = fits.config(
        tmp_path, model={"layers": [*fits.LAYERS[:2], {"type": "Dense", "units": 3}]}
    )
    del data["train"]
    with pytest.raises(ConfigError, match="the model has 3 outputs"):
        Pipeline.from_dict(data).validate()


@pytest.mark.parametrize("other", [{"limit": 100}, {"find_rate": True}, {"full_refresh": True}])
def test_extend_and_what_starts_over_exclude_each_other(
    other: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"fit: extend trains the model of the last fit; .* out"):
        fits.fit(tmp_path, extend=True, **other)


def test_a_limit_without_a_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^fit: expected a limit of 1 row or more, received 0"):
        fits.fit(tmp_path, limit=0)


def test_validate_does_not_ask_for_a_fit(tmp_path: Path) -> None:
    """Without [train], layers may be those of weights from elsewhere, and rows come from stdin."""
    fits.fit(tmp_path)
    data = fits.config(tmp_path, source={"path": "-"})
    del data["train"]
    assert Pipeline.from_dict(data).validate()
