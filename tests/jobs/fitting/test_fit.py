"""What `Pipeline.fit` makes, and that it depends on the rows, the config and the seed alone."""

import dataclasses
import itertools
import os
import threading
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fresh import python
from jobs.fitting import fits
from selection import first_quick, slow, with_plugins

from streamrnn import Model, Pipeline, layers, load_model, optimizers, outputs, set_threads
from streamrnn.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MissingFileError,
    StreamRNNError,
    UnsupportedError,
)
from streamrnn.jobs.fitting import FitCommit, commit, fit_loop
from streamrnn.jobs.fitting.commit import FitRecord
from streamrnn.nn.kernels import threads as kernel_threads
from streamrnn.pipeline import FitProgress

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def all_threads():
    yield
    set_threads(0)


def train(**keys: Any) -> dict[str, Any]:
    """Tables with other keys of [train]."""
    return {"train": {**fits.config(Path())["train"], **keys}}


def test_it_learns_and_the_model_runs(tmp_path: Path) -> None:
    tables = fits.validated()
    tables["train"]["epochs"] = 12
    summary = fits.fit(tmp_path, tables)
    assert summary.epochs == len(summary.history) == 12
    assert summary.best["val_loss"] < 0.5 * summary.history[0]["val_loss"]
    assert summary.rows == fits.ROWS
    assert summary.streams == fits.STREAMS
    out = Pipeline.from_dict(fits.config(tmp_path)).run()
    assert out.rows == fits.ROWS


def test_the_model_gives_the_target_in_its_own_units(tmp_path: Path) -> None:
    """Labels are standardized, and a Rescaling at the end goes back."""
    table = fits.log()
    shifted = pa.array(table["b"].to_numpy() * 10 + 1000)
    logs.write(table.set_column(3, "b", shifted), tmp_path / "in" / "a.parquet")
    fits.fit(tmp_path, train(epochs=8))
    Pipeline.from_dict(fits.config(tmp_path)).run()
    scores = pq.read_table(tmp_path / "out")["rescaling"].to_numpy()
    assert 950 < scores.min() < scores.max() < 1050
    assert [layer.name for layer in load_model(tmp_path / "model.safetensors").layers] == [
        "normalization",
        "gru",
        "dense",
        "rescaling",
    ]


@pytest.mark.parametrize("batch_rows", first_quick([37, 100_000, 1], 2))
@pytest.mark.parametrize("row_group", first_quick([50, 1000]))
def test_bits_do_not_depend_on_record_batches(
    batch_rows: int, row_group: int, tmp_path: Path
) -> None:
    """Slow: another size of row groups."""
    fits.fit(tmp_path / "one", fits.validated())
    logs.write(fits.log(), tmp_path / "two" / "in" / "a.parquet", row_group=row_group)
    source = {**fits.config(tmp_path)["source"], "batch_rows": batch_rows}
    source["path"] = str(tmp_path / "two" / "in")
    fits.fit(tmp_path / "two", {**fits.validated(), "source": source})
    assert fits.digest(tmp_path / "one") == fits.digest(tmp_path / "two")


@pytest.mark.parametrize(("threads", "width"), [("1", "8"), ("5", "16")])
@slow
def test_bits_do_not_depend_on_threads_and_vectors(
    threads: str, width: str, tmp_path: Path
) -> None:
    """In a process that compiles for it; this one uses the vectors of its CPU. Slow: a fit,
    compiled for each width."""
    fits.fit(tmp_path, fits.validated())
    done = python("tests/jobs/fitting/fits.py", threads, STREAMRNN_SIMD=width)
    assert done.stdout.strip() == fits.digest(tmp_path)


