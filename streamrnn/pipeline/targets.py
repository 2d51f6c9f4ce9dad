"""Where the loop's rows go: an output folder with commits, or a stream without."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from streamrnn.checkpoints import OutputFolder, Snapshot
from streamrnn.checkpoints import Position as Committed
from streamrnn.checkpoints import SourceFile as UsedFile
from streamrnn.pipeline.scorer import Scorer
from streamrnn.pipeline.summary import COUNTS, Summary
from streamrnn.sinks import StreamSink
from streamrnn.sources import Position


class FolderTarget:
    """Parts of an output folder; `files` are all files that the run reads, in their order."""

    def __init__(self, folder: OutputFolder, files: list[UsedFile], summary: Summary) -> None:
        self.folder = folder
        self.files = files
        self.summary = summary
        self.write = folder.write
        self.reject = folder.reject

    def commit(self, scorer: Scorer, position: Position | None, complete: bool) -> None:
        """Commit rows, state and position together."""
        place, done = None, self.files
        if position is not None:
            at = [file.path for file in self.files].index(position.file)
            done = self.files[: at + 1]
            if not position.done:
                place = Committed(position.file, position.row_group, position.row)
        table = scorer.table
        self.folder.commit(
            state=Snapshot(len(table), np.flatnonzero(table.touched[: len(table)]), table.to_arrow),
            sources=done,
            position=place,
            counters={} if complete else self._counters(scorer),
            complete=complete,
        )

    def _counters(self, scorer: Scorer) -> dict[str, int]:
        """What a resumed run counts on from."""
        counts = {name: getattr(self.summary, name) for name in COUNTS}
        return {"rows_read": scorer.rows_read, **counts}


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

    def commit(self, scorer: Scorer, position: Position | None, complete: bool) -> None:
        """End the stream, so that a reader can tell it from a cut one, and keep the rejects."""
        self._sink.close()
        if self._folder is not None:
            self._folder.commit(complete=complete)

    def close(self) -> None:
        """Let others into the rejects' folder."""
        if self._folder is not None:
            self._folder.close()
