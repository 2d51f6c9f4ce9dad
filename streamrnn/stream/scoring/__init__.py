"""A pipeline bound to its columns, the scorer of its record batches, and the run loop."""

from streamrnn.stream.scoring.bind import BoundPipeline, LoadedPipeline, unsaid_kind
from streamrnn.stream.scoring.compiling import compile_beside, compile_kernels
from streamrnn.stream.scoring.labels import (
    BoundTarget,
    LabelReader,
    SourceLabels,
    target_columns,
    ticks_of,
)
from streamrnn.stream.scoring.loop import Loop, RowSink, RunOptions, SourceProgress, show_times
from streamrnn.stream.scoring.scorer import Scorer
from streamrnn.stream.scoring.source_windows import SourceWindow, SourceWindows
from streamrnn.stream.scoring.starting import starting_table, taken_over
from streamrnn.stream.scoring.summary import (
    Copies,
    FirstRow,
    Progress,
    RowCounts,
    Summary,
    Workload,
)
