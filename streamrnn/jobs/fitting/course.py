"""The loop of a fit: epochs of windows, validation, and commits in between."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import DivergedError
from streamrnn.jobs.fitting.baseline import AgainstBaselines, Baselines, TargetErrors
from streamrnn.jobs.fitting.carried import LaneStates, WindowCall, lane_states
from streamrnn.jobs.fitting.division import Division, epoch_order
from streamrnn.jobs.fitting.folder import FitCommit, prefixed, without_prefix
from streamrnn.jobs.fitting.learner import Judged, Learner
from streamrnn.jobs.fitting.schedules import RateSchedule
from streamrnn.jobs.fitting.staging import Staged
from streamrnn.jobs.fitting.standing import EpochSums, HistoryRow, Standing
from streamrnn.jobs.fitting.window import TrainingWindow
from streamrnn.nn.kernels.random import key_of
from streamrnn.stream.states import StateTable
from streamrnn.stream.windows import Placement

_COMMIT_SHARE = 0.01
"""Of the time, for commits of short epochs."""


@dataclass(frozen=True)
class FitPlan:
    """What a fit does, beside its data and its model: see [train] and [window].

    `schedule` is a function of the share of training that is done. `commit_steps`: a commit follows
    after so many steps.
    """

    lanes: int
    steps: int
    epochs: int
    patience: int
    seed: int
    schedule: RateSchedule
    clip_norm: float | None
    commit_steps: int


@dataclass(frozen=True)
class FitProgress:
    """How far a fit is; at the end of an epoch also its row of the history, and a `message`."""

    epoch: int
    epochs: int
    steps: int
    total_steps: int
    seconds: float
    message: str = ""
    values: HistoryRow = field(default_factory=dict)


Report = Callable[[FitProgress], None]


class Course:
    """Trains a model on staged rows, epoch by epoch.

    `baselines` are compared with outputs that forecast the labels themselves; None for others.
    `table` has the states of the streams that resume, by `Staged.slot_S`. `commit` is called with
    all that `resume` needs to continue here with the same bits.
    """

    def __init__(
        self,
        learner: Learner,
        staged: Staged,
        division: Division,
        plan: FitPlan,
        baselines: Baselines | None,
        table: StateTable,
        commit: Callable[[FitCommit], None],
    ) -> None:
        self.learner, self.staged, self.division, self.plan = learner, staged, division, plan
        self.standing = Standing()
        self._baselines = baselines
        self._commit = commit
        self._rate = learner.optimizer.learning_rate
        self._lanes = min(plan.lanes, len(division.training.begin))
        self._states = lane_states(learner.runner, staged, division, table, self._lanes)
        self._best: list[Floats] | None = None
        self._errors = TargetErrors()
        self._since_commit = 0
        self._committed_at = time.perf_counter()
        self._commit_seconds = 0.0

    # ---- commits

    def resume(self, commit: FitCommit) -> None:
        """Continue where a commit was made."""
        learner, arrays = self.learner, commit.arrays
        self.standing = Standing.of_facts(commit.facts["standing"])
        learner.model.set_weights(_listed(without_prefix("weights", arrays)))
        learner.optimizer.iterations = commit.facts["iterations"]
        learner.optimizer.kept = {
            name: _listed(without_prefix(f"optimizer/{name}", arrays))
            for name in commit.facts["optimized"]
        }
        for metric, sums in zip(learner.metrics, commit.facts["metrics"], strict=True):
            metric.sums = tuple(sums)
        self._states.values = without_prefix("lanes", arrays)
        self._states.at_cut = without_prefix("cut", arrays)
        self._best = _listed(without_prefix("best", arrays)) or None

    def as_commit(self) -> FitCommit:
        """Return all that `resume` needs."""
        learner, optimizer = self.learner, self.learner.optimizer
        arrays: dict[str, Array] = _numbered("weights", learner.model.get_weights())
        for name, slots in optimizer.kept.items():
            arrays |= _numbered(f"optimizer/{name}", slots)
        arrays |= prefixed("lanes", self._states.values)
        arrays |= prefixed("cut", self._states.at_cut)
        arrays |= _numbered("best", self._best or [])
        facts: dict[str, Any] = {
            "standing": self.standing.as_facts(),
            "iterations": optimizer.iterations,
            "optimized": list(optimizer.kept),
            "metrics": [metric.sums for metric in learner.metrics],
        }
        return FitCommit(facts, arrays)

    def save(self) -> None:
        """Commit."""
        began = time.perf_counter()
        self._commit(self.as_commit())
        self._committed_at = time.perf_counter()
        self._commit_seconds = self._committed_at - began
        self._since_commit = 0

    def _is_commit_due(self) -> bool:
        """Whether an epoch is committed: after many steps, or as often as it costs next to nothing.

        The first one is, which shows what a commit takes. Small logs have many short epochs;
        without the clock, a fit of 20 s that was killed began anew. When a commit is made changes
        no bit.
        """
        seconds = time.perf_counter() - self._committed_at
        cheap = seconds >= self._commit_seconds / _COMMIT_SHARE
        return self._since_commit >= self.plan.commit_steps or cheap

    # ---- epochs

    def run(self, report: Report, stopped: Callable[[], bool]) -> bool:
        """Train to the last epoch; return False if it was stopped before, after a commit.

        Then the model has the weights of the best epoch, if there is validation. Raises
        DivergedError with a `step` that is (row as read, number of the stream).
        """
        standing = self.standing
        while standing.epoch < self.plan.epochs and not standing.stopped:
            began = time.perf_counter()
            earlier = standing.sums.seconds
            for window in self._rest_of_epoch():
                self._train(window)
                standing.sums.seconds = earlier + time.perf_counter() - began
                report(self._progress())
                if stopped():
                    self.save()
                    return False
                if self._since_commit >= self.plan.commit_steps:
                    self.save()
            self._end_epoch(report)
            if standing.epoch < self.plan.epochs and self._is_commit_due():
                self.save()
        self.save()
        if self._best is not None:
            self.learner.model.set_weights(self._best)
        return True

    def _rest_of_epoch(self) -> Iterator[Placement]:
        training, standing = self.division.training, self.standing
        if not standing.window:
            for metric in self.learner.metrics:
                metric.reset_state()
        order = epoch_order(training, key_of(self.plan.seed, standing.epoch))
        for placement in islice(
            training.windows(order, self._lanes, self.plan.steps), standing.window, None
        ):
            yield _of_pieces(placement, order)

    def _train(self, placement: Placement) -> None:
        standing, plan = self.standing, self.plan
        share = standing.trained / (plan.epochs * self.division.training.steps)
        rate = self._rate * plan.schedule(share) * standing.plateau.scale
        self.learner.optimizer.learning_rate = standing.sums.rate = rate
        window = self.division.training.window(self.staged, placement)
        self._states.begin(placement)
        judged = self._run(self.learner.train, window, self._states)
        self._states.keep_ends(placement)
        sums = standing.sums
        _add(sums, judged)
        sums.steps += window.steps
        sums.updates += judged.norm > 0
        sums.norm += judged.norm
        sums.clipped += plan.clip_norm is not None and judged.norm > plan.clip_norm
        standing.window += 1
        standing.trained += window.steps
        self._since_commit += window.steps

    def _run(self, call: WindowCall, window: TrainingWindow, lanes: LaneStates) -> Judged:
        """Call on the lanes of a window; name the row of a DivergedError."""
        try:
            return lanes.run(call, window)
        except DivergedError as error:
            lane, step = error.step
            row = int(window.begin[lane]) + step
            sequence = np.searchsorted(self.staged.start_Q, row, side="right") - 1
            error.step = int(self.staged.row[row]), int(self.staged.stream_Q[sequence])
            raise

    def _end_epoch(self, report: Report) -> None:
        standing, learner = self.standing, self.learner
        sums = standing.sums
        row: HistoryRow = {
            "epoch": standing.epoch + 1,
            "updates": learner.optimizer.iterations,
            "rows": sums.steps,
            "loss": sums.mean_loss,
            **{metric.name: metric.result() for metric in learner.metrics},
        }
        row |= self._validate()
        row |= {
            "learning_rate": sums.rate,
            "gradient_norm": sums.norm / max(1, sums.updates),
            "clipped": sums.clipped,
            "seconds": round(sums.seconds, 3),
        }
        standing.history.append(row)
        self._judge_epoch(row)
        names = [metric.name for metric in learner.metrics]
        message = _in_words(row, self.plan.epochs, names)
        report(replace(self._progress(), message=message, values=row))
        standing.epoch += 1
        standing.window, standing.sums = 0, EpochSums()

    def _judge_epoch(self, row: HistoryRow) -> None:
        standing = self.standing
        if "val_loss" not in row:
            return
        standing.waited += 1
        better = row["val_loss"] < standing.best_loss
        standing.plateau.judge(self.plan.schedule, self._rate, better=better)
        if better:
            standing.best_loss, standing.best_epoch = float(row["val_loss"]), int(row["epoch"])
            standing.best_errors = self._errors.mse
            standing.waited = 0
            self._best = self.learner.model.get_weights()
        standing.stopped = 0 < self.plan.patience <= standing.waited

    def _validate(self) -> HistoryRow:
        """Return the loss, the metrics and the errors of the validation; nothing without any."""
        pieces, learner = self.division.validation, self.learner
        if not len(pieces.begin):
            return {}
        for metric in learner.metrics:
            metric.reset_state()
        lanes = min(self.plan.lanes, len(pieces.begin))
        states = self._states.of_validation(pieces, lanes)
        order = np.arange(len(pieces.begin))
        against, self._errors = AgainstBaselines(), TargetErrors()
        sums = EpochSums()
        for placement in pieces.windows(order, lanes, self.plan.steps):
            window = pieces.window(self.staged, placement)
            states.begin(placement)
            _add(sums, self._run(learner.test, window, states))
            if self._baselines is not None and (output := learner.output) is not None:
                label, output = window.label[window.counts], output[window.counts]
                self._errors.add(label, output)
                against.add(label, output, self._baselines.of(window))
        found: HistoryRow = {"val_loss": sums.mean_loss}
        found |= {f"val_{metric.name}": metric.result() for metric in learner.metrics}
        return found | against.as_row()

    def _progress(self) -> FitProgress:
        standing = self.standing
        return FitProgress(
            standing.epoch + 1,
            self.plan.epochs,
            standing.sums.steps,
            self.division.training.steps,
            standing.sums.seconds,
        )


def _add(sums: EpochSums, judged: Judged) -> None:
    sums.loss += judged.loss * judged.counted
    sums.count += judged.counted


def _of_pieces(placement: Placement, order: Array) -> Placement:
    """Return the placement with numbers of pieces in place of places in an order."""
    return placement._replace(sequence_B=order[placement.sequence_B])


def _numbered(prefix: str, arrays: list[Floats]) -> dict[str, Array]:
    return {f"{prefix}/{number:06d}": array for number, array in enumerate(arrays)}


def _listed(arrays: Mapping[str, Array]) -> list[Floats]:
    return [arrays[name] for name in sorted(arrays)]


def _in_words(row: HistoryRow, epochs: int, metrics: Sequence[str]) -> str:
    """Return an epoch on one line of a terminal."""
    names = ("loss", *metrics)
    shown = [*names, *(f"val_{name}" for name in names if f"val_{name}" in row)]
    values = ", ".join(f"{name} {row[name]:.4g}" for name in shown)
    return f"epoch {row['epoch']}/{epochs}: {values}, {row['seconds']:.1f} s"
