"""One Spark session for all tests, on loopback, in a time zone of its own."""

from collections.abc import Iterator
from typing import Any

import pytest
from plugins.spark import sessions


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    session = sessions.start()
    yield session
    session.stop()
