"""Sinks of rows: parts of an output folder (see `checkpoints`), or a stream on stdout."""

from streamrnn.stream.sinks.formats import PART_FORMATS, PartFormat, refuse_unwritable
from streamrnn.stream.sinks.part import (
    Part,
    PartWriter,
    StagedPart,
    layout_of,
    name_of,
    number_of,
    partition_values,
    width_for,
)
from streamrnn.stream.sinks.partitions import PartitionColumn, PartitionedWriter, Partitioning
from streamrnn.stream.sinks.stream import StreamSink
