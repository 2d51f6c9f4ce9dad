"""Show what a run would do, without running it: checks, explanations, previews, windows."""

from streamrnn.jobs.explaining.explain import explain, feature_statistics, mermaid, validate
from streamrnn.jobs.explaining.rounding import preview_rows, source_windows
