"""The pipeline file, and the one loop that runs it."""

from streamrnn.pipeline.config import Config
from streamrnn.pipeline.pipeline import Pipeline
from streamrnn.pipeline.state import diff_states, export_state, import_state, read_states
from streamrnn.pipeline.summary import Progress, Summary

__all__ = [
    "Config",
    "Pipeline",
    "Progress",
    "Summary",
    "diff_states",
    "export_state",
    "import_state",
    "read_states",
]
