"""The loops over batches and epochs: of `Model.fit` and `Model.evaluate`."""

import math
from collections.abc import Iterator
from typing import Any

from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.kernels import random
from streamrnn.training.callbacks import CallbackList, History
from streamrnn.training.trainer import Batch, Refused, Trainer, refuse

BATCH_SIZE = 32
"""Rows of a batch by default, as in Keras."""


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
    sample_weight: Any,
    initial_epoch: int,
    validation_batch_size: int | None,
    validation_freq: int,
    lengths: Any,
    refused: Refused,
) -> History:
    """Train for some epochs (see `Model.fit`)."""
    refuse("fit", refused)
    if verbose not in ("auto", 0, 1, 2):
        raise ArgumentError(f"fit: verbose must be 'auto', 0, 1 or 2, received {verbose!r}")
    if trainer.model.stateful_layers() and shuffle:
        raise ArgumentError(
            f"{trainer.model}: fit of a stateful model needs shuffle=False: row i of a batch "
            "continues row i of the batch before"
        )
    rows = trainer.batch(x, y, sample_weight, lengths)
    validation = _validation(trainer, validation_data)
    if validation is None and validation_split:
        rows, validation = _split(rows, validation_split)
    size = _checked_size(trainer, "batch_size", batch_size, rows)
    validation_size = size
    if validation is not None:
        validation_size = _checked_size(
            trainer, "validation_batch_size", validation_batch_size or size, validation
        )
    calls = callbacks
    if not isinstance(calls, CallbackList):
        calls = CallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            model=trainer.model,
            verbose=verbose,
            epochs=epochs,
            steps=-(-rows.rows // size),
            validation=validation is not None,
        )
    trainer.stop_training, logs = False, dict[str, float]()
    calls.on_train_begin()
    for epoch in range(initial_epoch, epochs):
        trainer.model.reset_state()
        calls.on_epoch_begin(epoch)
        key = random.key_of(trainer.seed, epoch) if shuffle else None
        logs = _train(trainer, _batches(rows, size, key), calls)
        if validation is not None and (epoch + 1) % validation_freq == 0:
            found = _validate(trainer, _batches(validation, validation_size, None), calls)
            logs |= {f"val_{name}": value for name, value in found.items()}
        calls.on_epoch_end(epoch, logs)
        if trainer.stop_training:
            break
    calls.on_train_end(logs)
    assert trainer.history is not None
    return trainer.history


def evaluate_arrays(
    trainer: Trainer,
    x: Any,
    y: Any,
    sample_weight: Any,
    lengths: Any,
    batch_size: int | None,
    callbacks: Any,
    return_dict: bool,
    refused: Refused,
) -> Any:
    """Return the mean loss and the metrics of all rows (see `Model.evaluate`)."""
    refuse("evaluate", refused)
    rows = trainer.batch(x, y, sample_weight, lengths)
    size = _checked_size(trainer, "batch_size", batch_size, rows)
    calls = callbacks
    if not isinstance(calls, CallbackList):
        steps = -(-rows.rows // size)
        calls = CallbackList(callbacks, model=trainer.model, verbose=0, epochs=1, steps=steps)
    logs = _test(trainer, _batches(rows, size, None), calls)
    return trainer.report(logs, return_dict)


def _validation(trainer: Trainer, given: Any) -> Batch | None:
    if given is None:
        return None
    if not isinstance(given, list | tuple) or len(given) not in (2, 3):
        raise ArgumentError(
            "fit: validation_data must be (x, y) or (x, y, sample_weight), received "
            f"{type(given).__name__}"
        )
    x, y, *weight = given
    return trainer.batch(x, y, weight[0] if weight else None, None)


def _split(rows: Batch, share: float) -> tuple[Batch, Batch]:
    """Return the first rows, and the last ones for validation."""
    if not 0 < share < 1:
        raise ArgumentError(f"fit: validation_split must lie between 0 and 1, received {share!r}")
    at = math.floor(rows.rows * (1 - share))
    if at in (0, rows.rows):
        raise ShapeError(f"fit: validation_split={share} leaves no rows on one side of {rows.rows}")
    return rows.take(slice(0, at)), rows.take(slice(at, None))


def _checked_size(trainer: Trainer, argument: str, size: int | None, rows: Batch) -> int:
    size = BATCH_SIZE if size is None else size
    if size < 1:
        raise ArgumentError(f"{argument} must be 1 or more, received {size}")
    if not rows.rows:
        raise ShapeError(f"{trainer.model}: expected at least one row")
    if trainer.model.stateful_layers() and rows.rows > size and rows.rows % size:
        raise ShapeError(
            f"{trainer.model}: {rows.rows} rows cannot be split into batches of {argument}={size}: "
            "each row of a stateful model continues the same row of the previous batch"
        )
    return size


def _batches(rows: Batch, size: int, key: int | None) -> Iterator[Batch]:
    """Yield all rows in batches, in their order or in the random order of a key."""
    order = None if key is None else random.permutation(key, rows.rows)
    for begin in range(0, rows.rows, size):
        cut = slice(begin, begin + size)
        yield rows.take(cut if order is None else order[cut])


class _Mean:
    """The mean of the batches' losses, weighted by their rows, as in Keras."""

    def __init__(self) -> None:
        self.total = self.rows = 0.0

    def add(self, loss: float, rows: int) -> float:
        """Return the mean so far."""
        self.total += loss * rows
        self.rows += rows
        return self.total / self.rows


def _train(trainer: Trainer, batches: Iterator[Batch], calls: CallbackList) -> dict[str, float]:
    """Update the weights by each batch; return loss and metrics."""
    trainer.reset_metrics()
    loss, mean = math.nan, _Mean()
    for number, batch in enumerate(batches):
        calls.on_train_batch_begin(number)
        loss = mean.add(trainer.train(batch), batch.rows)
        calls.on_train_batch_end(number, trainer.logs(loss) if calls.hears_train else None)
        if trainer.stop_training:
            break
    return trainer.logs(loss)


def _test(trainer: Trainer, batches: Iterator[Batch], calls: CallbackList) -> dict[str, float]:
    """Return loss and metrics of batches."""
    calls.on_test_begin()
    trainer.reset_metrics()
    loss, mean = math.nan, _Mean()
    for number, batch in enumerate(batches):
        calls.on_test_batch_begin(number)
        loss = mean.add(trainer.test(batch), batch.rows)
        calls.on_test_batch_end(number, trainer.logs(loss) if calls.hears_test else None)
    logs = trainer.logs(loss)
    calls.on_test_end(logs)
    return logs


def _validate(trainer: Trainer, batches: Iterator[Batch], calls: CallbackList) -> dict[str, float]:
    """Return loss and metrics of other rows, from fresh states; leave those of training."""
    model = trainer.model
    states = model.get_state()
    try:
        model.reset_state()
        return _test(trainer, batches, calls)
    finally:
        model.set_state(states)
