"""Fits of several seeds: members are fits of their own, and the best is kept, or all as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow.parquet as pq
import pytest
from fresh import python
from jobs.fitting import fits
from selection import first_quick, slow
from stream.checkpoints.disks import TracingDisk

from streamrnn import Pipeline, load_model, register_layer
from streamrnn.base.storage.local import LocalFiles
from streamrnn.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    EngineError,
    LateRowError,
)
from streamrnn.jobs.fitting import FitOptions
from streamrnn.jobs.fitting.seeds import SeedsJob
from streamrnn.layers import Dense
from streamrnn.nn.layers import registry
from streamrnn.pipeline import FitSummary

ROOT = Path(__file__).parents[3]


def tables(**keys: Any) -> dict[str, Any]:
    """A fit of three seeds, with validation."""
    found = fits.validated()
    return {"train": {**found["train"], "seeds": 3, "epochs": 3, **keys}}


def here(folder: Path, **keys: Any) -> dict[str, Any]:
    """As `tables`; with one core, members are fitted in this process."""
    return {**tables(**keys), "model": {**fits.config(folder)["model"], "threads": 1}}


def train_from(path: Path) -> dict[str, Any]:
    """A fit that starts from a model file."""
    model = {**fits.config(Path())["model"], "path": str(path.with_name("other.safetensors"))}
    return {**tables(seeds=1, init=str(path)), "model": {**model, "layers": []}}


def model_of(folder: Path, seed: int | None = None) -> bytes:
    """The model file of a fit, or of a member."""
    inside = "" if seed is None else f"model.safetensors.fit/seeds/{seed}/"
    return folder.joinpath(f"{inside}model.safetensors").read_bytes()


def alone(folder: Path, seed: int) -> FitSummary:
    """The fit of one seed."""
    return fits.fit(folder, tables(seeds=1, seed=seed))


@pytest.fixture(autouse=True)
def only_own_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without classes that other tests registered, for which members are fitted in this process."""
    own = {name: registry.get(name) for name in registry.names() if name in registry._builtins}
    monkeypatch.setattr(registry, "_classes", own)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, FitSummary]:
    folder = tmp_path_factory.mktemp("three")
    return folder, fits.fit(folder, tables())


@pytest.mark.parametrize("every", first_quick([False, True]), ids=["best", "every"])
def test_members_have_the_bits_of_single_fits_and_the_best_is_kept(
    three: tuple[Path, FitSummary], tmp_path: Path, every: bool
) -> None:
    """Slow: single fits of all seeds, instead of the one that is kept."""
    folder, summary = three
    losses = [of.best["val_loss"] for of in summary.seeds]
    best = int(np.argmin(losses))
    for seed in range(3) if every else [best]:
        assert alone(tmp_path / str(seed), seed).best["val_loss"] == losses[seed]
        assert model_of(folder, seed) == model_of(tmp_path / str(seed))
    assert summary.seed == best
    assert len(set(losses)) == 3
    assert model_of(folder) == model_of(folder, summary.seed)
    assert fits.state(folder).equals(fits.state(tmp_path / str(summary.seed)))
    history = pq.read_table(folder / "model.safetensors.fit" / "history.parquet")
    assert history["seed"].to_pylist() == [0] * 3 + [1] * 3 + [2] * 3


def test_processes_change_no_bit(three: tuple[Path, FitSummary], tmp_path: Path) -> None:
    """Those of members that are fitted in this process, one after another."""
    summary = fits.fit(tmp_path, here(tmp_path))
    assert model_of(tmp_path) == model_of(three[0])
    assert summary.seeds == [
        type(one)(one.seed, {**one.best, "seconds": two.best["seconds"]})
        for one, two in zip(three[1].seeds, summary.seeds, strict=True)
    ]


