"""Adapter for a layer with `call(inputs, states)` and `state_size`, as Keras writes a cell."""

import inspect
from collections.abc import Callable
from operator import index
from typing import Any

from streamrnn.errors import ArgumentError
from streamrnn.layers.cell import Cell, state_shapes_of
from streamrnn.layers.layer import Layer
from streamrnn.layers.symbol import Shape


class LayerCell(Cell):
    """Runs such a layer as a cell. Weights, name and config are those of the layer."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(name=layer.name)
        self.layer = layer
        self._weights = layer._weights
        self.call = getattr(layer, "call", None)
        self.step = _step_of(layer)

    def __str__(self) -> str:
        return str(self.layer)

    @property
    def state_size(self) -> Any:
        """The state_size of the layer."""
        return self.layer.state_size  # type: ignore[attr-defined]

    def children(self) -> dict[str, Layer]:
        return self.layer.children()

    def build(self, input_shape: Shape) -> None:
        self.layer.ensure_built(input_shape)
        self.built = True

    def check_input(self, shape: Shape) -> None:
        self.layer.check_input(shape)

    def state_classes(self) -> dict[str, str]:
        return dict.fromkeys(self.state_shapes(), type(self.layer).__name__)

    def output_features(self) -> int:
        size = getattr(self.layer, "output_size", None)
        if size is None:
            return state_shapes_of(self)[0][-1]
        try:
            return index(size)
        except TypeError:
            raise ArgumentError(
                f"{self}: output_size must be an int, received {size!r}; a step gives one output "
                "(batch, output_size)"
            ) from None

    def get_initial_state(self, batch_size: int | None = None) -> Any:
        own = self.own_initial_state(batch_size or 0)
        return super().get_initial_state(batch_size) if own is None else own

    def own_initial_state(self, batch_size: int) -> Any:
        own = getattr(self.layer, "get_initial_state", None)
        return None if own is None else own(batch_size=batch_size)


def _step_of(layer: Layer) -> Callable[..., None] | None:
    """Return a static method `step`; any other kind of method of this name is not a cell's."""
    step = inspect.getattr_static(layer, "step", None)
    return step.__func__ if isinstance(step, staticmethod) else None


def as_cell(given: object, owner: str) -> Cell:
    """Return a Cell as it is, and a layer that is written as a cell in an adapter.

    Raises ArgumentError for anything else.
    """
    if isinstance(given, Cell):
        return given
    why = "which is no layer"
    if isinstance(given, Layer):
        missing = []
        if not hasattr(given, "call") and _step_of(given) is None:
            missing.append("call")
        if getattr(given, "state_size", None) is None:
            missing.append("state_size")
        if not missing:
            return LayerCell(given)
        why = f"which has no {' and no '.join(missing)}"
    raise ArgumentError(
        f"{owner}: a cell must be a layers.Cell, or a layers.Layer with call(inputs, states) and "
        f"state_size, or a list of such cells; received {type(given).__name__}, {why}"
    )
