"""A fit of several seeds, one fit each; then the best model is kept, or all as one model.

Fits run side by side in processes: threads would take turns, as half of a small model's time is
spent in Python.
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import connection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.base.display import location
from streamrnn.errors import CheckpointError, ConfigError, EngineError, StreamRNNError
from streamrnn.jobs.fitting.commit import (
    HISTORY_FILE,
    MEMBERS,
    STATE_FILE,
    FitCommit,
    FitFolder,
    FitIdentity,
    FitRecord,
)
from streamrnn.jobs.fitting.fit_loop import FitProgress
from streamrnn.jobs.fitting.job import FitJob
from streamrnn.jobs.fitting.request import (
    FitSource,
    check_folder,
    refuse_another_fit,
    save_state,
    without_layers,
)
from streamrnn.jobs.fitting.summary import FitOptions, FitSummary, SeedResult
from streamrnn.jobs.preflight import reader
from streamrnn.nn.formats import load_model
from streamrnn.nn.formats.native import encoded
from streamrnn.nn.kernels.threads import get_threads
from streamrnn.nn.layers import registry
from streamrnn.nn.models.mixture import mixture_of
from streamrnn.stream.config import Config, value_of
from streamrnn.stream.config.notations import format_duration
from streamrnn.stream.scoring import LoadedPipeline, starting_table

_PAUSE = 0.05
"""Seconds between two reports of progress."""
_CODE = f"import sys; sys.path[:] = sys.argv[2:]; from {__name__} import work; work()"
"""The code of a new process, which does not import the script of its parent."""
_PATIENCE = 10.0
"""Seconds to wait for a process, which ends within milliseconds after its parent."""
_OWN = ("train.seed", "train.seeds", "train.keep")


class SeedsJob:
    """One fit of a pipeline file whose [train] seeds is 2 or more.

    Its members are fits in `<model path>.fit/seeds/<seed>/`, each of which runs as if alone.
    """

    def __init__(self, config: Config, state_table: pa.Table | None, options: FitOptions) -> None:
        train = config.train
        self.config, self.options, self._state_table = config, options, state_table
        self.seeds = range(train.seed, train.seed + train.seeds)
        self._folder = FitFolder(config.model.path)
        season = format_duration(config.target.season)
        self.summary = FitSummary(model=location(config.model.path), season=season)

    def check(self) -> None:
        """Check all but the rows of the fit, as if it were the first.

        Raises what `run` raises, and writes nothing.
        """
        train = self.config.train
        if train.keep == "best" and train.validation is None:
            raise ConfigError(
                '[train] keep = "best" needs validation, which judges the seeds. Set [train] '
                'validation, or keep = "all"'
            )
        if train.keep == "all" and train.validation is None and train.measures:
            raise ConfigError(
                '[train] keep = "all" needs validation, whose errors are part of the spread. Set '
                "[train] validation"
            )
        if train.keep == "all" and train.loss == "gaussian_nll":
            raise ConfigError(
                '[train] keep = "all" returns the mean of several models and its spread, but a '
                'model trained with the loss gaussian_nll has its own spread. Set keep = "best"'
            )
        if train.keep == "all" and self.config.output.calibrate:
            raise ConfigError(
                '[output] calibrate: [train] keep = "all" returns the mean of several models and '
                'its spread, not quantiles. Set keep = "best", or remove calibrate'
            )
        job = FitJob(self._member(self.seeds[0], 1), self._state_table, FitOptions())
        units = job.check()
        output = self.config.output
        if train.keep == "all" and output.quantiles is not None and units != 1:
            raise ConfigError(
                '[output] quantiles: with [train] keep = "all", the model of all seeds returns '
                f"{units} means and {units} spreads, and quantiles need one of each. Remove "
                "quantiles"
            )
        names = output.names if output.quantiles is None else None
        if train.keep == "all" and names is not None and len(names) != 2 * units:
            raise ConfigError(
                f"[output] names: the model of all seeds returns {2 * units} values per row, the "
                f"mean ({units}) and the spread ({units}); received {len(names)} names: "
                f"{', '.join(names)}"
            )

    def run(self) -> FitSummary:
        """Train all members, or resume them, and keep the best, or all as one model."""
        began = time.perf_counter()
        self.check()
        if self.options.limit is not None:
            self._describe(self._fit_members())
        else:
            with self._folder.locked():
                self.summary.folder = location(str(self._folder.path))
                self._fit_and_keep()
        self.summary.seconds = time.perf_counter() - began
        return self.summary

    # ---- members

    def _member(self, seed: int, threads: int) -> Config:
        """Return the config of the fit of one seed."""
        alone: dict[str, Any] = {"names": None, "sort": False}
        if self.config.train.keep == "all":
            alone["quantiles"] = None
        return self.config.with_keys(
            train={"seed": seed, "seeds": 1, "keep": "best"},
            model={"path": str(self._of(seed).model), "threads": threads},
            output=alone,
        )

    def _fit_members(self) -> list[FitSummary | None]:
        options = self.options
        cores = self.config.model.threads or get_threads()
        # A custom class exists in this process only, and a daemon must not have children.
        alone = registry.has_custom() or multiprocessing.current_process().daemon
        workers = 1 if alone else min(cores, len(self.seeds))
        alike = self._state_table, options.extend, options.full_refresh, options.limit
        threads = max(1, cores // workers)
        requests = [FitRequest(self._member(seed, threads), *alike) for seed in self.seeds]
        progress: dict[int, FitProgress] = {}
        began = time.perf_counter()

        def report(number: int, now: FitProgress) -> None:
            if options.progress is None or not now.total_steps:
                return
            progress[number] = now
            done = sum((p.epoch - 1) * p.total_steps + p.steps for p in progress.values())
            an_epoch = len(self.seeds) * now.total_steps
            total, epoch = an_epoch * now.epochs, min(now.epochs, done // an_epoch + 1)
            seconds = time.perf_counter() - began
            options.progress(FitProgress(epoch, now.epochs, done, total, seconds))

        return fit_all(requests, workers, report, options.stop)

    # ---- what is kept

    def _fit_and_keep(self) -> None:
        folder, options = self._folder, self.options
        last = folder.last()
        check_folder(folder, last, options)
        identity: FitIdentity = {key: value_of(key, self.config.canonical()) for key in _OWN}
        if last is not None and not options.full_refresh:
            then = last.record.identity
            refuse_another_fit({key: value_of(key, then) for key in _OWN}, identity, folder)
        record = FitRecord(identity, [] if last is None else last.record.model_digests)
        if last is None or options.full_refresh or not last.record.done:
            folder.commit(FitCommit(record))
        self._wait_for_orphans()
        try:
            self._describe(self._fit_members())
        finally:
            self.summary.committed = any(self._of(seed).read() for seed in self.seeds)
            if not self.summary.committed and last is None:
                folder.withdraw()
                shutil.rmtree(folder.path / MEMBERS, ignore_errors=True)
        if self.summary.interrupted:
            return
        members = [self._of(seed).model_digest() for seed in self.seeds]
        if last is not None and last.record.done and last.record.members == members:
            folder.restore_model(last)
            self.summary.nothing_new = True
            return
        self._keep(replace(record, members=members))

    def _wait_for_orphans(self) -> None:
        """Wait until the processes of a killed fit have noticed its end, and have ended, too."""
        deadline = time.monotonic() + _PATIENCE
        for folder in map(self._of, self.seeds):
            while folder.path.exists():
                try:
                    with folder.locked():
                        break
                except CheckpointError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.02)

    def _of(self, seed: int) -> FitFolder:
        return FitFolder(self._folder.path / MEMBERS / str(seed) / self._folder.model.name)

    def _describe(self, results: list[FitSummary | None]) -> None:
        """Sum up the members that began.

        What all have in common is taken from the first member, the history from the best.
        """
        fits = {seed: of for seed, of in zip(self.seeds, results, strict=True) if of is not None}
        summary, members = self.summary, fits.values()
        summary.seeds = [SeedResult(seed, of.best) for seed, of in fits.items()]
        summary.interrupted = None in results or any(of.interrupted for of in members)
        if not fits:
            return
        first = next(iter(members))
        summary.rows, summary.streams, summary.labels = first.rows, first.streams, first.labels
        summary.validation_rows, summary.scaled = first.validation_rows, first.scaled
        summary.counts, summary.notes = first.counts, list(first.notes)
        summary.updates = sum(of.updates for of in members)
        summary.epochs = sum(of.epochs for of in members)
        losses = {seed: of.best.get("val_loss") for seed, of in fits.items()}
        if self.config.train.keep == "best" and None in losses.values() and not summary.interrupted:
            raise ConfigError(
                "fit: no row is in [train] validation, which judges the seeds. Set an earlier "
                "validation.since, or a larger validation.streams"
            )
        best = min(fits, key=lambda seed: (losses[seed] is None, losses[seed] or 0.0))
        summary.seed = best if self.config.train.keep == "best" else None
        summary.best_epoch = fits[best].best_epoch
        summary.history, summary.shifts = fits[best].history, fits[best].shifts

    def _keep(self, record: FitRecord) -> None:
        """Write the results, commit them, and put them into place."""
        folder, seed = self._folder, self.summary.seed
        # From here on the results of the last fit may be replaced: its commit no longer holds.
        folder.discard_pending()
        folder.commit(FitCommit(record))
        if seed is not None:
            data = self._of(seed).model.read_bytes()
        else:
            variance = np.zeros(1)
            if self.config.train.measures:
                errors = [self._commit(each).record.status.best_errors for each in self.seeds]
                if not all(errors):
                    raise ConfigError(
                        "fit: no row is in [train] validation, whose errors are part of the "
                        "spread. Set an earlier validation.since, or a larger validation.streams"
                    )
                variance = np.array(errors).mean(axis=0)
            models = [load_model(str(self._of(each).model)) for each in self.seeds]
            data = encoded(mixture_of(models, self.seeds, variance.tolist()))
        folder.put_pending(folder.model.name, data)
        histories = []
        for each in self.seeds:
            history = pq.read_table(self._of(each).path / HISTORY_FILE)
            column = pa.array([each] * history.num_rows, pa.int64())
            histories.append(history.add_column(0, "seed", column))
        folder.put_history(pa.concat_tables(histories, promote_options="permissive"))
        saved = self._save_state()
        if self.summary.interrupted:
            return
        if saved:
            self.summary.state = location(str(folder.path / STATE_FILE))
        first = self._commit(self.seeds[0]).record
        record = replace(record, label_means=first.label_means, trained_to=first.trained_to)
        folder.finish(FitCommit(record), data, state=saved)
        self.summary.committed = True

    def _commit(self, seed: int) -> FitCommit:
        commit = self._of(seed).read()
        if commit is None:
            raise CheckpointError(f"{self._of(seed).path}: the fit of this seed is gone; rerun fit")
        return commit

    # ---- the state after the last row

    def _save_state(self) -> bool:
        """Write the state of the model that is kept; return False if no state is to be saved."""
        folder, seed = self._folder, self.summary.seed
        if seed is not None:
            path = self._of(seed).path / STATE_FILE
            if path.exists():
                folder.put_pending(STATE_FILE, path.read_bytes())
            return path.exists()
        config = without_layers(self.config)
        if self.options.extend:
            config = config.with_keys(state={"init": str(folder.path / STATE_FILE)})
        model = folder.pending(folder.model.name)
        loaded = LoadedPipeline(config, reader(self._state_table), model)
        if not self.config.train.state or loaded.kind.needs_end:
            return False
        fit = FitSource(loaded, self._commit(self.seeds[0]).record.files)
        table = starting_table(fit.bound, None, "", self.summary.notes, on_change="carry")
        save_state(loaded, fit, fit.reader(table), folder, self.options.stop, self.summary)
        fit.refuse_changes()
        return True


def fit_job(config: Config, state_table: pa.Table | None, options: FitOptions) -> FitJob | SeedsJob:
    """Return the fit of a pipeline; `state_table`: the state in memory that it starts from."""
    if config.train.seeds > 1 and not options.find_rate:
        return SeedsJob(config, state_table, options)
    if options.find_rate:
        config = config.with_keys(train={"seeds": 1, "keep": "best"})
    return FitJob(config, state_table, options)


# ---- fits that run side by side


@dataclass(frozen=True)
class FitRequest:
    """One fit; `state_table` is the table that [state] init names, if it is in memory."""

    config: Config
    state_table: pa.Table | None
    extend: bool
    full_refresh: bool
    limit: int | None

    def run(
        self, stop: threading.Event, report: Callable[[FitProgress], None]
    ) -> FitSummary | None:
        """Fit, unless `stop` is set; a model file at [model] path is replaced."""
        if stop.is_set():
            return None
        options = FitOptions(
            extend=self.extend,
            full_refresh=self.full_refresh,
            overwrite=True,
            limit=self.limit,
            progress=report,
            stop=stop,
        )
        return FitJob(self.config, self.state_table, options).run()


def fit_all(
    requests: Sequence[FitRequest],
    workers: int,
    report: Callable[[int, FitProgress], None],
    stop: threading.Event,
) -> list[FitSummary | None]:
    """Run fits in `workers` processes (1: in this one); return their summaries.

    `report` is called with the number of a request, and its progress. Once `stop` is set, all fits
    commit and end; the result of a fit that did not begin is None. If a fit fails, or its process
    dies, the other running fits commit, and the error is raised.
    """
    if workers < 2:
        return [
            request.run(stop, partial(report, number)) for number, request in enumerate(requests)
        ]
    waiting = deque(enumerate(requests))
    running: list[_Worker] = []
    results: list[FitSummary | None] = [None] * len(requests)
    try:
        while waiting or running:
            if stop.is_set():
                waiting.clear()
                for worker in running:
                    worker.stop()
            while waiting and len(running) < workers:
                running.append(_Worker(*waiting.popleft()))
            ready = connection.wait([worker.pipe for worker in running], _PAUSE)
            for worker in [of for of in running if of.pipe in ready]:
                message = worker.receive()
                if isinstance(message, Exception):
                    raise message
                if isinstance(message, FitProgress):
                    report(worker.number, message)
                else:
                    results[worker.number] = message
                    running.remove(worker)
    finally:
        for worker in running:
            worker.stop()
        for worker in running:
            while isinstance(worker.receive(), FitProgress):
                pass
    return results


class _Worker:
    """A process that runs one fit, and ends with the process that started it.

    It has a session of its own: signals to the process group of its parent do not reach it.
    """

    def __init__(self, number: int, request: FitRequest) -> None:
        self.number = number
        self.pipe, theirs = multiprocessing.Pipe()
        self._stopped = False
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, str(theirs.fileno()), *sys.path],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._send(request)

    def receive(self) -> FitProgress | FitSummary | Exception | None:
        """Return progress, or, once the process has ended, the outcome."""
        try:
            message: FitProgress | FitSummary | Exception | None = self.pipe.recv()
        except (EOFError, ConnectionError):
            message = EngineError(
                f"the process of a fit ended with code {self._process.wait()}; rerun the same "
                "command to resume"
            )
        if not isinstance(message, FitProgress):
            self._process.wait()
        return message

    def stop(self) -> None:
        """Tell the fit to commit and end."""
        if not self._stopped:
            self._stopped = True
            self._send(None)

    def _send(self, message: FitRequest | None) -> None:
        with suppress(ConnectionError):  # `receive` reports that the process has ended
            self.pipe.send(message)


def work() -> None:
    """Run, in a new process, the fit that comes through the pipe named by the first argument."""
    pipe: connection.Connection[Any, Any] = connection.Connection(int(sys.argv[1]))
    request: FitRequest = pipe.recv()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(pipe, stop), daemon=True).start()
    last = 0.0

    def report(progress: FitProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= _PAUSE:
            last = time.monotonic()
            pipe.send(progress)

    try:
        pipe.send(request.run(stop, report))
    except Exception as error:  # noqa: BLE001 (the parent raises it)
        text = "".join(traceback.format_exception(error))
        if not isinstance(error, StreamRNNError):  # the text of ours is enough
            error.add_note(text)
        try:
            portable = deepcopy(error)
        except Exception:  # noqa: BLE001 (its class cannot be called with its `args`)
            portable = EngineError(text)
        pipe.send(portable)


def _listen(pipe: "connection.Connection[Any, Any]", stop: threading.Event) -> None:
    """Set `stop` when told; exit when the process at the other end of the pipe ends."""
    with suppress(EOFError, ConnectionError):
        while True:
            pipe.recv()
            stop.set()
    os._exit(1)
