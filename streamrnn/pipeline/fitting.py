"""One fit of a pipeline: see `Pipeline.fit`."""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.config import Config
from streamrnn.display import location
from streamrnn.errors import CheckpointError, ConfigError, DataError, UnsupportedError
from streamrnn.fitting import (
    Course,
    Diverged,
    Division,
    DivisionRule,
    FitCommit,
    FitFolder,
    FitPlan,
    FitProgress,
    HistoryRow,
    Learner,
    Limit,
    Reader,
    Scale,
    Staged,
    adapt_normalization,
    check_finite_scale,
    check_units,
    divide,
    find_wrong_label,
    scale_of,
    split_off_scale,
    stage,
    target_scale,
    with_scale,
)
from streamrnn.fitting.folder import HISTORY_FILE, STATE_FILE
from streamrnn.formats.native import encoded
from streamrnn.kernels.threads import limited
from streamrnn.models import Model
from streamrnn.pipeline.fit_request import (
    check_request,
    fit_identity,
    initial_model,
    loss_from,
    optimizer_from,
    refuse_another_fit,
    refuse_foreign_model,
    without_layers,
)
from streamrnn.pipeline.fit_source import FitSource, trained_state
from streamrnn.pipeline.fit_summary import FitOptions, FitSummary
from streamrnn.scoring import LoadedPipeline, Scorer, starting_table
from streamrnn.sources import parse_time
from streamrnn.states import write_state_file
from streamrnn.training import Loss
from streamrnn.training.metrics import metric_of
from streamrnn.training.schedules import SCHEDULES

ReadState = Callable[[str], pa.Table]
_CHANGING = {"the initial model", "continues"}
"""Keys of an identity in which a fit differs from the one that continues it."""


