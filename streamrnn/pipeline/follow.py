"""Watching a source for files that are complete."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from streamrnn.checkpoints import Manifest
from streamrnn.scoring.options import RunOptions
from streamrnn.scoring.summary import Progress, Summary
from streamrnn.sources import SourceFile


class Watcher:
    """Iterates over the complete files of a source, each time that there are other ones.

    A file counts as complete once it has its footer and is as it was one poll earlier; one
    that was renamed in, or written before the last poll, need not wait. Ends when `stop` is set.
    """

    def __init__(
        self,
        look: Callable[[], list[SourceFile]],
        is_complete: Callable[[SourceFile], bool],
        options: RunOptions,
    ) -> None:
        self._look = look
        self._is_complete = is_complete
        self._options = options
        self._complete: dict[str, SourceFile] = {}
        self._seen: dict[str, SourceFile] = {}
        self._rows = 0

    def __iter__(self) -> Iterator[list[SourceFile]]:
        before: list[SourceFile] | None = None
        while not self._options.stop.is_set():
            files = self._files()
            if files and files != before:
                before = files
                yield files
            self._options.stop.wait(self._options.poll)

    def tell(self, manifest: Manifest | None, summary: Summary) -> None:
        """A line about the last commit, if it brought rows, with the age of the newest file."""
        if manifest is None or self._options.progress is None:
            return
        rows, self._rows = manifest.rows - self._rows, manifest.rows
        if not rows:
            return
        newest = max((file.mtime_ns for file in self._complete.values()), default=time.time_ns())
        lag = max(0.0, time.time() - newest / 1e9)
        message = (
            f"commit {manifest.commit}: {rows:,} new rows, {manifest.rows:,} rows in all, "
            f"{summary.streams:,} streams; {lag:.1f} s behind the newest file"
        )
        self._options.progress(
            Progress(summary.rows, None, summary.streams, summary.seconds, message)
        )

    def _files(self) -> list[SourceFile]:
        """The complete files there are now, in the order of their paths."""
        found = self._look()
        complete = {}
        for file in found:
            known = self._complete.get(file.path)
            if known == file or (self._is_still(file) and self._is_complete(file)):
                complete[file.path] = file
        self._complete = complete
        self._seen = {file.path: file for file in found}
        return list(complete.values())

    def _is_still(self, file: SourceFile) -> bool:
        old = time.time() - file.mtime_ns / 1e9 > self._options.poll
        return old or self._seen.get(file.path) == file
