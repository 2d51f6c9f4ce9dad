"""Watching a source for files that are complete."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator

from streamrnn.checkpoints import Manifest
from streamrnn.scoring.options import RunOptions
from streamrnn.scoring.summary import Progress, Summary
from streamrnn.sources import SourceFile, SourceOfFiles


class Watcher:
    """Iterates over a source with its complete files, each time that it holds something else.

    `look` gives the source as it is. A file counts as complete once it has its footer and is as it
    was one poll earlier; one that was renamed in, or written before the last poll, need not wait.
    Ends when `stop` is set.
    """

    def __init__(self, look: Callable[[], SourceOfFiles], options: RunOptions) -> None:
        self._look = look
        self._options = options
        self._complete: dict[str, SourceFile] = {}
        self._seen: dict[str, SourceFile] = {}
        self._rows = 0

    def __iter__(self) -> Iterator[SourceOfFiles]:
        before: Hashable = None
        while not self._options.stop.is_set():
            source = self._look()
            source.files = self._complete_files(source)
            if source.files and source.identity != before:
                before = source.identity
                yield source
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

    def _complete_files(self, source: SourceOfFiles) -> list[SourceFile]:
        """The complete files there are now, in their order."""
        complete = {}
        for file in source.files:
            known = self._complete.get(file.path)
            if known == file or (self._is_still(file) and source.is_complete(file)):
                complete[file.path] = file
        self._complete = complete
        self._seen = {file.path: file for file in source.files}
        return list(complete.values())

    def _is_still(self, file: SourceFile) -> bool:
        old = time.time() - file.mtime_ns / 1e9 > self._options.poll
        return old or self._seen.get(file.path) == file
