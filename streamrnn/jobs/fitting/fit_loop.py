"""The epochs of a fit: windows, validation, and commits in between; a test of learning rates."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import DivergedError
from streamrnn.jobs.fitting.baseline import AgainstBaselines, Baselines, Calibration, ErrorSums
from streamrnn.jobs.fitting.commit import (
    EpochSums,
    FitCommit,
    FitRecord,
    FitStatus,
    HistoryRow,
)
from streamrnn.jobs.fitting.division import Division, TrainingWindow
from streamrnn.jobs.fitting.learner import Judged, LaneStates, Learner, WindowCall
from streamrnn.jobs.fitting.staging import Staged
from streamrnn.nn.kernels.random import key_of, permutation
from streamrnn.nn.training import EarlyStopping
from streamrnn.nn.training.callbacks import CallbackList, ReduceLROnPlateau
from streamrnn.nn.training.loop import run_epochs
from streamrnn.nn.training.schedules import cosine, real_power
from streamrnn.stream.config import Config, whole_schedule
from streamrnn.stream.states import StateTable
from streamrnn.stream.windows import Placement


@dataclass(frozen=True)
class RateSchedule:
    """The factor of the learning rate in `Pipeline.fit`, by the share of training that is done.

    `name` and the numbers are set in [train] schedule.

    `warmup`: the share over which the factor first rises linearly from 0. After the warm-up, "step"
    multiplies by `factor` at each share in `at` of the remaining training, "exponential" falls to
    `factor`, and "cosine" to 0; "constant" and "plateau", which is for ReduceLROnPlateau, stay 1.
    """

    name: str = "constant"
    warmup: float = 0.0
    factor: float = 1.0
    at: tuple[float, ...] = ()
    patience: int = 0
    min_rate: float = 0.0

    def __call__(self, done: float) -> float:
        """Return the factor after this share of the training, with the same bits on any machine.

        >>> RateSchedule("step", at=(0.5, 0.75), factor=0.5)(0.75)
        0.25
        >>> RateSchedule("cosine", warmup=0.5)(0.25), RateSchedule("cosine", warmup=0.5)(0.5)
        (0.5, 1.0)
        """
        if done < self.warmup:
            return done / self.warmup
        after = (done - self.warmup) / (1 - self.warmup) if self.warmup else done
        if self.name == "cosine":
            return cosine(after)
        if self.name == "exponential":
            return real_power(self.factor, after)
        if self.name == "step":
            return real_power(self.factor, sum(done >= share for share in self.at))
        return 1.0


@dataclass
class BaseRate:
    """The learning rate before the factor of the schedule; ReduceLROnPlateau sets `scale`."""

    rate: float
    scale: float = 1.0

    @property
    def learning_rate(self) -> float:
        """The rate after all reductions."""
        return self.rate * self.scale

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.scale = rate / self.rate


_COMMIT_SHARE = 0.01
"""Largest share of the time that goes to commits of short epochs."""
_COMMIT_SECONDS = 5.0
"""Smallest number of seconds between commits in an epoch, unless many steps lie between them."""


@dataclass(frozen=True)
class FitProgress:
    """The progress of a fit; at the end of an epoch also its history row and a `message`."""

    epoch: int
    epochs: int
    steps: int
    total_steps: int
    seconds: float
    message: str = ""
    values: HistoryRow = field(default_factory=dict)


class FitLoop:
    """Trains a model on staged rows, in `run_epochs`, whose callbacks see this object as the model.

    `config` has the settings, in [train], [window], [checkpoint] and [source]. `baselines` are
    forecasts to compare the outputs with; None if the outputs do not forecast the labels
    themselves. `calibration` finds what to add to quantiles; None for outputs that stay as they
    are. `table` has the states of the streams that resume, by `Staged.slot_S`. `commit` is called
    with everything that `resume` needs to continue from there with the same bits, and with the
    rest of `record`.
    """

    def __init__(
        self,
        learner: Learner,
        staged: Staged,
        division: Division,
        config: Config,
        baselines: Baselines | None,
        calibration: Calibration | None,
        table: StateTable,
        record: FitRecord,
        commit: Callable[[FitCommit], None],
    ) -> None:
        self.learner, self.staged, self.division = learner, staged, division
        self.settings, self.steps = config.train, config.window.steps
        self.status = record.status
        self.stop_training = False
        self.get_weights, self.set_weights = learner.model.get_weights, learner.model.set_weights
        self.optimizer = BaseRate(learner.optimizer.learning_rate)
        self._schedule = schedule = RateSchedule(**whole_schedule(config.train.schedule))
        patience = config.train.patience or config.train.epochs
        self._stopping = EarlyStopping(patience=patience, restore_best_weights=True)
        self._plateau = ReduceLROnPlateau(
            patience=schedule.patience, min_delta=0, min_lr=schedule.min_rate
        )
        self._plateau.factor = schedule.factor  # [train] allows a factor of 1
        self._baselines, self._calibration = baselines, calibration
        self._record, self._commit = record, commit
        self._most_lanes = config.window.lanes
        self._lanes = min(self._most_lanes, len(division.training.begin))
        self._states = LaneStates(learner.runner, staged, table, division, self._lanes)
        self._best: list[Floats] | None = None
        self._errors: list[ErrorSums] = []  # of each target of a regression
        self._since_commit = 0
        self._commit_steps = config.checkpoint.every * config.source.batch_rows
        self._committed_at = time.perf_counter()
        self._commit_seconds = 0.0

    # ---- commits

    def resume(self, commit: FitCommit) -> None:
        """Restore what a commit recorded, to continue from there."""
        learner, arrays = self.learner, commit.arrays
        self.status = status = commit.record.status
        self.set_weights(_listed(_under("weights", arrays)))
        learner.optimizer.iterations = status.iterations
        learner.optimizer.kept = {
            name: _listed(_under(f"optimizer/{name}", arrays)) for name in status.optimized
        }
        for metric, sums in zip(learner.metrics, status.metrics, strict=True):
            metric.sums = sums
        self._states.values = _under("lanes", arrays)
        self._states.at_cut = _under("cut", arrays)
        self._best = _listed(_under("best", arrays)) or None

    def start(self) -> int:
        """Restore the state of the callbacks; return the epoch to continue with.

        This is the number of epochs if no epoch follows.
        """
        status, stopping = self.status, self._stopping
        self.optimizer.scale = status.rate_scale
        self._plateau.best, self._plateau.wait = status.best_loss, status.rate_waited
        stopping.best, stopping.wait = status.best_loss, status.waited
        stopping.best_epoch, stopping.best_weights = status.best_epoch - 1, self._best
        return self.settings.epochs if status.stopped else status.epoch

    def as_commit(self) -> FitCommit:
        """Return everything that `resume` needs."""
        arrays = _prefixed("weights", _numbered(self.get_weights()))
        for name, slots in self.learner.optimizer.kept.items():
            arrays |= _prefixed(f"optimizer/{name}", _numbered(slots))
        arrays |= _prefixed("lanes", self._states.values)
        arrays |= _prefixed("cut", self._states.at_cut)
        arrays |= _prefixed("best", _numbered(self._stopping.best_weights or []))
        return FitCommit(replace(self._record, status=self.as_status()), arrays)

    def as_status(self) -> FitStatus:
        """Return the progress of the fit, with the state of callbacks, optimizer and metrics."""
        optimizer, stopping = self.learner.optimizer, self._stopping
        return replace(
            self.status,
            best_epoch=0 if stopping.best is None else stopping.best_epoch + 1,
            best_loss=stopping.best,
            waited=stopping.wait,
            rate_scale=self.optimizer.scale,
            rate_waited=self._plateau.wait,
            iterations=optimizer.iterations,
            optimized=list(optimizer.kept),
            metrics=[metric.sums for metric in self.learner.metrics],
        )

    def save(self) -> None:
        """Commit."""
        began = time.perf_counter()
        self._commit(self.as_commit())
        self._committed_at = time.perf_counter()
        self._commit_seconds = self._committed_at - began
        self._since_commit = 0

    def _is_commit_due(self) -> bool:
        """Return whether a commit is due: after many steps, or once it takes little of the time.

        A commit is due after the first epoch, and shows how long commits take. Small logs have many
        short epochs: if only steps counted, a fit that is killed after 20 s would start over. The
        times of commits change no bit.
        """
        seconds = time.perf_counter() - self._committed_at
        cheap = seconds >= self._commit_seconds / _COMMIT_SHARE
        return self._since_commit >= self._commit_steps or cheap

    # ---- epochs

    def run(self, report: Callable[[FitProgress], None], stopped: Callable[[], bool]) -> bool:
        """Train to the last epoch; if the fit is stopped before that, commit and return False.

        At the end the model has the weights of the best epoch, if there is validation. Raises
        DivergedError, whose `step` is (number of the row as read, number of the stream).
        """
        self._report, self._stopped = report, stopped
        judges = len(self.division.validation.begin)
        plateau = [self._plateau] if self._schedule.name == "plateau" else []
        calls = CallbackList([*plateau, self._stopping] if judges else [], model=self)
        return run_epochs(self, calls, self.settings.epochs)

    def begin(self, epoch: int) -> None:
        """Reset the metrics, unless the epoch is resumed."""
        if not self.status.window:
            for metric in self.learner.metrics:
                metric.reset_state()

    def train(self, epoch: int) -> HistoryRow | None:
        """Train on the windows of an epoch; if the fit is stopped, commit and return None."""
        status, sums, clip_norm = self.status, self.status.sums, self.settings.clip_norm
        began, earlier = time.perf_counter(), sums.seconds
        for placement in self._rest_of_epoch():
            share = status.trained / (self.settings.epochs * self.division.training.steps)
            rate = self.optimizer.rate * self._schedule(share) * self.optimizer.scale
            self.learner.optimizer.learning_rate = sums.rate = rate
            judged, steps = self._update(placement), int(placement.length_B.sum())
            _add(sums, judged)
            sums.steps += steps
            sums.updates += judged.norm > 0
            sums.norm += judged.norm
            sums.clipped += clip_norm is not None and judged.norm > clip_norm
            status.window += 1
            status.trained += steps
            self._since_commit += steps
            sums.seconds = earlier + time.perf_counter() - began
            self._report(self._progress())
            if self._stopped():
                self.save()
                return None
            long = time.perf_counter() - self._committed_at >= _COMMIT_SECONDS
            if self._since_commit >= self._commit_steps or (long and self._is_commit_due()):
                self.save()
        return {
            "epoch": epoch + 1,
            "updates": self.learner.optimizer.iterations,
            "rows": sums.steps,
            "loss": sums.mean_loss,
            **{metric.name: metric.result() for metric in self.learner.metrics},
        }

    def _rest_of_epoch(self) -> Iterator[Placement]:
        training, status = self.division.training, self.status
        order = permutation(key_of(self.settings.seed, status.epoch), len(training.begin))
        return islice(training.windows(order, self._lanes, self.steps), status.window, None)

    def _update(self, placement: Placement) -> Judged:
        window = self.division.training.window(self.staged, placement)
        self._states.begin(placement)
        judged = self._run(self.learner.train, window, self._states)
        self._states.keep_ends(placement)
        return judged

    def train_at(self, rates: Iterable[float]) -> Iterator[Judged]:
        """Train on a window at each learning rate, epoch after epoch; yield the result of each."""
        remaining = iter(rates)
        while True:
            for placement in self._rest_of_epoch():
                rate = next(remaining, None)
                if rate is None:
                    return
                self.learner.optimizer.learning_rate = rate
                yield self._update(placement)
            self.status.epoch += 1

    def _run(self, call: WindowCall, window: TrainingWindow, lanes: LaneStates) -> Judged:
        """Run `call` on the lanes of a window; add the row to a DivergedError."""
        try:
            return lanes.run(call, window)
        except DivergedError as error:
            lane, step = error.step
            error.step = self.staged.origin(int(window.begin[lane]) + step)
            raise

    def judge(self, epoch: int) -> HistoryRow:
        """Return the results of the validation, if there is one, and statistics of the updates."""
        sums = self.status.sums
        return self._validate() | {
            "learning_rate": sums.rate,
            "gradient_norm": sums.norm / max(1, sums.updates),
            "clipped": sums.clipped,
            "seconds": round(sums.seconds, 3),
        }

    def end(self, epoch: int, logs: HistoryRow) -> bool:
        """Report the epoch, and commit if that is due; return whether another epoch may follow."""
        status, stopping = self.status, self._stopping
        status.history.append(logs)
        if stopping.best is not None and stopping.best_epoch == epoch:
            status.best_errors = [errors.mse for errors in self._errors]
            if self._calibration is not None:
                status.shifts = self._calibration.shifts()
        names = ["loss", *(metric.name for metric in self.learner.metrics)]
        names += [f"val_{name}" for name in names if f"val_{name}" in logs]
        values = ", ".join(f"{name} {logs[name]:.4g}" for name in names)
        epochs, seconds = self.settings.epochs, logs["seconds"]
        message = f"epoch {logs['epoch']}/{epochs}: {values}, {seconds:.1f} s"
        self._report(replace(self._progress(), message=message, values=logs))
        status.epoch += 1
        status.window, status.sums = 0, EpochSums()
        status.stopped = self.stop_training
        if status.stopped or status.epoch == self.settings.epochs or self._is_commit_due():
            self.save()
        return not status.stopped

    def _validate(self) -> HistoryRow:
        """Return the loss, the metrics and the errors of the validation; {} without validation."""
        pieces, learner = self.division.validation, self.learner
        if not len(pieces.begin):
            return {}
        for metric in learner.metrics:
            metric.reset_state()
        lanes = min(self._most_lanes, len(pieces.begin))
        states = self._states.of_validation(pieces, lanes)
        order = np.arange(len(pieces.begin))
        against, sums = AgainstBaselines(), EpochSums()
        targets = 0 if self._baselines is None else self.staged.targets
        self._errors = [ErrorSums() for _ in range(targets)]
        if self._calibration is not None:
            self._calibration.begin()
        for placement in pieces.windows(order, lanes, self.steps):
            window = pieces.window(self.staged, placement)
            states.begin(placement)
            _add(sums, self._run(learner.test, window, states))
            if self._calibration is None and self._baselines is None:
                continue
            assert learner.output is not None
            label, output = window.label[window.counts], learner.output[window.counts]
            weight = window.weight[window.counts]
            if self._calibration is not None:
                self._calibration.add(label, output)
            if self._baselines is not None:
                for k, errors in enumerate(self._errors):  # of rows, whatever their weights
                    errors.add(label[:, k : k + 1], output[:, k : k + 1], np.ones_like(weight))
                against.add(label, output, weight, self._baselines.of(window))
        row: HistoryRow = {"val_loss": sums.mean_loss}
        row |= {f"val_{metric.name}": metric.result() for metric in learner.metrics}
        return row | against.as_row()

    def _progress(self) -> FitProgress:
        sums, steps = self.status.sums, self.division.training.steps
        epoch, epochs = self.status.epoch + 1, self.settings.epochs
        return FitProgress(epoch, epochs, sums.steps, steps, sums.seconds)


def _add(sums: EpochSums, judged: Judged) -> None:
    sums.loss += judged.loss * judged.counted
    sums.count += judged.counted


def _numbered(arrays: list[Floats]) -> dict[str, Floats]:
    return {f"{number:06d}": array for number, array in enumerate(arrays)}


def _prefixed(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def _under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays whose names have a prefix; their new names lack it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): a for name, a in arrays.items() if name.startswith(start)}


def _listed(arrays: Mapping[str, Array]) -> list[Floats]:
    return [arrays[name] for name in sorted(arrays)]


_LOWEST_RATE, _HIGHEST_RATE, _UPDATES = 1e-6, 1.0, 200
_KEPT = 0.9
"""The share of the earlier losses in the running mean."""
_BEYOND = 4.0
"""A loss of this many times the lowest one ends the test, unless a loss may be negative."""


class TriedRate(NamedTuple):
    """A learning rate, and the running mean of the losses up to its update."""

    rate: float
    loss: float


def try_rates(loop: FitLoop, stopped: Callable[[], bool]) -> list[TriedRate]:
    """Train at a rate that rises from update to update (Smith 2017).

    This ends when the loss rises far or diverges, the rate is 1, or `stopped` returns True. The
    model is of no use afterwards.
    """
    ratio = _HIGHEST_RATE / _LOWEST_RATE
    rates = [_LOWEST_RATE * real_power(ratio, n / (_UPDATES - 1)) for n in range(_UPDATES)]
    tried: list[TriedRate] = []
    total = 0.0
    try:
        for rate, judged in zip(rates, loop.train_at(rates), strict=False):
            if not judged.counted:
                continue
            total = _KEPT * total + (1 - _KEPT) * judged.loss
            tried.append(TriedRate(rate, total / (1 - _KEPT ** (len(tried) + 1))))
            lowest = min(of.loss for of in tried)
            rises = not loop.learner.loss.signed and tried[-1].loss > _BEYOND * lowest >= 0
            if rises or stopped():
                break
    except DivergedError:
        pass
    return tried


def good_rate(tried: list[TriedRate]) -> float | None:
    """Return a tenth of the rate at which the loss was lowest; None if no rate lowered it.

    >>> good_rate([TriedRate(0.001, 1.0), TriedRate(0.01, 0.8), TriedRate(0.1, 3.0)])
    0.001
    """
    best = min(tried, key=lambda of: of.loss, default=None)
    return None if best is None or best == tried[0] else best.rate / 10