def test_results_are_durable_before_the_commit_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written through the disk that syncs each file."""
    points: list[str] = []
    monkeypatch.setattr(LocalFiles, "disk", TracingDisk(str(tmp_path), points.append))
    fits.fit(tmp_path, here(tmp_path, seeds=2, epochs=1))
    for name in ("model.safetensors", "history.parquet", "state.parquet"):
        assert f"after sync model.safetensors.fit/next.{name}.TOKEN.tmp" in points


def test_custom_classes_are_fitted_in_this_process(tmp_path: Path) -> None:
    class Own(Dense):
        pass

    register_layer("Own", Own)
    try:
        stack = [*fits.LAYERS[:-1], {"type": "Dense", "units": 1}]
        model = {**fits.config(tmp_path)["model"], "layers": stack}
        assert len(fits.fit(tmp_path, {**tables(epochs=1), "model": model}).seeds) == 3
    finally:
        registry._classes.pop("Own")


@slow
def test_all_as_one_model_have_their_mean_and_the_spread_of_the_mixture(tmp_path: Path) -> None:
    """Slow: the mixture of members, as a run writes it."""
    summary = fits.fit(tmp_path, tables(keep="all"))
    assert summary.seed is None
    errors, scores = [], []
    for seed in range(3):
        own = tmp_path / str(seed)
        single = alone(own, seed)
        errors.append(single.best["val_rmse"] ** 2)
        Pipeline.from_dict(fits.config(own, output={"names": ["score"]})).run()
        scores.append(pq.read_table(own / "out")["score"].to_numpy())
    again = train_from(tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match="is a model of several seeds; start from one of them"):
        fits.fit(tmp_path / "again", again)
    pipeline = Pipeline.from_dict(fits.config(tmp_path, output={"names": ["score", "spread"]}))
    pipeline.run()
    out = pq.read_table(tmp_path / "out")
    np.testing.assert_allclose(out["score"].to_numpy(), np.mean(scores, axis=0), atol=1e-5)
    spread = np.sqrt(np.mean(errors) + np.var(scores, axis=0))
    np.testing.assert_allclose(out["spread"].to_numpy(), spread, rtol=1e-4)
    figures = pipeline.evaluate(since=fits.VALIDATED["train"]["validation"]["since"]).table
    assert figures.num_rows == 1
    assert 0.7 < figures["coverage_90"][0].as_py() <= 1


@slow
def test_the_state_of_all_is_that_of_a_run(tmp_path: Path) -> None:
    """Slow: states of a mixture."""
    table = fits.log()
    logs.write(table.slice(0, 600), tmp_path / "in" / "a.parquet")
    fits.fit(tmp_path, tables(keep="all"))
    logs.write(table.slice(600), tmp_path / "in" / "b.parquet")
    init = {"init": str(tmp_path / "model.safetensors.fit" / "state.parquet")}
    later = Pipeline.from_dict(fits.config(tmp_path, state=init)).run()
    assert later.rows == 300
    whole = fits.config(tmp_path)
    whole["sink"] = {"path": str(tmp_path / "whole")}
    Pipeline.from_dict(whole).run()
    for name in ("mean", "spread"):
        end = pq.read_table(tmp_path / "whole")[name].to_numpy()[600:]
        np.testing.assert_array_equal(pq.read_table(tmp_path / "out")[name].to_numpy(), end)


@pytest.mark.parametrize("keep", ["best", "all"])
@slow
def test_done_is_done_and_continue_trains_all_on_new_rows(keep: str, tmp_path: Path) -> None:
    """Slow: three rounds of fits; other tests have a round each."""
    table = fits.log()
    logs.write(table.slice(0, 600), tmp_path / "in" / "a.parquet")
    found = here(tmp_path, validation={"streams": 0.3}, keep=keep)
    fits.fit(tmp_path, found)
    before = model_of(tmp_path)
    assert fits.fit(tmp_path, found).nothing_new
    logs.write(table.slice(600), tmp_path / "in" / "b.parquet")
    with pytest.raises(CheckpointError, match="--continue"):
        fits.fit(tmp_path, found)
    more = fits.fit(tmp_path, found, extend=True)
    assert more.rows == 300
    assert model_of(tmp_path) != before
    assert fits.fit(tmp_path, found, extend=True).nothing_new


@slow
def test_a_stopped_fit_resumes_with_the_same_bits(
    three: tuple[Path, FitSummary], tmp_path: Path
) -> None:
    """Slow: a fit of several seeds, stopped in each epoch."""
    interrupted, times = True, 0
    while interrupted:
        stop, calls = threading.Event(), 0

        def count(_: Any, stop: threading.Event = stop) -> None:
            nonlocal calls
            calls += 1
            if calls >= 2:
                stop.set()

        interrupted = fits.fit(tmp_path, here(tmp_path), progress=count, stop=stop).interrupted
        times += 1
        if times > 5:
            stop = threading.Event()
            interrupted = fits.fit(tmp_path, here(tmp_path)).interrupted
    assert times > 1
    assert model_of(tmp_path) == model_of(three[0])


def test_members_that_did_not_begin_are_left_out(tmp_path: Path) -> None:
    """Also one before others that did: processes hear of a stop one after another."""
    job = SeedsJob(Pipeline.from_dict(fits.config(tmp_path, **tables())).config, None, FitOptions())
    one, two = (FitSummary(history=[{"val_loss": loss}]) for loss in (2.0, 1.0))
    job._describe([one, None, two])
    assert [of.seed for of in job.summary.seeds] == [0, 2]
    assert (job.summary.seed, job.summary.interrupted) == (2, True)


@slow
def test_the_spread_has_the_errors_of_the_last_validation(tmp_path: Path) -> None:
    """Also after --continue on rows of which none is in the validation. Slow: three fits of three
    seeds each."""
    table = fits.log()
    logs.write(table.slice(0, 600), tmp_path / "in" / "a.parquet")
    found = tables(keep="all", validation={"streams": 0.3})
    fits.fit(tmp_path, found)
    before = _spread(tmp_path)
    logs.write(table.slice(600), tmp_path / "in" / "b.parquet")
    found["train"]["validation"] = {"since": "2030-01-01"}
    fits.fit(tmp_path, found, extend=True)
    assert _spread(tmp_path) == before > 0
    with pytest.raises(ConfigError, match="whose errors are part of the spread"):
        fits.fit(tmp_path / "new", found)


def _spread(folder: Path) -> float:
    (layer,) = (of for of in load_model(folder / "model.safetensors").layers if of.name == "spread")
    return float(layer.variance)  # type: ignore[attr-defined]


SCRIPT = """
import time
from pathlib import Path
from jobs.fitting import fits, test_seeds

