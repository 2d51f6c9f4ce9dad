"""A position in a source."""

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
    done: bool = False


def position_within(name: str, position: Position | None) -> Position | None:
    """Return a position if it is in this file, else None."""
    return position if position is not None and position.file == name else None


@dataclass(frozen=True)
class Cursor:
    """The position of a reader in one file, whose row groups have `sizes` rows."""

    name: str
    sizes: list[int]
    row_group: int
    row: int
    file_row: int

    def after(self, rows: int) -> "Cursor":
        """Return the position so many rows later."""
        group, row = self.row_group, self.row + rows
        while group < len(self.sizes) and row >= self.sizes[group]:
            row -= self.sizes[group]
            group += 1
        return Cursor(self.name, self.sizes, group, row, self.file_row + rows)

    def position(self) -> Position:
        """Return it as a manifest has it."""
        done = self.row_group >= len(self.sizes)
        return Position(self.name, self.row_group, self.row, self.file_row, done)
