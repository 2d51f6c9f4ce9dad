"""Pictures of a report: their numbers and words in, one HTML file out."""

from streamrnn.pictures.picture import MOST_MARKS, Drawn, Missing, Panel, Picture, ReportPage

__all__ = ["MOST_MARKS", "Drawn", "Missing", "Panel", "Picture", "ReportPage"]
