"""The `Pipeline` class, used from Python and by the command line."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

import pyarrow as pa

from streamrnn.base.display import count, html_table, listed, location
from streamrnn.base.plugin import load_plugin
from streamrnn.errors import ConfigError, MissingFileError, StreamRNNError
from streamrnn.jobs.explaining import (
    explain,
    feature_statistics,
    mermaid,
    preview_rows,
    source_windows,
    validate,
)
from streamrnn.jobs.preflight import notes_on_model
from streamrnn.jobs.running import RunJob, recorded
from streamrnn.jobs.session import StatefulPipeline
from streamrnn.nn.kernels import Compiled
from streamrnn.stream.checkpoints import has_manifest
from streamrnn.stream.config.problems import choices
from streamrnn.stream.config.values import EngineType, NewModel, check_new_model
from streamrnn.stream.scoring import SourceWindows, compile_kernels
from streamrnn.stream.scoring.bind import LoadedPipeline
from streamrnn.stream.scoring.loop import RunOptions
from streamrnn.stream.scoring.summary import Progress, Summary

if TYPE_CHECKING:
    from streamrnn.jobs.evaluation import Evaluation
    from streamrnn.jobs.fitting import FitProgress, FitSummary
    from streamrnn.plugins.report.picture import ReportPage


class Pipeline(StatefulPipeline):
    """A pipeline file with its model loaded and checked.

    `run` reads the source and writes the sink; `process` scores the caller's Arrow data or dicts,
    and carries the state from call to call. Several threads may call `process`, `finish`,
    `checkpoint` and `state`, and pickle the pipeline: a lock serializes them. However a call of
    `process` ends, even by an interrupt, the state is as before the call or as after it.
    """

    def __repr__(self) -> str:
        facts = "; ".join(f"{name} {value}" for name, value in self._facts())
        return f"<Pipeline: {facts}>"

    def _repr_html_(self) -> str:
        return html_table("Pipeline", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """List what the pipeline reads, runs and writes, without opening files or taking a lock."""
        config, scorer, loaded = self.config, self._scorer, vars(self).get("loaded")
        source, window = config.source, config.window
        features = [feature.name for feature in source.features] + list(source.time_features)
        return [
            ("model", location(config.model.path) if loaded is None else repr(loaded.model)),
            ("source", location(source.path or "process()")),
            ("key", ", ".join(source.key)),
            ("features", listed(features)),
            ("window", f"{window.kind}, {window.lanes} lanes x {window.steps} steps"),
            ("sink", location(config.sink.path or "process()")),
            ("state", "none yet" if scorer is None else count(scorer.table.streams, "stream")),
        ]

    def _loaded_before_fit(self) -> LoadedPipeline:
        """Return `loaded`, or the pipeline with the model of a first fit if there is no model file.

        Raises MissingFileError if the pipeline file names no model to start a fit from, or if the
        output has commits.
        """
        try:
            return self.loaded
        except MissingFileError:
            from streamrnn.jobs.fitting import load_untrained

            folder = self.config.sink.folder
            untrained = load_untrained(self.config, self._state_table)
            if untrained is None or (folder is not None and has_manifest(folder)):
                raise
            return untrained

    def run(
        self,
        *,
        full_refresh: bool = False,
        force: bool = False,
        new_model: NewModel | None = None,
        reload: bool | str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = False,
        follow: bool = False,
        engine: EngineType | None = None,
        poll: float = 1.0,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
        metrics: str | os.PathLike[str] | None = None,
    ) -> Summary:
        """Score what is new in the source since the last run, and commit it to the sink.

        `full_refresh` discards output and state first; it is refused if the source lacks rows that
        the output has, unless `force` lets them go. `force` also resumes although used files
        changed, or although a feature has 100 or more values, none in its vocabulary (`oov` = 1);
        `new_model` says how a model other than the last run's takes over, in place of [model]
        on_change: "replay" (it reads earlier rows into its own state), "carry" (each stream keeps
        its state) or "reset" (every stream starts again); `reload` first rewinds to the last commit
        before a used file that changed, or that `reload` names, was read; `follow` looks for new
        files every `poll` seconds until `stop` is set. Once `stop` is set, the run commits and ends
        (`Summary.interrupted` if there was more to read). `engine` replaces [engine] type.
        `metrics` names a file for Prometheus, which no other pipeline may use. It is replaced when
        the run begins, after each commit and each look at the source, and at the end, even after an
        error; its label is the name of the pipeline file, else the output. Raises ConfigError,
        DataError, CheckpointError, SinkError, EngineError and their subclasses; what was committed
        is kept.
        """
        try:
            check_new_model(new_model)
        except ValueError as error:
            raise ConfigError(f"new_model: {error}") from None
        if engine not in (None, *get_args(EngineType)):
            expected = choices(get_args(EngineType))
            raise ConfigError(f"engine: expected {expected}, received {engine!r}")
        if not isinstance(poll, int | float) or not 0 <= poll <= threading.TIMEOUT_MAX:
            raise ConfigError(f"poll: expected a number of seconds, 0 or more, received {poll!r}")
        options = RunOptions(
            full_refresh=full_refresh,
            force=force,
            new_model=new_model,
            reload=reload if isinstance(reload, bool) else _names(reload),
            follow=follow,
            engine=engine,
            poll=poll,
            progress=progress,
            stop=stop or threading.Event(),
        )
        with recorded(metrics, self._label) as recorder:
            job = RunJob(self.loaded, options, recorder)
            summary = job.run()
        self._last_run = job
        return summary

    def fit(
        self,
        *,
        extend: bool = False,
        full_refresh: bool = False,
        overwrite: bool = False,
        limit: int | None = None,
        find_rate: bool = False,
        progress: Callable[[FitProgress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> FitSummary:
        """Train the model on the source and [target] as set in [train], and write [model] path.

        An interrupted fit resumes; a finished fit has nothing to do if its rows are the same.
        `extend` trains the model of the last fit on new rows, from the state after its last row;
        `full_refresh` starts over; `overwrite` replaces a model file that the last fit did not
        write; with `limit` at most this many rows are read, and nothing is written. With
        `find_rate` the learning rate rises from update to update until the loss rises, too (see
        `FitSummary.rates` and `good_rate`), and nothing is written. Once `stop` is set, the fit
        commits and ends. Raises what `run` raises, and ConfigError or UnsupportedError for what
        cannot be trained.
        """
        from streamrnn.jobs.fitting import FitOptions, fit_job

        options = FitOptions(
            extend, full_refresh, overwrite, limit, find_rate, progress, stop or threading.Event()
        )
        summary = fit_job(self.config, self._state_table, options).run()
        vars(self).pop("loaded", None)  # of the previous model file
        return summary

    def compile_kernels(self) -> Compiled:
        """Compile every kernel that a run needs, into the cache that this user's runs read.

        Use it to build a container image, or on a node before its first run. No data is read.
        Returns what was cached, and where. Raises ConfigError if nothing can be cached.
        """
        return compile_kernels(self.loaded)

    def preview(self, limit: int) -> pa.Table:
        """Score the first `limit` rows of the source from the initial state; return the output.

        Nothing is written, and what earlier runs committed is ignored. Raises ConfigError for a
        negative `limit`, and what `run` raises.
        """
        self.config.require_run()
        if limit < 0:
            raise ConfigError(f"preview: expected 0 or more rows, received {limit}")
        return preview_rows(self.loaded, limit)

    def windows(self) -> SourceWindows:
        """Iterate over the rows of the source in windows of [window] lanes x steps.

        Each window is a SourceWindow, for models of other frameworks: one that carries the state of
        each lane, and resets the lanes with `reset`, computes what `run` writes. Nulls, ranges,
        late and rejected rows and resets are handled as in `run`. When the stream of a lane ends,
        the lane takes the next one, in the order of the state table. Each step is in one window.

        With [target] a window also has labels and weights to train on. A label is the value of the
        target column in the row of the same stream that is [target] horizon (or rows) later: the
        first such row, if several have that time. Late or rejected rows give no labels, and no
        label is joined across a reset or a gap.

        Before there is a model file, the inputs are as in [model] layers (or [train] init). When
        the first window is requested, everything that a first run would read is read, whatever
        `run` has scored. All steps are held in memory, with 4 bytes per feature. Nothing is
        written. Raises ConfigError for kinds other than carry, and without [source] path; and what
        `run` raises.
        """
        return source_windows(self._loaded_before_fit())

    def evaluate(
        self,
        by: Literal["stream", "month", "model"] | None = None,
        *,
        since: str | datetime | int | None = None,
        until: str | datetime | int | None = None,
        quantiles: Sequence[float] = (),
        file: str | os.PathLike[str] | None = None,
    ) -> Evaluation:
        """Compare the committed scores with what happened, by [target].

        The source is read again, and joined with the output by key and time: as in `windows`, a
        label is the value of the row [target] horizon later. Numbers are measured by MAE and RMSE,
        with `quantiles` (one per output) also by pinball loss and CRPS; probabilities (labels 0 and
        1, scores from 0 to 1, or one output per class) by log-loss, accuracy and, of one output,
        AUC. Baselines are persistence (the value at the row itself) if there is a horizon, the
        value a [target] season before the label, and the mean label or the base rate. The mean is
        taken over the labels that this model was trained on, else over those before `since`, else
        over the compared ones. `by` "stream", "month" or "model" adds rows for each; `since`
        and `until` (not included) limit the times of the rows. Both times, if they have no offset,
        and months are in [source] time_zone, else in UTC. Rows of a stream with equal times are
        matched in their order; with [output] emit "last" or "final", only the first of them is
        matched. Memory depends on the number of streams, on the number of their rows in one season
        and, on Ray, on the number of rows in an epoch. The table is also written to a Parquet
        `file`, a path or a URI; the only file that it may replace is an earlier such table.

        Raises ConfigError without [target], and for a `file` that exists and is not such a table,
        is the model, or lies in the source or an output; MissingFileError or CheckpointError
        without an output, DataError, SinkError.
        """
        from streamrnn.jobs.evaluation import evaluate_pipeline

        path = None if file is None else os.fspath(file)
        return evaluate_pipeline(self.loaded, by, since, until, quantiles, path)

    def report(
        self,
        file: str | os.PathLike[str] | None = None,
        *,
        keys: Sequence[str] = (),
        since: str | datetime | int | None = None,
        until: str | datetime | int | None = None,
    ) -> ReportPage:
        """Draw the committed output on one HTML page that needs no network.

        The page shows outputs, rows, streams, features and states over time; with [target] also the
        errors, and after a fit its learning curves. The output is read twice, the source once if it
        exists, in bounded memory. `keys` (as for `outputs.drop_streams`) are up to 12 streams to
        draw one by one, in place of those with the most rows; `since` and `until` (not included)
        limit the times of the rows. The page (`ReportPage.html()`) is also written to `file`, a
        path or a URI, atomically; the only file that it may replace is an earlier report.
        `ReportPage.as_dict()` has the numbers behind the pictures.

        Raises MissingFileError or CheckpointError without an output; ConfigError without [sink]
        path, for an unknown key or too many keys, and for a `file` that exists and is not a report,
        is the model, or lies in the source or an output; SinkError; UnsupportedError if the page is
        to be written and vl-convert is not installed.
        """
        draw = load_plugin("report", "pipeline")
        page: ReportPage = draw(self, self._name, file, keys, since, until)
        return page

    def validate(self) -> list[str]:
        """Check config, model, schemas and footers of all source files; return notes.

        Notes warn of nulls with nulls = "error", of values outside `valid`, and of values far from
        the mean of the model's `Normalization`, as far as footers record them. Before the first
        fit, everything but the model file is checked, as the first note says, and the errors that
        `fit` would raise are raised. With a model, a note says what `fit` would refuse.
        """
        notes = validate(self._loaded_before_fit())
        trained = "loaded" in vars(self)
        if not trained:
            notes.insert(
                0,
                f"[model] path: {location(self.config.model.path)}: no such file yet. All else was "
                "checked, with an untrained model. Train it with: streamrnn fit PIPELINE",
            )
        else:
            notes += [note for note in notes_on_model(self.loaded) if note not in notes]
        train, target = self.config.train, self.config.target
        if train != type(train)() or (target.column and not trained):
            from streamrnn.jobs.fitting import FitOptions, fit_job

            try:
                fit_job(self.config, self._state_table, FitOptions()).check()
            except StreamRNNError as error:
                if not trained:
                    raise
                notes.append(f"runs are not affected, but fit would refuse this pipeline: {error}")
        return notes

    def feature_statistics(self) -> list[dict[str, Any]]:
        """Return nulls, minimum and maximum of each feature, with the model's normalization.

        They are taken from the footers of all files; no rows are read.
        """
        return feature_statistics(self._loaded_before_fit())

    def explain(self) -> dict[str, Any]:
        """Return what a run would do: files, rows, inputs, memory, and where it would resume.

        Values have JSON's types; sizes are in bytes.
        """
        return explain(self.loaded)

    def mermaid(self) -> str:
        """Return the pipeline as a Mermaid flowchart, with the facts of `explain`."""
        return mermaid(self.loaded)


def _names(files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Sequence[str]:
    """Return the names of files to reload. Raises ConfigError for anything but paths."""
    try:
        several = [files] if isinstance(files, str | os.PathLike) else files
        return [os.fspath(file) for file in several]
    except TypeError:
        raise ConfigError(
            f"reload: expected a boolean, or the paths of used files, received {files!r:.80}"
        ) from None
