"""Vocabularies as the pipeline file gives them: a list, a table, or a file of either."""

import csv
import io
import os
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from streamrnn.errors import ConfigError
from streamrnn.stream.sources.files import resolve
from streamrnn.stream.sources.vocabulary import Vocabulary

_PARQUET = (".parquet", ".pq")


def load_vocabulary(
    given: str | Sequence[str | int] | Mapping[str, int], oov: int, feature: str
) -> Vocabulary:
    """Load the vocabulary of a feature: a list of values, a table of value -> id, or a file.

    A Parquet or CSV file has two columns, values and ids; any other one value per line, whose ids
    are positions + `oov`, as those of a list. Raises ConfigError, with file and line.
    """
    label = f"[source] features: vocabulary of {feature!r}"
    if isinstance(given, Mapping):
        return Vocabulary.of_pairs(list(given), list(given.values()), oov, label, is_text=True)
    if not isinstance(given, str):
        return Vocabulary.of(given, oov, label)
    label = f"{label}: {given}"
    data = _read(given, label)
    if given.lower().endswith(_PARQUET):
        return Vocabulary.of_pairs(*_columns(data, label), oov, label)
    text = _decoded(data, label)
    if given.lower().endswith(".csv"):
        return Vocabulary.of_pairs(*_csv(text, label), oov, label, is_text=True)
    return Vocabulary.of(_lines(text, label), oov, label, is_text=True)


def _read(path: str, label: str) -> bytes:
    store, location = resolve(path)
    try:
        with store.open(location) as stream:
            data: bytes = stream.read()
    except (OSError, pa.ArrowException) as error:
        number = getattr(error, "errno", None)
        cause = os.strerror(number) if number else " ".join(str(error).split())
        raise ConfigError(f"{label}: cannot be read: {cause}") from error
    return data


def _decoded(data: bytes, label: str) -> str:
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{label}: expected UTF-8, received other bytes at {error.start}. Only names that end "
            "in .parquet, .pq or .csv are read as tables."
        ) from error


def _lines(text: str, label: str) -> list[str]:
    lines = text.removesuffix("\n").split("\n")
    if "" in lines:
        raise ConfigError(
            f"{label}: line {lines.index('') + 1} is empty: expected one value per line. An empty "
            "value needs a list, or a file with ids."
        )
    return lines


def _csv(text: str, label: str) -> tuple[list[str], list[int]]:
    """Return values and ids; the first row may be a header."""
    values, ids = [], []
    reader = csv.reader(io.StringIO(text), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise ConfigError(f"{label}: line {reader.line_num}: invalid CSV: {error}") from error
    for line, row in rows:
        if len(row) != 2:
            raise ConfigError(f"{label}: line {line}: {_expected_two(len(row))}")
        try:
            number = int(row[1])
        except ValueError:
            if line == rows[0][0]:
                continue
            raise ConfigError(
                f"{label}: line {line}: expected an integer id, received {row[1]!r}"
            ) from None
        values.append(row[0])
        ids.append(number)
    return values, ids


def _columns(data: bytes, label: str) -> tuple[list[str | int], list[int]]:
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(f"{label}: not a readable Parquet file: {error}") from error
    if table.num_columns != 2:
        raise ConfigError(f"{label}: {_expected_two(table.num_columns)}")
    values, ids = (_plain(column) for column in table.columns)
    types = pa.types
    text = types.is_string(values.type) or types.is_large_string(values.type)
    if not (text or types.is_integer(values.type)) or not types.is_integer(ids.type):
        raise ConfigError(
            f"{label}: expected values (string or integer) and ids (integer), received "
            f"{values.type} and {ids.type}"
        )
    if values.null_count or ids.null_count:
        raise ConfigError(f"{label}: expected values and ids without nulls, received a null")
    return values.to_pylist(), ids.to_pylist()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    return column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column


def _expected_two(found: int) -> str:
    return f"expected two columns, values and ids, received {found}"
