"""Tables: lists of data files, with a log that tells what became of them.

A plug-in reads the log of a format, and returns a `Table`: its entry point is `table.NAME`.
"""

import posixpath
from collections.abc import Callable

from streamrnn.base.plugin import load_plugin
from streamrnn.stream.sources.files import canonical_name, read_errors, resolve
from streamrnn.stream.sources.formats import SOURCE_FORMATS
from streamrnn.stream.sources.patterns import MAGIC
from streamrnn.stream.sources.tables.history import Commit, Listing, Table

CATALOG = "iceberg:"
"""Begins a path that names a catalog and a table in it: iceberg:catalog/namespace.table."""
DELTA_LOG = "_delta_log"
"""The folder in a Delta table that has its log."""


def open_table(path: str, format: str, version: int | None) -> Table | None:
    """Open the table at a path, at a version (default: the latest); None if it is no table.

    With format "auto" a folder with `_delta_log` is a Delta table, and what names a table of a
    catalog, or a metadata file, an Iceberg table. (A folder of Iceberg is none: only a catalog
    knows which of its metadata files is the current one.) Raises ConfigError, DataError,
    MissingFileError, and UnsupportedError without the plug-in of the format.
    """
    if format == "auto":
        format = next((name for name, is_at in MARKS.items() if is_at(path)), "")
    if not format or format in SOURCE_FORMATS:
        return None
    table: Table = load_plugin("table", format)(path, version)
    return table


def _names_iceberg(path: str) -> bool:
    return path.startswith(CATALOG) or path.endswith(".metadata.json")


def _has_delta_log(path: str) -> bool:
    with read_errors(canonical_name(path)):
        if MAGIC.intersection(path.partition("?")[0]):
            return False
        store, location = resolve(path)
        log = posixpath.join(location, DELTA_LOG)
        return store.exists(log) and store.is_folder(log)


MARKS: dict[str, Callable[[str], bool]] = {"iceberg": _names_iceberg, "delta": _has_delta_log}
"""What shows that there is a table at a path: looked at without the plug-in, too, as the files of a
table may have rows that it removed. They raise DataError for an invalid URI."""


__all__ = ["CATALOG", "DELTA_LOG", "Commit", "Listing", "Table", "open_table"]
