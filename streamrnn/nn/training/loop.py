"""`Model.fit` and `Model.evaluate`: the batches of an epoch."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from streamrnn.errors import ArgumentError
from streamrnn.nn.kernels import random
from streamrnn.nn.training.batches import Batch
from streamrnn.nn.training.callbacks import CallbackList, History
from streamrnn.nn.training.data import (
    ArrayBatches,
    BatchSource,
    Feed,
    FitData,
    is_arrays,
    source_of,
    split_rows,
)
from streamrnn.nn.training.epochs import run_epochs
from streamrnn.nn.training.trainer import Trainer


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
    """Train for some epochs (see `Model.fit`)."""
    if verbose not in ("auto", 0, 1, 2):
        raise ArgumentError(f"fit: verbose must be 'auto', 0, 1 or 2, received {verbose!r}")
    for name, number in (("epochs", epochs), ("initial_epoch", initial_epoch)):
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 0:
            raise ArgumentError(
                f"fit: {name} must be a whole number, 0 or more, received {number!r}"
            )
    data = FitData(x, y, sample_weight, lengths, class_weight, batch_size)
    sizes = validation_batch_size, batch_size
    validation: BatchSource | None
    if validation_data is None and validation_split:
        source, validation = _split(trainer, data, validation_split, sizes)
    else:
        source = source_of(trainer, data)
        validation = _validation(trainer, validation_data, sizes)
    judged = _judged_epochs(validation_freq, initial_epoch, epochs)
    if trainer.model.stateful_layers() and shuffle and source.shuffles:
        raise ArgumentError(
            f"{trainer.model}: fit of a stateful model needs shuffle=False: row i of a batch "
            "continues row i of the batch before"
        )
    if not source.again and steps_per_epoch is None and epochs - initial_epoch > 1:
        raise ArgumentError(
            f"fit: epochs={epochs}, and an iterator can be run through once only; pass a list of "
            "its batches, as in fit(list(batches)), or steps_per_epoch"
        )
    whole = steps_per_epoch is None or steps_per_epoch == source.batches
    if trainer.model.stateful_layers() and not whole and epochs - initial_epoch > 1:
        raise ArgumentError(
            f"{trainer.model}: fit of a stateful model with steps_per_epoch={steps_per_epoch} "
            "would reset states at each epoch, in the middle of the data; leave it out, or fit one "
            "epoch at a time"
        )
    feed, held = Feed(source, steps_per_epoch, "steps_per_epoch"), None
    if validation is not None:
        if not validation.again and validation_steps is None and len(judged) > 1:
            raise ArgumentError(
                "fit: validation_data is an iterator, which can be run through once only; pass a "
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
            f"fit: BackupAndRestore with steps_per_epoch={steps_per_epoch} is not supported: an "
            "epoch that is restored would begin at the first batch; leave one of them out"
        )
    trainer.stop_training = False
    fit = _ArrayEpochs(trainer, calls, feed, held, judged, initial_epoch, shuffle=shuffle)
    run_epochs(fit, calls, epochs)
    assert trainer.history is not None
    return trainer.history


class _ArrayEpochs:
    """Epochs over the batches of `feed`; an epoch in `judged` ends with the batches of `held`."""

    def __init__(
        self,
        trainer: Trainer,
        calls: CallbackList,
        feed: Feed,
        held: Feed | None,
        judged: set[int],
        first: int,
        *,
        shuffle: bool,
    ) -> None:
        self._trainer, self._calls, self._shuffle = trainer, calls, shuffle
        self._feed, self._held, self._judged = feed, held, judged
        self._first = first

    def start(self) -> int:
        return max(self._first, self._calls.initial_epoch)

    def begin(self, epoch: int) -> None:
        self._trainer.model.reset_state()

    def train(self, epoch: int) -> dict[str, float]:
        trainer, calls = self._trainer, self._calls
        key = random.key_of(trainer.seed, epoch) if self._shuffle else None
        trainer.reset_metrics()
        losses, means = [math.nan], _Means()
        for number, batch in enumerate(self._feed.epoch(key)):
            calls.on_train_batch_begin(number)
            losses = means.add(trainer.train(batch), batch.rows)
            calls.on_train_batch_end(number, trainer.logs(losses) if calls.hears_train else None)
            if trainer.stop_training:
                break
        return trainer.logs(losses)

    def judge(self, epoch: int) -> dict[str, float]:
        """Return losses and metrics of the validation data, from initial states; restore states."""
        if self._held is None or epoch not in self._judged:
            return {}
        model = self._trainer.model
        states = model.get_state()
        try:
            model.reset_state()
            logs = _test(self._trainer, self._held.epoch(None, anew=True), self._calls)
        finally:
            model.set_state(states)
        return {f"val_{name}": value for name, value in logs.items()}

    def end(self, epoch: int, logs: dict[str, float]) -> bool:
        return not self._trainer.stop_training


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
    """Return the mean loss and the metrics of all rows (see `Model.evaluate`)."""
    source = source_of(trainer, FitData(x, y, sample_weight, lengths, size=batch_size))
    feed, calls = Feed(source, steps, "steps"), callbacks
    if not isinstance(calls, CallbackList):
        calls = CallbackList(
            callbacks, model=trainer.model, verbose=0, epochs=1, steps=feed.batches
        )
    logs = _test(trainer, feed.epoch(None), calls)
    return trainer.report(logs, return_dict)


def _judged_epochs(frequency: Any, begin: int, epochs: int) -> set[int]:
    """Return the epochs that end with a validation: every n-th, or the ones listed, from 1."""
    if isinstance(frequency, int) and not isinstance(frequency, bool) and frequency > 0:
        return {epoch for epoch in range(begin, epochs) if (epoch + 1) % frequency == 0}
    if isinstance(frequency, list | tuple | set):
        return {epoch for epoch in range(begin, epochs) if epoch + 1 in frequency}
    raise ArgumentError(
        f"fit: validation_freq must be 1 or more, or a list of epochs, received {frequency!r}"
    )


_Sizes: TypeAlias = tuple[int | None, int | None]
"""validation_batch_size, and batch_size, the default of validation_batch_size."""


def _split(
    trainer: Trainer, data: FitData, share: float, sizes: _Sizes
) -> tuple[BatchSource, BatchSource]:
    """Return the first rows, and the last ones for validation, which have no class weights."""
    if not data.arrays:
        raise ArgumentError("fit: validation_split needs arrays; pass validation_data with batches")
    rows, others = split_rows(data.rows(trainer), share)
    return (
        ArrayBatches(trainer, "batch_size", trainer.weighed(rows, data.class_weight), data.size),
        ArrayBatches(trainer, "validation_batch_size", others, sizes[0] or sizes[1]),
    )


def _validation(trainer: Trainer, validation_data: Any, sizes: _Sizes) -> BatchSource | None:
    """Return the source of validation_data: arrays as a tuple, or batches."""
    if validation_data is None:
        return None
    argument = "validation_batch_size"
    if not is_arrays(validation_data, None):  # batches, also as a list of tuples
        parts = (
            isinstance(validation_data, tuple)
            and 2 <= len(validation_data) <= 4
            and is_arrays(*validation_data[:2])
        )
        if not parts:
            return source_of(trainer, FitData(validation_data, size=sizes[0]), argument)
    elif not isinstance(validation_data, list | tuple) or not 2 <= len(validation_data) <= 4:
        raise ArgumentError(
            "fit: validation_data must be (x, y), (x, y, sample_weight), (x, y, sample_weight, "
            f"lengths), or batches of these; received {type(validation_data).__name__}"
        )
    data = FitData(*validation_data)._replace(size=sizes[0] or sizes[1])
    return source_of(trainer, data, argument)


class _Means:
    """The means of the batches' losses, weighted by their rows, as in Keras."""

    def __init__(self) -> None:
        self._totals: list[float] = []
        self._rows = 0.0

    def add(self, losses: Sequence[float], rows: int) -> list[float]:
        """Return the means so far."""
        before = self._totals or [0.0] * len(losses)
        self._totals = [t + loss * rows for t, loss in zip(before, losses, strict=True)]
        self._rows += rows
        return [total / self._rows for total in self._totals]


def _test(trainer: Trainer, batches: Iterator[Batch], calls: CallbackList) -> dict[str, float]:
    """Return losses and metrics of batches."""
    calls.on_test_begin()
    trainer.reset_metrics()
    losses, means = [math.nan], _Means()
    for number, batch in enumerate(batches):
        calls.on_test_batch_begin(number)
        losses = means.add(trainer.test(batch), batch.rows)
        calls.on_test_batch_end(number, trainer.logs(losses) if calls.hears_test else None)
    logs = trainer.logs(losses)
    calls.on_test_end(logs)
    return logs
