"""Pipelines: load one, run it, check it, and explain what a run would do."""

from typing import TYPE_CHECKING

from streamrnn.base.display import show_in as _show_in
from streamrnn.jobs.pipeline import (
    Config,
    Pipeline,
    Progress,
    RowCounts,
    SourceWindow,
    Summary,
    Workload,
)

if TYPE_CHECKING:
    from streamrnn.jobs.pipeline import (
        Draft,
        FitProgress,
        FitSummary,
        draft_pipeline,
        report_output,
    )
else:  # a type checker reports a misspelled name
    from streamrnn.jobs.pipeline import __getattr__

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


def __dir__() -> list[str]:
    return __all__


_show_in(__name__, globals())
