"""Functions of `keras.utils`, with its names, arguments and defaults."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Array
from streamrnn.errors import ArgumentError
from streamrnn.nn.layers.initializers import set_seed

__all__ = [
    "pad_sequences", "set_random_seed", "timeseries_dataset_from_array", "to_categorical",
]  # fmt: skip


def set_random_seed(seed: int) -> None:
    """Seed Python, NumPy, and the initializers, dropout and noise without a seed of their own.

    Python's and NumPy's generators are seeded for the whole process, the rest for this thread only.
    `compile(seed=)` decides what `fit` draws. Raises ArgumentError unless `seed` is an integer from
    0 to 2**32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ArgumentError(
            f"set_random_seed: expected an integer from 0 to 4294967295, received {seed!r}"
        )
    random.seed(int(seed))
    np.random.seed(int(seed))
    set_seed(int(seed))


def to_categorical(x: npt.ArrayLike, num_classes: int | None = None) -> Array:
    """Return classes (…) or (…, 1) as rows of zeros with a single 1, (…, num_classes) float64.

    By default, `num_classes` is the largest class plus one. Raises ArgumentError for a number that
    is not one of the classes 0 to num_classes - 1.

    >>> to_categorical([0, 2, 1]).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    ids = np.array(x, np.int64)
    if ids.ndim > 1 and ids.shape[-1] == 1:
        ids = ids[..., 0]
    classes = num_classes or int(ids.max(initial=-1)) + 1
    wrong = (ids < 0) | (ids >= classes)
    if wrong.any():
        raise ArgumentError(
            f"to_categorical: expected classes 0 to {classes - 1}, received {ids[wrong][0]}"
        )
    return np.eye(classes)[ids]


def pad_sequences(
    sequences: Sequence[npt.ArrayLike],
    maxlen: int | None = None,
    dtype: npt.DTypeLike = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: float | str = 0.0,
) -> Array:
    """Return N sequences of different lengths as one array (N, maxlen, …), filled with `value`.

    `maxlen`: by default the longest length; longer sequences lose their beginning, or with
    truncating="post" their end. padding: "pre" fills at the beginning, "post" at the end. Raises
    ArgumentError for another word, for a number in place of a sequence, and for steps of different
    shapes.

    >>> pad_sequences([[1], [2, 3], [4, 5, 6]], maxlen=2).tolist()
    [[0, 1], [2, 3], [5, 6]]
    """
    for name, side in (("padding", padding), ("truncating", truncating)):
        if side not in ("pre", "post"):
            raise ArgumentError(
                f'pad_sequences: {name}: expected "pre" or "post", received {side!r}'
            )
    if not hasattr(sequences, "__len__") or not all(hasattr(of, "__len__") for of in sequences):
        raise ArgumentError(
            "pad_sequences: expected a list of sequences, received an object without a length"
        )
    arrays = [np.asarray(sequence) for sequence in sequences]
    steps = {array.shape[1:] for array in arrays if len(array)} or {()}
    if len(steps) > 1:
        raise ArgumentError(
            f"pad_sequences: expected steps of one shape, received {sorted(map(str, steps))}"
        )
    length = max(map(len, arrays), default=0) if maxlen is None else maxlen
    kind = np.dtype(object) if isinstance(value, str) and dtype == "int32" else np.dtype(dtype)
    padded = np.full((len(arrays), length, *steps.pop()), value, kind)
    for row, array in zip(padded, arrays, strict=True):
        kept = array[max(0, len(array) - length) :] if truncating == "pre" else array[:length]
        if len(kept):
            row[length - len(kept) if padding == "pre" else 0 :][: len(kept)] = kept
    return padded


@dataclass(eq=False, repr=False)
class TimeseriesDataset:
    """Batches of windows of an array, for repeated iteration: see timeseries_dataset_from_array."""

    arrays: tuple[Array, ...]
    windows: Array
    starts: Array
    batch_size: int | None

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.starts) // (self.batch_size or 1))

    def __iter__(self) -> Iterator[Any]:
        size = self.batch_size or 1
        for first in range(0, len(self.starts), size):
            starts = self.starts[first : first + size]
            data, *targets = self.arrays
            batch = [data[starts[:, np.newaxis] + self.windows], *(of[starts] for of in targets)]
            if self.batch_size is None:
                batch = [array[0] for array in batch]
            yield tuple(batch) if targets else batch[0]


def timeseries_dataset_from_array(
    data: npt.ArrayLike,
    targets: npt.ArrayLike | None,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int | None = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
) -> TimeseriesDataset:
    """Cut an array (N, …) into windows of `sequence_length` steps, in batches that `fit` reads.

    Window i begins i * sequence_stride rows after `start_index`, and takes every `sampling_rate`-th
    row. `targets` has, at the index of a row, the label of the window that begins at this row; with
    None, batches are windows alone. Rows before `start_index`, and from `end_index` on, are left
    out. If `targets` is shorter than `data`, windows without a label are left out, too. shuffle:
    draw an order of the windows from the seed (not the order that Keras draws). batch_size=None:
    one window at a time. For a log of many streams use `Pipeline.windows`, which never joins rows
    of two streams. Raises ArgumentError for numbers below 1, and indices beyond the array.

    >>> batches = timeseries_dataset_from_array([0, 1, 2, 3, 4], [10, 11, 12], 3, batch_size=2)
    >>> [(x.tolist(), y.tolist()) for x, y in batches]
    [([[0, 1, 2], [1, 2, 3]], [10, 11]), ([[2, 3, 4]], [12])]
    """
    counts = {
        "sequence_length": sequence_length,
        "sequence_stride": sequence_stride,
        "sampling_rate": sampling_rate,
        "batch_size": 1 if batch_size is None else batch_size,
    }
    rows = np.asarray(data)
    for name, count in counts.items():
        if count < 1:
            raise ArgumentError(f"{name}: expected a number, 1 or more, received {count}")
    begin = 0 if start_index is None else start_index
    end = len(rows) if end_index is None else end_index
    if not 0 <= begin < end <= len(rows):
        raise ArgumentError(
            f"start_index and end_index: expected 0 <= start < end <= {len(rows)}, the number "
            f"of rows of data, received {begin} and {end}"
        )
    count = end - begin - (sequence_length - 1) * sampling_rate
    arrays = [rows[begin:end]]
    if targets is not None:
        arrays.append(np.asarray(targets)[begin:end])
        count = min(count, len(arrays[1]))
    starts = np.arange(0, count, sequence_stride)
    if shuffle:
        np.random.default_rng(seed).shuffle(starts)
    windows = np.arange(sequence_length) * sampling_rate
    return TimeseriesDataset(tuple(arrays), windows, starts, batch_size)
