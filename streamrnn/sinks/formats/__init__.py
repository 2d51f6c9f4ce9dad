"""Formats of parts. Another one is a module with a `PartFormat`, and its name here."""

from streamrnn.sinks.formats.arrow import ArrowFormat
from streamrnn.sinks.formats.base import GroupWriter, PartFormat
from streamrnn.sinks.formats.parquet import ParquetFormat

FORMATS: dict[str, PartFormat] = {"parquet": ParquetFormat(), "arrow": ArrowFormat()}
"""By the name that [sink] format has for it."""

__all__ = ["FORMATS", "ArrowFormat", "GroupWriter", "ParquetFormat", "PartFormat"]
