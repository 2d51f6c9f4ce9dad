"""The interface of a kind of window. `KINDS`, the list of them, is in `operators/__init__.py`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from streamrnn.base.arrays import Bools, Floats, Ints
from streamrnn.nn.models import Model, SequenceRunner
from streamrnn.stream.operators.inputs import InputPlan
from streamrnn.stream.operators.workers import Workers
from streamrnn.stream.sources import Rows
from streamrnn.stream.states import StateTable
from streamrnn.stream.windows import StreamBatch


class WindowSize(NamedTuple):
    """The size of windows: the keys of [window] besides the kind."""

    lanes: int
    steps: int
    stride: int


@dataclass
class ModelOutput:
    """The result for a record batch: values of K of its rows.

    `row_K` int64 is the row of each, `step_K` its step number since the stream's last reset,
    `values_KU` float32 the model's outputs side by side; `valid_KU` bool marks the values that the
    model returned for that row (None: all). `commit_states` writes the streams' new states, and may
    be called again after an interrupt; until it is called the state table is unchanged.
    `overflows`: row -> what is wrong, for streams whose new state is NaN or infinite.
    """

    row_K: Ints
    step_K: Ints
    values_KU: Floats
    valid_KU: Bools | None = None
    commit_states: Callable[[], None] = lambda: None
    overflows: dict[int, str] = field(default_factory=dict)


class WindowKind(ABC):
    """Turns rows of streams into windows of a model, and its outputs into rows.

    `name`: [window] kind in the pipeline file. `carries_state`: the state of a stream is carried
    from one window to the next. `needs_end`: there are outputs only when the input has ended.
    `prepares_ahead`: a record batch may be sorted by stream while the one before it is computed.
    `waits`: rows of incomplete windows wait in the state table.
    """

    name: str
    carries_state = needs_end = prepares_ahead = waits = False

    @staticmethod
    def runner(model: Model) -> Any:
        """Return the model in this kind's form: `models.StepRunner` or `models.SequenceRunner`."""
        return SequenceRunner(model)

    @abstractmethod
    def __init__(self, runner: Any, plan: InputPlan, size: WindowSize, workers: Workers) -> None:
        """Create the operator of a model in the form that `runner` returned."""

    @abstractmethod
    def process(
        self, by_stream: StreamBatch, table: StateTable, rows: Rows, at_once: bool = False
    ) -> ModelOutput | None:
        """Return the outputs of a record batch; None if only `finish` returns them.

        `table` is unchanged until `ModelOutput.commit_states`, unless `at_once` allows states to be
        advanced before.
        """

    def finish(self) -> Iterator[tuple[Rows, StreamBatch, ModelOutput]]:
        """Return the outputs that the end of the input completes, in order of record batches."""
        return iter(())
