"""Columns that some files have under an old name."""

import difflib
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from streamrnn.errors import DataError
from streamrnn.stream.sources.formats import ColumnStatistics, FileReader, Footer

NamesInFiles = Mapping[str, Sequence[str]]
"""The name of a column -> its old names."""


def new_names(names: Sequence[str], renames: NamesInFiles, path: str) -> dict[str, str]:
    """Return the old names of columns among `names`, and their new ones.

    Raises DataError, with the file, if a column is present under two names.

    >>> new_names(["id", "temp_f"], {"temp": ["temp_c", "temp_f"]}, "a.parquet")
    {'temp_f': 'temp'}
    """
    found = {}
    for new, olds in renames.items():
        present = [name for name in (new, *olds) if name in names]
        if len(present) > 1:
            raise DataError(
                f"{path}: column {new!r}: expected one column, found {', '.join(present)}, which "
                "[source] rename (or `from` of the feature) declares to be the same. Remove one."
            )
        found.update({name: new for name in present if name != new})
    return found


def joined_renames(renames: NamesInFiles, others: NamesInFiles) -> dict[str, tuple[str, ...]]:
    """Return the old names of columns by either."""
    names = dict.fromkeys([*renames, *others])
    return {
        name: tuple(dict.fromkeys([*renames.get(name, ()), *others.get(name, ())]))
        for name in names
    }


def with_new_names(schema: pa.Schema, names: Mapping[str, str]) -> pa.Schema:
    """Return a schema with new names, given old name -> new name."""
    return pa.schema([field.with_name(names.get(field.name, field.name)) for field in schema])


def how_to_rename(name: str, names: Sequence[str]) -> str:
    """Return the advice for a column that other files have, and this one may have renamed."""
    close = difflib.get_close_matches(name, names, n=1)
    old = close[0] if close else "its name here"
    return f'If it has another name here, set [source] rename = {{ {name} = "{old}" }}.'


class RenamingReader:
    """An open file whose columns have new names, given old name -> new name."""

    def __init__(self, reader: FileReader, names: Mapping[str, str]) -> None:
        self._reader = reader
        self._names = names
        self._old = {new: old for old, new in names.items()}
        self.schema = with_new_names(reader.schema, names)

    def offset(self, column: str) -> str:
        """Return an offset, not that of UTC, of the text of a column in UTC so far; "" for none."""
        return self._reader.offset(self._old.get(column, column))

    def footer(self, time: str | None, kind: pa.DataType | None) -> Footer:
        """Return the rows of each group and, if known, the range of `time`, read as `kind`."""
        return self._reader.footer(None if time is None else self._old.get(time, time), kind)

    def statistics(self, columns: Sequence[str]) -> dict[str, ColumnStatistics]:
        """Return what the footer records of these columns."""
        found = self._reader.statistics([self._old.get(name, name) for name in columns])
        return {self._names.get(name, name): item for name, item in found.items()}

    def batches(self, group: int, rows: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """Read these columns of all rows from a group on, in order, at most `rows` at a time."""
        old = [self._old.get(name, name) for name in columns]
        for batch in self._reader.batches(group, rows, old):
            names = [self._names.get(name, name) for name in batch.schema.names]
            yield batch.rename_columns(names)
