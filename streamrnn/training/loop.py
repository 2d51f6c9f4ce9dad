"""The loops over batches and epochs: of `Model.fit` and `Model.evaluate`."""

import math
from collections.abc import Iterator
from typing import Any

from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.kernels import random
from streamrnn.training.callbacks import EarlyStopping, History
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
    stops = _early_stops(callbacks)
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
    history = History()
    for stop in stops:
        stop.begin()
    for epoch in range(initial_epoch, epochs):
        trainer.model.reset_state()
        trainer.reset_metrics()
        key = random.key_of(trainer.seed, epoch) if shuffle else None
        logs = trainer.logs(_mean_loss(trainer, _batches(rows, size, key), train=True))
        if validation is not None and (epoch + 1) % validation_freq == 0:
            found = _validate(trainer, validation, validation_size)
            logs |= {f"val_{name}": value for name, value in found.items()}
        history.add(epoch, logs)
        if verbose in ("auto", 1, 2):
            values = " - ".join(f"{name}: {value:.4g}" for name, value in logs.items())
            print(f"Epoch {epoch + 1}/{epochs} - {values}", flush=True)
        ended = [stop.ends(epoch, logs, trainer.model.get_weights) for stop in stops]
        if any(ended):
            break
    for stop in stops:
        if stop.best_weights is not None:
            trainer.model.set_weights(stop.best_weights)
    return history


def evaluate_arrays(
    trainer: Trainer,
    x: Any,
    y: Any,
    sample_weight: Any,
    lengths: Any,
    batch_size: int | None,
    return_dict: bool,
    refused: Refused,
) -> Any:
    """Return the mean loss and the metrics of all rows (see `Model.evaluate`)."""
    refuse("evaluate", refused)
    rows = trainer.batch(x, y, sample_weight, lengths)
    size = _checked_size(trainer, "batch_size", batch_size, rows)
    trainer.reset_metrics()
    loss = _mean_loss(trainer, _batches(rows, size, None), train=False)
    return trainer.report(loss, return_dict)


def _early_stops(callbacks: Any) -> list[EarlyStopping]:
    given = callbacks if isinstance(callbacks, list | tuple) else [callbacks]
    stops = [callback for callback in given if callback is not None]
    for callback in stops:
        if not isinstance(callback, EarlyStopping):
            raise ArgumentError(
                f"fit: the callback {type(callback).__name__} is not supported; supported: "
                "EarlyStopping"
            )
    return stops


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
    if trainer.model.stateful_layers() and rows.rows % size:
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


def _mean_loss(trainer: Trainer, batches: Iterator[Batch], *, train: bool) -> float:
    """Return the mean of the batches' losses, weighted by their rows, as Keras does."""
    total = count = 0.0
    for batch in batches:
        value = trainer.train(batch) if train else trainer.test(batch)
        total += value * batch.rows
        count += batch.rows
    return total / count


def _validate(trainer: Trainer, rows: Batch, size: int) -> dict[str, float]:
    """Return loss and metrics of other rows, from fresh states."""
    model = trainer.model
    states = model.get_state()
    model.reset_state()
    trainer.reset_metrics()
    loss = _mean_loss(trainer, _batches(rows, size, None), train=False)
    model.set_state(states)
    return trainer.logs(loss)
