"""StackedRNNCells: several cells, each fed by the one before it, as one cell."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError
from streamrnn.nn.layers.built_in import BuiltIn
from streamrnn.nn.layers.cell import Cell, as_cell
from streamrnn.nn.layers.declared import Argument
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.registry import builtin_layer
from streamrnn.nn.layers.structure import Nested, Shape, T, leaves


@builtin_layer
class StackedRNNCells(Cell, BuiltIn):
    """Stacked cells; states are nested, one list per cell.

    A whole window runs through one cell after the other, with the same results as step by step: no
    cell sees the future.
    """

    cells: Argument[Sequence[Layer], list[Layer]] = Argument(inner=True)

    def complete(self) -> None:
        self.cells = list(self.cells)
        if not self.cells:
            raise ArgumentError(f"{self}: expected one cell or more, received none")
        self.runners = [as_cell(cell, str(self)) for cell in self.cells]
        for cell in self.cells:
            self.adopt(cell)

    def build(self, input_shape: Shape) -> None:
        shape = input_shape
        for cell in self.runners:
            cell.ensure_built(shape)
            shape = (input_shape[0], cell.output_features())
        self.built = True

    def check_input(self, shape: Shape) -> None:
        self.runners[0].check_input(shape)

    def children(self) -> dict[str, Layer]:
        return {str(i): cell for i, cell in enumerate(self.cells)}

    @property
    def state_size(self) -> list[Any]:
        """One entry per cell."""
        return [cell.state_size for cell in self.runners]

    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            f"{i}/{name}": shape
            for i, cell in enumerate(self.runners)
            for name, shape in cell.state_shapes().items()
        }

    def state_classes(self) -> dict[str, str]:
        return {
            f"{i}/{name}": of
            for i, cell in enumerate(self.runners)
            for name, of in cell.state_classes().items()
        }

    def output_features(self) -> int:
        return self.runners[-1].output_features()

    def nest(self, states: list[T]) -> list[Nested[T]]:
        nested: list[Nested[T]] = []
        for cell, part in zip(self.runners, self.split_states(states), strict=True):
            own: Nested[T] = cell.nest_in_stack(part)
            nested.append(own)
        return nested

    def split_states(self, states: list[T]) -> list[list[T]]:
        """Return the flat states of each cell."""
        parts, start = [], 0
        for cell in self.runners:
            stop = start + len(cell.state_shapes())
            parts.append(states[start:stop])
            start = stop
        return parts

    @property
    def holds_output(self) -> bool:
        return self.runners[-1].holds_output

    def output_of(self, states: list[Floats]) -> Floats:
        return self.runners[-1].output_of(self.split_states(states)[-1])

    def get_initial_state(self, batch_size: int | None = None) -> list[Nested[Floats]]:
        return [
            cell.nest_in_stack(list(leaves([cell.get_initial_state(batch_size)])))
            for cell in self.runners
        ]

    def run_window(
        self,
        x_BTF: Floats,
        lengths_B: Array | None,
        mask_BT: Array | None,
        states: list[Floats],
        held_BU: Floats | None,
        y_BTU: Floats | None,
        *,
        zero_masked: bool = False,
        training: bool = False,
    ) -> None:
        x, parts = x_BTF, self.split_states(states)
        for cell, part in zip(self.runners[:-1], parts[:-1], strict=True):
            units = cell.output_features()
            y = np.zeros((*x.shape[:2], units), np.float32)
            held = np.zeros((len(x), units), np.float32) if cell.holds_output else None
            cell.run_window(x, lengths_B, mask_BT, part, held, y, training=training)
            x = y
        self.runners[-1].run_window(
            x,
            lengths_B,
            mask_BT,
            parts[-1],
            held_BU,
            y_BTU,
            zero_masked=zero_masked,
            training=training,
        )
