"""Sums of integers by other instructions: the same bits, on a CPU that has fewer of them."""

import hashlib
from pathlib import Path

import pytest
from kernelcases import rows_of_integers
from nn.kernels.test_modes import python
from selection import slow

HASWELL = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+sse4.2,+bmi2"}
CODE = """
from nn.kernels import test_instructions
print(test_instructions.digest())
"""
PLAIN = f"""
from streamrnn.nn.simd import jit
jit.has = lambda feature: False
{CODE}"""


def digest() -> str:
    """A hash of sums of integers; cells make theirs by the same function (`simd/tile.py`)."""
    rows = [y.tobytes() for word in ("int16", "int8") for y in rows_of_integers(word)]
    return hashlib.sha256(b"".join(rows)).hexdigest()


@pytest.mark.parametrize(
    ("code", "options"),
    [(CODE, HASWELL), (PLAIN, {"STREAMRNN_SIMD": "8"})],
    ids=["VPMADDWD", "multiplications"],
)
@slow
def test_any_instruction_gives_the_same_bits(
    code: str, options: dict[str, str], tmp_path: Path
) -> None:
    """Slow: the bits of CPUs without the instructions for integers."""
    # LLVM's optimization, half of the time, chooses no other instruction for an intrinsic.
    done = python("-c", code, XDG_CACHE_HOME=str(tmp_path), NUMBA_OPT="0", **options)
    assert done.stdout.strip() == digest(), done.stderr
