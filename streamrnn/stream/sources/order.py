"""The order in which files are read: by folders, with typed partition values, then by names."""

import re
from collections.abc import Mapping
from decimal import Decimal
from urllib.parse import unquote

import pyarrow as pa

from streamrnn.base.storage.walking import natural

NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile("-[0-9]{1,17}|[0-9]{1,18}")
_NUMBER = re.compile("[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_LAST = "\U0010ffff"  # after every text
_Key = tuple[tuple[str | int | Decimal, ...], ...]

Partitions = tuple[tuple[str, pa.Scalar], ...]


class Hive:
    """Hive partitions (`year=2013/`) of some paths: integers if all values are, else text.

    If all values are numbers (`x=1.25`, `x=+2`), their text is sorted by number.

    paths: folders and name of each file, relative to the source, separated by "/".
    """

    def __init__(self, paths: list[str]) -> None:
        values: dict[str, list[str]] = {}
        folders = {_split(path)[0] for path in paths}
        for name, value in (pair for folder in folders for pair in _pairs(folder)):
            values.setdefault(name, []).append(value)
        self._integers = _names_of_only(_INTEGER, values)
        self._numbers = self._integers | _names_of_only(_NUMBER, values)
        self._partitions = {
            folder: tuple((name, self._typed(name, value)) for name, value in _pairs(folder))
            for folder in folders
        }
        self._keys = {
            folder: tuple(self._step_key(step) for step in folder.split("/") if step)
            for folder in folders
        }

    def partitions(self, path: str) -> Partitions:
        """Return the name and value of each partition that contains a file."""
        return self._partitions[_split(path)[0]]

    def order(self, path: str) -> tuple[_Key, str]:
        """Return a sort key: `day=2` before `day=10`, `part-2` before `part-10`, null last."""
        folder, name = _split(path)
        return (*self._keys[folder], natural(name)), path

    def _typed(self, name: str, value: str) -> pa.Scalar:
        kind = pa.int64() if name in self._integers else pa.string()
        if value == NULL_PARTITION:
            return pa.scalar(None, kind)
        return pa.scalar(int(value) if name in self._integers else value, kind)

    def _step_key(self, folder: str) -> tuple[str | int | Decimal, ...]:
        name, mark, value = folder.partition("=")
        if mark and unquote(name) in self._numbers:
            null = value == NULL_PARTITION
            return f"{name}=", Decimal("Infinity" if null else unquote(value)), ""
        return (f"{name}={_LAST}",) if mark and value == NULL_PARTITION else natural(folder)


def value_key(value: str, numbers: bool) -> _Key:
    """Return the sort key of a non-null partition value; `numbers`: all values are numbers.

    Raises ValueError if `numbers` is set and this value is not a number.

    >>> value_key("2024-1-2", False) < value_key("2024-01-10", False)
    True
    >>> value_key("1.25", True) < value_key("10", True)
    True
    """
    if not numbers:
        return (natural(value),)
    if not is_number(value):
        raise ValueError(f"not a number: {value}")
    return ((Decimal(value),),)


def is_number(value: str) -> bool:
    """Return whether a partition value is sorted as a number if all others are."""
    return _NUMBER.fullmatch(value) is not None


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name


def _pairs(folder: str) -> list[tuple[str, str]]:
    pairs = [step.partition("=") for step in folder.split("/") if "=" in step]
    return [(unquote(name), unquote(value)) for name, _, value in pairs]


def _names_of_only(kind: re.Pattern[str], values: Mapping[str, list[str]]) -> set[str]:
    """Return the partitions whose values all match `kind` or are null."""
    return {
        name
        for name, texts in values.items()
        if all(text == NULL_PARTITION or kind.fullmatch(text) for text in texts)
    }
