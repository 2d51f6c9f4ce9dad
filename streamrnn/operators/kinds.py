"""Kinds of window: what each of them says and does, and their names in the pipeline file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, Self

from streamrnn.operators.carry import CarryOperator
from streamrnn.operators.independent import IndependentOperator
from streamrnn.operators.inputs import InputPlan
from streamrnn.operators.model_output import ModelOutput
from streamrnn.operators.whole import WholeOperator
from streamrnn.operators.workers import Workers
from streamrnn.sources import Rows
from streamrnn.states import StateTable
from streamrnn.windows import StreamBatch


class WindowSize(NamedTuple):
    """What [window] says beside the kind."""

    lanes: int
    steps: int
    stride: int


class WindowKind(Protocol):
    """How the rows of streams become windows of a model, and its outputs rows again.

    `name`: [window] kind in the pipeline file. `carries_state`: the state of a stream goes on from
    one window to the next. `needs_end`: nothing comes out before the input ends. `prepares_ahead`:
    a record batch may be sorted by stream while the one before it is computed. `waits`: rows that
    are short of a window wait in the state table.
    """

    name: str
    carries_state: bool
    needs_end: bool
    prepares_ahead: bool
    waits: bool

    @staticmethod
    def runner(model: Any) -> Any:
        """How the model runs in this kind: `models.Stream` or `models.Whole`."""

    @classmethod
    def of(cls, runner: Any, plan: InputPlan, size: WindowSize, workers: Workers) -> Self:
        """One for a run of the model."""

    def process(
        self, by_stream: StreamBatch, table: StateTable, rows: Rows, at_once: bool = False
    ) -> ModelOutput | None:
        """The outputs of a record batch; None if they come with `finish`.

        `table` stays as it is until `ModelOutput.commit_states`, unless `at_once` lets states move
        on before.
        """

    def finish(self) -> Iterator[tuple[Rows, StreamBatch, ModelOutput]]:
        """The outputs that come at the end of the input, in the order of its record batches."""


_KINDS: tuple[type[WindowKind], ...] = (CarryOperator, IndependentOperator, WholeOperator)
KINDS = {kind.name: kind for kind in _KINDS}
"""Name in the pipeline file -> the kind."""
