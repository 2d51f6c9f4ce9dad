"""A position in a source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Position:
    """The first row that has not been read: file, row group, row within the group.

    `file_row` is the same row counted from the start of the file; `done` is True if the file has
    no more rows.
    """

    file: str
    row_group: int
    row: int
    file_row: int
    done: bool
