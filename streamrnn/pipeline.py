"""Pipelines: load one, run it, check it, and explain what a run would do."""

from typing import TYPE_CHECKING

from streamrnn.base.display import show_in as _show_in
from streamrnn.base.plugin import load_plugin
from streamrnn.jobs.pipeline import (
    Config,
    Pipeline,
    Progress,
    RowCounts,
    Session,
    SourceWindow,
    Summary,
    Workload,
)

if TYPE_CHECKING:
    from streamrnn.jobs.fitting import FitProgress, FitSummary
    from streamrnn.jobs.guesses import Draft, draft_pipeline, write_demo
    from streamrnn.plugins.report.reporting import report_output

__all__ = [
    "Config",
    "Draft",
    "FitProgress",
    "FitSummary",
    "Pipeline",
    "Progress",
    "RowCounts",
    "Session",
    "SourceWindow",
    "Summary",
    "Workload",
    "draft_pipeline",
    "report_output",
    "write_demo",
]

_show_in(
    __name__,
    globals(),
    {
        **dict.fromkeys(("Draft", "draft_pipeline", "write_demo"), "streamrnn.jobs.guesses"),
        **dict.fromkeys(("FitProgress", "FitSummary"), "streamrnn.jobs.fitting"),
        "report_output": lambda _: load_plugin("report", "output"),
    },
)
