"""Natural order of names: numbers in them are compared as numbers."""

import re

_DIGITS = re.compile("([0-9]+)")


def natural(name: str) -> tuple[str | int, ...]:
    """Split into text and numbers: a key that sorts `part-2` before `part-10`.

    A number is its count of digits, and the digits: Python limits the digits of an `int`.
    """
    first, *rest = _DIGITS.split(name)
    key: list[str | int] = [first]
    for digits, text in zip(rest[::2], rest[1::2], strict=True):
        number = digits.lstrip("0")
        key += [len(number), number, text]
    return tuple(key)


def steps_of(path: str) -> tuple[tuple[str | int, ...], ...]:
    """Return a key that sorts paths by folders and name, each in natural order."""
    return tuple(natural(step) for step in path.split("/"))