folder = Path({folder!r})


def progress(_):
    (folder / "began").touch()
    time.sleep(60)  # until it is killed


fits.fit(folder, test_seeds.tables(epochs=30), progress=progress)
"""


@slow
def test_workers_end_with_their_process_and_the_next_fit_resumes(tmp_path: Path) -> None:
    """Slow: that no worker outlives a killed process."""
    logs.write(fits.log(), tmp_path / "in" / "a.parquet", row_group=100)
    script = textwrap.dedent(SCRIPT.format(folder=str(tmp_path)))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([sys.executable, "-c", script], env=env)
    began = time.monotonic()
    while not (tmp_path / "began").exists() and process.poll() is None:
        assert time.monotonic() - began < 120
        time.sleep(0.02)
    workers = _children(process.pid)
    process.kill()
    process.wait()
    assert len(workers) >= 2
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() - began < 150
        time.sleep(0.05)
    assert not (tmp_path / "model.safetensors").exists()
    fits.fit(tmp_path, tables(epochs=30))
    fits.fit(tmp_path / "whole", tables(epochs=30))
    assert model_of(tmp_path) == model_of(tmp_path / "whole")


WITHOUT_A_GUARD = """
from pathlib import Path
from jobs.fitting import fits, test_seeds

folder = Path({folder!r})
print("began", flush=True)
fits.fit(folder, test_seeds.tables())
print(__file__ == {path!r})
"""


@slow
def test_processes_do_not_run_the_script_again(
    three: tuple[Path, FitSummary], tmp_path: Path
) -> None:
    """It needs no `if __name__ == "__main__"`. Slow: a script of its own."""
    path = tmp_path / "train.py"
    path.write_text(WITHOUT_A_GUARD.format(folder=str(tmp_path), path=str(path)))
    done = python(path)
    assert (done.stdout, done.stderr) == ("began\nTrue\n", "")
    assert model_of(tmp_path) == model_of(three[0])


STOPPED_BY_A_SIGNAL = """
import signal
import threading
from pathlib import Path
from jobs.fitting import fits, test_seeds

