"""A pipeline with its model: `LoadedPipeline`; also bound to its columns: `BoundPipeline`."""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from itertools import chain

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Floats
from streamrnn.base.display import count, location, short_model
from streamrnn.errors import (
    ConfigError,
    DTypeError,
    MissingFileError,
    ModelMismatchError,
    ShapeError,
)
from streamrnn.nn.formats import embedded_ids, inputs_of, load_model
from streamrnn.nn.models import Model, SequenceRunner, StepRunner
from streamrnn.nn.models.mixture import gives_moments, quantiles_of
from streamrnn.nn.models.runners import IdLimit, id_limits
from streamrnn.nn.models.steps import column_names
from streamrnn.stream.config import both_answers, use_of
from streamrnn.stream.config.load import Config
from streamrnn.stream.config.schema import FeatureSection
from streamrnn.stream.operators import (
    KINDS,
    Emitter,
    InputPlan,
    WindowKind,
    WindowSize,
    Workers,
    choose_inputs,
    feature_kinds,
    plan_inputs,
)
from streamrnn.stream.sources import (
    Contract,
    Feature,
    FileSource,
    SourceFile,
    Table,
    TargetColumns,
    check_zone,
    joined_renames,
    load_vocabulary,
    used_schema,
)
from streamrnn.stream.sources.formats.base import TICKS
from streamrnn.stream.sources.vocabulary import Vocabulary
from streamrnn.stream.states import MATRIX, Layout, read_state_file
from streamrnn.stream.windows import RowPolicy


class LoadedPipeline:
    """A config and its model, checked against each other.

    `read_init` reads the state table that [state] init names; `has_commits` returns whether the
    output has commits, and is called only if the kind of window depends on it. Raises ConfigError
    or ModelMismatchError if config and model do not match.
    """

    def __init__(
        self,
        config: Config,
        read_init: Callable[[str], pa.Table] = read_state_file,
        model_path: str | None = None,
        has_commits: Callable[[], bool] = lambda: False,
    ) -> None:
        self.read_init = read_init
        self.model, self.moments = _load(config, model_path or config.model.path)
        self.choice = choose_kind(config, self.model, has_commits)
        if self.choice.kept:
            config = config.with_keys(window={"kind": config.window.kind})
        self.config = config
        check_zone(config.source.time_zone)
        specs, names = self.model.input_specs, config.source.feature_names
        chosen = choose_inputs(specs, names, _wanted_inputs(config, self.model))
        kinds = feature_kinds(specs, chosen)
        limits = {chosen[name][0]: limit for name, limit in id_limits(self.model).items()}
        self.contract = Contract(
            key=config.source.key,
            time=config.source.time,
            features=tuple(
                _feature(f, kinds[f.name], config, limits.get(f.name))
                for f in config.source.features
            ),
            time_features=config.source.time_features,
            time_zone=config.source.time_zone,
            reset=config.source.reset,
            added=config.target.added,
        )
        self.input_columns: dict[str, list[str]] = chosen
        self.inputs: InputPlan = plan_inputs(specs, chosen, self.contract.feature_names())
        self.kind = KINDS[config.window.kind]
        self.last = _last_rows(config, self.model)
        steps = config.window.steps
        self.runner: StepRunner | SequenceRunner = self.kind.runner(self.model, steps, self.last)
        if self.kind.waits and isinstance(self.runner, SequenceRunner):
            fixed = self.runner.fixed
            if fixed is not None and fixed[0] != steps:
                raise ModelMismatchError(
                    f"[window] steps: the model accepts windows of {fixed[0]} steps only, as "
                    f"{fixed[1]} depends on their number; received {steps}. Set steps = {fixed[0]}"
                )
            try:
                self.runner.resized(steps)
            except ShapeError as error:
                raise ModelMismatchError(
                    f"[window] steps: the model does not accept windows of {steps} steps: {error}"
                ) from None
        self.names = _output_names(self.runner, config)
        self.fingerprint: str = self.model.fingerprint()
        self.renames = config.source.renames

    def initial(self) -> dict[str, Floats]:
        """Return the initial state of one stream: name -> (size,) float32."""
        states = self.runner.initial_state(1)
        return {name: np.asarray(a)[0] for name, a in states.items()}

    @cached_property
    def columns(self) -> list[str] | None:
        """Columns in use; None for all of them."""
        carried = self.config.columns
        return None if carried is None else self.contract.columns(carried)

    def source(
        self, files: Sequence[SourceFile], rows: int | None = None, table: Table | None = None
    ) -> FileSource:
        """Return a source of these files, with `rows` per record batch (default: as in config).

        `table`: the table that the files belong to.
        """
        config = self.config.source
        size = rows or config.batch_rows
        return FileSource(
            list(files),
            self.columns,
            size,
            time=config.time,
            format="parquet" if table is not None else config.format,
            features=self.contract.features_alone(self.config.columns),
            renames=joined_renames(self.renames, {} if table is None else table.renames),
            types=config.types,
            delimiter=config.delimiter,
            null_values=config.null_values,
            table=table,
            roles=self.contract.columns(()),
            by_time=config.sort == "file",
            numbers=[f.name for f in self.contract.floats],
            rejects=config.bad == "reject",
        )

    def for_worker(self) -> "LoadedPipeline":
        """Return a copy that can be pickled, and scores on one thread."""
        worker = copy(self)
        worker.config = self.config.with_keys(model={"threads": 1})
        worker.read_init = read_state_file
        return worker

    def config_with_vocabularies(self) -> Config:
        """Return the config with the content of vocabularies in place of their files."""
        vocabularies = self.contract.vocabularies
        features = tuple(
            f.model_copy(update={"vocabulary": vocabularies[f.name].as_table()})
            if f.name in vocabularies
            else f
            for f in self.config.source.features
        )
        return self.config.with_keys(source={"features": features})

    def bind(self, schema: pa.Schema, path: str) -> "BoundPipeline":
        """Bind the pipeline to a source whose columns in use have this schema.

        Raises DataError, DTypeError or ConfigError, naming `path` and the column.
        """
        schema = used_schema(schema, self.columns, path)
        if self.columns is None:
            used_schema(schema, self.contract.columns(), path)
        self.contract.check(schema, path)
        return BoundPipeline(self, schema, path)


