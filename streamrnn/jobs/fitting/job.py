"""One fit of a pipeline: see `Pipeline.fit`."""

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa

from streamrnn.base.display import count, location
from streamrnn.errors import CheckpointError, ConfigError, DivergedError
from streamrnn.jobs.fitting.baseline import Baselines, Calibration, best_season, seasonal_forecasts
from streamrnn.jobs.fitting.commit import STATE_FILE, FitCommit, FitFolder, FitIdentity, FitRecord
from streamrnn.jobs.fitting.division import Division, divide
from streamrnn.jobs.fitting.fit_loop import FitLoop, FitProgress, try_rates
from streamrnn.jobs.fitting.learner import refuse_wrong_label
from streamrnn.jobs.fitting.plan import (
    FitModel,
    adapt_normalization,
    division_rule,
    label_means,
    last_time,
)
from streamrnn.jobs.fitting.request import (
    FitSource,
    check_folder,
    check_request,
    differences,
    fit_identity,
    initial_model,
    load_for_training,
    refuse_another_fit,
    save_state,
    until_stopped,
    without_layers,
)
from streamrnn.jobs.fitting.staging import Reader, Staged, stage
from streamrnn.jobs.fitting.summary import FitOptions, FitSummary
from streamrnn.jobs.preflight import reader
from streamrnn.nn.formats.native import encoded
from streamrnn.nn.kernels.threads import limited
from streamrnn.stream.config import Config, value_of
from streamrnn.stream.config.notations import format_duration
from streamrnn.stream.config.values import OnChange
from streamrnn.stream.scoring import LoadedPipeline, starting_table, ticks_of
from streamrnn.stream.sources import named_values

_CHANGING = {"the initial model", "the initial state", "continues"}
"""Keys of an identity in which a fit differs from the fit that continues it."""
_SEASONS = {"24h": timedelta(days=1), "7d": timedelta(days=7)}
"""The seasons that a fit tries, by their names in [target]."""
_FREE_LATER = ("train.", "state.", "source.after", "source.order", "model.layers")
"""Prefixes of keys that may change between a fit and the fit that continues it."""


