"""Pipelines: load one, run it, check it, and explain what a run would do.

Drafts of pipeline files are made by code of their own, which loads on first use (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING

from streamrnn.config import Config
from streamrnn.outputs import diff_states, export_state, import_state, read_states
from streamrnn.pipeline.pipeline import Pipeline
from streamrnn.scoring import Progress, SourceWindow, Summary, Workload

if TYPE_CHECKING:
    from streamrnn.pipeline.draft import Draft, draft_pipeline

__all__ = [
    "Config",
    "Draft",
    "Pipeline",
    "Progress",
    "SourceWindow",
    "Summary",
    "Workload",
    "diff_states",
    "draft_pipeline",
    "export_state",
    "import_state",
    "read_states",
]


def __getattr__(name: str) -> object:
    if name in ("Draft", "draft_pipeline"):
        return getattr(import_module("streamrnn.pipeline.draft"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
