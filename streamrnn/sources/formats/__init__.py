"""Formats of source files. Another one is a module with a `FileFormat`, and its name here."""

from streamrnn.sources.formats.arrow import ArrowFiles
from streamrnn.sources.formats.base import FileFormat, FileReader, Footer
from streamrnn.sources.formats.parquet import ParquetFiles

FORMATS: dict[str, FileFormat] = {"parquet": ParquetFiles(), "arrow": ArrowFiles()}
"""By the name that [source] format has for it."""


def format_of(path: str, name: str) -> FileFormat:
    """The format of a file: the one that is named, or, for "auto", the one of its suffix, else
    Parquet."""
    if name != "auto":
        return FORMATS[name]
    found = (each for each in FORMATS.values() if path.endswith(each.suffixes))
    return next(found, FORMATS["parquet"])


def suffixes_of(name: str) -> tuple[str, ...]:
    """How names of files in a directory end; "auto": those of Parquet."""
    return FORMATS["parquet" if name == "auto" else name].suffixes


__all__ = ["FORMATS", "FileFormat", "FileReader", "Footer", "format_of", "suffixes_of"]
