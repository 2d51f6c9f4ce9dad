"""Arrow values as byte strings: equal values of one type are equal strings."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streamrnn.base.arrays import Ints, Words


def bytes_of(array: pa.Array) -> tuple[Words, Ints, Ints]:
    """Return the word at each byte of the values' memory, and each value's offset and size.

    The N values have no nulls, and a type of fixed width or a string or binary type.
    """
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    rows = slice(array.offset, array.offset + len(array))
    buffers = array.buffers()
    if len(buffers) == 3:
        wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
        kind = np.int64 if wide else np.int32
        ends = np.frombuffer(buffers[1], kind)[: rows.stop + 1].astype(np.int64)
        start, size = ends[rows], ends[rows.start + 1 :] - ends[rows]
    else:
        width = array.type.bit_width // 8
        start = np.arange(rows.start * width, rows.stop * width, width)
        size = np.full(len(array), width)
    low = int(start[0]) if len(start) else 0
    high = int(start[-1] + size[-1]) if len(start) else 0
    values = np.frombuffer(buffers[-1], np.uint8)[low:high] if high > low else np.zeros(0, np.uint8)
    return words_of(values), start - low, size


def words_of(values: npt.NDArray[np.uint8]) -> Words:
    """Return the little-endian word that begins at each byte, zero-padded at the end."""
    padded = np.zeros(len(values) + 8, np.uint8)
    padded[: len(values)] = values
    return np.ndarray(len(values) + 1, "<u8", padded, strides=(1,))
