"""Sinks: where rows go. A folder of Parquet parts (see `checkpoints`), or a stream on stdout."""

from streamrnn.sinks.files import Files
from streamrnn.sinks.opening import open_files, rejects_beside
from streamrnn.sinks.parquet import Part, PartWriter
from streamrnn.sinks.stream import PipeClosed, StreamSink

__all__ = [
    "Files",
    "Part",
    "PartWriter",
    "PipeClosed",
    "StreamSink",
    "open_files",
    "rejects_beside",
]
