"""Kind carry: every row is a step, and the state is carried from row to row."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from streamrnn.base.arrays import Bools, Floats, Ints
from streamrnn.errors import ModelMismatchError
from streamrnn.nn.models import Model, StepPlan, StepRunner, has_no_features
from streamrnn.nn.models.steps import InputRows
from streamrnn.stream.operators.window_kind import InputPlan, ModelOutput, WindowKind, WindowSize
from streamrnn.stream.operators.workers import Workers
from streamrnn.stream.sources import Rows
from streamrnn.stream.states import StateTable
from streamrnn.stream.windows import Inputs, Lanes, StreamBatch, pack_lanes

_FEW = 1024
"""Largest number of steps of a record batch that one window takes as they are, not packed into
lanes: packing takes 1.2 times the CPU with 1,024 rows, more with fewer, 1.05 times with 16,384."""
_SMALL = 64
"""Largest number of lanes of a window that is planned once for all batches of its size."""
_NUMBERS = np.arange(_FEW)
_NUMBERS.flags.writeable = False

# States of some lanes: name -> (B, size).
_States = Mapping[str, Floats]
_OTHER_KINDS = (
    'Kind "carry" runs one step per row. Set [window] kind = "independent" or "whole": they run '
    "complete sequences."
)


class CarryOperator(WindowKind):
    """Runs a causal model over the steps of record batches; a state table carries the states."""

    name = "carry"
    form: StepRunner
    carries_state = prepares_ahead = True

    @staticmethod
    def runner(model: Model, steps: int | None = None, last: InputRows = ()) -> StepRunner:
        """Return a `StepRunner`.

        Raises ModelMismatchError, with the layer, or the input, that needs sequences.
        """
        if any(last):
            raise ModelMismatchError(
                f"[model] inputs: in kind carry, an input has no steps to set. {_OTHER_KINDS}"
            )
        try:
            runner = StepRunner(model)
        except ModelMismatchError as error:
            raise ModelMismatchError(f"{error}. {_OTHER_KINDS}") from None
        for name, shape, dtype in model.input_specs:
            if dtype == "float32" and has_no_features(shape, dtype):
                raise ModelMismatchError(
                    f"input {name!r} of shape {(None, *shape)} takes a sequence of numbers at "
                    f"once. {_OTHER_KINDS}"
                )
        return runner

    def __init__(self, form: Any, plan: InputPlan, size: WindowSize, workers: Workers) -> None:
        super().__init__(form, plan, size, workers)
        self._weights = self.form.model.count_params()
        self._held: dict[str, Floats] = {}
        self._plans: dict[tuple[int, int], StepPlan] = {}

    def process(
        self,
        by_stream: StreamBatch,
        table: StateTable,
        rows: Rows | None = None,
        at_once: bool = False,
    ) -> ModelOutput:
        """Return the outputs of all M steps, from the states in `table`.

        Commit the states of one batch before the next call. With `at_once`, the states in `table`
        may be advanced during this call, which saves a copy of the states; an error may leave some
        of them advanced.
        """
        inputs, rows_M = self.plan.of(by_stream), len(by_stream.row_M)
        if self.takes(rows_M):
            lengths = set(by_stream.length.tolist())
            if len(lengths) == 1 and (steps := lengths.pop()):
                last = None if by_stream.all_last else by_stream.last
                segments = by_stream.slot, by_stream.row_M, by_stream.step_M, by_stream.reset, last
                return self._few(table, inputs, steps, *segments)
        groups = self.workers.shares(rows_M * self._weights)
        values = np.empty((rows_M, self.units), np.float32)
        batch = _Batch(by_stream, table, inputs, values, {})
        packed = pack_lanes(by_stream.start, by_stream.length, self.lanes, self.steps, groups)
        overflows: dict[int, str] = {}
        # A stream that is reset in the batch has several segments: none may see another's state.
        if at_once and by_stream.all_last:
            self.workers.map(partial(self._move, batch), packed)
            commit_states: Callable[[], None] = partial(_reset_empty, by_stream, table)
            for segment, why in batch.infinite.items():
                end = by_stream.start[segment] + by_stream.length[segment] - 1
                overflows[int(by_stream.row_M[end])] = why
        else:
            commit_states = self._hold(batch, packed)
            if batch.infinite:
                some = np.array(sorted(batch.infinite))
                slots, reset = by_stream.slot[some], by_stream.reset[some]
                start, length = by_stream.start[some], by_stream.length[some]
                row_M = by_stream.row_M
                overflows = self._overflows(table, inputs, row_M, slots, reset, start, length)
        return ModelOutput(
            row_K=by_stream.row_M,
            step_K=by_stream.step_M,
            values_KU=batch.values_MU,
            commit_states=commit_states,
            overflows=overflows,
        )

    def takes(self, rows: int) -> bool:
        """Return whether this many steps are run in one window without packing."""
        return rows <= _FEW and self.workers.shares(rows * self._weights) == 1

    def one_each(self, slots: Ints, features_NF: Floats, table: StateTable) -> ModelOutput:
        """Return the outputs of one step of each of N streams, for an N that `takes` accepts."""
        inputs, steps = self.plan.arrays(features_NF, {}), table.steps(slots)
        steps += 1
        return self._few(table, inputs, 1, slots, _NUMBERS[: len(slots)], steps)

    def _few(
        self,
        table: StateTable,
        inputs: Inputs,
        steps: int,
        slots: Ints,
        row_K: Ints,
        step_K: Ints,
        reset: Bools | None = None,
        last: Bools | None = None,
    ) -> ModelOutput:
        """Return the outputs of segments of `steps` steps each, run in one window without packing.

        `reset` and `last` are as in a StreamBatch; None: no segment is reset, all are last.
        """
        shape = len(slots), steps
        window = [array.reshape(shape + array.shape[1:]) for array in inputs]
        # The plan's states are in use until they are committed; then the plan is kept again.
        plan = self._plans.pop(shape, None) or StepPlan(self.form, window)
        table.gather(slots, reset, plan.states)
        values = _side_by_side(plan.run(window))
        overflows: dict[int, str] = {}
        if plan.overflowed:
            start, length = np.arange(0, len(row_K), steps), np.full(len(slots), steps)
            overflows = self._overflows(table, inputs, row_K, slots, reset, start, length)

        def commit_states() -> None:
            _write_last(plan.states, slots, last, table)
            self._keep(shape, plan)

        values = values.reshape(-1, self.units)
        return ModelOutput(row_K, step_K, values, None, commit_states, overflows)

    def _keep(self, shape: tuple[int, int], plan: StepPlan) -> None:
        """Keep a plan for the next batch of its shape if it is of one step.

        Of large plans, only the last is kept.
        """
        lanes, steps = shape
        if lanes > _SMALL:
            self._plans = {s: kept for s, kept in self._plans.items() if s[0] <= _SMALL}
        if steps == 1:
            self._plans[shape] = plan

    def _move(self, batch: "_Batch", lanes: Lanes) -> None:
        """Run some lanes and advance their states in the table."""
        slots, reset = batch.by_stream.slot[lanes.segment], batch.by_stream.reset[lanes.segment]
        batch.table.move(slots, reset, partial(self._run, batch, lanes))

    def _hold(self, batch: "_Batch", packed: list[Lanes]) -> Callable[[], None]:
        """Run all lanes on copies of their states; return the call that writes these back."""
        ends = list(accumulate([len(lanes.segment) for lanes in packed]))
        # Reused from batch to batch: with 70,000 segments new pages cost more than the copies.
        if packed and ends[-1] > len(next(iter(self._held.values()), ())):
            self._held = batch.table.layout.empty_states(ends[-1])
        shares = [
            (lanes, {n: a[end - len(lanes.segment) : end] for n, a in self._held.items()})
            for lanes, end in zip(packed, ends, strict=True)
        ]
        by_stream, table = batch.by_stream, batch.table

        def work(share: tuple[Lanes, _States]) -> None:
            lanes, states = share
            table.gather(by_stream.slot[lanes.segment], by_stream.reset[lanes.segment], states)
            self._run(batch, lanes, states)

        def write_back(share: tuple[Lanes, _States]) -> None:
            lanes, states = share
            slots, last = by_stream.slot[lanes.segment], by_stream.last[lanes.segment]
            _write_last(states, slots, last, table)

        def commit_states() -> None:
            if len(shares) == 1:
                write_back(shares[0])
            else:
                self.workers.map(write_back, shares)
            _reset_empty(by_stream, table)

        self.workers.map(work, shares)
        return commit_states

    def _run(self, batch: "_Batch", lanes: Lanes, states: _States) -> None:
        """Write the outputs of some lanes to their rows; `states` are advanced in place."""
        # With fewer lanes, windows get more steps, so that they have as many cells: each call of a
        # model costs about 50 µs. Windows also get up to a quarter longer, all of one length, if
        # the last one would be short otherwise.
        steps = max(self.steps, self.lanes * self.steps // len(lanes.segment))
        longest = int(lanes.length[0])
        steps = -(-longest // -(-4 * longest // (5 * steps)))
        for window in lanes.windows(batch.inputs, steps):
            live = len(window.length_B)
            part = {name: array[:live] for name, array in states.items()}
            values = _side_by_side(self.form.run(window.inputs, window.length_B, part))
            window.scatter(values, batch.values_MU)
        for lane, why in _infinite(states).items():
            batch.infinite[int(lanes.segment[lane])] = why

    def _overflows(
        self,
        table: StateTable,
        inputs: Inputs,
        row_M: Ints,
        slots: Ints,
        reset: Bools | None,
        start: Ints,
        length: Ints,
    ) -> dict[int, str]:
        """Return row -> why, for the first row of each segment after which a state is not finite.

        Runs the segments again from the states in `table`, step by step.
        """
        first: dict[int, tuple[int, str]] = {}
        states = table.layout.empty_states(len(slots))
        table.gather(slots, reset, states)
        for step in range(int(length.max(initial=0))):
            index = start + np.minimum(step, length - 1)
            window = [array.take(index, axis=0)[:, None] for array in inputs]
            self.form.run(window, (step < length).astype(np.int64), states)
            for lane, why in _infinite(states).items():
                first.setdefault(lane, (int(row_M[index[lane]]), why))
            if len(first) == len(slots):
                break
        return dict(first.values())


class _Batch(NamedTuple):
    """A record batch while the model runs on it.

    `infinite`: segment -> what is wrong with the state after it.
    """

    by_stream: StreamBatch
    table: StateTable
    inputs: Inputs
    values_MU: Floats
    infinite: dict[int, str]


def _side_by_side(outputs: list[Floats]) -> Floats:
    """Return the outputs (B, T, U) of a model as one array."""
    return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)


def _infinite(states: _States) -> dict[int, str]:
    """Return, for each lane with a state that is NaN or infinite, what is wrong with it."""
    wrong = {}
    for name, array in states.items():
        finite = np.isfinite(array)
        if not np.logical_and.reduce(finite, axis=None):  # many lanes: 3 times as fast as tobytes
            for lane in np.flatnonzero(~finite.all(axis=1)).tolist():
                value = array[lane][~finite[lane]][0]
                wrong[lane] = f"state {name!r}: the model returned {value}"
    return wrong


def _write_last(states: _States, slots: Ints, last: Bools | None, table: StateTable) -> None:
    """Write the states of lanes to their slots in the table, where `last` is set (None: all)."""
    if last is not None and not last.all():
        slots, states = slots[last], {name: array[last] for name, array in states.items()}
    table.scatter(slots, states)


def _reset_empty(by_stream: StreamBatch, table: StateTable) -> None:
    """Write the initial state of the streams that were reset and have had no step since."""
    empty = by_stream.last & by_stream.reset & (by_stream.length == 0)
    if empty.any():
        table.reset(by_stream.slot[empty])
