"""Sinks of rows: parts of an output folder (see `checkpoints`), or a stream on stdout."""

from streamrnn.stream.sinks.part import (
    PART_FORMATS,
    Part,
    PartFormat,
    PartWriter,
    StagedPart,
    layout_of,
    name_of,
    number_of,
    partition_values,
    refuse_unwritable,
    width_for,
)
from streamrnn.stream.sinks.partitions import PartitionColumn, PartitionedWriter, Partitioning
from streamrnn.stream.sinks.stream import StreamSink
