"""What sorting by stream needs of earlier rows, and what later rows need of it."""

from typing import NamedTuple, Protocol

from streamrnn.base.arrays import Array, Bools, Ints

Previous = dict[str, tuple[Array, Bools]]


class Past(Protocol):
    """Facts about streams, by slot (B,): the part of a state table that is read here.

    `newest` is the time, in ticks, after which no stream had a row when idle ones were last
    dropped; None without times.
    """

    newest: int | None

    def steps(self, slots: Ints) -> Ints:
        """Return the steps (B,) since the last reset of each stream."""

    def last_times(self, slots: Ints) -> tuple[Ints, Bools]:
        """Return the time (B,) of each stream's last row, in ticks, and whether (B,) it has one."""

    def previous(self, name: str, slots: Ints) -> tuple[Array, Bools]:
        """Return the last values (B,) of a feature, and which of them are present."""


class Update(NamedTuple):
    """The facts about B streams after their rows, as `Past` will return them."""

    slots: Ints
    steps: Ints
    last_time: Ints | None
    previous: Previous
