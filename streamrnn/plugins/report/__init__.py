"""Reports on outputs: numbers from `outputs.reporting`, in words and pictures."""

from streamrnn.pipeline.report.making import ReportRequest, make_report

__all__ = ["ReportRequest", "make_report"]