@dataclass(frozen=True)
class BoundPipeline:
    """A loaded pipeline with its columns' types; unless it `writes`, rows only advance states."""

    loaded: LoadedPipeline
    schema: pa.Schema
    path: str
    writes: bool = True

    @cached_property
    def policy(self) -> RowPolicy:
        """What happens to late, repeated and invalid rows, and after gaps."""
        source = self.loaded.config.source
        contract = self.loaded.contract
        gap = self._ticks("[source] max_gap", source.max_gap)
        idle = self._ticks("[state] idle", self.loaded.config.state.idle)
        return RowPolicy(
            late=source.late,
            bad=source.bad,
            repeated=source.repeated,
            max_gap=min((ticks for ticks in (gap, idle) if ticks is not None), default=None),
            idle=idle,
            previous=frozenset(f.name for f in contract.features if f.nulls == "previous"),
            float_names=tuple(f.name for f in contract.floats),
            max_rejects=source.max_rejects,
        )

    def _ticks(self, key: str, gap: timedelta | int | None) -> int | None:
        """Return a length of time in ticks of the time column; None if it is not set."""
        if not gap:
            return None
        name = str(self.loaded.config.source.time)
        kind = self.schema.field(name).type
        if isinstance(gap, timedelta) and pa.types.is_timestamp(kind):
            return gap // timedelta(microseconds=1) * TICKS[kind.unit] // TICKS["us"]
        if isinstance(gap, int) and pa.types.is_integer(kind):
            return gap
        expected = "a timestamp" if isinstance(gap, timedelta) else "an integer"
        advice = ""
        if key == "[state] idle":
            advice = ': "30d" is a length for timestamps, 1000 a number of ticks for integers'
        raise DTypeError(
            f"{self.path}: {key}: column {name!r}: expected {expected}, received {kind}{advice}"
        )

    @cached_property
    def emitter(self) -> Emitter:
        """The emitter of output rows. Raises ConfigError for names that clash."""
        output = self.loaded.config.output
        carried = self.loaded.config.columns or self.schema.names
        names = self.loaded.names
        if clash := [n for n in names if n in carried]:
            raise ConfigError(
                f"[output] names: {clash[0]!r} is also a column copied from the source; choose "
                "another name"
            )
        model = None
        if output.model_column is not None:
            model = output.model_column, short_model(self.loaded.fingerprint)
            if model[0] in (*names, *carried):
                raise ConfigError(
                    f"[output] model_column: {model[0]!r} is also an output, or a column copied "
                    "from the source; choose another name"
                )
        fields = tuple(self.schema.field(n) for n in carried)
        levels = len(self.loaded.config.quantiles)
        if output.sort and levels != len(names):
            raise ConfigError(
                f"[output] sort: the model returns {count(len(names), 'value')} per row, and "
                f"{count(levels, 'quantile')} are set. Remove sort, or list the levels of all "
                "outputs, in [train] loss = { quantile = [0.1, 0.5, 0.9] } or [output] quantiles"
            )
        TargetColumns(self.loaded.contract.added).check(self.schema, self.path)
        last_of, crosses = output.last_of or 1, levels == len(names)
        emitter = Emitter(fields, names, output.emit, last_of, output.warmup, model)
        return replace(emitter, quantiles=crosses, sorts=output.sort, changes=self._changes())

    def _changes(self) -> tuple[str, ...]:
        """Return the column whose value is added to each output, as far as these are changes.

        Raises ConfigError if there is not an output for each label.
        """
        config = self.loaded.config
        target = config.target
        if target.as_ == "value":
            return ()
        units, labels = len(self.loaded.names), len(target.labels)
        columns = tuple(name for name in target.column for _ in target.horizon or [0])
        if units == labels or (units == 2 * labels and gives_moments(self.loaded.model)):
            return columns
        if labels == 1 and units == len(config.quantiles):
            return columns * units
        raise ConfigError(
            f'[target] as = "change": expected an output for each of {count(labels, "label")} '
            f"({', '.join(target.labels)}), or quantiles of one label, received "
            f"{count(units, 'output')}: {', '.join(self.loaded.names)}"
        )

    @cached_property
    def layout(self) -> Layout:
        """The columns of the state table."""
        config, contract = self.loaded.config, self.loaded.contract
        runner = self.loaded.runner
        waits = self.loaded.kind.waits
        types = {"float32": pa.float32(), "int64": pa.int64(), "string": pa.string()}
        features = {f.name: types[f.kind] for f in contract.features}
        waiting: dict[str, pa.DataType] = {}
        if waits:
            if size := len(contract.feature_names()):  # Arrow fails with lists of size 0
                waiting[MATRIX] = pa.list_(pa.float32(), size)
            waiting |= {n: t for n, t in features.items() if t != pa.float32()}
        return Layout(
            keys=tuple(self.schema.field(n) for n in contract.key),
            time=self.schema.field(contract.time).type if contract.time else None,
            states=runner.state_spec,
            previous={n: features[n] for n in features if n in self.policy.previous},
            waiting=waiting,
            waiting_rows=config.window.steps - 1 if waits else 0,
            stride=config.window.stride if waits else 0,
            pending=self.emitter.pending_fields(),
            fingerprint=self.loaded.fingerprint,
            layers=self.loaded.model.layer_shapes(),
            classes=runner.state_classes,
            moments=self.loaded.moments,
        )

    def initial(self) -> dict[str, Floats]:
        """Return the initial state of one stream: name -> (size,) float32."""
        return self.loaded.initial()

    def for_worker(self) -> "BoundPipeline":
        """Return a copy for another process: it can be pickled, and scores on one thread."""
        return replace(self, loaded=self.loaded.for_worker())

    def operator(self) -> WindowKind:
        """Make an operator for the config's kind of window."""
        window, loaded = self.loaded.config.window, self.loaded
        size = WindowSize(window.lanes, window.steps, window.stride)
        return loaded.kind(loaded.runner, loaded.inputs, size, Workers(loaded.config.model.threads))


