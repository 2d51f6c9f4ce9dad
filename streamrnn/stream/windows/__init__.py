"""Sort rows by stream, and pack streams into windows of fixed size."""

from streamrnn.stream.windows.by_stream import RowPolicy, StreamBatch, sort_by_stream, why_late
from streamrnn.stream.windows.labels import LabelJoin, Labels, TargetRows
from streamrnn.stream.windows.past import Past, Update
from streamrnn.stream.windows.seasons import SeasonalLabels, SeasonJoin, with_seasons
from streamrnn.stream.windows.sequences import Placement, Sequences, place, sequences_of
from streamrnn.stream.windows.windower import Inputs, Lanes, Window, pack_lanes

__all__ = [
    "Inputs",
    "LabelJoin",
    "Labels",
    "Lanes",
    "Past",
    "Placement",
    "RowPolicy",
    "SeasonJoin",
    "SeasonalLabels",
    "Sequences",
    "StreamBatch",
    "TargetRows",
    "Update",
    "Window",
    "pack_lanes",
    "place",
    "sequences_of",
    "sort_by_stream",
    "why_late",
    "with_seasons",
]
