"""Kind whole: a stream is one sequence, scored when the input has ended."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from streamrnn.base.arrays import Bools, Floats, Ints
from streamrnn.base.display import count
from streamrnn.errors import DataError, ModelMismatchError, ShapeError
from streamrnn.nn.models import Model, SequenceRunner
from streamrnn.nn.models.steps import MANY, InputRows, own_steps
from streamrnn.stream.operators.window_kind import InputPlan, ModelOutput, WindowKind, WindowSize
from streamrnn.stream.operators.workers import Workers
from streamrnn.stream.sources import Rows
from streamrnn.stream.states import StateTable
from streamrnn.stream.windows import Inputs, Lanes, StreamBatch, pack_lanes, sequences_of


class WholeOperator(WindowKind):
    """Keeps all rows, and runs a model over each stream's sequence at the end.

    A reset ends one sequence and begins the next. Memory grows with the data.
    """

    name = "whole"
    form: SequenceRunner
    needs_end = True

    @staticmethod
    def runner(model: Model, steps: int | None = None, last: InputRows = ()) -> SequenceRunner:
        """Return a `SequenceRunner`.

        Raises ModelMismatchError if no sequence has an output for each of its rows.
        """
        form = SequenceRunner(model, own_steps(model, None, last), last)
        some = (MANY, 2 * MANY) if form.fixed is None else form.fixed[:1]
        try:
            other = [each for steps in some if (each := form.resized(steps)) is not None]
        except ShapeError:
            return form  # sequences may be shorter
        if len(other) == len(some) and (len(some) == 1 or other[0] != other[1]):
            name, steps = other[0]
            raise ModelMismatchError(
                f"output {name!r} has {steps} steps for a sequence of {some[0]}, but kind whole "
                'needs one for each row. Train the model with padding="same" or "causal", let it '
                'return one vector, or set [window] kind = "independent", which takes the last step'
            )
        return form

    def __init__(self, form: Any, plan: InputPlan, size: WindowSize, workers: Workers) -> None:
        super().__init__(form, plan, size, workers)
        self._batches: list[tuple[Rows, StreamBatch]] = []

    def process(
        self, by_stream: StreamBatch, table: StateTable, rows: Rows, at_once: bool = False
    ) -> None:
        """Keep the rows of a record batch."""
        lean = replace(rows, features=rows.features[:0], identifiers={})
        self._batches.append((lean, by_stream))

    def finish(self) -> Iterator[tuple[Rows, StreamBatch, ModelOutput]]:
        """Yield the outputs of all record batches, in the order in which these were added."""
        kept = [by_stream for _, by_stream in self._batches]
        if not kept:
            return
        inputs = [np.concatenate(parts) for parts in zip(*map(self.plan.of, kept), strict=True)]
        slot = np.concatenate([np.repeat(by_stream.slot, by_stream.length) for by_stream in kept])
        step = np.concatenate([by_stream.step_M for by_stream in kept])
        order, start, length, _ = sequences_of(slot, step)
        self._check_lengths(order[start], length)
        values, valid = self._run([a[order] for a in inputs], start, length)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        offset = 0
        for rows, by_stream in self._batches:
            step = back[offset : offset + len(by_stream.row_M)]
            offset += len(by_stream.row_M)
            computed = ModelOutput(by_stream.row_M, by_stream.step_M, values[step], valid[step])
            yield rows, by_stream, computed
        self._batches = []

    def _check_lengths(self, first: Ints, length: Ints) -> None:
        """Raise DataError for a sequence that the model does not accept, with its first row.

        `first`: the number of each sequence's first row among the scored rows of all record
        batches.
        """
        if self.form.fixed is None and self.form.ragged and self._why_refused(MANY) is None:
            return  # then no layer depends on the number of steps
        whys = {steps: self._why_refused(steps) for steps in np.unique(length).tolist()}
        refused = [i for i, steps in enumerate(length.tolist()) if whys[steps]]
        if not refused:
            return
        steps, index = int(length[refused[0]]), int(first[refused[0]])
        for rows, by_stream in self._batches:
            if index < len(by_stream.row_M):
                raise DataError(
                    f"{rows.place(int(by_stream.row_M[index]))}: a sequence of "
                    f"{count(steps, 'row')} begins here, but {whys[steps]}"
                )
            index -= len(by_stream.row_M)

    def _why_refused(self, steps: int) -> str | None:
        """Return why the model cannot score a sequence of this many rows; None if it can."""
        fixed = self.form.fixed
        if fixed is not None and steps != fixed[0]:
            return (
                f"the model accepts sequences of {fixed[0]} steps only, as {fixed[1]} depends on "
                f"the number. Score streams of that length, or set [window] kind = "
                f'"independent" and steps = {fixed[0]}'
            )
        try:
            resized = self.form.resized(steps)
        except ShapeError as error:
            return f"the model does not accept it: {error}"
        if resized is None:
            return None
        return (
            f"output {resized[0]!r} has {resized[1]} steps for it, but kind whole needs one for "
            f'each row. Score streams of {resized[1]} rows, or set [window] kind = "independent" '
            f"and steps = {resized[1]}"
        )

    def _run(self, inputs: Inputs, start: Ints, length: Ints) -> tuple[Floats, Bools]:
        shape = int(length.sum()), self.units
        values, valid = np.zeros(shape, np.float32), np.zeros(shape, bool)

        def work(lanes: Lanes) -> None:
            for window in lanes.windows(inputs, int(lanes.length[0])):
                outputs = self.form.run(window.inputs, window.length_B)
                row_BT = window.rows()
                steps = np.arange(row_BT.shape[1]) < window.length_B[:, None]
                final = row_BT[np.arange(len(window.length_B)), window.length_B - 1]
                first = 0
                for output, (name, _) in zip(outputs, self.form.outputs, strict=True):
                    last = first + output.shape[-1]
                    if output.ndim == 3 and output.shape[1] != row_BT.shape[1]:
                        # A custom layer, whose compute_output_shape does not say so.
                        raise ModelMismatchError(
                            f"output {name!r} has {output.shape[1]} steps for a sequence of "
                            f"{row_BT.shape[1]}, but kind whole needs one for each row"
                        )
                    rows: Ints = row_BT[steps] if output.ndim == 3 else final
                    values[rows, first:last] = output[steps] if output.ndim == 3 else output
                    valid[rows, first:last] = True
                    first = last

        longest = int(length.max(initial=1))
        self.workers.map(work, pack_lanes(start, length, self.lanes, longest, self.workers.threads))
        return values, valid