def _load(config: Config, path: str) -> tuple[Model, str]:
    """Return the model, and its fingerprint before its outputs were turned into quantiles.

    The fingerprint is "" if [output] quantiles is not set.
    """
    spec = config.model
    layers = [dict(layer) for layer in spec.layers] if spec.layers else None
    try:
        state = dict(spec.state) if spec.state else None
        model = load_model(path, layers=layers, state=state, precision=spec.precision)
    except MissingFileError as error:
        if config.target.column and path == spec.path:
            error.args = (f"{error}. Train it with: streamrnn fit PIPELINE; or fix the path",)
        raise
    if config.output.quantiles is None:
        return model, ""
    try:
        return quantiles_of(model, config.output.quantiles), model.fingerprint()
    except ConfigError as error:
        raise type(error)(f"[output] quantiles: {location(path)}: {error}") from None


def _wanted_inputs(config: Config, model: Model) -> Mapping[str, Sequence[str]]:
    """Return the features of each input, by `embed` or [model] inputs; {} if neither is set.

    Raises ConfigError if the `embed` of a feature does not match the model.
    """
    source, inputs = config.source, config.model.input_features
    widths = {of.feature: of.width for of in embedded_ids(model)}
    embedded = [feature.name for feature in source.embedded]
    names = [name for name, _, _ in model.input_specs]
    for name, width in widths.items() if len(names) > 1 and not inputs else ():
        if name not in embedded and f"{name}_ids" in names:
            raise ConfigError(
                f"[source] features: the model in {location(config.model.path)} embeds the ids of "
                f"{name!r} in {count(width, 'number')}: set embed = {width} in its feature, beside "
                "the vocabulary that it was fitted with"
            )
    if not embedded:
        return inputs
    for feature in source.embedded:
        if widths.get(feature.name, 0) != feature.embed:
            raise ConfigError(
                f"[source] features: {feature.name!r} has embed = {feature.embed}, but the model "
                f"in {location(config.model.path)} embeds its ids in "
                f"{count(widths.get(feature.name, 0), 'number')}. Fit it again with "
                "`streamrnn fit`, or correct embed"
            )
    return inputs_of(source.feature_names, embedded)


