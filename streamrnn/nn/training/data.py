"""The data that fit and evaluate accept: arrays, tables, iterables of batches or windows."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

from streamrnn.errors import ArgumentError, DataError, ShapeError
from streamrnn.nn.kernels import random
from streamrnn.nn.layers import RNN, Bidirectional, Layer
from streamrnn.nn.training.batches import Batch, class_weights, memories
from streamrnn.nn.training.trainer import Trainer

BATCH_SIZE = 32
"""The default number of rows in a batch, as in Keras."""
_MORE = "; pass more batches, or data that can be iterated again, such as a list of batches"


class BatchSource(NamedTuple):
    """Batches in their own order, or in a random one.

    run: yields the batches, in the random order of a key if there is a key. batches: the number of
    batches, None if unknown. again: whether the batches can be iterated more than once. shuffles:
    whether a key changes the order of rows or batches; if not, `run` ignores the key.
    """

    run: Callable[[int | None], Iterator[Batch]]
    batches: int | None
    again: bool = True
    shuffles: bool = True


def check_whole(argument: str, number: object, least: int) -> None:
    """Raise ArgumentError unless a number is an integer, `least` or more."""
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < least:
        raise ArgumentError(
            f"{argument} must be a whole number, {least} or more, received {number!r}"
        )


def array_batches(trainer: Trainer, argument: str, rows: Batch, size: int | None) -> BatchSource:
    """Return the batches that arrays are cut into. Raises ArgumentError, ShapeError."""
    cut = BATCH_SIZE if size is None else size
    check_whole(argument, cut, 1)
    if not rows.rows:
        raise ShapeError(f"{trainer.model}: expected at least one row")
    if trainer.model.stateful_layers() and rows.rows > cut and rows.rows % cut:
        raise ShapeError(
            f"{trainer.model}: {rows.rows} rows cannot be split into batches of "
            f"{argument}={cut}: each row of a stateful model continues the same row of the "
            "previous batch"
        )

    def run(key: int | None) -> Iterator[Batch]:
        order = None if key is None else random.permutation(key, rows.rows)
        for begin in range(0, rows.rows, cut):
            part = slice(begin, begin + cut)
            yield rows.take(part if order is None else order[part])

    return BatchSource(run, -(-rows.rows // cut))


def _numbered_batches(trainer: Trainer, items: Any, class_weight: Any) -> BatchSource:
    """Return the batches of an object with `len` and indices, such as a keras.utils.PyDataset."""
    count = len(items)
    if not trainer.model.built and count:
        trainer.model.build_on(_parts(items[0])[0])

    def run(key: int | None) -> Iterator[Batch]:
        count = len(items)
        order = range(count) if key is None else random.permutation(key, count).tolist()
        getattr(items, "on_epoch_begin", lambda: None)()
        for number in order:
            yield _batch(trainer, items[number], class_weight)
        getattr(items, "on_epoch_end", lambda: None)()

    return BatchSource(run, count)


def _iterated_batches(trainer: Trainer, items: Any, class_weight: Any) -> BatchSource:
    """Return the batches of an iterable (a generator, a list, a loader), in its order."""
    iterator = iter(items)
    count = None
    with suppress(TypeError):  # a generator, or a loader with an unknown number of batches
        count = len(items)
    again = iterator is not items
    rest = items
    if not trainer.model.built:
        for first in iterator:  # `rest` still yields it
            trainer.model.build_on(first.inputs[0] if is_window(first) else _parts(first)[0])
            rest = items if again else chain([first], iterator)
            break

    def run(key: int | None) -> Iterator[Batch]:
        return (_batch(trainer, item, class_weight) for item in rest)

    return BatchSource(run, count, again, shuffles=False)


class Feed:
    """The batches of each epoch.

    steps: the number of batches in an epoch (fewer where the data ends); the next epoch continues
    where this epoch ended, or begins again after the last batch. None: an epoch has all batches.
    """

    def __init__(self, source: BatchSource, steps: int | None, argument: str) -> None:
        if steps is not None:
            check_whole(argument, steps, 1)
        if steps is not None and source.batches is not None and steps > source.batches:
            raise ArgumentError(
                f"{argument} must be at most {source.batches}, the number of batches, received "
                f"{steps}"
            )
        self._source, self._steps, self._argument = source, steps, argument
        self._rest: Iterator[Batch] | None = None

    @property
    def batches(self) -> int | None:
        """Number of batches in an epoch; None if unknown."""
        return self._source.batches if self._steps is None else self._steps

    def epoch(self, key: int | None, *, anew: bool = False) -> Iterator[Batch]:
        """Yield the batches of an epoch.

        anew: begin with the first batch, if the batches can be iterated again. Raises DataError if
        there are no batches, or if an iterator ends before the epoch has `steps` batches; warns if
        other data ends early, as Keras does.
        """
        if self._steps is None or self._rest is None or (anew and self._source.again):
            self._rest = self._source.run(key)
        first = next(self._rest, None)
        if first is None and self._source.again:
            self._rest = self._source.run(key)
            first = next(self._rest, None)
        if first is None:
            raise DataError(
                "the data has no more batches"
                + (f": an epoch needs {self._argument}={self._steps}" if self._steps else "")
                + _MORE
            )
        number = 0
        for batch in islice(chain([first], self._rest), self._steps):
            yield batch
            number += 1
        if self._steps is not None and number < self._steps:
            steps = f"{self._argument}={self._steps}"
            text = f"the data ended after batch {number} of an epoch; {steps} needs more batches"
            if not self._source.again:
                raise DataError(text + _MORE)
            warnings.warn(text, stacklevel=2)


class FitData(NamedTuple):
    """The data that a caller passed: arrays, or batches in x, perhaps with a class_weight."""

    x: Any
    y: Any = None
    sample_weight: Any = None
    lengths: Any = None
    class_weight: Any = None
    size: int | None = None

    def rows(self, trainer: Trainer) -> Batch:
        """Return arrays as one batch, without class weights."""
        return trainer.batch(self.x, self.y, self.sample_weight, self.lengths)


def source_of(trainer: Trainer, data: FitData, argument: str = "batch_size") -> BatchSource:
    """Return the source of the batches that a caller passed. Raises ArgumentError, ShapeError."""
    x = data.x
    if is_arrays(x, data.y):
        rows = trainer.weighed(data.rows(trainer), data.class_weight)
        return array_batches(trainer, argument, rows, data.size)
    others = {
        "y": data.y,
        "sample_weight": data.sample_weight,
        "lengths": data.lengths,
        argument: data.size,
    }
    for name, value in others.items():
        if value is not None:
            raise ArgumentError(
                f"{trainer.model}: {name} cannot be given with batches; each batch is (x, y), "
                "(x, y, sample_weight) or (x, y, sample_weight, lengths)"
            )
    if hasattr(x, "__getitem__") and not isinstance(x, list | tuple) and hasattr(x, "__len__"):
        return _numbered_batches(trainer, x, data.class_weight)
    if hasattr(x, "__iter__"):
        return _iterated_batches(trainer, x, data.class_weight)
    raise ArgumentError(
        f"{trainer.model}: expected arrays, a table, or an iterable of batches as x, received "
        f"{type(x).__name__}"
    )


def is_arrays(x: Any, y: Any) -> bool:
    """Return whether x is an array, arrays or a table, rather than batches."""
    if isinstance(x, list | tuple):
        of_batches = bool(x) and all(isinstance(i, tuple) or is_window(i) for i in x)
        return y is not None or not of_batches
    if x is None or isinstance(x, Mapping | np.ndarray) or hasattr(x, "__array__"):
        return True
    return hasattr(x, "column_names")


def _parts(item: Any) -> tuple[Any, ...]:
    if isinstance(item, list | tuple) and 2 <= len(item) <= 4:
        return tuple(item)
    raise ArgumentError(
        "a batch must be (x, y), (x, y, sample_weight) or (x, y, sample_weight, lengths), received "
        f"{type(item).__name__}{f' of {len(item)}' if isinstance(item, list | tuple) else ''}"
    )


def _batch(trainer: Trainer, item: Any, class_weight: Any) -> Batch:
    if is_window(item):
        return batch_of_window(trainer, item, class_weight)
    x, y, *others = _parts(item)
    weight, lengths = [*others, None, None][:2]
    return trainer.weighed(trainer.batch(x, y, weight, lengths), class_weight)


def is_window(item: Any) -> bool:
    """Return whether an item is a window (by its attributes: this room cannot import the class)."""
    return all(hasattr(item, name) for name in ("inputs", "lengths", "reset", "resumes", "y"))


def batch_of_window(trainer: Trainer, window: Any, class_weight: Any) -> Batch:
    """Return the batch of a window: lanes with `reset` start from the initial state.

    Steps that lack a label add nothing to the loss (still a mean over all steps, as in Keras), and
    count in no metric. Raises ArgumentError for windows without labels, for a model that does not
    carry its state, and for a lane that would start from a stored state.
    """
    model = trainer.model
    if window.y is None:
        raise ArgumentError(f"{model}: the windows have no labels; add [target] to the pipeline")
    if window.resumes.any():
        raise ArgumentError(
            f"{model}: a lane starts from the stored state of its stream, which fit does not read; "
            "take the windows from a pipeline without [state] init"
        )
    if forgetful := _forgetful(model):
        raise ArgumentError(
            f"{model}: {forgetful[0]} does not carry its state from window to window; "
            + (
                "make it with stateful=True"
                if isinstance(forgetful[0], RNN | Bidirectional)
                else "train the model with streamrnn fit, which carries the state"
            )
        )
    missing = np.isnan(window.y)
    labelled = ~missing.any(axis=-1)
    y = np.where(missing, np.float32(0), window.y)
    weight = window.weight
    if class_weight is not None:
        weight = weight * class_weights(y, class_weight, y.ndim)
    batch = trainer.batch(window.inputs, y, weight, window.lengths)
    reset = window.reset if memories(model) else None
    return batch._replace(reset=reset, labelled=labelled.astype(np.float32))


def _forgetful(layer: Layer) -> list[Layer]:
    """Return the layers that keep a state on a stream, but start from zero in each call."""
    if isinstance(layer, RNN):
        return [] if layer.stateful else [layer]
    if not layer.children() and layer.built and layer.stream_states():
        return [layer]
    return [inner for child in layer.children().values() for inner in _forgetful(child)]
