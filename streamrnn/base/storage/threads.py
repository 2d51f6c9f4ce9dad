"""The threads of writing: checksums beside it, and files that are synced side by side."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_LARGE = 1 << 20
"""Minimum bytes for hashing in a thread, which takes about as long as writing and syncing them."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Sha256:
    """The SHA-256 of bytes, on a thread of its own from the first large ones on."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._thread: ThreadPoolExecutor | None = None

    def update(self, view: memoryview) -> None:
        """Add bytes, which must not change afterwards."""
        if self._thread is None and len(view) < _LARGE:
            self._hash.update(view)
        else:
            self._thread = self._thread or ThreadPoolExecutor(1, "streamrnn-sha256")
            self._thread.submit(self._hash.update, view)

    def hexdigest(self) -> str:
        """Return the digest of the bytes so far, and end the thread."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        return self._hash.hexdigest()


def side_by_side(sync: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Call `sync` on each item, all at once, each on a thread; return the results in order."""
    with ThreadPoolExecutor(len(items) or 1, "streamrnn-sync") as pool:
        return list(pool.map(sync, items))
