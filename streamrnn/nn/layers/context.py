"""What a call of a layer carries besides its inputs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, Protocol

from streamrnn.base.arrays import Floats, Ints

CallKind = Literal["call", "stream", "whole"]


_training: ContextVar[bool] = ContextVar("training", default=False)


def resolve_training(training: bool | None) -> bool:
    """Return `training` of a call; None takes it from the enclosing call, as in Keras."""
    return _training.get() if training is None else bool(training)


@contextmanager
def training_inside(training: bool) -> Iterator[None]:
    """Set `training` for the calls of layers that a user's layer makes inside the block."""
    token = _training.set(training)
    try:
        yield
    finally:
        _training.reset(token)


class Carrier(Protocol):
    """An object that carries state from call to call."""

    def snapshot(self) -> Any:
        """Return the carried state."""

    def restore(self, snapshot: Any) -> None:
        """Carry the state of a snapshot again."""


class CallContext:
    """The arguments of one layer's call, and of the pass through the model around it.

    mask           bool (B, T), False where a step is left out; None if no step is. For
                   several inputs, a list with one mask (or None) each.
    initial_state  states to start from, as the caller passed them, or None.
    training       whether dropout is applied.
    kind           "call": a call from Python; layers with stateful=True carry their state.
                   "stream": one step per row, from the caller's `states`, changed in place.
                   "whole": each row is a complete sequence, from zero states.
                   The last two change no attribute of a layer, so threads may share a model.
    lengths        number of steps of each row, int64 (B,), or None where all rows have all steps.
                   Only for "stream" and "whole": a call turns lengths into a mask.
    path           names of the models around the layer, each followed by a slash.

    `remember` and `undo` prevent a failing call from leaving stateful layers half advanced.
    """

    __slots__ = (
        "_before",
        "initial_state",
        "kind",
        "lengths",
        "mask",
        "path",
        "states",
        "training",
    )

    def __init__(
        self,
        mask: Any = None,
        initial_state: Any = None,
        training: bool = False,
        kind: CallKind = "call",
        lengths: Ints | None = None,
        states: Mapping[str, Floats] | None = None,
        path: str = "",
        before: dict[int, tuple[Carrier, Any]] | None = None,
    ) -> None:
        self.mask = mask
        self.initial_state = initial_state
        self.training = training
        self.kind = kind
        self.lengths = lengths
        self.states = states
        self.path = path
        self._before = {} if before is None else before

    def remember(self, carrier: Carrier) -> None:
        """Save the carried state before this pass changes it."""
        if id(carrier) not in self._before:
            self._before[id(carrier)] = carrier, carrier.snapshot()

    def undo(self) -> None:
        """Restore the carried state from before this pass."""
        for carrier, snapshot in self._before.values():
            carrier.restore(snapshot)

    def of_layer(
        self, name: str, mask: Any, initial_state: Any, training: bool | None
    ) -> "CallContext":
        """Return the context of a layer inside a model; training=None leaves it as it is."""
        return CallContext(
            mask,
            initial_state,
            self.training if training is None else training,
            self.kind,
            self.lengths,
            self.states,
            f"{self.path}{name}/",
            self._before,
        )

    def with_initial_state(self, initial_state: Any) -> "CallContext":
        """Return the same context with another initial state."""
        return CallContext(
            self.mask,
            initial_state,
            self.training,
            self.kind,
            self.lengths,
            self.states,
            self.path,
            self._before,
        )

    def state(self, name: str, shape: tuple[int, ...]) -> Floats | None:
        """Return the caller's state of the layer at `path`, as (B, *shape); None if it has none.

        It is a view: writes go to the caller's array.
        """
        assert self.states is not None
        flat = self.states.get(self.path + name)
        return flat if flat is None or len(shape) == 1 else flat.reshape(len(flat), *shape)
