"""Write the page of a report to a disk or an object store."""

from __future__ import annotations

from streamrnn.display import location
from streamrnn.errors import SinkError
from streamrnn.pictures import ReportPage
from streamrnn.storage import replace_file


def write_page(report: ReportPage, path: str) -> None:
    """Write the page atomically. Raises SinkError, and UnsupportedError without vl-convert."""
    page = report.html().encode()
    try:
        with replace_file(path) as output:
            output.write(page)
    except OSError as error:
        cause = error.__cause__ if isinstance(error, SinkError) else error
        raise SinkError(f"{location(path)}: cannot write the report: {cause}") from error
