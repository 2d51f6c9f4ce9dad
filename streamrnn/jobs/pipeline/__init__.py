"""Pipelines: load one, run it, check it, and explain what a run would do.

Drafts of pipeline files and fits are made by code that loads on first use (PEP 562).
"""

from typing import TYPE_CHECKING

from streamrnn.base.plugin import load_plugin
from streamrnn.jobs.pipeline.pipeline import Pipeline
from streamrnn.stream.config import Config
from streamrnn.stream.scoring import Progress, RowCounts, SourceWindow, Summary, Workload

if TYPE_CHECKING:
    from streamrnn.jobs.pipeline.draft import Draft, draft_pipeline
    from streamrnn.jobs.pipeline.fit_summary import FitProgress, FitSummary
    from streamrnn.plugins.report.reporting import report_output

__all__ = [
    "Config",
    "Draft",
    "FitProgress",
    "FitSummary",
    "Pipeline",
    "Progress",
    "RowCounts",
    "SourceWindow",
    "Summary",
    "Workload",
    "draft_pipeline",
    "report_output",
]


def __getattr__(name: str) -> object:
    if name in ("Draft", "draft_pipeline"):
        from streamrnn.jobs.pipeline import draft  # noqa: PLC0415 - a run drafts nothing

        return getattr(draft, name)
    if name in ("FitProgress", "FitSummary"):
        from streamrnn.jobs.pipeline import fit_summary  # noqa: PLC0415 - and fits nothing

        return getattr(fit_summary, name)
    if name == "report_output":
        return load_plugin("report", "output")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
