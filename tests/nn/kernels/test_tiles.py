"""How many rows a tile has: as many as its registers hold, with the weights of a step."""

import pytest

from streamrnn.nn.simd import sweep
from streamrnn.nn.simd.sweep import TileShape, tile_rows

GATES = (0, 1, 2, 3)
SHAPES = {
    "lstm": TileShape(8, vectors=1, sums=4, x_into=GATES, h_into=GATES),
    "gru": TileShape(8, vectors=1, sums=4, x_into=(0, 1, 2), h_into=(0, 1, 3)),
    "layer norm": TileShape(8, vectors=1, sums=8, x_into=GATES, h_into=(4, 5, 6, 7)),
    "one gate": TileShape(8, vectors=4, sums=1, x_into=(0,), h_into=(0,)),
}


@pytest.mark.parametrize(
    ("registers", "name", "rows"),
    [
        (16, "lstm", 2),
        (16, "gru", 3),
        (16, "layer norm", 1),
        (32, "lstm", 6),
        (32, "gru", 6),
        (32, "layer norm", 3),
    ],
)
def test_a_tile_has_the_most_rows_that_do_not_spill(
    monkeypatch: pytest.MonkeyPatch, registers: int, name: str, rows: int
) -> None:
    monkeypatch.setattr(sweep, "registers", lambda: registers)
    assert tile_rows(SHAPES[name]) == rows


@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("name", SHAPES)
def test_sums_weights_and_an_input_fit_in_the_registers(
    monkeypatch: pytest.MonkeyPatch, registers: int, name: str
) -> None:
    monkeypatch.setattr(sweep, "registers", lambda: registers)
    shape = SHAPES[name]
    weights = shape.vectors * max(len(shape.x_into), len(shape.h_into))
    assert tile_rows(shape) * shape.vectors * shape.sums + weights + 1 <= registers
