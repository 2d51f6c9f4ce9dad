"""Calls to a server that stopped answering: the first one waits, those after it do not."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from streamrnn.base.storage.advice import NO_ANSWER

PAUSE_SECONDS = 30.0
"""How long calls fail at once after one without an answer: a run that ends cleans up meanwhile."""


class Breaker:
    """The calls to one bucket. Each call is made within `call`."""

    def __init__(self) -> None:
        self._silent_since = float("-inf")
        self._error = ""

    @contextmanager
    def call(self) -> Iterator[None]:
        """Raise the last error again if the server was silent lately; note if it is silent now."""
        if time.monotonic() - self._silent_since < PAUSE_SECONDS:
            raise OSError(self._error)
        try:
            yield
        except OSError as error:
            if any(sign in str(error) for sign in NO_ANSWER):
                self._silent_since, self._error = time.monotonic(), str(error)
            raise


@lru_cache(maxsize=64)
def breaker_of(bucket: str, options: str) -> Breaker:
    """Return the one breaker of a bucket in this process; `options` are those of its URI."""
    return Breaker()
