"""What pytest collects and resets: doctests are of streamrnn, not of the helpers of its tests."""

import logging
from collections.abc import Iterator
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


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Give each test the logging of a process of its own: the command line replaces handlers."""
    logger = logging.getLogger("streamrnn")
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)