class FitJob:
    """One fit of a pipeline file with its options."""

    def __init__(self, config: Config, read_init: ReadState, options: FitOptions) -> None:
        check_request(config)
        self.config, self.options = config, options
        self.summary = FitSummary(model=location(config.model.path))
        self._read_init = read_init
        self._folder = FitFolder(Path(config.model.path))

    def run(self) -> FitSummary:
        """Train the model, or resume an interrupted fit."""
        began = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(limited(self.config.model.threads))
            if self.options.limit is not None:
                scratch = stack.enter_context(tempfile.TemporaryDirectory())
                folder = FitFolder(Path(scratch) / "model.safetensors")
                initial = initial_model(self.config, folder, self.options, None)
                self._train(folder, initial, None)
            else:
                stack.enter_context(self._folder.locked())
                self.summary.folder = location(str(self._folder.path))
                self._resume_or_begin()
        self.summary.seconds = time.perf_counter() - began
        return self.summary

    # ---- the last fit

    def _resume_or_begin(self) -> None:
        folder, options = self._folder, self.options
        last = None if options.full_refresh and not options.extend else self._last()
        known = last if last is not None else self._last_readable()
        refuse_foreign_model(folder, known, options.overwrite)
        if options.extend and last is None:
            raise ConfigError(
                f"--continue: there is no fit in {location(str(folder.path))}; run fit without it"
            )
        initial = initial_model(self.config, folder, options, last)
        self._train(folder, initial, last, () if known is None else tuple(known.facts["own"]))

    def _last(self) -> FitCommit | None:
        """Return the last commit, after putting the results of a finished fit into place."""
        last = self._folder.read()
        if last is not None and last.facts["done"]:
            self._folder.publish()
        else:
            self._folder.discard_pending()
        return last

    def _last_readable(self) -> FitCommit | None:
        try:
            return self._last()
        except CheckpointError:
            return None

    # ---- training

    def _train(
        self,
        folder: FitFolder,
        initial: bytes,
        last: FitCommit | None,
        own: tuple[str, ...] = (),
    ) -> None:
        config = self._config(folder, last)
        loaded = _loaded(folder, initial, config, self._read_init)
        if not loaded.kind.carries_state:
            raise UnsupportedError(
                f'fit: [window] kind "{loaded.kind.name}" is not supported: a fit carries the '
                "state of each stream. Remove [window] kind"
            )
        fit = FitSource.of(loaded)
        wanted = fit_identity(loaded, self.config, initial) | {"continues": self.options.extend}
        files = [[file.name, file.size, file.mtime_ns] for file in fit.listed]
        if last is not None and self._is_done(last, wanted, files):
            return self._nothing(last)
        staged, reader = self._stage(fit, folder)
        digest = staged.digest()
        if last is not None and last.facts["done"] and not self.options.extend:
            if digest != last.facts["digest"] or last.facts["identity"]["continues"]:
                raise CheckpointError(
                    f"{location(str(folder.path))}: the source has changed since this model was "
                    "fitted. Train it on the new rows alone with --continue, or fit anew with "
                    "--full-refresh."
                )
            return self._nothing(last)
        if self.options.extend and last is not None and last.facts["done"]:
            if not staged.steps:
                return self._nothing(last)
            last = None
        if last is not None and digest != last.facts["digest"]:
            raise CheckpointError(
                f"{location(str(folder.path))}: the rows of the source have changed since this "
                "fit began. Restore them, or start over with --full-refresh."
            )
        facts = {
            "identity": wanted, "digest": digest, "files": files, "own": list(own), "done": False,
        }  # fmt: skip
        if self.options.limit is None:
            folder.begin(initial)
        course, whole = self._course(fit, loaded, staged, reader, folder, facts, last)
        if self._run(course, fit, reader):
            self._finish(course, whole, config, reader, folder, facts)
        return None

    def _config(self, folder: FitFolder, last: FitCommit | None) -> Config:
        """Return the config, with the state to start from."""
        if not self.options.extend or last is None:
            return self.config
        path = folder.show(STATE_FILE)
        if not Path(path).exists():
            raise ConfigError(
                "--continue: the last fit saved no state, without which new rows are unknown. Set "
                "[train] state = true, and fit anew with --full-refresh"
            )
        state = self.config.state.model_copy(update={"init": path})
        return self.config.model_copy(update={"state": state})

    def _is_done(self, last: FitCommit, wanted: dict[str, Any], files: list[list[Any]]) -> bool:
        """Return whether a finished fit was of the same files; raise if it was another fit."""
        then = last.facts["identity"]
        if not last.facts["done"]:
            refuse_another_fit(then, wanted, self._folder)
            return False
        if self.options.extend:
            own = {key for key in {*then, *wanted} if key.startswith("train.")} | _CHANGING
            refuse_another_fit(_without(then, own), _without(wanted, own), self._folder)
            same = _without(then, _CHANGING) == _without(wanted, _CHANGING)
            return same and bool(files == last.facts["files"])
        refuse_another_fit(_without(then, _CHANGING), _without(wanted, _CHANGING), self._folder)
        if not then["continues"]:
            refuse_another_fit(then, wanted, self._folder)
        return bool(files == last.facts["files"])

    def _nothing(self, last: FitCommit) -> None:
        summary = self.summary
        summary.nothing_new = True
        summary.history = last.facts["standing"]["history"]
        summary.best_epoch = max(0, last.facts["standing"]["best_epoch"])
        summary.epochs = len(summary.history)

    def _stage(self, fit: FitSource, folder: FitFolder) -> tuple[Staged, Reader]:
        train, source = self.config.train, self.config.source
        reader = Reader(
            Scorer(fit.bound, starting_table(fit.bound, None, "", self.summary.notes)),
            fit.target,
            Limit(source.time, train.until, self.options.limit),
        )
        staged = stage(reader, fit.batches(), folder.empty_rows())
        self.summary.rows, self.summary.streams = staged.rows, len(staged.slot_S)
        self.summary.counts = {name: int(n) for name, n in staged.counts.items() if n}
        return staged, reader

    def _course(
        self,
        fit: FitSource,
        loaded: LoadedPipeline,
        staged: Staged,
        reader: Reader,
        folder: FitFolder,
        facts: dict[str, Any],
        last: FitCommit | None,
    ) -> tuple[Course, _Whole]:
        parts = divide(staged, self._division_rule(fit), fit.target)
        if not parts.training.steps:
            raise ConfigError(
                f"fit: all of the {staged.rows:,} rows that were read are for validation, none is "
                "left to train on. Set a later [train] validation.since, or another share of the "
                "streams"
                if staged.steps
                else "fit: no row to train on. Check [source] path and [train] until"
            )
        self.summary.validation_rows = parts.validation.steps
        self.summary.scaled = self.config.train.scales
        core, layer = split_off_scale(loaded.model)
        scale = self._scale(staged, parts, None if layer is None else scale_of(layer))
        if layer is not None and scale is None:
            core = loaded.model
        adapt_normalization(core, staged, parts.training)
        loss = loss_from(self.config)
        units = int(core.graph.outputs[0].shape[-1] or 0)
        check_units(loss, units, staged.targets)
        self._check_labels(staged, loss, units, fit, reader)
        self.summary.labels = parts.training.counted(staged)
        learner = Learner(
            core,
            loss,
            optimizer_from(self.config),
            [metric_of(name, loss, units) for name in self.config.train.metrics],
            scale,
            self.config.train.seed,
        )
        course = Course(
            learner,
            staged,
            parts,
            self._plan(),
            reader.scorer.table,
            lambda commit: self._commit(commit, folder, facts),
        )
        if last is not None:
            course.resume(last)
            standing = course.standing
            self.summary.resumed = (
                f"Resumed in epoch {standing.epoch + 1} of {self.config.train.epochs}, after "
                f"{learner.optimizer.iterations:,} updates."
            )
            self._report(FitProgress(standing.epoch, 0, 0, 0, 0.0, self.summary.resumed))
        appended = scale if layer is None else None
        whole = loaded.model if layer is not None else core
        return course, _Whole(whole, appended)

    def _scale(self, staged: Staged, parts: Division, own: Scale | None) -> Scale | None:
        if not self.config.train.scales:
            return None
        if own is not None:
            check_finite_scale(own)
            return own
        return target_scale(staged, parts.training)

    def _division_rule(self, fit: FitSource) -> DivisionRule:
        train, window = self.config.train, self.config.window
        validation = train.validation
        since = None
        if validation is not None and validation.since is not None:
            kind = fit.bound.schema.field(str(self.config.source.time)).type
            since = parse_time(validation.since, kind, "[train] validation.since")
        return DivisionRule(
            since,
            None if validation is None else validation.streams,
            self.config.output.warmup if train.settle is None else train.settle,
            0 if isinstance(train.pieces, str) else train.pieces,
            window.lanes,
            window.steps,
        )

    def _plan(self) -> FitPlan:
        train, window = self.config.train, self.config.window
        return FitPlan(
            window.lanes,
            window.steps,
            train.epochs,
            train.patience,
            train.seed,
            SCHEDULES[train.schedule],
            train.clip_norm,
            train.is_regression and self.config.target.ahead,
            self.config.checkpoint.every * self.config.source.batch_rows,
        )

    def _commit(self, commit: FitCommit, folder: FitFolder, facts: dict[str, Any]) -> None:
        if self.options.limit is None:
            commit.facts |= facts
            folder.commit(commit)

    def _report(self, progress: FitProgress) -> None:
        if self.options.progress is not None:
            self.options.progress(progress)

    def _run(self, course: Course, fit: FitSource, reader: Reader) -> bool:
        summary = self.summary
        try:
            finished = course.run(self._report, self.options.stop.is_set)
        except Diverged as error:
            raise DataError(self._diverged(error, course, fit, reader)) from None
        standing = course.standing
        summary.history = standing.history
        summary.epochs = len(standing.history)
        summary.updates = course.learner.optimizer.iterations
        summary.best_epoch = max(0, standing.best_epoch)
        summary.interrupted = not finished
        return finished

    def _check_labels(
        self, staged: Staged, loss: Loss, units: int, fit: FitSource, reader: Reader
    ) -> None:
        wrong = find_wrong_label(staged, loss, units)
        if wrong is not None:
            column = fit.target.columns.values[wrong.target]
            raise DataError(
                f"{self._place(staged, fit, reader, wrong.row, wrong.stream)}: the label, of "
                f"[target] column {column!r}, is {wrong.value:g}; the loss {loss.name} expects "
                f"{wrong.expected}"
            )

    def _place(self, staged: Staged, fit: FitSource, reader: Reader, row: int, stream: int) -> str:
        key = ", ".join(str(column[stream].as_py()) for column in staged.keys)
        return f"{reader.place(fit.batches(), row)}: stream {key}"

    def _diverged(self, error: Diverged, course: Course, fit: FitSource, reader: Reader) -> str:
        place = ""
        if error.step is not None:
            place = f"{self._place(course.staged, fit, reader, *error.step)}: "
        return (
            f"{place}{error.what} in epoch {course.standing.epoch + 1}, after "
            f"{course.learner.optimizer.iterations:,} updates. Set a lower learning_rate in "
            "[train] optimizer, or [train] clip_norm = 1.0; and check the ranges of the features "
            "(streamrnn explain)."
        )

    # ---- results

    def _finish(
        self,
        course: Course,
        whole: _Whole,
        config: Config,
        reader: Reader,
        folder: FitFolder,
        facts: dict[str, Any],
    ) -> None:
        """Write the results, commit them, and put them into place."""
        if self.options.limit is not None:
            return
        data = encoded(whole.finished())
        folder.put_pending(folder.model.name, data)
        folder.put_pending(HISTORY_FILE, _as_parquet(course.standing.history))
        if self.config.train.state:
            path = folder.pending(folder.model.name)
            loaded = LoadedPipeline(without_layers(config), self._read_init, path)
            table = trained_state(loaded, reader, str(folder.path), self.summary.notes)
            write_state_file(table, folder.pending(STATE_FILE))
            self.summary.state = location(folder.show(STATE_FILE))
        commit = course.as_commit()
        digest = hashlib.sha256(data).hexdigest()
        own = list(dict.fromkeys([*facts["own"], digest]))
        commit.facts |= {**facts, "own": own, "done": True}
        folder.commit(commit)
        folder.publish()


@dataclass
class _Whole:
    """The model to write: `model`, which ends in `scale` if that is not None."""

    model: Model
    scale: Scale | None

    def finished(self) -> Model:
        """Return the model with its final weights."""
        return self.model if self.scale is None else with_scale(self.model, self.scale)


def _loaded(
    folder: FitFolder, initial: bytes, config: Config, read_init: ReadState
) -> LoadedPipeline:
    """Load the pipeline with the model that the fit starts from."""
    folder.path.mkdir(exist_ok=True)
    path = folder.path / "loading.safetensors"
    try:
        path.write_bytes(initial)
        return LoadedPipeline(without_layers(config), read_init, str(path))
    finally:
        path.unlink(missing_ok=True)


def _without(keys: Mapping[str, Any], left_out: set[str]) -> dict[str, Any]:
    return {key: value for key, value in keys.items() if key not in left_out}


def _as_parquet(history: list[HistoryRow]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(history), stream)
    return stream.getvalue()
