"""Every recurrent cell is in the table of each format that has it, or its row says why not."""

from collections.abc import Iterator
from dataclasses import dataclass

import kernelcases
import pytest
from contracts.declared import HOLDS, Contract, Row, assert_declared

from streamrnn import layers
from streamrnn.nn.formats.keras.legacy import KERAS_CELLS
from streamrnn.nn.formats.tables import TORCH_CELLS
from streamrnn.nn.kernels import swept
from streamrnn.nn.kernels.swept import SweptKind
from streamrnn.nn.layers import registry
from streamrnn.nn.layers.gated import GatedCell
from streamrnn.plugins.onnx.recurrent import RECURRENT

FILE = "tests/contracts/test_cells.py"


@dataclass(frozen=True)
class CellRow(Row):
    """keras, torch, onnx: a format's table has the cell. kernels: kernelcases has each form of it,
    so that they are run at every shape, width and thread."""

    keras: Contract = HOLDS
    torch: Contract = HOLDS
    onnx: Contract = HOLDS
    kernels: Contract = HOLDS


_ADDONS = "It is of TensorFlow Addons: Keras has none."
_NOT_IN_TORCH = "PyTorch has no such layer."
ROWS = {
    "GRUCell": CellRow(),
    "LSTMCell": CellRow(),
    "LayerNormLSTMCell": CellRow(
        _ADDONS, _NOT_IN_TORCH, "ONNX has no such operator.", "It has kernels of its own form."
    ),
    "PeepholeLSTMCell": CellRow(_ADDONS, _NOT_IN_TORCH),
    "SimpleRNNCell": CellRow(),
}
KEPT = {
    "keras": {f"{name}Cell" for name in KERAS_CELLS},
    "torch": {f"{name}Cell" for name in TORCH_CELLS},
    "onnx": {cell.__name__ for operator in RECURRENT.values() for cell in operator.cells},
}


def registered() -> list[str]:
    return [cell.__name__ for cell in registry.own_classes(GatedCell)]


def test_every_cell_has_a_row_and_every_row_a_cell() -> None:
    assert_declared("cell", registered(), ROWS, FILE)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("table", KEPT)
def test_a_format_has_the_cell_unless_its_row_says_why_not(table: str, name: str) -> None:
    assert (name in KEPT[table]) == (getattr(ROWS[name], table) is HOLDS)


def kinds(name: str) -> Iterator[SweptKind]:
    """The forms of a cell: the kinds whose name begins with its own."""
    kind: SweptKind = getattr(layers, name).kind
    for each in vars(swept).values():
        if isinstance(each, SweptKind) and each.name.startswith(kind.name):
            yield each


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.kernels is HOLDS])
def test_the_kernels_of_a_cell_are_run_at_every_shape(name: str) -> None:
    assert {kind.name for kind in kinds(name)} <= set(kernelcases.FLOATS)
