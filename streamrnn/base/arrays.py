"""The array types that annotations name, for all rooms."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # of any dtype
Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]  # of columns and their sums, outside the model
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]  # hashes, and keys cut into pieces of eight bytes
