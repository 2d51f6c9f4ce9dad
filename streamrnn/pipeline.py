"""Pipelines: load one, run it, check it, and explain what a run would do."""

from typing import TYPE_CHECKING, Any

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
else:  # so that a type checker reports misspelled names

    def __getattr__(name: str) -> Any:
        if name in ("Draft", "draft_pipeline", "write_demo"):
            from streamrnn.jobs import guesses as room  # noqa: PLC0415 - a run drafts nothing
        elif name in ("FitProgress", "FitSummary"):
            from streamrnn.jobs import fitting as room  # noqa: PLC0415 - and fits nothing
        elif name == "report_output":
            return load_plugin("report", "output")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(room, name)


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

_show_in(__name__, globals())
