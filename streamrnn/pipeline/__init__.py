"""Pipelines: load one, run it, check it, and explain what a run would do."""

from streamrnn.config import Config
from streamrnn.outputs import diff_states, export_state, import_state, read_states
from streamrnn.pipeline.draft import Draft, draft_pipeline
from streamrnn.pipeline.pipeline import Pipeline
from streamrnn.scoring import Progress, SourceWindow, Summary

__all__ = [
    "Config",
    "Draft",
    "Pipeline",
    "Progress",
    "SourceWindow",
    "Summary",
    "diff_states",
    "draft_pipeline",
    "export_state",
    "import_state",
    "read_states",
]