def test_a_depthwise_convolution_learns_and_has_the_same_bits_however_it_is_cut(
    tmp_path: Path,
) -> None:
    """Also over record batches of other sizes, and interrupted; a run carries the same state."""
    filters = {"type": "DepthwiseConv1D", "kernel_size": 3, "padding": "causal"}
    first, *rest = fits.LAYERS
    tables = {**fits.validated(), "model": {"layers": [first, filters, *rest]}}
    summary = fits.fit(tmp_path / "one", tables)
    assert summary.history[-1]["loss"] < summary.history[0]["loss"]
    cut = {**tables, "source": {**fits.config(tmp_path / "two")["source"], "batch_rows": 37}}
    fits.interrupt(lambda **options: fits.fit(tmp_path / "two", cut, **options), 7)
    assert fits.digest(tmp_path / "one") == fits.digest(tmp_path / "two")
    pipeline = Pipeline.from_dict(fits.config(tmp_path / "one", **tables))
    pipeline.run()
    committed = outputs.read_states(str(tmp_path / "one" / "out")).sort_by("id")
    saved = fits.state(tmp_path / "one").sort_by("id")
    name = next(name for name in saved.column_names if "depthwise" in name)
    assert committed[name].to_pylist() == saved[name].to_pylist()


@pytest.mark.parametrize("after", first_quick([3, 7, 1, 4, 20], 2))
def test_a_stopped_fit_resumes_with_the_same_bits(after: int, tmp_path: Path) -> None:
    """Stopped after each so many windows, until it is done. Slow: other numbers of windows."""
    fits.fit(tmp_path / "one", fits.validated())
    stops = 0
    while True:
        stop, windows = threading.Event(), 0

        def count(progress: Any, stop: threading.Event = stop) -> None:
            nonlocal windows
            windows += not progress.message
            if windows >= after:
                stop.set()

        summary = fits.fit(tmp_path / "two", fits.validated(), progress=count, stop=stop)
        if not summary.interrupted:
            break
        stops += 1
        assert not (tmp_path / "two" / "model.safetensors").exists()
    assert stops
    assert fits.digest(tmp_path / "one") == fits.digest(tmp_path / "two")


def test_a_fit_of_short_epochs_that_dies_resumes_after_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where commits are cheap: the clock moves on by a second at each look. Commits by steps would
    come after millions."""
    monkeypatch.setattr(fit_loop, "_COMMIT_SHARE", 1.0)
    seconds = itertools.count()
    monkeypatch.setattr(fit_loop.time, "perf_counter", lambda: float(next(seconds)))
    assert _done_before(tmp_path, 4) == 3


def test_the_first_epoch_is_committed_whatever_a_commit_takes(tmp_path: Path) -> None:
    """So that a fit that is killed again and again ends."""
    assert _done_before(tmp_path, 2) == 1


def test_a_long_epoch_is_committed_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here each look at the clock is five seconds later than the one before."""
    monkeypatch.setattr(fit_loop, "_COMMIT_SHARE", 1.0)
    seconds = itertools.count(step=5)
    monkeypatch.setattr(fit_loop.time, "perf_counter", lambda: float(next(seconds)))
    fits.fit(tmp_path / "whole")
    steps: list[int] = []

    def die(progress: FitProgress) -> None:
        steps.append(progress.steps)
        if len(steps) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fits.fit(tmp_path, progress=die)
    again: list[FitProgress] = []
    fits.fit(tmp_path, progress=again.append)
    assert (again[1].epoch, again[1].steps) == (1, steps[4])
    assert fits.digest(tmp_path) == fits.digest(tmp_path / "whole")


def _done_before(tmp_path: Path, epoch: int) -> int:
    """Let a fit die in an epoch; return what is done when it resumes, with the same bits."""
    tables = train(epochs=6)
    fits.fit(tmp_path / "whole", tables)
    epochs: list[int] = []

    def die(progress: FitProgress) -> None:
        if progress.epoch == epoch:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fits.fit(tmp_path, tables, progress=die)
    fits.fit(tmp_path, tables, progress=lambda progress: epochs.append(progress.epoch))
    assert fits.digest(tmp_path) == fits.digest(tmp_path / "whole")
    return epochs[0]


