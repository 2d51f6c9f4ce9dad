"""Where rows come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streamrnn.arrays import Ints


@dataclass(frozen=True)
class Origin:
    """The file that each of N rows comes from, and its row there, from 0.

    `file_N` (N,) int64 says which of `files`, `row_N` (N,) int64 which row of it. Rows of one
    record batch may come from several files, and from anywhere in them.

    >>> Origin.consecutive("a.parquet", first_row=10, rows=3).place(2)
    'a.parquet: row 12 (from 0)'
    """

    files: tuple[str, ...]
    file_N: Ints
    row_N: Ints

    @classmethod
    def consecutive(cls, file: str, first_row: int, rows: int) -> Origin:
        """Rows of one file that follow one another."""
        return cls((file,), np.zeros(rows, np.int64), np.arange(first_row, first_row + rows))

    def file(self, row: int) -> str:
        """The file of a row."""
        return self.files[int(self.file_N[row])]

    def place(self, row: int) -> str:
        """Where a row is, for a message."""
        return f"{self.file(row)}: row {self.row_N[row]} (from 0)"
