"""Sort rows by stream, and pack streams into windows of fixed size."""

from streamrnn.windows.by_stream import RowPolicy, StreamBatch, sort_by_stream
from streamrnn.windows.past import Past, Update
from streamrnn.windows.windower import Inputs, Lanes, Window, pack_lanes

__all__ = [
    "Inputs",
    "Lanes",
    "Past",
    "RowPolicy",
    "StreamBatch",
    "Update",
    "Window",
    "pack_lanes",
    "sort_by_stream",
]
