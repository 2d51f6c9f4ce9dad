"""`[model] precision` in a pipeline: the same promises, and the error on its own rows."""

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run_command

from streamrnn import Input, Pipeline, Sequential, layers, load_model
from streamrnn.errors import CheckpointError, UnsupportedError
from streamrnn.outputs import export_state, reset_streams
from streamrnn.stream.checkpoints import read_manifest

LOG = logs.random_log(400)


@pytest.fixture
def base(workdir: Path) -> Path:
    model = Sequential([Input((None, 2)), layers.GRU(5, name="rnn"), layers.Dense(1, name="score")])
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.6, w.shape) for w in model.get_weights()])
    model.save("m.safetensors")
    load_model("m.safetensors", precision="int16").save("packed.safetensors")
    logs.write(LOG.slice(0, 170), Path("in") / "a.parquet")
    return workdir


def job(weights: str = "m.safetensors", precision: str = "auto", **tables: Any) -> Pipeline:
    """Its output is `out`."""
    model = {"precision": precision, **tables.pop("model", {})}
    return Pipeline.from_dict(logs.config("in", weights, "out", model=model, **tables))


def scores(folder: str = "out") -> pa.Table:
    return pq.read_table(folder).sort_by([("id", "ascending"), ("t", "ascending")])


def test_cut_into_runs_batches_and_lanes_it_gives_the_same_bits(base: Path) -> None:
    rest = Path("in") / "b.parquet"
    job(precision="int16").run()
    logs.write(LOG.slice(170), rest)
    job("packed.safetensors", source={"batch_rows": 37}, window={"lanes": 3, "steps": 5}).run()
    at_once = Pipeline.from_dict(
        logs.config("in", "m.safetensors", "other", model={"precision": "int16"})
    )
    at_once.run()
    assert scores().equals(scores("other"))


def test_another_precision_is_another_model(base: Path) -> None:
    """Refused, or with on_change = "carry" on the same state, which stays float32."""
    job().run()
    logs.write(LOG.slice(170), Path("in") / "b.parquet")
    with pytest.raises(CheckpointError, match="model fingerprint"):
        job(precision="int16").run()
    job(precision="int16", model={"on_change": "carry"}).run()
    model = job(precision="int16").loaded.fingerprint
    assert read_manifest("out").model == model
    assert scores().num_rows == LOG.num_rows
    assert reset_streams("out", ["s1"]) == 1  # reads the model in the precision of the run


def test_explain_shows_the_error_on_the_rows_of_the_source(base: Path) -> None:
    plan = job(precision="int16").explain()
    (error,) = plan["precision_errors"]
    assert plan["precision"] == error["precision"] == "int16"
    exact, rounded = job().preview(170), job(precision="int16").preview(170)
    difference = np.abs(exact["score"].to_numpy() - rounded["score"].to_numpy())
    assert 0 < error["largest"] == pytest.approx(difference.max(), rel=1e-3)
    assert error["rms"] == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-3)
    assert job().explain()["precision_errors"] == []
    config = logs.config("in", "m.safetensors", "out", model={"precision": "int16"})
    del config["sink"]
    assert Pipeline.from_dict(config).explain()["precision_errors"] == [error]


def test_a_state_in_another_precision_does_not_keep_explain_from_comparing(base: Path) -> None:
    (error,) = job(precision="int16").explain()["precision_errors"]
    job().run()
    export_state("out", "state.parquet")
    logs.write(LOG.slice(170), Path("in") / "b.parquet")
    more = {"state": {"init": "state.parquet"}, "sink": {"path": "next"}}
    later = job(precision="int16", model={"on_change": "carry"}, **more)
    (same,) = later.explain()["precision_errors"]
    assert same["largest"] >= error["largest"]
    assert later.preview(3).num_rows == 3
    later.validate()


