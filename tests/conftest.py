"""What pytest collects: doctests are those of streamrnn, not of the helpers of its tests."""

from pathlib import Path

import example_output
import pytest

# A helper that makes golden values imports a framework, which the light suite does not have.
collect_ignore = [
    str(path) for path in Path(__file__).parent.rglob("*.py") if not path.name.startswith("test_")
]


def pytest_configure(config: pytest.Config) -> None:
    """Let doctests of the package have the output of their examples."""
    config.pluginmanager.register(example_output)
