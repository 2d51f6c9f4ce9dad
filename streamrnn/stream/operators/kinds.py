"""The protocol of the kinds of window, and their names in the pipeline file."""

from collections.abc import Iterator
from typing import Any, Protocol

from streamrnn.nn.models import Model
from streamrnn.stream.operators.carry import CarryOperator
from streamrnn.stream.operators.independent import IndependentOperator
from streamrnn.stream.operators.inputs import InputPlan
from streamrnn.stream.operators.model_output import ModelOutput
from streamrnn.stream.operators.whole import WholeOperator
from streamrnn.stream.operators.window_size import WindowSize
from streamrnn.stream.operators.workers import Workers
from streamrnn.stream.sources import Rows
from streamrnn.stream.states import StateTable
from streamrnn.stream.windows import StreamBatch


class WindowKind(Protocol):
    """Turns rows of streams into windows of a model, and its outputs into rows.

    `name`: [window] kind in the pipeline file. `carries_state`: the state of a stream is carried
    from one window to the next. `needs_end`: outputs are known only when the input has ended.
    `prepares_ahead`: a record batch may be sorted by stream while the one before it is computed.
    `waits`: rows of incomplete windows wait in the state table.
    """

    name: str
    carries_state: bool
    needs_end: bool
    prepares_ahead: bool
    waits: bool

    @staticmethod
    def runner(model: Model) -> Any:
        """Return the model as this kind runs it: `models.StepRunner` or `models.SequenceRunner`."""

    def __init__(self, runner: Any, plan: InputPlan, size: WindowSize, workers: Workers) -> None:
        """Create the operator of a model, which `runner` has returned."""

    def process(
        self, by_stream: StreamBatch, table: StateTable, rows: Rows, at_once: bool = False
    ) -> ModelOutput | None:
        """Return the outputs of a record batch; None if only `finish` returns them.

        `table` is unchanged until `ModelOutput.commit_states`, unless `at_once` allows states to be
        advanced before.
        """

    def finish(self) -> Iterator[tuple[Rows, StreamBatch, ModelOutput]]:
        """Return the outputs known only at the end of the input, in order of record batches."""


_KINDS: tuple[type[WindowKind], ...] = (CarryOperator, IndependentOperator, WholeOperator)
KINDS = {kind.name: kind for kind in _KINDS}
"""Name in the pipeline file -> the kind."""
