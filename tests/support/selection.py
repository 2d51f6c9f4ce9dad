"""Which tests are slow: they run with `pytest --all`, or if their file is named."""

from collections.abc import Iterable
from typing import Any

import pytest

slow = pytest.mark.slow
"""For a test whose docstring says what it shows that the quick tests do not."""


def first_quick(cases: Iterable[Any], quick: int = 1) -> list[Any]:
    """Cases for `pytest.mark.parametrize`, all of them slow but the first."""
    return [
        pytest.param(
            *case if isinstance(case, tuple) else (case,), marks=slow if i >= quick else ()
        )
        for i, case in enumerate(cases)
    ]
