"""The loop over the epochs of any fit; the batches of an epoch in `Model.fit` and `evaluate`.

Callbacks decide what happens between epochs: EarlyStopping ends a fit and may restore the best
weights, ReduceLROnPlateau lowers the learning rate.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.kernels import random
from streamrnn.nn.training.batches import Batch
from streamrnn.nn.training.callbacks import CallbackList, History
from streamrnn.nn.training.data import (
    BatchSource,
    Feed,
    FitData,
    array_batches,
    check_whole,
    is_arrays,
    source_of,
)
from streamrnn.nn.training.trainer import Trainer


class Epochs(Protocol):
    """What a fit does in an epoch."""

    def start(self) -> int:
        """Return the first epoch. The callbacks' `on_train_begin` has already been called."""

    def begin(self, epoch: int) -> None:
        """Prepare the epoch, before callbacks are told of it."""

    def train(self, epoch: int) -> dict[str, Any] | None:
        """Update the weights; return losses and metrics, or None if the fit is interrupted."""

    def judge(self, epoch: int) -> dict[str, Any]:
        """Return further values of the epoch, by name.

        The names of losses and metrics on validation data begin with `val_`.
        """

    def end(self, epoch: int, logs: dict[str, Any]) -> bool:
        """End an epoch, of which callbacks have been told; return whether another may follow.

        `logs`: what `train` and `judge` returned, with any changes by callbacks.
        """


def run_epochs(fit: Epochs, calls: CallbackList, epochs: int) -> bool:
    """Train until `epochs` epochs are done, or `fit` ends; return False if interrupted."""
    logs: dict[str, Any] = {}
    calls.on_train_begin()
    for epoch in range(fit.start(), epochs):
        fit.begin(epoch)
        calls.on_epoch_begin(epoch)
        trained = fit.train(epoch)
        if trained is None:
            return False
        logs = trained | fit.judge(epoch)
        calls.on_epoch_end(epoch, logs)
        if not fit.end(epoch, logs):
            break
    calls.on_train_end(logs)
    return True


def fit_arrays(
    trainer: Trainer,
    x: Any,
    y: Any,
    *,
    batch_size: int | None,
    epochs: int,
    verbose: str | int,
    callbacks: Any,
    validation_split: float,
    validation_data: Any,
    shuffle: bool,
    class_weight: Any,
    sample_weight: Any,
    initial_epoch: int,
    steps_per_epoch: int | None,
    validation_steps: int | None,
    validation_batch_size: int | None,
    validation_freq: Any,
    lengths: Any,
) -> History:
    """Train on arrays or batches (see `Model.fit`)."""
    if verbose not in ("auto", 0, 1, 2):
        raise ArgumentError(f"fit: verbose must be 'auto', 0, 1 or 2, received {verbose!r}")
    for name, number in (("epochs", epochs), ("initial_epoch", initial_epoch)):
        check_whole(f"fit: {name}", number, 0)
    data = FitData(x, y, sample_weight, lengths, class_weight, batch_size)
    validation: BatchSource | None = None
    if validation_data is None and validation_split:
        source, validation = _split(trainer, data, validation_split, validation_batch_size)
    else:
        source = source_of(trainer, data)
        if validation_data is not None:
            validation = _validation(trainer, validation_data, validation_batch_size, batch_size)
    judged = _judged_epochs(validation_freq, initial_epoch, epochs)
    if trainer.model.stateful_layers() and shuffle and source.shuffles:
        raise ArgumentError(
            f"{trainer.model}: fit of a stateful model needs shuffle=False: row i of a batch "
            "continues row i of the batch before"
        )
    if not source.again and steps_per_epoch is None and epochs - initial_epoch > 1:
        raise ArgumentError(
            f"fit: epochs={epochs}, but an iterator can be run through only once; pass a list of "
            "its batches, as in fit(list(batches)), or steps_per_epoch"
        )
    whole = steps_per_epoch is None or steps_per_epoch == source.batches
    if trainer.model.stateful_layers() and not whole and epochs - initial_epoch > 1:
        raise ArgumentError(
            f"{trainer.model}: fit of a stateful model with steps_per_epoch={steps_per_epoch} "
            "would reset states at the start of each epoch, in the middle of the data; leave "
            "steps_per_epoch out, or fit one epoch at a time"
        )
    feed, held = Feed(source, steps_per_epoch, "steps_per_epoch"), None
    if validation is not None:
        if not validation.again and validation_steps is None and len(judged) > 1:
            raise ArgumentError(
                "fit: validation_data is an iterator, which can be run through only once; pass a "
                "list of its batches, or validation_steps"
            )
        held = Feed(validation, validation_steps, "validation_steps")
    calls = callbacks
    if not isinstance(calls, CallbackList):
        calls = CallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            model=trainer.model,
            verbose=verbose,
            epochs=epochs,
            steps=feed.batches,
            validation=held is not None,
        )
    if calls.restores and not whole:
        raise ArgumentError(
            f"fit: BackupAndRestore with steps_per_epoch={steps_per_epoch} is not supported: a "
            "restored fit would begin its epoch at the first batch; leave one of the two out"
        )
    trainer.stop_training = False
    fit = _ArrayEpochs(trainer, calls, feed, held, judged, initial_epoch, shuffle)
    run_epochs(fit, calls, epochs)
    assert trainer.history is not None
    return trainer.history


