"""Tables: lists of data files, with a log that tells what became of them.

To add one, write a module that returns a `Table` as in `delta`, and open it in `open_table`.
"""

from streamrnn.sources.files import canonical_name, read_errors
from streamrnn.sources.tables.delta import is_delta, open_delta
from streamrnn.sources.tables.history import Commit, Listing, Table
from streamrnn.sources.tables.iceberg import is_iceberg, open_iceberg

TABLE_FORMATS = ("delta", "iceberg")
"""Names of tables in [source] format."""


def open_table(path: str, format: str, version: int | None) -> Table | None:
    """Open the table at a path, at a version (default: the latest); None if it is no table.

    With format "auto" a folder with `_delta_log` is a Delta table, and what `is_iceberg` takes an
    Iceberg table. (A folder of Iceberg is none: only a catalog knows which of its metadata files is
    the current one.) Raises ConfigError, DataError and
    MissingFileError.
    """
    if format == "iceberg" or (format == "auto" and is_iceberg(path)):
        return open_iceberg(path, version)
    with read_errors(canonical_name(path)):
        if format == "delta" or (format == "auto" and is_delta(path)):
            return open_delta(path, version)
    return None


__all__ = ["TABLE_FORMATS", "Commit", "Listing", "Table", "open_table"]
