"""Kind carry: every row is a step, and the state goes on from the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from streamrnn.arrays import Floats
from streamrnn.errors import ModelMismatchError
from streamrnn.models import Stream
from streamrnn.operators.inputs import InputPlan
from streamrnn.operators.model_output import ModelOutput
from streamrnn.operators.workers import Workers
from streamrnn.sources import Rows
from streamrnn.states import StateTable
from streamrnn.windows import Inputs, Lanes, StreamBatch, pack_lanes

# Of some lanes: name -> (B, size).
States = Mapping[str, Floats]
_OTHER_KINDS = (
    'Kind "carry" runs it so. Set [window] kind = "independent" or "whole", which give it complete '
    "sequences."
)


class CarryOperator:
    """Runs a causal model over the steps of record batches, state carried in a state table."""

    name = "carry"
    carries_state, needs_end, prepares_ahead, waits = True, False, True, False

    @staticmethod
    def runner(model: Any) -> Stream:
        """The model step by step; ModelMismatchError names a layer that needs more."""
        try:
            return Stream(model)
        except ModelMismatchError as error:
            raise ModelMismatchError(f"{error}. {_OTHER_KINDS}") from None

    @classmethod
    def of(cls, runner: Stream, plan: InputPlan, size: Any, workers: Workers) -> CarryOperator:
        """One for a run of the model, by [window] lanes and steps."""
        return cls(runner, plan, size.lanes, size.steps, workers)

    def __init__(
        self, stream: Stream, plan: InputPlan, lanes: int, steps: int, workers: Workers
    ) -> None:
        self.stream = stream
        self.plan = plan
        self.lanes = lanes
        self.steps = steps
        self.workers = workers
        self.units = sum(units for _, units in stream.outputs)
        self._held: dict[str, Floats] = {}

    def process(
        self,
        by_stream: StreamBatch,
        table: StateTable,
        rows: Rows | None = None,
        at_once: bool = False,
    ) -> ModelOutput:
        """Outputs of all M steps, from the states in `table`. Commit the states of one batch
        before the next one.

        With `at_once` states may move on before that, and an error leaves them between: it saves
        a copy of what all streams of a record batch have.
        """
        batch = _Batch(
            by_stream,
            table,
            self.plan.of(by_stream),
            np.empty((len(by_stream.row_M), self.units), np.float32),
        )
        packed = pack_lanes(
            by_stream.start, by_stream.length, self.lanes, self.steps, self.workers.threads
        )
        # A stream that begins fresh in the midst has segments that must not see each other's state.
        if at_once and by_stream.last.all():
            self.workers.map(partial(self._move, batch), packed)
            commit_states: Callable[[], None] = partial(_reset_empty, by_stream, table)
        else:
            commit_states = self._hold(batch, packed)
        return ModelOutput(
            row_K=by_stream.row_M,
            step_K=by_stream.step_M,
            values_KU=batch.values_MU,
            commit_states=commit_states,
        )

    def finish(self) -> Iterator[tuple[Rows, StreamBatch, ModelOutput]]:
        """Nothing: every row has come out."""
        return iter(())

    def _move(self, batch: _Batch, lanes: Lanes) -> None:
        """Run some lanes and move their states on in the table."""
        slots, fresh = batch.by_stream.slot[lanes.segment], batch.by_stream.fresh[lanes.segment]
        batch.table.move(slots, fresh, partial(self._run, batch, lanes))

    def _hold(self, batch: _Batch, packed: list[Lanes]) -> Callable[[], None]:
        """Run all lanes on copies of their states; what moves them on in the table."""
        ends = np.cumsum([len(lanes.segment) for lanes in packed], dtype=np.int64).tolist()
        # Kept from batch to batch: with 70,000 segments new pages cost more than the copies.
        if packed and ends[-1] > len(next(iter(self._held.values()), ())):
            self._held = batch.table.empty_states(ends[-1])
        pieces = [
            (lanes, {n: a[end - len(lanes.segment) : end] for n, a in self._held.items()})
            for lanes, end in zip(packed, ends, strict=True)
        ]
        by_stream, table = batch.by_stream, batch.table

        def work(piece: tuple[Lanes, States]) -> None:
            lanes, states = piece
            table.gather(by_stream.slot[lanes.segment], by_stream.fresh[lanes.segment], states)
            self._run(batch, lanes, states)

        def commit_states() -> None:
            self.workers.map(lambda piece: _carry_on(*piece, by_stream, table), pieces)
            _reset_empty(by_stream, table)

        self.workers.map(work, pieces)
        return commit_states

    def _run(self, batch: _Batch, lanes: Lanes, states: States) -> None:
        """Outputs of some lanes into their rows; `states` move on in place."""
        for window in lanes.windows(batch.inputs, self.steps):
            live = len(window.length_B)
            part = {name: array[:live] for name, array in states.items()}
            outputs = self.stream.run(window.inputs, window.length_B, part)
            values = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
            window.scatter(values, batch.values_MU)


class _Batch(NamedTuple):
    """A record batch on its way through the model."""

    by_stream: StreamBatch
    table: StateTable
    inputs: Inputs
    values_MU: Floats


def _carry_on(lanes: Lanes, states: States, by_stream: StreamBatch, table: StateTable) -> None:
    """Write back the state that each stream's last segment leaves."""
    slots, last = by_stream.slot[lanes.segment], by_stream.last[lanes.segment]
    if not last.all():
        slots, states = slots[last], {name: array[last] for name, array in states.items()}
    table.scatter(slots, states)


def _reset_empty(by_stream: StreamBatch, table: StateTable) -> None:
    """A stream that began fresh and had no step since is in the initial state."""
    empty = by_stream.last & by_stream.fresh & (by_stream.length == 0)
    if empty.any():
        table.reset(by_stream.slot[empty])