class FitJob:
    """One fit of a pipeline file with its options."""

    def __init__(self, config: Config, state_table: pa.Table | None, options: FitOptions) -> None:
        check_request(config)
        self.config, self.options = config, options
        season = format_duration(config.target.season)
        self.summary = FitSummary(model=location(config.model.path), season=season)
        self._read_init, self._units = reader(state_table), 0
        self._folder = FitFolder(config.model.path)

    def run(self) -> FitSummary:
        """Train the model, or resume an interrupted fit."""
        began = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(limited(self.config.model.threads))
            if not self.options.writes:
                steps = self._in_scratch(stack.enter_context(tempfile.TemporaryDirectory()))
            else:
                stack.enter_context(self._folder.locked())
                self.summary.folder = location(str(self._folder.path))
                steps = self._after_last()
            steps()
        self.summary.seconds = time.perf_counter() - began
        return self.summary

    def check(self) -> int:
        """Check all but the rows of the fit, as if it were the first; return the number of outputs.

        Raises what `run` raises, and writes nothing.
        """
        with tempfile.TemporaryDirectory() as scratch:
            self._in_scratch(scratch)
        return self._units

    # ---- what is to be done

    def _in_scratch(self, scratch: str) -> Callable[[], None]:
        """Check all but the rows of a first fit; return the function that trains.

        The fit is in a temporary folder.
        """
        self._folder = FitFolder(Path(scratch) / "model.safetensors")
        self._folder.path.mkdir()
        return self._begin_or_resume(None, [])

    def _after_last(self) -> Callable[[], None]:
        """Return the function that does what is left to do after the last fit here."""
        folder, options = self._folder, self.options
        try:
            committed = folder.last()
        except CheckpointError:
            if not options.full_refresh:
                raise
            committed = None
        check_folder(folder, committed, options)
        digests = [] if committed is None else committed.record.model_digests
        last = None if options.full_refresh else committed
        if last is not None:  # the folder of a fit of several seeds has no model to start from
            seeds = value_of("train.seeds", last.record.identity)
            refuse_another_fit({"train.seeds": seeds}, {"train.seeds": 1}, folder)
        if last is not None and last.record.done:
            folder.restore_model(last)
        return self._begin_or_resume(last, digests)

    def _begin_or_resume(self, last: FitCommit | None, digests: list[str]) -> Callable[[], None]:
        """Check all but the rows; return a function that trains, or reports that nothing is new."""
        folder = self._folder
        initial = initial_model(self.config, folder, self.options, last)
        config = self._with_state(last)
        loaded = load_for_training(config, self._read_init, initial)
        model = FitModel.of(loaded, config)
        self._units = model.units
        done = last if last is not None and last.record.done else None
        resumed = last if done is None else None
        wanted = fit_identity(loaded, self.config, initial) | {"continues": self.options.extend}
        if last is not None:
            then, free = last.record.identity, set[str]()
            if done is not None and (self.options.extend or then["continues"]):
                free |= _CHANGING
            if done is not None and self.options.extend:
                free |= {key for key in {*then, *wanted} if key.startswith(_FREE_LATER)}
            refuse_another_fit(_without(then, free), _without(wanted, free), folder)
        fit = FitSource(loaded, None if resumed is None else resumed.record.files)
        rule = division_rule(loaded, config, fit.bound.schema)
        if fit.later:
            self.summary.notes.append(
                f"{count(fit.later, 'new file')} not read: a fit reads only files that were there "
                "when it began; train on later files with --continue"
            )
        if done is not None and fit.files == done.record.files:
            then = _without(done.record.identity, _CHANGING)
            if not differences(then, _without(wanted, _CHANGING)):
                return lambda: self._nothing(done)
        record = FitRecord(wanted, digests, fit.files)

        def steps() -> None:
            staged, row_reader = self._stage(fit)
            if self.summary.interrupted:
                return None
            record.digest = staged.digest()
            if done is not None:
                changed = record.digest != done.record.digest
                if not self.options.extend and (changed or done.record.identity["continues"]):
                    raise CheckpointError(
                        f"{location(str(folder.path))}: the source has changed since this model "
                        "was fitted. Train it on the new rows alone with --continue, or fit again "
                        "with --full-refresh."
                    )
                if not (self.options.extend and staged.steps):
                    return self._nothing(done)
                # The last validation counts if the new rows have no validation.
                record.status.best_errors = done.record.status.best_errors
            if resumed is not None and record.digest != resumed.record.digest:
                raise CheckpointError(
                    f"{location(str(folder.path))}: the rows of the source have changed since this "
                    "fit began. Restore them, or start over with --full-refresh."
                )
            if self.options.writes:
                folder.begin(initial)
            parts = divide(staged, rule, fit.target)
            self._check_rows(fit, staged, model, parts, row_reader)
            baselines = self._baselines(fit, staged, parts, record)
            adapt_normalization(model.learner.model, staged, parts.rows)
            model.scale(staged, parts.rows)
            commit = self._folder.commit if self.options.writes else lambda _: None
            calibration = None
            if self.config.output.calibrate:
                rows, place = parts.validation.counts(staged), self._folder.rows / "calibration"
                calibration = Calibration(self.config.train.quantiles, rows, place)
            learner, table = model.learner, row_reader.scorer.table
            loop = FitLoop(
                learner, staged, parts, self.config, baselines, calibration, table, record, commit
            )
            if self.options.find_rate:
                self.summary.rates = try_rates(loop, self.options.stop.is_set)
                self.summary.updates = len(self.summary.rates)
                self.summary.interrupted = self.options.stop.is_set()
                return None
            if resumed is not None:
                loop.resume(resumed)
                status, epochs = loop.status, self.config.train.epochs
                self.summary.resumed = (
                    f"Resumed in epoch {status.epoch + 1} of {epochs}, after "
                    f"{count(status.iterations, 'update')}."
                )
                self._report(FitProgress(status.epoch, 0, 0, 0, 0.0, self.summary.resumed))
            if self._run(loop, fit, row_reader):
                self._finish(loop, model, fit, config, row_reader)
            return None

        return steps

    def _with_state(self, last: FitCommit | None) -> Config:
        if not self.options.extend or last is None:
            return self.config
        if not (last.record.done or last.record.identity["continues"]):
            return self.config  # `refuse_another_fit` says that the first fit is not finished
        path = self._folder.path / STATE_FILE
        if last.record.done and not last.record.state:
            raise ConfigError(
                "--continue: the last fit saved no state, so it is unknown which rows are new. Set "
                "[train] state = true, and fit again with --full-refresh; a fit of whole streams "
                "has no state"
            )
        if not path.exists():
            raise CheckpointError(
                f"--continue: {path}, the state after the last fit, is gone. Fit again with "
                "--full-refresh."
            )
        return self.config.with_keys(state={"init": str(path)})

    def _nothing(self, last: FitCommit) -> None:
        summary = self.summary
        summary.nothing_new = True
        summary.history = last.record.status.history
        summary.best_epoch = last.record.status.best_epoch
        summary.epochs = len(summary.history)

    # ---- training

    def _stage(self, fit: FitSource) -> tuple[Staged, Reader]:
        # The state after the last fit belongs to the same model, but in the runs' precision.
        extend = self.options.extend
        notes: list[str] = [] if extend else self.summary.notes
        on_change: OnChange = "carry" if extend else "error"
        table = starting_table(fit.bound, None, "", notes, on_change=on_change)
        row_reader = fit.reader(table, self.options.limit)
        batches = until_stopped(fit.batches(), self.options.stop, self.summary)
        staged = stage(row_reader, batches, self._folder.empty_rows())
        self.summary.rows, self.summary.streams = staged.rows, len(staged.slot_S)
        self.summary.counts = {name: int(n) for name, n in staged.counts.items() if n}
        return staged, row_reader

    def _check_rows(
        self, fit: FitSource, staged: Staged, model: FitModel, parts: Division, row_reader: Reader
    ) -> None:
        """Check that there are rows with labels to train on and, where needed, to validate with."""
        summary, train = self.summary, self.config.train
        if not len(parts.rows.begin):
            raise ConfigError(
                f"fit: all rows that were read ({staged.rows:,}) are for validation, and none is "
                "left to train on. Set a later [train] validation.since, or a smaller "
                "validation.streams"
                if staged.steps
                else "fit: there is no row to train on. Check [source] path and [train] until, and "
                "whether all rows are skipped, rejected or dropped ([source] nulls, bad and late)"
            )
        summary.scaled = model.scales
        summary.labels = parts.training.counts(staged)
        summary.validation_rows = parts.validation.judged
        advice = "Check [target] column and weight, [train] burn_in, and [output] warmup"
        if self.config.target.horizon:
            advice += "; and that streams have rows that are exactly [target] horizon apart"
        elif self.config.target.rows:
            advice += "; and that streams have more rows than [target] rows"
        if not len(parts.training.begin):
            raise ConfigError(
                f"fit: no stream has [window] steps = {self.config.window.steps} rows to train on. "
                "Set fewer steps"
            )
        if not summary.labels:
            raise ConfigError(f"fit: no training row has a label that counts. {advice}")
        if parts.validation.judged and not parts.validation.counts(staged):
            raise ConfigError(f"fit: no validation row has a label that counts. {advice}")
        if train.validation is not None and not parts.validation.judged:
            if train.patience:
                raise ConfigError(
                    "fit: no row is in [train] validation, which patience needs. Set an earlier "
                    "validation.since, or a larger validation.streams"
                )
            summary.notes.append(
                "no row is in [train] validation; the model has the weights of the last epoch"
            )
        place = partial(self._place, staged, fit, row_reader)
        refuse_wrong_label(staged, model.learner, model.units, fit.target.names, place)

    def _baselines(
        self, fit: FitSource, staged: Staged, parts: Division, record: FitRecord
    ) -> Baselines | None:
        """Return the baselines to compare errors with; None if outputs do not forecast the labels.

        If the training rows show a season that is worth comparing with, a note says so.
        """
        means = label_means(staged, parts.rows)
        values = label_means(staged, parts.rows, values=True).tolist()
        record.label_means = dict(zip(self.config.target.labels, values, strict=True))
        if (time := self.config.source.time) is not None:
            kind = fit.bound.schema.field(time).type
            record.trained_to = {str(kind): last_time(staged, parts.rows)}
        if not self.config.train.measures:
            return None
        persists, season = self.config.target.ahead, fit.target.season
        if season:
            path = self._folder.rows / "seasonal"
            return Baselines(persists, means, seasonal_forecasts(staged, season, path))
        baselines = Baselines(persists, means, None)
        if time is not None and not pa.types.is_integer(fit.bound.schema.field(time).type):
            seasons = {name: ticks_of(of, fit.bound, "season") for name, of in _SEASONS.items()}
            if proposed := best_season(staged, parts.rows, baselines, seasons):
                self.summary.notes.append(
                    f"in the training rows the value {proposed} before a label forecasts it better "
                    f"than {'persistence' if persists else 'the mean label'}. To compare with that "
                    f'value, set [target] season = "{proposed}"'
                )
        return baselines

    def _report(self, progress: FitProgress) -> None:
        if self.options.progress is not None:
            self.options.progress(progress)

    def _run(self, loop: FitLoop, fit: FitSource, row_reader: Reader) -> bool:
        summary = self.summary
        try:
            finished = loop.run(self._report, self.options.stop.is_set)
        except DivergedError as error:
            updates = count(loop.learner.optimizer.iterations, "update")
            raise DivergedError(
                f"{self._place(loop.staged, fit, row_reader, *error.step)}: {error} in epoch "
                f"{loop.status.epoch + 1}, after {updates}. Set a lower learning_rate in [train] "
                "optimizer, or [train] clip_norm = 1.0; and check the ranges of features "
                "(streamrnn validate), labels and weights."
            ) from None
        status = loop.as_status()
        summary.history = status.history
        summary.epochs = len(status.history)
        summary.updates = status.iterations
        summary.best_epoch = status.best_epoch
        summary.shifts = status.shifts
        summary.interrupted = not finished
        summary.committed = self.options.writes
        return finished

    def _place(
        self, staged: Staged, fit: FitSource, row_reader: Reader, row: int, stream: int
    ) -> str:
        key = named_values([field.name for field in fit.bound.layout.keys], staged.keys, stream)
        return f"{row_reader.place(fit.batches(), row)}: stream {key}"

    # ---- results

    def _finish(
        self, loop: FitLoop, model: FitModel, fit: FitSource, config: Config, row_reader: Reader
    ) -> None:
        if not self.options.writes:
            return
        folder = self._folder
        data = encoded(model.finished(loop.status.shifts))
        folder.put_pending(folder.model.name, data)
        folder.put_history(pa.Table.from_pylist(loop.status.history))
        saved = self.config.train.state and not fit.loaded.kind.needs_end
        if saved:
            path = folder.pending(folder.model.name)
            loaded = LoadedPipeline(without_layers(config), self._read_init, path)
            save_state(loaded, fit, row_reader, folder, self.options.stop, self.summary)
            if self.summary.interrupted:  # the last commit has everything but the state
                return
            self.summary.state = location(str(folder.path / STATE_FILE))
        fit.refuse_changes()
        folder.finish(loop.as_commit(), data, state=saved)


def _without(keys: FitIdentity, left_out: set[str]) -> FitIdentity:
    return {key: value for key, value in keys.items() if key not in left_out}
