"""A pipeline bound to its columns, the scorer of its record batches, and the run loop."""

from streamrnn.scoring.bind import BoundPipeline, LoadedPipeline
from streamrnn.scoring.loop import Loop, Read, Target
from streamrnn.scoring.options import RunOptions
from streamrnn.scoring.scorer import Scorer
from streamrnn.scoring.source_windows import SourceWindow, SourceWindows
from streamrnn.scoring.starting import starting_table
from streamrnn.scoring.summary import Progress, Summary

__all__ = [
    "BoundPipeline",
    "LoadedPipeline",
    "Loop",
    "Progress",
    "Read",
    "RunOptions",
    "Scorer",
    "SourceWindow",
    "SourceWindows",
    "Summary",
    "Target",
    "starting_table",
]