def test_done_is_done(tmp_path: Path) -> None:
    fits.fit(tmp_path, fits.validated())
    before = fits.digest(tmp_path), (tmp_path / "model.safetensors").stat().st_mtime_ns
    again = fits.fit(tmp_path, fits.validated())
    assert again.nothing_new
    assert (fits.digest(tmp_path), (tmp_path / "model.safetensors").stat().st_mtime_ns) == before
    os.utime(tmp_path / "in" / "a.parquet")  # the same rows in a file that looks new
    assert fits.fit(tmp_path, fits.validated()).nothing_new


def test_full_refresh_gives_the_same_bits(tmp_path: Path) -> None:
    fits.fit(tmp_path)
    before = fits.digest(tmp_path)
    assert not fits.fit(tmp_path, full_refresh=True).nothing_new
    assert fits.digest(tmp_path) == before


def test_rows_of_validation_change_no_weight(tmp_path: Path) -> None:
    """Nor do labels that lie among them, nor the statistics of features and target."""
    since = np.datetime64("2024-01-01T20:00", "us")
    table = fits.log()
    late = table["t"].to_numpy() >= since
    assert 100 < late.sum() < len(late) - 100
    for name, factor in (("one", 1), ("two", 5)):
        a = np.where(late, factor * table["a"].to_numpy(), table["a"].to_numpy())
        b = np.where(late, factor * table["b"].to_numpy(), table["b"].to_numpy())
        changed = table.set_column(2, "a", pa.array(a)).set_column(3, "b", pa.array(b))
        logs.write(changed, tmp_path / name / "in" / "a.parquet")
    validation = train(validation={"since": "2024-01-01T20:00"}, state=False)
    for target in ({"rows": 2}, {"rows": 0, "horizon": "3m"}):
        weights = []
        for name in ("one", "two"):
            tables = {**validation, "target": {"column": "b", **target}}
            summary = fits.fit(tmp_path / name, tables, full_refresh=True)
            # The best epoch depends on the validation: compare a fit of one epoch.
            assert summary.validation_rows == late.sum()
            tables["train"] = {**tables["train"], "epochs": 1}
            fits.fit(tmp_path / name, tables, full_refresh=True)
            weights.append(load_model(tmp_path / name / "model.safetensors").get_weights())
        for one, two in zip(*weights, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("form", [int, str])
def test_integer_times_are_written_as_numbers_or_text(
    tmp_path: Path, form: type[int] | type[str]
) -> None:
    """In `until` and `since`, in a dict and in overrides; each row counts on its side."""
    log = fits.log()
    seconds = log["t"].cast(pa.timestamp("s", "UTC")).cast(pa.int64())
    logs.write(log.set_column(1, "t", seconds), tmp_path / "in/a.parquet")
    until, since = (int(seconds[row].as_py()) for row in (700, 500))
    rows = [row for row in seconds.to_pylist() if row < until]
    tables = train(until=form(until), validation={"since": form(since)})
    summary = fits.fit(tmp_path, tables)
    assert summary.rows == len(rows)
    assert 0 < summary.validation_rows < len(rows)


def test_rows_from_until_on_are_not_read(tmp_path: Path) -> None:
    since = np.datetime64("2024-01-01T20:00", "us")
    table = fits.log()
    early = pa.array(table["t"].to_numpy() < since)
    logs.write(table, tmp_path / "one" / "in" / "a.parquet")
    logs.write(table.filter(early), tmp_path / "two" / "in" / "a.parquet")
    fits.fit(tmp_path / "one", train(until="2024-01-01T20:00"))
    fits.fit(tmp_path / "two")
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (
        tmp_path / "two" / "model.safetensors"
    ).read_bytes()
    assert fits.state(tmp_path / "one").equals(fits.state(tmp_path / "two"))


@pytest.mark.parametrize("files", [1, 4])
def test_a_run_from_the_saved_state_starts_on_the_next_row(files: int, tmp_path: Path) -> None:
    """Its rows are those that a run over all rows gives."""
    table = fits.log()
    for number in range(files):
        begin, end = number * len(table) // files, (number + 1) * len(table) // files
        logs.write(table.slice(begin, end - begin), tmp_path / "in" / f"{number}.parquet", 60)
    fits.fit(tmp_path, train(until="2024-01-01T20:00"))
    Pipeline.from_dict(fits.config(tmp_path)).run()
    state = {"init": str(tmp_path / "model.safetensors.fit" / "state.parquet")}
    sink = {"path": str(tmp_path / "rest")}
    Pipeline.from_dict(fits.config(tmp_path, state=state, sink=sink)).run()
    whole, rest = (
        pq.read_table(tmp_path / name, columns=["id", "t", "rescaling"]) for name in ("out", "rest")
    )
    assert 0 < len(rest) < len(whole)
    assert whole.slice(len(whole) - len(rest)).equals(rest)


def test_best_weights_and_patience(tmp_path: Path) -> None:
    """The model has the weights of its best epoch, as a fit that ended there."""
    tables = fits.validated()
    tables["train"] |= {"epochs": 40, "patience": 2, "schedule": "constant"}
    tables["train"]["optimizer"] = {"name": "adam", "learning_rate": 0.08}
    summary = fits.fit(tmp_path / "one", tables)
    losses = [row["val_loss"] for row in summary.history]
    assert summary.best_epoch == 1 + int(np.argmin(losses))
    assert summary.epochs == summary.best_epoch + 2 < 40
    tables["train"]["epochs"] = summary.best_epoch
    fits.fit(tmp_path / "two", tables)
    one, two = (load_model(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.fingerprint() == two.fingerprint()


def test_continue_trains_on_new_rows_from_the_last_state(tmp_path: Path) -> None:
    table = fits.log()
    logs.write(table.slice(0, 600), tmp_path / "in" / "a.parquet")
    fits.fit(tmp_path)
    first = (tmp_path / "model.safetensors").read_bytes()
    assert fits.fit(tmp_path, extend=True).nothing_new
    logs.write(table.slice(600), tmp_path / "in" / "b.parquet")
    with pytest.raises(CheckpointError, match=r"source has changed.*--continue"):
        fits.fit(tmp_path)
    summary = fits.fit(tmp_path, extend=True)
    assert summary.rows == 300
    assert (tmp_path / "model.safetensors").read_bytes() != first
    steps = fits.state(tmp_path)
    assert len(steps) == fits.STREAMS
    assert fits.fit(tmp_path, extend=True).nothing_new
    assert fits.fit(tmp_path).nothing_new


def test_continue_has_nothing_to_do_without_a_new_file(tmp_path: Path) -> None:
    """Also if the target is not a feature, whose type a file has."""
    source = {**fits.config(tmp_path)["source"], "features": ["a"]}
    fits.fit(tmp_path, {"source": source})
    assert fits.fit(tmp_path, {"source": source}, extend=True).nothing_new


def test_continue_that_is_stopped_resumes(tmp_path: Path) -> None:
    table = fits.log()
    for name in ("one", "two"):
        logs.write(table.slice(0, 600), tmp_path / name / "in" / "a.parquet")
        fits.fit(tmp_path / name)
        logs.write(table.slice(600), tmp_path / name / "in" / "b.parquet")
    fits.fit(tmp_path / "one", extend=True)
    stop = threading.Event()
    summary = fits.fit(tmp_path / "two", extend=True, progress=lambda _: stop.set(), stop=stop)
    assert summary.interrupted
    with pytest.raises(CheckpointError, match="an interrupted fit with --continue is there"):
        fits.fit(tmp_path / "two")
    fits.fit(tmp_path / "two", extend=True)
    assert fits.digest(tmp_path / "one") == fits.digest(tmp_path / "two")


def test_the_gradient_of_unseen_streams_is_that_of_fresh_ones(tmp_path: Path) -> None:
    """A fit of one lane is `train_on_batch` of a stateful model, window by window."""
    table = fits.log().filter(pa.compute.equal(fits.log()["id"], "s1")).drop_columns(["new"])
    table = table.append_column("new", pa.array(np.zeros(len(table), bool)))
    logs.write(table, tmp_path / "in" / "a.parquet")
    stack = [{"type": "LSTM", "units": 5}, {"type": "Dense", "units": 1}]
    tables = train(epochs=1, scale_target=False, burn_in=0, schedule="constant", pieces=1)
    tables["train"]["optimizer"] = {"name": "adam"}
    fits.fit(tmp_path, {**tables, "model": {**fits.config(tmp_path)["model"], "layers": stack}})
    model = load_model(tmp_path / "model.safetensors.fit" / "initial.safetensors")
    config: Any = model.get_config()
    for layer in config["layers"]:
        if layer["class_name"] == "LSTM":
            layer["config"] |= {"stateful": True, "return_sequences": True}
    batch = type(model).from_config(config)
    batch.set_weights(model.get_weights())
    batch.compile(optimizers.Adam(global_clipnorm=1.0), "mse")
    x = np.stack([table["a"].to_numpy(), table["b"].to_numpy()], axis=1).astype(np.float32)
    y = table["b"].to_numpy().astype(np.float32)[1:]
    for begin in range(0, len(x), 8):
        rows = x[None, begin : begin + 8]
        label = y[begin : begin + 8]
        weight = np.ones((1, rows.shape[1]), np.float32)
        weight[:, len(label) :] = 0
        padded = np.append(label, np.zeros(rows.shape[1] - len(label), np.float32))
        # Keras divides by all steps; a fit by those that count.
        weight *= rows.shape[1] / max(1, len(label))
        if len(label):
            batch.train_on_batch(rows, padded[None, :, None], weight)
    fitted = load_model(tmp_path / "model.safetensors")
    for one, two in zip(fitted.get_weights(), batch.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-6)


def test_divergence_names_file_row_and_stream(tmp_path: Path) -> None:
    tables = train(optimizer={"name": "sgd", "learning_rate": 1e30}, epochs=5)
    del tables["train"]["clip_norm"]
    place = r"a\.parquet: row \d+ \(from 0\): stream id='s\d'"
    with pytest.raises(DataError, match=rf"{place}: the loss is .* after 1 update\."):
        fits.fit(tmp_path, tables)
    assert not (tmp_path / "model.safetensors").exists()


def test_limit_writes_nothing(tmp_path: Path) -> None:
    summary = fits.fit(tmp_path, limit=300)
    assert summary.rows == 300
    assert summary.epochs == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize(
    ("loss", "units", "column"),
    [
        ("mae", 1, "b"),
        ("huber", 1, "b"),
        ({"quantile": [0.1, 0.5, 0.9]}, 3, "b"),
        ("binary_crossentropy", 1, "new"),
        ("sparse_categorical_crossentropy", 2, "new"),
    ],
)
def test_every_loss_trains(loss: Any, units: int, column: str, tmp_path: Path) -> None:
    activation = {"binary_crossentropy": "sigmoid", "sparse_categorical_crossentropy": "softmax"}
    act = activation.get(loss, "linear") if isinstance(loss, str) else "linear"
    stack = [*fits.LAYERS[:2], {"type": "Dense", "units": units, "activation": act}]
    tables = train(loss=loss, epochs=6, metrics=[] if units == 3 else ["accuracy"])
    tables["target"] = {"column": column, "rows": 0}
    if column == "new":
        tables["source"] = {**fits.config(tmp_path)["source"]}
        del tables["source"]["reset"]
    else:
        tables["train"]["metrics"] = []
    data = fits.config(tmp_path, **tables, model={"layers": stack})
    data["source"] = tables.get("source", data["source"])
    logs.write(fits.log(), tmp_path / "in" / "a.parquet")
    summary = Pipeline.from_dict(data).fit()
    assert summary.history[-1]["loss"] < summary.history[0]["loss"]


@pytest.mark.parametrize(
    ("tables", "error", "text"),
    [
        ({"target": {"column": "gone", "rows": 1}}, DataError, "gone"),
        ({"model": {"layers": []}}, ConfigError, r"\[model\] layers"),
        (train(until="2020-01-01"), ConfigError, "no row to train on"),
        (train(validation={"since": "2020-01-01"}), ConfigError, "are for validation"),
        (train(validation={}), ConfigError, "set since, streams, or both"),
        (train(loss="binary_crossentropy"), DataError, r"row \d+ .*the label.*a probability"),
        (train(loss="sparse_categorical_crossentropy"), ConfigError, "for each class"),
        (train(loss={"quantile": [0.1, 0.9]}), ConfigError, "1 outputs.* needs 2"),
        (train(optimizer={"name": "adma"}), ConfigError, "adam"),
        (train(optimizer={"name": "adam", "speed": 3}), ConfigError, "speed"),
        (train(optimizer={"name": "adam", "learning_rate": "fast"}), ConfigError, "learning_rate"),
        (train(optimizer={"name": "adam", "beta_1": "x"}), ConfigError, "optimizer"),
        (train(clip_value=1.0), ConfigError, "only one of"),
        (train(metrics=["rsquared"]), StreamRNNError, "rsquared"),
        (train(scale_target=True, loss="binary_crossentropy"), ConfigError, "scale_target"),
        (train(init="gone.safetensors"), StreamRNNError, "gone.safetensors"),
        (
            {"model": {"layers": [{"type": "LSTM", "units": 4, "weights": "a"}]}},
            ConfigError,
            "makes the weights",
        ),
    ],
)
def test_what_cannot_be_fitted(
    tables: dict[str, Any], error: type[Exception], text: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=text):
        fits.fit(tmp_path, tables)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_model_that_no_fit_wrote_is_kept(tmp_path: Path) -> None:
    logs.small_model().save(tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"is not what the last fit here wrote.*--overwrite"):
        fits.fit(tmp_path)
    with pytest.raises(ConfigError, match="--overwrite"):
        fits.fit(tmp_path, full_refresh=True)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    fits.fit(tmp_path, overwrite=True)
    assert (tmp_path / "model.safetensors").read_bytes() != before
    assert fits.fit(tmp_path).nothing_new


def test_another_fit_is_refused_by_its_keys(tmp_path: Path) -> None:
    fits.fit(tmp_path)
    with pytest.raises(CheckpointError, match=r"train\.epochs: 2 then, 3 now"):
        fits.fit(tmp_path, train(epochs=3))
    with pytest.raises(CheckpointError, match=r"train\.seed: 0 then, 3 now"):
        fits.fit(tmp_path, train(seed=3))
    fits.fit(tmp_path, train(epochs=3), full_refresh=True)
    assert fits.fit(tmp_path, train(epochs=3)).nothing_new


def test_fine_tuning_starts_from_a_model(tmp_path: Path) -> None:
    """Its Rescaling keeps the scale of the target, and its Normalization the one of features."""
    first, second = tmp_path / "one", tmp_path / "two"
    fits.fit(first, train(epochs=8))
    tables = train(init=str(first / "model.safetensors"), epochs=1)
    tables["train"]["optimizer"] = {"name": "sgd", "learning_rate": 0.0}
    fits.fit(second, tables)
    one, two = (load_model(path / "model.safetensors") for path in (first, second))
    assert one.fingerprint() == two.fingerprint()


def test_a_damaged_commit_is_refused_and_replaced_by_full_refresh(tmp_path: Path) -> None:
    fits.fit(tmp_path)
    before = fits.digest(tmp_path)
    path = tmp_path / "model.safetensors.fit" / "commit"
    data = bytearray(path.read_bytes())
    for at in (5, len(data) // 2, len(data) - 30):
        damaged = bytearray(data)
        damaged[at] ^= 0x40
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"commit is damaged.*--full-refresh"):
            fits.fit(tmp_path)
    with pytest.raises(ConfigError, match="--overwrite"):  # whose model it is, is not known
        fits.fit(tmp_path, full_refresh=True)
    fits.fit(tmp_path, full_refresh=True, overwrite=True)
    assert fits.digest(tmp_path) == before


@pytest.mark.parametrize(
    ("layout", "said"), [(None, r"was written before version 0\.1\.0"), (2, "has layout 2")]
)
def test_a_fit_in_another_layout_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: int | None, said: str
) -> None:
    fits.fit(tmp_path)
    before = fits.digest(tmp_path)
    path = tmp_path / "model.safetensors.fit" / "commit"
    record = FitCommit.of_bytes(path.read_bytes(), "commit").record
    monkeypatch.setattr(commit, "_LAYOUT", layout)
    path.write_bytes(FitCommit(record).to_bytes())
    monkeypatch.undo()
    with pytest.raises(
        CheckpointError, match=rf"commit {said}; .* reads layout 1\. .*refresh and --overwrite"
    ):
        fits.fit(tmp_path)
    fits.fit(tmp_path, full_refresh=True, overwrite=True)
    assert fits.digest(tmp_path) == before


def test_a_fit_before_commits_had_a_status_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such commits have the number of this layout."""
    monkeypatch.setattr(commit, "asdict", lambda record: {"identity": {}, "standing": {}})
    data = FitCommit(FitRecord({}, [])).to_bytes()
    with pytest.raises(
        CheckpointError,
        match=r"^x was written before version 0\.1\.0; .* with --full-refresh and --overwrite",
    ):
        FitCommit.of_bytes(data, "x")


def test_digests_under_their_first_name_are_read() -> None:
    values = dataclasses.asdict(FitRecord({}, ["a"]))
    values["own"] = values.pop("model_digests")
    assert FitRecord.from_json(values).model_digests == ["a"]


def test_layers_are_compared_with_the_model_file(tmp_path: Path) -> None:
    fits.fit(tmp_path)
    other = [*fits.LAYERS[:1], {"type": "GRU", "units": 7}, fits.LAYERS[2]]
    data = fits.config(tmp_path, model={"layers": other})
    with pytest.raises(ConfigError, match=r"number 2 \(GRU\): units is 7 here and 6"):
        Pipeline.from_dict(data).run()


def test_a_model_of_several_inputs_is_built_in_python(tmp_path: Path) -> None:
    """Ids of an Embedding and numbers; named by [train] init."""
    ids = layers.Input((None,), dtype="int64", name="ids")
    x = layers.Input((None, 1), name="x")
    embedded = layers.Embedding(5, 3, embeddings_initializer="glorot_uniform")(ids)
    joined = layers.Concatenate()([embedded, x])
    y = layers.Dense(1)(layers.LSTM(4, return_sequences=True)(joined))
    model = Model([ids, x], y)
    model.save(tmp_path / "untrained.safetensors")
    table = fits.log()
    number = pa.array([int(key[1:]) % 5 for key in table["id"].to_pylist()])
    logs.write(table.append_column("n", number), tmp_path / "in" / "a.parquet")
    tables = train(init=str(tmp_path / "untrained.safetensors"), epochs=4)
    tables["source"] = {**fits.config(tmp_path)["source"], "features": ["n", "a"]}
    tables["model"] = {
        "path": str(tmp_path / "model.safetensors"),
        "inputs": {"ids": "n", "x": ["a"]},
        "layers": [],
    }
    summary = fits.fit(tmp_path, tables)
    assert summary.history[-1]["loss"] < summary.history[0]["loss"]
    before, after = (load_model(tmp_path / f"{n}.safetensors") for n in ("untrained", "model"))
    assert (before.layers[1].get_weights()[0] != after.layers[1].get_weights()[0]).any()
    data = fits.config(tmp_path, **tables, output={"names": ["y"]})
    assert Pipeline.from_dict(data).run().rows == fits.ROWS


@pytest.mark.parametrize(
    ("file", "needs"),
    [("weather.keras", "h5py"), pytest.param("weather.onnx", "onnx", marks=with_plugins)],
)
def test_models_of_others(file: str, needs: str, tmp_path: Path) -> None:
    """One saved by Keras is trained further; the graph of ONNX is refused."""
    pytest.importorskip(needs, reason="needs the extra")
    overrides = [
        f"source.path={ROOT}/data/weather.parquet",
        f"model.path={tmp_path}/model.safetensors",
        f"train.init={ROOT}/pipelines/origins/{file}",
        "model.layers=[]",
        "train.epochs=1",
        "train.until=2013-03-01",
        "train.validation={streams=0.1}",
    ]
    pipeline = Pipeline.from_toml(ROOT / "pipelines" / "weather.toml", overrides)
    if file.endswith(".onnx"):
        with pytest.raises(UnsupportedError, match="training is not supported"):
            pipeline.fit()
        return
    assert pipeline.fit().epochs == 1
    assert load_model(tmp_path / "model.safetensors").layers[-1].name == "temp_3h"


def test_a_run_names_the_command_that_makes_its_model(tmp_path: Path) -> None:
    logs.write(fits.log(), tmp_path / "in" / "a.parquet")
    with pytest.raises(MissingFileError, match="streamrnn fit PIPELINE"):
        Pipeline.from_dict(fits.config(tmp_path)).run()


def test_a_fit_that_committed_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        fits.fit(tmp_path, train(optimizer={"name": "adam", "speed": 1}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_continue_past_until_reads_the_rest_of_the_file(tmp_path: Path) -> None:
    first = fits.fit(tmp_path, train(until="2024-01-01T20:00"))
    second = fits.fit(tmp_path, train(until="2024-01-02T04:00"), extend=True)
    third = fits.fit(tmp_path, train(), extend=True)
    assert first.rows + second.rows + third.rows == fits.ROWS
    assert min(first.rows, second.rows, third.rows) > 50
    assert fits.fit(tmp_path, train(), extend=True).nothing_new
    steps = {row["id"]: row["steps"] for row in fits.state(tmp_path).to_pylist()}
    fits.fit(tmp_path / "whole")
    assert steps == {row["id"]: row["steps"] for row in fits.state(tmp_path / "whole").to_pylist()}


def test_continue_refuses_other_features(tmp_path: Path) -> None:
    """The weights would read a for b."""
    logs.write(fits.log().slice(0, 600), tmp_path / "in" / "a.parquet")
    fits.fit(tmp_path)
    logs.write(fits.log().slice(600), tmp_path / "in" / "b.parquet")
    source = {**fits.config(tmp_path)["source"], "features": ["b", "a"]}
    with pytest.raises(CheckpointError, match=r"source\.features: \['a', 'b'\] then"):
        fits.fit(tmp_path, {"source": source}, extend=True)


@pytest.mark.parametrize("threads", first_quick([2, 1, 5]))
def test_model_threads_is_the_number_of_threads(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work is divided however little it is; no bit depends on it. Slow: one thread, and five."""
    used: list[int] = []
    by_lanes = kernel_threads.by_lanes

    def counted(*args: Any) -> None:
        used.append(kernel_threads.get_threads())
        by_lanes(*args)

    monkeypatch.setattr(kernel_threads, "MIN_PRODUCTS", 0)
    monkeypatch.setattr(kernel_threads, "by_lanes", counted)
    model = {**fits.config(tmp_path)["model"], "threads": threads}
    fits.fit(tmp_path, {"model": {**model, "path": str(tmp_path / "model.safetensors")}})
    assert set(used) == (set() if threads == 1 else {threads})
    monkeypatch.undo()
    fits.fit(tmp_path / "one")
    assert fits.digest(tmp_path / "one") == fits.digest(tmp_path)
