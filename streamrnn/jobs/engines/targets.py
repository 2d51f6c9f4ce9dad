"""Targets of the run loop: an output folder with commits, or a stream without commits."""

from collections.abc import Callable, Sequence
from functools import partial

import pyarrow as pa

from streamrnn.stream.checkpoints import OutputFolder, Snapshot
from streamrnn.stream.scoring import Scorer, SourceProgress
from streamrnn.stream.sinks import StreamSink
from streamrnn.stream.sources import Position, SourceFile


class FolderTarget:
    """Writes parts of an output folder; `files` are all files that the run reads, in order.

    `pipe`: the run reads a pipe instead, and the rows of the pipe are counted over all runs.
    `counters` returns the counters of a commit, in place of the scorer's.
    """

    def __init__(
        self,
        folder: OutputFolder,
        files: Sequence[SourceFile],
        *,
        pipe: bool = False,
        counters: Callable[[], dict[str, int]] | None = None,
    ) -> None:
        self.folder = folder
        self.write = folder.write
        self.reject = folder.reject
        self._files = list(files)
        self._unfinished = 0  # index of the first file that may not be read to its end
        self._pipe, self._counters = pipe, counters
        self._beyond = folder.manifest.beyond_files if folder.manifest else {}

    def commit(
        self, scorer: Scorer, progress: SourceProgress, complete: bool, continues: bool
    ) -> Callable[[], object]:
        """Return a function that commits rows, position and the current state together."""
        position = progress.position
        return partial(
            self.folder.commit,
            state=self.folder.delta(Snapshot.of(scorer.table, copy=continues)),
            sources=self.started(position),
            readings=progress.readings,
            position=position,
            counters=self._counted(scorer, complete),
            complete=complete,
            end_of_run=not continues,
        )

    def _counted(self, scorer: Scorer, complete: bool) -> dict[str, int]:
        """Return a commit's counters: of the run unless it is complete, of rows in no file."""
        if self._counters is not None:
            return self._counters()
        beyond = self._beyond
        if self._pipe and scorer.rows_read:
            beyond = beyond | {"piped": beyond.get("piped", 0) + scorer.rows_read}
        return ({} if complete else scorer.counters()) | beyond

    def started(self, position: Position | None) -> list[SourceFile]:
        """Return the files started or finished since the last commit."""
        first = self._unfinished
        if position is None:
            self._unfinished = len(self._files)
            return self._files[first:]
        while self._files[self._unfinished].name != position.file:
            self._unfinished += 1
        return self._files[first : self._unfinished + 1]


class StreamTarget:
    """Writes an Arrow stream to stdout; rejected rows go to a separate folder."""

    def __init__(self, schema: pa.Schema, rejects: str | None, model: str) -> None:
        self._sink = StreamSink(schema)
        self._path = rejects
        self._model = model
        self._folder: OutputFolder | None = None
        self.write = self._sink.write

    def reject(self, batch: pa.RecordBatch) -> None:
        """Add rows to the folder of rejects."""
        if self._folder is None:
            assert self._path is not None
            self._folder = OutputFolder.open(self._path)
            self._folder.begin(batch.schema, model=self._model, config={})
        self._folder.write(batch)

    def commit(
        self, scorer: Scorer, progress: SourceProgress, complete: bool, continues: bool
    ) -> Callable[[], object]:
        """Return a function that ends the stream and commits the rejects."""

        def end() -> None:
            self._sink.close()  # writes the end marker: the reader can detect a truncated stream
            if self._folder is not None:
                self._folder.commit(complete=complete)

        return end

    def close(self) -> None:
        """Release the folder of rejects."""
        if self._folder is not None:
            self._folder.close()