@dataclass(frozen=True)
class _ArrayEpochs:
    """Epochs over the batches of `feed`; an epoch in `judged` ends with a test on `held`."""

    trainer: Trainer
    calls: CallbackList
    feed: Feed
    held: Feed | None
    judged: set[int]
    first: int
    shuffle: bool

    def start(self) -> int:
        return max(self.first, self.calls.initial_epoch)

    def begin(self, epoch: int) -> None:
        self.trainer.model.reset_state()

    def train(self, epoch: int) -> dict[str, float]:
        key = random.key_of(self.trainer.seed, epoch) if self.shuffle else None
        return _run(self.trainer, self.feed.epoch(key), self.calls, train=True)

    def judge(self, epoch: int) -> dict[str, float]:
        """Return losses and metrics on the validation data, if the epoch has a validation.

        The validation starts from initial states; afterwards, the earlier states are restored.
        """
        if self.held is None or epoch not in self.judged:
            return {}
        model = self.trainer.model
        states = model.get_state()
        try:
            model.reset_state()
            logs = _test(self.trainer, self.held.epoch(None, anew=True), self.calls)
        finally:
            model.set_state(states)
        return {f"val_{name}": value for name, value in logs.items()}

    def end(self, epoch: int, logs: dict[str, float]) -> bool:
        return not self.trainer.stop_training


def evaluate_arrays(
    trainer: Trainer,
    x: Any,
    y: Any,
    sample_weight: Any,
    lengths: Any,
    batch_size: int | None,
    steps: int | None,
    callbacks: Any,
    return_dict: bool,
) -> Any:
    """Return the mean loss and the metrics on arrays or batches (see `Model.evaluate`)."""
    source = source_of(trainer, FitData(x, y, sample_weight, lengths, size=batch_size))
    feed, calls = Feed(source, steps, "steps"), callbacks
    if not isinstance(calls, CallbackList):
        calls = CallbackList(
            callbacks, model=trainer.model, verbose=0, epochs=1, steps=feed.batches
        )
    return trainer.report(_test(trainer, feed.epoch(None), calls), return_dict)


def _judged_epochs(frequency: Any, begin: int, epochs: int) -> set[int]:
    """Return the epochs that end with a validation: every n-th, or the ones in a list.

    The list counts epochs from 1, the result from 0.
    """
    if isinstance(frequency, int) and not isinstance(frequency, bool) and frequency > 0:
        return {epoch for epoch in range(begin, epochs) if (epoch + 1) % frequency == 0}
    if isinstance(frequency, list | tuple | set):
        return {epoch for epoch in range(begin, epochs) if epoch + 1 in frequency}
    raise ArgumentError(
        "fit: validation_freq must be a whole number, 1 or more, or a list of epochs, received "
        f"{frequency!r}"
    )


def _split(
    trainer: Trainer, data: FitData, share: float, size: int | None
) -> tuple[BatchSource, BatchSource]:
    """Return the first rows for training, and the last, without class weights, for validation."""
    if not is_arrays(data.x, data.y):
        raise ArgumentError(
            "fit: validation_split needs arrays; with batches, pass validation_data"
        )
    rows = data.rows(trainer)
    if not 0 < share < 1:
        raise ArgumentError(
            f"fit: validation_split must be above 0 and below 1, received {share!r}"
        )
    at = math.floor(rows.rows * (1 - share))
    if at in (0, rows.rows):
        raise ShapeError(
            f"fit: validation_split={share} leaves nothing to train on, or nothing to validate on: "
            f"the number of rows is {rows.rows}"
        )
    first, last = rows.take(slice(0, at)), rows.take(slice(at, None))
    return (
        array_batches(trainer, "batch_size", trainer.weighed(first, data.class_weight), data.size),
        array_batches(trainer, "validation_batch_size", last, size or data.size),
    )


def _validation(
    trainer: Trainer, validation_data: Any, size: int | None, batch_size: int | None
) -> BatchSource:
    """Return the source of validation_data: x, y and so on in a tuple or list, or batches."""
    argument = "validation_batch_size"
    several = isinstance(validation_data, list | tuple) and 2 <= len(validation_data) <= 4
    if not is_arrays(validation_data, None):  # batches, also as a list of tuples
        parts = isinstance(validation_data, tuple) and several and is_arrays(*validation_data[:2])
        if not parts:
            return source_of(trainer, FitData(validation_data, size=size), argument)
    elif not several:
        raise ArgumentError(
            "fit: validation_data must be (x, y), (x, y, sample_weight), (x, y, sample_weight, "
            f"lengths), or batches of these; received {type(validation_data).__name__}"
        )
    data = FitData(*validation_data)._replace(size=size or batch_size)
    return source_of(trainer, data, argument)


def _run(
    trainer: Trainer, batches: Iterator[Batch], calls: CallbackList, *, train: bool
) -> dict[str, float]:
    """Train on batches, or test them; return losses and metrics.

    Losses are means over the batches, weighted by the number of rows in each batch, as in Keras.
    """
    step, hears = trainer.test, calls.hears_test
    begin, end = calls.on_test_batch_begin, calls.on_test_batch_end
    if train:
        step, hears = trainer.train, calls.hears_train
        begin, end = calls.on_train_batch_begin, calls.on_train_batch_end
    objective = trainer.objective
    objective.reset()
    means, totals, rows = [math.nan], [0.0], 0.0
    for number, batch in enumerate(batches):
        begin(number)
        losses = step(batch)
        totals = totals if rows else [0.0] * len(losses)
        totals = [total + loss * batch.rows for total, loss in zip(totals, losses, strict=True)]
        rows += batch.rows
        means = [total / rows for total in totals]
        end(number, objective.logs(means) if hears else None)
        if train and trainer.stop_training:
            break
    return objective.logs(means)


def _test(trainer: Trainer, batches: Iterator[Batch], calls: CallbackList) -> dict[str, float]:
    calls.on_test_begin()
    logs = _run(trainer, batches, calls, train=False)
    calls.on_test_end(logs)
    return logs
