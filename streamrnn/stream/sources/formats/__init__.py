"""Formats of source files.

To add one, write a module with a `FileFormat`, and list it here and in SOURCE_FORMAT_NAMES
(stream/config/values.py).
"""

from streamrnn.stream.sources.formats.base import (
    ColumnStatistics,
    FileFormat,
    FileReader,
    Footer,
    Hints,
    UnparsedError,
)
from streamrnn.stream.sources.formats.csv import CSV, OTHER_DELIMITERS
from streamrnn.stream.sources.formats.ndjson import NDJSON
from streamrnn.stream.sources.formats.text import shows_rows
from streamrnn.stream.sources.formats.typed import ARROW, PARQUET

SOURCE_FORMATS = {"parquet": PARQUET, "arrow": ARROW, "csv": CSV, "ndjson": NDJSON}
"""Formats by their names in [source] format."""


def format_of(path: str, name: str) -> FileFormat:
    """Return the named format; for "auto", go by the file's suffix, or else take Parquet."""
    if name != "auto":
        return SOURCE_FORMATS[name]
    return next((f for f in SOURCE_FORMATS.values() if path.lower().endswith(f.suffixes)), PARQUET)


def suffixes_of(name: str) -> tuple[str, ...]:
    """Return the suffixes of the files to read in a directory; "auto" stands for Parquet."""
    return SOURCE_FORMATS["parquet" if name == "auto" else name].suffixes
