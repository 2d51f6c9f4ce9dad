"""What one pass over a layer or a model carries beside its inputs."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from streamrnn.arrays import Floats, Ints

Kind = Literal["call", "stream", "whole"]


class Carrier(Protocol):
    """Something that carries state from call to call."""

    def snapshot(self) -> Any:
        """What it carries now."""

    def restore(self, snapshot: Any) -> None:
        """Carry that again."""


class Run:
    """One pass.

    kind       "call": a call from Python; layers with stateful=True carry their state.
               "stream": one step a row, states are the caller's (`states`, changed in place).
               "whole": each row is a complete sequence, from a fresh state.
    In the last two no attribute of a layer is touched, so threads may share a model.
    lengths    steps of each row, int64 (B,), or None where all rows have all steps. Only for
               "stream" and "whole": a call turns lengths into a mask.
    path       names of the models around the layer, each with a slash after it.

    `remember` and `undo` keep a call that fails from leaving stateful layers half advanced.
    """

    __slots__ = ("_before", "kind", "lengths", "path", "states", "training")

    def __init__(
        self,
        *,
        training: bool = False,
        kind: Kind = "call",
        lengths: Ints | None = None,
        states: Mapping[str, Floats] | None = None,
        path: str = "",
        before: dict[int, tuple[Carrier, Any]] | None = None,
    ) -> None:
        self.training = training
        self.kind = kind
        self.lengths = lengths
        self.states = states
        self.path = path
        self._before = {} if before is None else before

    def remember(self, carrier: Carrier) -> None:
        """Keep what is carried before this pass changes it."""
        if id(carrier) not in self._before:
            self._before[id(carrier)] = carrier, carrier.snapshot()

    def undo(self) -> None:
        """Bring back what was carried before this pass."""
        for carrier, snapshot in self._before.values():
            carrier.restore(snapshot)

    def at(self, name: str) -> "Run":
        """The same pass, one name deeper."""
        return Run(
            training=self.training,
            kind=self.kind,
            lengths=self.lengths,
            states=self.states,
            path=f"{self.path}{name}/",
            before=self._before,
        )

    def with_training(self, training: bool) -> "Run":
        """The same pass with training switched."""
        if training == self.training:
            return self
        return Run(
            training=training,
            kind=self.kind,
            lengths=self.lengths,
            states=self.states,
            path=self.path,
            before=self._before,
        )

    def state(self, name: str, shape: tuple[int, ...]) -> Floats | None:
        """The caller's state of the layer at `path`, as (B, *shape), or None if it keeps none.

        A view: what is written into it is written into the caller's array.
        """
        assert self.states is not None
        flat = self.states.get(self.path + name)
        return None if flat is None else flat.reshape(len(flat), *shape)