def _last_rows(config: Config, model: Model) -> list[int | None]:
    """Return for each input how many of the last rows it reads, by [model] inputs; None for all.

    Raises ModelMismatchError if inputs declare different numbers of steps that are not set, or one
    declares another number than an input that takes any reads.
    """
    said, declared = config.model.inputs.items(), model.input_steps
    last = {name: of["steps"] for name, of in said if isinstance(of, dict)}
    left = {name: steps for name, steps in declared.items() if steps and last.get(name) != steps}
    numbers: set[int | None] = {*left.values()}
    kind = KINDS[config.window.kind]
    takes_any = (name for name, shape, _ in model.input_specs if shape[:1] == (None,))
    if not kind.carries_state and set(takes_any) - {*last}:
        numbers.add(config.window.steps if kind.waits else None)
    if left and (len(numbers) > 1 or {*left} & {*last}):
        name = min(left, key=lambda name: (name not in last, left[name]))
        raise ModelMismatchError(
            "[model] inputs: the inputs have numbers of steps of their own ("
            f"{', '.join(f'{n}: {steps}' for n, steps in declared.items() if steps)}). Say how "
            f"many of the last rows an input reads, unless it reads all: {name} = {{ features = "
            f"[…], steps = {left[name]} }}"
        )
    return [last.get(name) for name in declared]


def _feature(feature: FeatureSection, kind: str, config: Config, limit: IdLimit | None) -> Feature:
    nulls = config.source.nulls_of(feature)
    if kind != "float32":
        if feature.valid is not None or feature.clip is not None or feature.nan is not None:
            raise ConfigError(
                f"[source] features: {feature.name!r} is read as {kind} by the model; valid, clip "
                "and nan apply only to features read as float32, not to ids"
            )
        if not isinstance(nulls, str) and (kind == "string" or nulls != math.floor(nulls)):
            raise ConfigError(
                f"[source] nulls: {nulls} cannot replace a null of {feature.name!r}, which the "
                f"model reads as {kind}"
            )
    nan = config.source.nan_of(feature)
    vocabulary = None
    if feature.vocabulary is not None:
        if kind == "string":
            raise ConfigError(
                f"[source] features: {feature.name!r} has a vocabulary, but the model looks up "
                "strings itself; remove the vocabulary"
            )
        vocabulary = load_vocabulary(feature.vocabulary, feature.oov, feature.name)
    if limit is not None:
        _check_limit(feature.name, limit, nulls, vocabulary)
    ids = None if limit is None else limit.size
    return Feature(feature.name, kind, feature.valid, feature.clip, nulls, nan, vocabulary, ids)


