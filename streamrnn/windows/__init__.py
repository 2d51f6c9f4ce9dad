"""Sort rows by stream, and pack streams into windows of fixed size."""

from streamrnn.windows.by_stream import RowPolicy, StreamBatch, sort_by_stream, why_late
from streamrnn.windows.labels import LabelJoin, Labels, TargetRows
from streamrnn.windows.past import Past, Update
from streamrnn.windows.seasons import SeasonalLabels, SeasonJoin, with_seasons
from streamrnn.windows.sequences import Placement, Sequences, place, sequences_of
from streamrnn.windows.windower import Inputs, Lanes, Window, pack_lanes

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
