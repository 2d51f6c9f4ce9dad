"""Read and prepare ahead, and write behind, each on a thread, so that computing need not wait."""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Runs an iterator on a thread, at most `depth` items ahead. Use it in a `with` block.

    An error of the iterator is raised in place of its next item.
    """

    def __init__(self, items: Iterator[T], depth: int = 2) -> None:
        self._queue: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(items,), name="streamrnn-reader", daemon=True
        )

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._items()

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        while self._thread.is_alive():
            self._drop()
            self._thread.join(0.01)

    def _items(self) -> Iterator[T]:
        while True:
            item, error, last = self._queue.get()
            if error is not None:
                raise error
            if last:
                return
            assert item is not None
            yield item

    def _run(self, items: Iterator[T]) -> None:
        try:
            for item in items:
                self._queue.put((item, None, False))
                if self._closed.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised again by the consumer
            self._queue.put((None, error, False))
        else:
            self._queue.put((None, None, True))

    def _drop(self) -> None:
        try:
            self._queue.get_nowait()
        except queue.Empty:
            return


def preparer() -> ThreadPoolExecutor:
    """Return a thread on which the next record batch is sorted while this one is computed."""
    return ThreadPoolExecutor(1, thread_name_prefix="streamrnn-prepare")


class BackgroundWriter:
    """Runs calls in order on a thread, with at most `depth` queued. Use it in a `with` block.

    An error of a call is raised by the next `do` or by `wait`, and later calls are dropped. If the
    block ends with an error, queued calls are still made, so that a queued commit is not lost;
    after an interrupt they are dropped.
    """

    def __init__(self, depth: int = 2) -> None:
        self._queue: queue.Queue[Callable[[], object] | None] = queue.Queue(depth)
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
        """Return when all queued calls have been made."""
        self._queue.join()
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
                if self._error is None:
                    call()
            except BaseException as error:  # noqa: BLE001 - raised again by `do` and `wait`
                self._error = error
            finally:
                self._queue.task_done()
