"""Which tests are slow: they run with `pytest --all`, or if their file is named; what some need."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import pytest

slow = pytest.mark.slow
"""For a test whose docstring says what it shows that the quick tests do not."""

with_plugins = pytest.mark.skipif(
    find_spec("streamrnn.plugins") is None, reason="needs the plug-ins"
)
"""For a test of the core with a file of a plug-in: `.ci/run` tests the core without them, too."""


def first_quick(cases: Iterable[Any], quick: int = 1) -> list[Any]:
    """Cases for `pytest.mark.parametrize`, all of them slow but the first."""
    return [
        pytest.param(
            *case if isinstance(case, tuple) else (case,), marks=slow if i >= quick else ()
        )
        for i, case in enumerate(cases)
    ]
