"""Kernels compiled otherwise: other widths of vectors, and with every access checked.

`.ci/run bounds` tests all kinds of kernels with every access checked.
"""

import hashlib
from pathlib import Path

import kernelcases
import numpy as np
import pytest
from fresh import python
from selection import slow

from streamrnn import layers

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize("width", kernelcases.WIDTHS)
@slow
def test_the_width_of_vectors_changes_no_bit(width: str) -> None:
    """All cells sum integers of a precision by the same functions: one of each stands for them.

    Slow: every kind of kernel at every width.
    """
    kinds = [*kernelcases.FLOATS, "lstm_int16", "gru_before_int8"]
    code = f"""
import kernelcases
from nn.kernels import test_modes
print(kernelcases.digest({kinds}), test_modes.feedforward())
"""
    done = python("-c", code, **kernelcases.WIDTHS[width])
    assert done.stdout.split() == [kernelcases.digest(kinds), feedforward()], done.stderr


def feedforward() -> str:
    """A hash of what a convolution, a normalization over features and a Dense of few units say."""
    rng = np.random.default_rng(4)
    conv = layers.Conv1D(21, 3, padding="causal")
    conv.build((None, None, 5))
    conv.set_weights([rng.standard_normal(w.shape) for w in conv.weights])
    norm = layers.LayerNormalization()
    few = layers.Dense(3, "tanh")
    few.build((None, None, 21))
    few.set_weights([rng.standard_normal(w.shape) for w in few.weights])
    y = norm(conv(rng.standard_normal((3, 9, 5)).astype(np.float32)))
    return hashlib.sha256(y.tobytes() + few(y).tobytes()).hexdigest()


@slow
def test_a_checked_kernel_raises_where_another_would_corrupt() -> None:
    """Slow: a kernel compiled with checks."""
    code = """
import numpy as np
from kernelcases import Case
case = Case("simple_rnn")
weights = case.packed.weights
case.packed.weights = weights._replace(flat=weights.flat[:-16])
try:
    case.run(case.window(1, 1), case.start(1))
except IndexError as error:
    print(error)
"""
    done = python("-c", code, **kernelcases.WIDTHS["4, checked"])
    assert done.stdout.strip() == "a kernel reached outside an array", done.stderr


def test_a_width_that_does_not_exist_is_refused() -> None:
    done = python(
        "-c", "from streamrnn.nn.simd import jit; jit.width()", check=False, STREAMRNN_SIMD="5"
    )
    assert "STREAMRNN_SIMD must be 4, 8 or 16, received '5'" in done.stderr


def test_without_the_compiler_cells_run_in_python_and_kernels_say_what_to_do(
    tmp_path: Path,
) -> None:
    code = """
import numpy as np
from nn.layers.kinds import MinimalGatedUnit
from streamrnn import layers
x = np.ones((2, 3, 4), np.float32)
print(np.abs(layers.RNN(MinimalGatedUnit(5))(x)).max() > 0)
try:
    layers.LSTM(3)(x)
except ValueError as error:
    print(error)
"""
    done = python("-c", code, NUMBA_DISABLE_JIT="1", XDG_CACHE_HOME=str(tmp_path))
    assert done.stdout.splitlines()[0] == "True", done.stderr
    assert "unset NUMBA_DISABLE_JIT" in done.stdout.splitlines()[1]
