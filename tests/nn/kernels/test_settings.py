"""A library must not change the settings of the process it is imported into."""

from fresh import python

_SCRIPT = """
import os
before = dict(os.environ)
import numba
numbers = numba.get_num_threads(), numba.config.NUMBA_NUM_THREADS, numba.config.THREADING_LAYER
import numpy as np
errors = np.geterr()
import streamrnn
from streamrnn import layers
layers.LSTM(3)(np.zeros((2, 5, 4), np.float32))
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
assert numbers == (
    numba.get_num_threads(), numba.config.NUMBA_NUM_THREADS, numba.config.THREADING_LAYER
)
assert np.geterr() == errors
"""


def test_import_and_a_call_change_no_setting() -> None:
    """Neither the environment, nor Numba's threads, nor NumPy's handling of errors."""
    python("-c", _SCRIPT)
