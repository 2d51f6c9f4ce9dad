"""Pictures of a report: their numbers and words in, one HTML file out."""

from streamrnn.plugins.report.pictures.picture import (
    LONGEST_HEAD,
    MOST_MARKS,
    Drawn,
    Missing,
    Panel,
    Picture,
    ReportPage,
    VerticalRule,
    is_report,
)

__all__ = [
    "LONGEST_HEAD",
    "MOST_MARKS",
    "Drawn",
    "Missing",
    "Panel",
    "Picture",
    "ReportPage",
    "VerticalRule",
    "is_report",
]
