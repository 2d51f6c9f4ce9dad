"""Where the loop's rows go: an output folder with commits, or a stream without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pyarrow as pa

from streamrnn.checkpoints import OutputFolder, Snapshot
from streamrnn.scoring import Read, Scorer
from streamrnn.sinks import StreamSink
from streamrnn.sources import Position, SourceFile


class FolderTarget:
    """Parts of an output folder; `files` are all files that the run reads, in their order."""

    def __init__(self, folder: OutputFolder, files: Sequence[SourceFile]) -> None:
        self.folder = folder
        self.write = folder.write
        self.reject = folder.reject
        self._files = list(files)

    def commit(
        self, scorer: Scorer, progress: Read, complete: bool, goes_on: bool
    ) -> Callable[[], object]:
        """A call that commits rows, state and position together, as they are now."""
        position = progress.position
        return partial(
            self.folder.commit,
            state=self.folder.delta(Snapshot.of(scorer.table, copy=goes_on)),
            sources=self._begun(position),
            readings=progress.readings,
            position=position,
            counters={} if complete else scorer.counters(),
            complete=complete,
        )

    def _begun(self, position: Position | None) -> list[SourceFile]:
        """The files begun or finished since the last commit."""
        if position is None:
            begun, self._files = self._files, []
            return begun
        at = [file.name for file in self._files].index(position.file)
        begun, self._files = self._files[: at + 1], self._files[at:]
        return begun


class StreamTarget:
    """An Arrow stream on stdout; rejected rows go to a folder of their own."""

    def __init__(self, schema: pa.Schema, rejects: str | None, model: str) -> None:
        self._sink = StreamSink(schema)
        self._path = rejects
        self._model = model
        self._folder: OutputFolder | None = None
        self.write = self._sink.write

    def reject(self, batch: pa.RecordBatch) -> None:
        """Add rows to the rejects' folder."""
        if self._folder is None:
            assert self._path is not None
            self._folder = OutputFolder.open(self._path)
            self._folder.begin(batch.schema, model=self._model, config={})
        self._folder.write(batch)

    def commit(
        self, scorer: Scorer, progress: Read, complete: bool, goes_on: bool
    ) -> Callable[[], object]:
        """A call that ends the stream, and keeps the rejects."""

        def end() -> None:
            self._sink.close()  # says so to the reader, who can tell it from a cut one
            if self._folder is not None:
                self._folder.commit(complete=complete)

        return end

    def close(self) -> None:
        """Let others into the rejects' folder."""
        if self._folder is not None:
            self._folder.close()
