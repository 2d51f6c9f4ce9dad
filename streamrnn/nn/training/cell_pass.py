"""A window through one cell in training, and the way back."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from streamrnn.base.arrays import Bools, Floats
from streamrnn.nn.kernels.bptt import NO_FACTORS, Factors
from streamrnn.nn.training.recording import Recording


class CellWindow(NamedTuple):
    """What a cell runs over.

    mask: False where a step is absent. sequences: whether each output is wanted, else the last.
    """

    x_BTF: Floats
    mask_BT: Bools | None
    zero_masked: bool
    sequences: bool


class CellGradients(NamedTuple):
    """Gradients of a window's inputs, None if not wanted, and of the states before it."""

    dx_BTF: Floats | None
    states: Sequence[Floats | None]


CellPullback: TypeAlias = Callable[
    [Floats | None, Floats | None, Sequence[Floats | None], bool, bool], CellGradients
]
"""From gradients of each output, of the last output and of the final states (None: zero), and
whether gradients of the inputs and of the first states are wanted."""


class CellPass(NamedTuple):
    """Each output (B, T, U) if wanted, the last one (B, U), and the way back."""

    y_BTU: Floats | None
    last_BU: Floats
    pullback: CellPullback


def dropout_factors(
    cell: Any, recording: Recording, call: int, lanes: int, features: int
) -> Factors:
    """Draw the dropout of one call: a factor for each lane and input, and for each lane and unit.

    They are the same for all steps and gates. A rate of 1 drops nothing in GRU and LSTM.
    """
    drawn = []
    sizes = features, cell.units
    for which, (rate, size) in enumerate(
        zip((cell.dropout, cell.recurrent_dropout), sizes, strict=True)
    ):
        acts = recording.training and rate and (rate < 1 or cell.drops_at_one)
        drawn.append(
            recording.factors(cell.seed, call, which, (lanes, size), rate) if acts else NO_FACTORS
        )
    return Factors(*drawn)
