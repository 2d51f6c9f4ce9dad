"""Sinks: where rows go. Parts of an output folder (see `checkpoints`), or a stream on stdout."""

from streamrnn.sinks.parquet import Part, PartWriter
from streamrnn.sinks.stream import PipeClosed, StreamSink

__all__ = ["Part", "PartWriter", "PipeClosed", "StreamSink"]