folder, stop = Path({folder!r}), threading.Event()
for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, lambda *_: stop.set())
found = test_seeds.tables(epochs=5000)
summary = fits.fit(folder, found, progress=lambda _: (folder / "began").touch(), stop=stop)
print(summary.interrupted, len(summary.seeds))
"""


@slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_process_group_reaches_one_process_alone(
    sent: signal.Signals, tmp_path: Path
) -> None:
    """Be it of the terminal, or of `timeout`; it has the others commit. Slow: a process group of
    its own."""
    logs.write(fits.log(), tmp_path / "in" / "a.parquet")
    script = textwrap.dedent(STOPPED_BY_A_SIGNAL.format(folder=str(tmp_path)))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        began = time.monotonic()
        while not (tmp_path / "began").exists() and process.poll() is None:
            assert time.monotonic() - began < 120
            time.sleep(0.02)
        os.killpg(process.pid, sent)
        said, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert said in ("True 1\n", "True 2\n")


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


@slow
def test_a_worker_that_is_killed_is_an_error(tmp_path: Path) -> None:
    """Slow: workers that are killed."""

    def kill(_: Any) -> None:
        for pid in _children(os.getpid()):
            if b"import work" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(EngineError, match="ended with code -9; rerun the same command to resume"):
        fits.fit(tmp_path, tables(epochs=5000), progress=kill)


@slow
def test_the_error_of_a_member_names_file_row_and_stream(tmp_path: Path) -> None:
    """Slow: errors in a worker."""
    wild = tables(optimizer={"name": "sgd", "learning_rate": 1e30})
    del wild["train"]["clip_norm"]
    with pytest.raises(
        DivergedError, match=r"a\.parquet: row \d+ \(from 0\): stream id='s\d': the loss is"
    ):
        fits.fit(tmp_path, wild)


@slow
def test_a_late_row_is_one_message(tmp_path: Path) -> None:
    """Its error has more than a text, and keeps its class between processes. Slow: late rows in a
    worker."""
    table = fits.log()
    logs.write(table.slice(300), tmp_path / "in" / "a.parquet")
    logs.write(table.slice(0, 300), tmp_path / "in" / "b.parquet")
    with pytest.raises(LateRowError, match=r"b\.parquet: row 0 .*time goes backwards"):
        fits.fit(tmp_path, tables())


def test_a_fit_without_a_commit_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    one_core = {"model": {**fits.config(tmp_path)["model"], "threads": 1}}
    wild = {**tables(optimizer={"name": "sgd", "learning_rate": 1e30}), **one_core}
    del wild["train"]["clip_norm"]
    with pytest.raises(DataError, match="the loss is"):
        fits.fit(tmp_path, wild)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    with pytest.raises(ConfigError, match="there is no fit in"):
        fits.fit(tmp_path, tables(), extend=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@slow
def test_with_a_limit_nothing_is_written(tmp_path: Path) -> None:
    """Slow: three fits in processes."""
    found = tables(validation={"streams": 0.3})
    summary = fits.fit(tmp_path, found, limit=300)
    assert [of.seed for of in summary.seeds] == [0, 1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize(
    ("keys", "names", "text"),
    [
        ({"validation": None}, None, "needs validation, which judges"),
        ({"validation": None, "keep": "all"}, None, "needs validation, whose errors"),
        ({"keep": "all"}, ["score"], r"the mean \(1\) and the spread \(1\); received 1"),
        ({"keep": "most"}, None, "keep"),
        ({"keep": "all", "seeds": 1}, None, "needs several seeds"),
        pytest.param(
            {"validation": {"since": "2030-01-01"}}, None, "which judges the seeds", marks=slow
        ),
        ({"seeds": 0}, None, "seeds"),
        ({"loss": "mze"}, None, "mse"),
    ],
)
def test_what_cannot_be_fitted(
    keys: dict[str, Any], names: list[str] | None, text: str, tmp_path: Path
) -> None:
    """Slow: a fit that reads its source first."""
    found = {**tables(**keys), "output": {} if names is None else {"names": names}}
    with pytest.raises(ConfigError, match=text):
        fits.fit(tmp_path, found)
    assert not (tmp_path / "model.safetensors").exists()


def test_one_seed_and_several_are_different_fits(
    three: tuple[Path, FitSummary], tmp_path: Path
) -> None:
    alone(tmp_path, 0)
    with pytest.raises(CheckpointError, match=r"train\.seeds: 1 then, 3 now"):
        fits.fit(tmp_path, tables())
    with pytest.raises(CheckpointError, match=r"train\.seeds: 3 then, 1 now"):
        alone(three[0], 0)
    assert load_model(tmp_path / "model.safetensors").count_params()


def members(folder: Path) -> list[str]:
    """The names in the folder of members, if there is one."""
    seeds = folder / "model.safetensors.fit" / "seeds"
    return sorted(path.name for path in seeds.iterdir()) if seeds.exists() else []


@slow
def test_a_full_refresh_removes_the_members_of_the_fit_before(tmp_path: Path) -> None:
    """Slow: members that a full refresh removes."""
    fits.fit(tmp_path, here(tmp_path, seeds=4, epochs=1))
    (tmp_path / "model.safetensors.fit" / "seeds" / "notes").mkdir()
    fits.fit(tmp_path, here(tmp_path, seeds=2, seed=1, epochs=1), full_refresh=True)
    assert members(tmp_path) == ["1", "2", "notes"]
    with pytest.raises(CheckpointError, match=r"train\.seeds: 2 then, 3 now"):
        fits.fit(tmp_path, here(tmp_path, seeds=3, epochs=1))
    assert members(tmp_path) == ["1", "2", "notes"]
    fits.fit(tmp_path, here(tmp_path, seeds=1, epochs=1), full_refresh=True)
    assert members(tmp_path) == ["notes"]


@slow
def test_the_next_fit_removes_members_that_a_crash_left(tmp_path: Path) -> None:
    """After the commit, before their folders were removed. Slow: members that a crash left."""
    two = here(tmp_path, seeds=2, epochs=1)
    fits.fit(tmp_path, two)
    (tmp_path / "model.safetensors.fit" / "seeds" / "7").mkdir()
    assert fits.fit(tmp_path, two).nothing_new
    assert members(tmp_path) == ["0", "1"]
    alone(tmp_path / "one", 0)
    (tmp_path / "one" / "model.safetensors.fit" / "seeds" / "7").mkdir(parents=True)
    assert alone(tmp_path / "one", 0).nothing_new
    assert members(tmp_path / "one") == []
