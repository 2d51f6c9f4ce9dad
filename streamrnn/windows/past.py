"""What sorting by stream needs to know of the rows before, and what it leaves for those after."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from streamrnn.arrays import Array, Bools, Ints

Previous = dict[str, tuple[Array, Bools]]


class Past(Protocol):
    """What is known of streams, by slot (B,); a state table, as far as it is read here."""

    def steps(self, slots: Ints) -> Ints:
        """Steps (B,) since the last reset of each stream."""

    def last_times(self, slots: Ints) -> tuple[Ints, Bools]:
        """The time (B,) of each stream's last row, in ticks, valid where (B,) it has had a row."""

    def previous(self, name: str, slots: Ints) -> tuple[Array, Bools]:
        """The last values (B,) of a feature, and which of them are present."""


class Update(NamedTuple):
    """What is known of B streams after their rows, as `Past` will say it."""

    slots: Ints
    steps: Ints
    last_time: Ints | None
    previous: Previous
