"""Formats of parts. To add one, write a module with a `PartFormat` and list it here."""

from streamrnn.stream.sinks.formats.arrow import ArrowFormat
from streamrnn.stream.sinks.formats.base import GroupWriter, PartFormat
from streamrnn.stream.sinks.formats.parquet import ParquetFormat

PART_FORMATS: dict[str, PartFormat] = {"parquet": ParquetFormat(), "arrow": ArrowFormat()}
"""Formats by their names in [sink] format."""

__all__ = ["PART_FORMATS", "ArrowFormat", "GroupWriter", "ParquetFormat", "PartFormat"]
