"""Threads for files, so that computing need not wait: read ahead, write behind, hash, sync."""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

_LARGE = 1 << 20
"""Size of a write, in bytes, from which on it is hashed on another thread: hashing is as slow as
writing and syncing."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Sha256:
    """The SHA-256 of bytes, computed on its own thread from the first large write on."""

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
        """Return the digest of all bytes added until now, and end the thread."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        return self._hash.hexdigest()


def side_by_side(sync: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Call `sync` on each item, all at once, each on a thread; return the results in order."""
    with ThreadPoolExecutor(len(items) or 1, "streamrnn-sync") as pool:
        return list(pool.map(sync, items))


@contextmanager
def read_ahead(items: Iterator[_Item]) -> Iterator[Iterator[_Item]]:
    """Run an iterator on a thread, with two items in a queue and one in hand; yield its items.

    An error of the iterator is raised in place of its next item.
    """
    # Each entry has an item or an error; the last one, at the end, has neither.
    entries: queue.Queue[tuple[_Item | None, BaseException | None]] = queue.Queue(2)
    closed = threading.Event()

    def read() -> None:
        try:
            for item in items:
                entries.put((item, None))
                if closed.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised again by the consumer
            entries.put((None, error))
        else:
            entries.put((None, None))

    def taken() -> Iterator[_Item]:
        while True:
            item, error = entries.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item

    thread = threading.Thread(target=read, name="streamrnn-reader", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        closed.set()
        while thread.is_alive():
            with suppress(queue.Empty):
                entries.get_nowait()
            thread.join(0.01)


def preparer() -> ThreadPoolExecutor:
    """Return a pool of one thread, which sorts the next record batch while one is computed."""
    return ThreadPoolExecutor(1, thread_name_prefix="streamrnn-prepare")


class BackgroundWriter:
    """Runs calls in order on a thread, with at most `depth` queued. Use it in a `with` block.

    An error of a call is raised by the next `do` or `wait`, or at the end of the block; later calls
    are dropped. If the block ends with an error, queued calls are still made, so that a queued
    commit is not lost; after an interrupt they are dropped.
    """

    def __init__(self, depth: int = 2) -> None:
        self._queue: queue.Queue[Callable[[], object] | threading.Event | None]
        self._queue = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="streamrnn-writer", daemon=True)

    def __enter__(self) -> "BackgroundWriter":
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and not isinstance(error, Exception) and self._error is None:
            self._error = error
        self._queue.put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def do(self, call: Callable[[], object]) -> None:
        """Queue a call; block while `depth` calls are queued."""
        self._raise()
        self._queue.put(call)

    def wait(self) -> None:
        """Return when all queued calls have been made; others may be queued meanwhile."""
        reached = threading.Event()
        self._queue.put(reached)
        reached.wait()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            call = self._queue.get()
            try:
                if call is None:
                    return
                if isinstance(call, threading.Event):
                    call.set()
                elif self._error is None:
                    call()
            except BaseException as error:  # noqa: BLE001 - raised again by `do` and `wait`
                self._error = error
