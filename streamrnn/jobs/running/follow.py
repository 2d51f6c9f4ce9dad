"""Watch a source for complete files."""

import time
from collections.abc import Callable, Hashable, Iterator

from streamrnn.stream.checkpoints import Manifest
from streamrnn.stream.scoring.loop import RunOptions
from streamrnn.stream.scoring.summary import Progress, Summary
from streamrnn.stream.sources import FileSource, SourceFile


class Watcher:
    """Yields a source with its complete files each time that these have changed.

    `look` returns the source as listed now. A file is complete once it has its footer and has not
    changed since the previous look; a file that was last written more than `poll` seconds ago need
    not wait for another look. `looked` is called after each look, once the yielded source has been
    handled. The iteration ends when `stop` is set.
    """

    def __init__(
        self,
        look: Callable[[], FileSource],
        options: RunOptions,
        looked: Callable[[], None] = lambda: None,
    ) -> None:
        self._look = look
        self._looked = looked
        self._options = options
        self._complete: dict[str, SourceFile] = {}
        self._seen: dict[str, SourceFile] = {}
        self._rows = 0

    def __iter__(self) -> Iterator[FileSource]:
        before: Hashable = None
        while not self._options.stop.is_set():
            source = self._look()
            complete = {}
            for file in source.files:
                old = time.time() - file.mtime_ns / 1e9 > self._options.poll
                is_still = old or self._seen.get(file.path) == file
                was_complete = self._complete.get(file.path) == file
                if was_complete or (is_still and source.is_complete(file)):
                    complete[file.path] = file
            self._complete = complete
            self._seen = {file.path: file for file in source.files}
            source.files = list(complete.values())
            if source.files and source.identity != before:
                before = source.identity
                yield source
            self._looked()
            self._options.stop.wait(self._options.poll)

    def report(self, manifest: Manifest | None, summary: Summary) -> None:
        """Report the last commit if it added rows, with the age of the newest file."""
        if manifest is None or self._options.progress is None:
            return
        rows, self._rows = manifest.rows - self._rows, manifest.rows
        if not rows:
            return
        newest = max((file.mtime_ns for file in self._complete.values()), default=time.time_ns())
        lag = max(0.0, time.time() - newest / 1e9)
        message = (
            f"commit {manifest.commit}: {rows:,} new rows, {manifest.rows:,} rows in total, "
            f"{summary.streams:,} streams; {lag:.1f} s behind the newest file"
        )
        self._options.progress(
            Progress(summary.rows, None, summary.streams, summary.seconds, message)
        )
