"""Sort rows by stream, and pack streams into windows of fixed size."""

from streamrnn.stream.windows.by_stream import StreamBatch, sort_by_stream
from streamrnn.stream.windows.labels import (
    LabelJoin,
    Labels,
    SeasonalLabels,
    SeasonJoin,
    TargetRows,
    with_seasons,
)
from streamrnn.stream.windows.row_policy import (
    RowPolicy,
    previous_of,
    reject_names,
    rejected_rows,
    why_late,
    why_refused,
    why_rejected,
    why_repeated,
)
from streamrnn.stream.windows.sorted_rows import Update
from streamrnn.stream.windows.windower import (
    Inputs,
    Lanes,
    Placement,
    Sequences,
    pack_lanes,
    place,
    sequences_of,
)
