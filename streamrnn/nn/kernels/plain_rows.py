"""Plain rows: complete rows of known streams, one of each, later than the stream's last row.

Nothing has to be decided about them. One call tells whether all rows of a record batch are plain,
and reads them.
"""

import ctypes
from typing import Any

import numpy as np

from streamrnn.nn import simd
from streamrnn.nn.kernels.keys import StringIndex
from streamrnn.nn.simd.arguments import LastTimes, PlainColumns, PlainRows

__all__ = ["LastTimes", "PlainColumns", "PlainRows", "read_plain"]

_capsule_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def read_plain(
    batch: Any, columns: PlainColumns, streams: StringIndex, last: LastTimes, most: int
) -> PlainRows | None:
    """Return the rows of a record batch of at least one row; None unless all are plain.

    batch: of any library with Arrow's PyCapsule interface. In plain rows every value is present,
    and every feature within its limits; the key is one of `streams`, and occurs once; the time is
    at most `most` ticks after the one in `last`.
    """
    rows = batch.num_rows
    plain = PlainRows(
        np.empty(rows if columns.time >= 0 else 0, np.int64),
        np.empty(rows, np.int64),
        np.empty((rows, len(columns.features)), np.float32),
    )
    _schema, arrays = batch.__arrow_c_array__()  # the capsules are released together with this name
    address = _capsule_pointer(arrays, b"arrow_array")
    all_are = simd.plain_rows.entry()(address, columns, streams.table(), last, most, plain)
    return plain if all_are else None
