"""What a run would do, without it: checks, explanations, previews, windows."""

from streamrnn.jobs.explaining.explain import explain, feature_statistics, validate
from streamrnn.jobs.explaining.mermaid import mermaid
from streamrnn.jobs.explaining.previewing import preview_rows
from streamrnn.jobs.explaining.windows import source_windows

__all__ = [
    "explain",
    "feature_statistics",
    "mermaid",
    "preview_rows",
    "source_windows",
    "validate",
]