def test_growth_is_by_the_steps_of_each_stream(base: Path) -> None:
    """The file may have one stream after the other."""
    (interleaved,) = job(precision="int16").explain()["precision_errors"]
    logs.write(
        LOG.slice(0, 170).sort_by([("id", "ascending"), ("t", "ascending")]), Path("in/a.parquet")
    )
    (sorted_,) = job(precision="int16").explain()["precision_errors"]
    assert sorted_["growth"] == pytest.approx(interleaved["growth"], rel=0.3)
    assert sorted_["largest"] == interleaved["largest"]


def test_the_error_leaves_out_rows_of_the_warm_up(base: Path) -> None:
    (without,) = job(precision="int16").explain()["precision_errors"]
    (error,) = job(precision="int16", output={"warmup": 9}).explain()["precision_errors"]
    assert error["rms"] > 0.5 * without["rms"]


def test_a_packed_file_has_nothing_to_compare_with(base: Path) -> None:
    plan = job("packed.safetensors").explain()
    assert plan["precision"] == "int16"
    assert plan["precision_errors"] == []
    assert any("to the float32 file" in note for note in plan["notes"])


def test_explain_prints_a_table(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.toml").write_text(
        '[source]\npath = "in"\nkey = "id"\ntime = "t"\nfeatures = ["a", "b"]\n'
        'nulls = "previous"\n[model]\npath = "m.safetensors"\nprecision = "int16"\n'
        '[sink]\npath = "out"\n'
    )
    code, out, _ = run_command(capsys, "explain", "p.toml")
    assert (code, "output in int16, minus float32" in out) == (0, True)


def test_weights_in_integers_that_are_loaded_after_compile_are_not_trained(base: Path) -> None:
    model = load_model("m.safetensors")
    model.compile("sgd", "mse")
    x, y = np.zeros((1, 3, 2), np.float32), np.zeros((1, 1), np.float32)
    model.train_on_batch(x, y)
    model.load_weights("packed.safetensors")
    with pytest.raises(UnsupportedError, match="has weights in int16, which cannot be trained"):
        model.train_on_batch(x, y)


def test_fit_does_not_train_a_packed_model(base: Path) -> None:
    config = logs.config("in", "new.safetensors", "out")
    config |= {"target": {"column": "a"}, "train": {"init": "packed.safetensors", "epochs": 1}}
    config["window"] = {"lanes": 2, "steps": 5}
    with pytest.raises(UnsupportedError, match="has weights in int16, which cannot be trained"):
        Pipeline.from_dict(config).fit()


def test_fit_trains_in_float32_for_a_run_in_int16(base: Path) -> None:
    config = logs.config("in", "new.safetensors", "out", model={"precision": "int16"})
    config |= {"target": {"column": "a"}, "train": {"init": "m.safetensors", "epochs": 1}}
    config["window"] = {"lanes": 2, "steps": 5}
    Pipeline.from_dict(config).fit()
    assert load_model("new.safetensors").get_weights()[0].dtype == np.float32
    Pipeline.from_dict(config).run()
    assert scores().num_rows == 170


def test_a_fit_for_int16_is_continued(base: Path) -> None:
    config = logs.config("in", "new.safetensors", "out", model={"precision": "int16"})
    config |= {"target": {"column": "a"}, "train": {"init": "m.safetensors", "epochs": 1}}
    config["window"] = {"lanes": 2, "steps": 5}
    Pipeline.from_dict(config).fit()
    before = load_model("new.safetensors").get_weights()
    logs.write(LOG.slice(170), Path("in") / "b.parquet")
    summary = Pipeline.from_dict(config).fit(extend=True)
    assert summary.rows == LOG.num_rows - 170
    assert not summary.notes
    after = load_model("new.safetensors").get_weights()
    assert not np.array_equal(before[0], after[0])
    later = Pipeline.from_dict(config | {"state": {"init": "new.safetensors.fit/state.parquet"}})
    assert later.preview(5).num_rows == 0  # the state has seen all rows
