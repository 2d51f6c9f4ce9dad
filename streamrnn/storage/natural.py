"""Natural order of names: numbers in them are compared as numbers."""

from __future__ import annotations

import re

_DIGITS = re.compile("([0-9]+)")


def natural(name: str) -> tuple[str | int, ...]:
    """Split into alternating text and numbers: a key that sorts `part-2` before `part-10`."""
    parts: list[str | int] = [*_DIGITS.split(name)]
    parts[1::2] = map(int, parts[1::2])
    return tuple(parts)


def steps_of(path: str) -> tuple[tuple[str | int, ...], ...]:
    """Return a key that sorts paths by folders and name, each in natural order."""
    return tuple(natural(step) for step in path.split("/"))
