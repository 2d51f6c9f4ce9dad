"""The oracle of layers that compare, move or join values: nested lists, no streamrnn, no numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import naive


def each(function: Callable[..., Any], *inputs: Any) -> Any:
    """A function of numbers, element by element over nested lists of one shape."""
    first, *others = [naive.lists(x) for x in inputs]
    if isinstance(first, list):
        return [each(function, *values) for values in zip(first, *others, strict=True)]
    return function(first, *others)


def average(*values: float) -> float:
    return sum(values) / len(values)


def spread(variance: float) -> Callable[..., float]:
    def deviation(*values: float) -> float:
        mean = average(*values)
        return math.sqrt(variance + average(*((value - mean) ** 2 for value in values)))

    return deviation


def product(*values: float) -> float:
    return math.prod(values)


def total(*values: float) -> float:
    return sum(values)


def joined(*inputs: Any) -> Any:
    """Vectors side by side on the last axis."""
    first, *others = [naive.lists(x) for x in inputs]
    if isinstance(first[0], list):
        return [joined(*parts) for parts in zip(first, *others, strict=True)]
    return [value for part in (first, *others) for value in part]


def joined_in_time(*inputs: Any) -> Any:
    """Sequences one after the other, row by row."""
    return [
        [step for row in rows for step in row]
        for rows in zip(*[naive.lists(x) for x in inputs], strict=True)
    ]


def flat(x: Any) -> list[Any]:
    """All numbers of nested lists, the last axis fastest."""
    if not isinstance(x, list):
        return [x]
    return [value for part in x for value in flat(part)]


def reshaped(x: Any, columns: int) -> Any:
    """(B, …) -> (B, the rest / columns, columns)."""
    rows = [flat(row) for row in naive.lists(x)]
    return [[row[i : i + columns] for i in range(0, len(row), columns)] for row in rows]


def repeated(x: Any, times: int) -> Any:
    """(B, F) -> (B, times, F)."""
    return [[list(row) for _ in range(times)] for row in naive.lists(x)]


def numbers(tokens: Any, vocabulary: list[Any], unknown: Callable[[Any], int], first: int) -> Any:
    """keras.layers.StringLookup and IntegerLookup: the vocabulary is numbered from `first`."""
    return each(
        lambda token: first + vocabulary.index(token) if token in vocabulary else unknown(token),
        tokens,
    )


def bins(numbers: Any, edges: list[float]) -> Any:
    """How many edges each number is not below."""
    return each(lambda number: sum(number >= edge for edge in edges), numbers)


def one_hot(ids: Any, size: int) -> Any:
    return each(lambda number: [float(number == i) for i in range(size)], ids)


def counts(ids: Any, size: int) -> Any:
    """How often each number is in a row."""
    return [[float(row.count(i)) for i in range(size)] for row in naive.lists(ids)]


def turned(x: Any) -> Any:
    """(B, T, F) -> (B, F, T), and back."""
    return [[list(column) for column in zip(*row, strict=True)] for row in naive.lists(x)]


def differs(x: Any, value: float = 0.0) -> list[list[bool]]:
    """The steps (B, T) that have a feature which is not `value`."""
    return [[any(v != value for v in step) for step in row] for row in naive.lists(x)]