def _check_limit(
    name: str, limit: IdLimit, nulls: str | float, vocabulary: Vocabulary | None
) -> None:
    """Raise ConfigError if the model cannot read the ids that replace values or nulls."""
    valid = f"{limit.layer} has ids from 0 to {limit.size - 1}"
    if vocabulary is not None and (last := max(vocabulary.ids)) >= limit.size:
        raise ConfigError(
            f"[source] features: {name!r}: the vocabulary ({vocabulary.label}) has ids up to "
            f"{last} (oov = {vocabulary.oov} included), but {valid}. Use the vocabulary that the "
            "model was trained with"
        )
    if not isinstance(nulls, str) and not 0 <= nulls < limit.size:
        raise ConfigError(
            f"[source] nulls: {nulls:g} cannot replace a null of {name!r}: {valid}. Set one of "
            "these ids"
        )


def _output_names(runner: StepRunner | SequenceRunner, config: Config) -> tuple[str, ...]:
    outputs, units = runner.outputs, sum(n for _, n in runner.outputs)
    names = config.output.names
    if names is None:
        pairs = zip(outputs, runner.own, strict=True)
        return tuple(chain.from_iterable(column_names(*of, steps) for of, steps in pairs))
    if len(names) != units:
        listed = ", ".join(f"{layer} ({n})" for layer, n in outputs)
        raise ConfigError(
            f"[output] names: the model returns {count(units, 'value')} per row ({listed}): "
            f"expected a name for each, received {count(len(names), 'name')}: {', '.join(names)}"
        )
    return tuple(names)


@dataclass(frozen=True)
class KindChoice:
    """Why this kind of window is used; `note` says what it means for a model with fixed steps.

    `note` is None if the number of steps is not fixed. `kept`: the config does not set the kind,
    and the output began with it.
    """

    why: str
    note: str | None = None
    kept: bool = False


def choose_kind(config: Config, model: Model, has_commits: Callable[[], bool]) -> KindChoice:
    """Return why the kind of window is used; `has_commits` is as in `LoadedPipeline`.

    A model whose inputs have a fixed number of steps was trained on windows, or on pieces of longer
    sequences, and the file does not say which. Raises ModelMismatchError, with both answers, if the
    config does not say either, and the output has no commit.
    """
    steps, window = model.declared_steps, config.window
    said = "kind" in window.model_fields_set
    if steps is None:
        return KindChoice("set by [window] kind" if said else "the default")
    if not said and not has_commits():
        raise unsaid_kind(model)
    use = use_of(window, steps)
    note = f"the model's inputs have {steps} steps, and kind is {window.kind}: {use}"
    if said:
        return KindChoice("set by [window] kind", note)
    return KindChoice(
        "the output began with it, and [window] kind is not set",
        f"{note}. Nothing sets [window] kind: the output keeps the kind it began with. Add kind = "
        f'"{window.kind}" to the pipeline file, or see in `streamrnn guide keras-model` whether '
        "another kind is meant",
        kept=True,
    )


def unsaid_kind(model: Model) -> ModelMismatchError:
    """Return the error for a model with a fixed number of steps if [window] kind is not set."""
    steps = model.declared_steps
    assert steps is not None
    not_carried = None
    try:
        StepRunner(model)
    except ModelMismatchError as error:
        not_carried = str(error)
    return ModelMismatchError(
        "[window] kind: required for this model, as its inputs have a fixed number of steps, "
        f"{steps}. Set one of these:\n{both_answers(steps, not_carried)}"
    )
