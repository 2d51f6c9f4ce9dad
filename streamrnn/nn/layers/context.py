"""What a call of a layer carries besides its inputs."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from streamrnn.base.arrays import Floats, Ints

CallKind = Literal["call", "stream", "whole"]
T = TypeVar("T")

_training: ContextVar[bool] = ContextVar("training", default=False)


def resolve_training(training: bool | None) -> bool:
    """Return `training` of a call; None takes it from the enclosing call, as in Keras."""
    return _training.get() if training is None else bool(training)


@contextmanager
def set_inside(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Set a context variable inside the block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def training_inside(training: bool) -> AbstractContextManager[None]:
    """Set `training` for the calls of layers that a user's layer makes inside the block."""
    return set_inside(_training, training)


@dataclass(slots=True, eq=False)
class CallContext:
    """The arguments of one layer's call, and of the pass through the model around it.

    mask           bool (B, T), False where a step is left out; None if no step is. For
                   several inputs, a list with a mask (or None) for each.
    initial_state  states to start from, as the caller passed them, or None.
    training       whether layers compute as in training; dropout, for instance, is applied.
    kind           "call": a call from Python; layers with stateful=True carry their state.
                   "stream": each row continues a stream, from the caller's `states`, which are
                   changed in place.
                   "whole": each row is a complete sequence, from zero states.
                   The last two kinds change no attribute of a layer: threads may share a model.
    lengths        number of steps of each row, int64 (B,), or None where all rows have all steps.
                   Only for "stream" and "whole": a call turns lengths into a mask.
    path           names of the models around the layer, each followed by a slash.
    before         each Memory that this pass changes, by its id, with the state before the pass.

    `remember` and `undo` prevent a failing call from leaving stateful layers half advanced.
    """

    mask: Any = None
    initial_state: Any = None
    training: bool = False
    kind: CallKind = "call"
    lengths: Ints | None = None
    states: Mapping[str, Floats] | None = None
    path: str = ""
    before: dict[int, tuple[Any, Any]] = field(default_factory=dict)

    def remember(self, memory: Any) -> None:
        """Save the state that a Memory carries, before this pass changes it."""
        if id(memory) not in self.before:
            self.before[id(memory)] = memory, memory.snapshot()

    def undo(self) -> None:
        """Restore the carried state from before this pass."""
        for memory, snapshot in self.before.values():
            memory.restore(snapshot)

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
            self.before,
        )

    def state(self, name: str, shape: tuple[int, ...]) -> Floats | None:
        """Return the caller's state of the layer at `path`, as (B, *shape); None if it has none.

        It is a view: writes go to the caller's array.
        """
        assert self.states is not None
        flat = self.states.get(self.path + name)
        return flat if flat is None or len(shape) == 1 else flat.reshape(len(flat), *shape)
