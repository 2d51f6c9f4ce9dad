"""The interface of a kind of window, and the inputs of its model. `KINDS` is in `__init__.py`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Bools, Floats, Ints
from streamrnn.errors import ModelMismatchError
from streamrnn.nn.models import Model, SequenceRunner, has_no_features
from streamrnn.nn.models.steps import InputRows, own_steps
from streamrnn.stream.operators.workers import Workers
from streamrnn.stream.sources import Rows
from streamrnn.stream.states import StateTable
from streamrnn.stream.windows import Inputs, StreamBatch

InputSpec = tuple[str, tuple[int | None, ...], str]


@dataclass(frozen=True)
class InputPlan:
    """The inputs of a model, in its order: float32 columns by index, or one identifier by name.

    None stands for all float32 columns, and an integer for one column without an axis of features.
    """

    inputs: tuple[Ints | int | str | None, ...]

    def arrays(self, features_MF: Floats, identifiers: Mapping[str, Array]) -> Inputs:
        """Return one array per input: (M, F) float32, (M,) float32, or (M,) of identifiers."""
        arrays: Inputs = []
        for source in self.inputs:
            if source is None:
                arrays.append(features_MF)
            elif isinstance(source, str):
                arrays.append(identifiers[source])
            else:
                arrays.append(np.ascontiguousarray(features_MF[:, source]))
        return arrays

    def of(self, by_stream: StreamBatch) -> Inputs:
        """Return the inputs over the M steps of a record batch."""
        return self.arrays(by_stream.features_MF, by_stream.identifiers)


def choose_inputs(
    specs: Sequence[InputSpec], names: Sequence[str], wanted: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Choose the features of each model input: `wanted` or, if it is empty, all for a single input.

    `names` are the features, time features included; the config has checked that `wanted` has each
    of them, and no other. Raises ModelMismatchError if `wanted` has other inputs than the model, or
    is empty although the model has several.
    """
    if not wanted:
        if len(specs) != 1:
            raise ModelMismatchError(
                f"[model] inputs: the model has {len(specs)} inputs "
                f"({', '.join(s[0] for s in specs)}): list the features of each one, as in "
                f'inputs = {{ {specs[0][0]} = ["{names[0]}"] }}'
            )
        return {specs[0][0]: list(names)}
    inputs = [s[0] for s in specs]
    if sorted(wanted) != sorted(inputs):
        raise ModelMismatchError(
            f"[model] inputs: expected the inputs of the model ({', '.join(inputs)}), received "
            f"{', '.join(wanted)}"
        )
    return {name: list(features) for name, features in wanted.items()}


def feature_kinds(
    specs: Sequence[InputSpec], chosen: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return how each feature is read: as "float32", "int64" or "string".

    Raises ModelMismatchError if an input takes other axes or another number of features, or if two
    inputs read a feature as different types.
    """
    kinds: dict[str, str] = {}
    for name, shape, dtype in specs:
        features, listed = chosen[name], ", ".join(chosen[name])
        if len(shape) not in (1, 2):
            raise ModelMismatchError(
                f"[source] features: the model's input {name!r} has shape {(None, *shape)}; a "
                "pipeline passes (batch, time, features), or (batch, time) from one column. Start "
                "the model with such an Input, and reshape it with TimeDistributed(Reshape(…))"
            )
        if dtype != "float32" or len(shape) == 1:
            if len(features) != 1:
                raise ModelMismatchError(
                    f"[source] features: the model's input {name!r} takes one column of {dtype}, "
                    f"received {len(features)}: {listed}"
                )
        elif shape[-1] not in (None, len(features)):
            raise ModelMismatchError(
                f"[source] features: the model's input {name!r} takes {shape[-1]} features, but "
                f"the pipeline gives {len(features)}.\n  model:    {name} {shape}\n"
                f"  pipeline: {listed}"
            )
        for feature in features:
            if kinds.setdefault(feature, dtype) != dtype:
                raise ModelMismatchError(
                    f"[model] inputs.{name}: feature {feature!r} is read as {kinds[feature]} by "
                    f"one input and as {dtype} by another: use a column for each"
                )
    return kinds


def plan_inputs(
    specs: Sequence[InputSpec], chosen: Mapping[str, Sequence[str]], columns: Sequence[str]
) -> InputPlan:
    """Return the plan; `columns` names the float32 columns of a record batch's features."""
    inputs: list[Ints | int | str | None] = []
    for name, shape, dtype in specs:
        features = chosen[name]
        if dtype != "float32":
            inputs.append(features[0])
        elif has_no_features(shape, dtype):
            inputs.append(columns.index(features[0]))
        else:
            index = np.array([columns.index(f) for f in features], np.int64)
            whole = len(index) == len(columns) and bool((index == np.arange(len(index))).all())
            inputs.append(None if whole else index)
    return InputPlan(tuple(inputs))


class WindowSize(NamedTuple):
    """The size of windows: the keys of [window] besides the kind."""

    lanes: int
    steps: int
    stride: int


@dataclass
class ModelOutput:
    """The result for a record batch: values of K of its rows.

    `row_K` int64 has these rows, `step_K` the step number of each since the stream's last reset,
    `values_KU` float32 the model's outputs side by side; `valid_KU` bool marks the values that the
    model returned (None: all). `commit_states` writes the streams' new states, and may be called
    again after an interrupt; until it is called, the state table is unchanged (but see `at_once` in
    `WindowKind.process`). `overflows`: row -> what is wrong, for streams whose new state is NaN or
    infinite.
    """

    row_K: Ints
    step_K: Ints
    values_KU: Floats
    valid_KU: Bools | None = None
    commit_states: Callable[[], None] = lambda: None
    overflows: dict[int, str] = field(default_factory=dict)


class WindowKind(ABC):
    """Turns rows of streams into windows for a model, and the model's outputs into values of rows.

    `name`: [window] kind in the pipeline file. `carries_state`: the state of a stream is carried
    from one window to the next. `needs_end`: there are outputs only when the input has ended.
    `prepares_ahead`: a record batch may be sorted by stream while the one before it is computed.
    `waits`: rows of incomplete windows wait in the state table.
    """

    name: str
    form: Any
    carries_state = needs_end = prepares_ahead = waits = False

    @staticmethod
    def runner(model: Model, steps: int | None = None, last: InputRows = ()) -> Any:
        """Return the model in this kind's form: `models.StepRunner` or `models.SequenceRunner`.

        `steps`: the rows of a window, which only kinds of such windows heed. `last`: how many of
        them each input reads. Raises ModelMismatchError.
        """
        return SequenceRunner(model, own_steps(model, steps, last), last)

    def __init__(self, form: Any, plan: InputPlan, size: WindowSize, workers: Workers) -> None:
        """Create the operator of a model in the `form` that `runner` returned."""
        self.form, self.plan, self.workers = form, plan, workers
        self.lanes, self.steps, self.stride = size
        self.units = sum(units for _, units in form.outputs)

    @abstractmethod
    def process(
        self, by_stream: StreamBatch, table: StateTable, rows: Rows, at_once: bool = False
    ) -> ModelOutput | None:
        """Return the outputs of a record batch; None if only `finish` returns them.

        `table` is unchanged until `ModelOutput.commit_states`, unless `at_once` allows states to be
        advanced earlier.
        """

    def finish(self) -> Iterator[tuple[Rows, StreamBatch, ModelOutput]]:
        """Yield the outputs that the end of the input completes, in the order of record batches."""
        return iter(())
