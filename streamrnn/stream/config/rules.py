"""Checks between the keys of a pipeline file, and [window] for models with a fixed number of steps.

The types in `schema` check single keys.
"""

from collections.abc import Callable, Iterator
from operator import attrgetter

from streamrnn.base.display import without_options
from streamrnn.stream.config.notations import parse_filter
from streamrnn.stream.config.paths import SIDE_OUTPUTS
from streamrnn.stream.config.problems import Path, Problem, choices, did_you_mean
from streamrnn.stream.config.schema import (
    PIPE,
    PUBLISH_KEYS,
    Sections,
    SourceSection,
    WindowSection,
)
from streamrnn.stream.config.values import INDEXED_FORMATS

Problems = Iterator[tuple[str | Path, str]]
"""The problems that a check yields: each has a dotted key, or a path, and a message."""
Check = Callable[[Sections], Problems]

_CHECKS: list[tuple[tuple[str, ...], Check]] = []
TODO = "TODO"
"""Stands for a column that is still to be named."""
STATE_COLUMNS = ("steps", "last_time")
"""Columns of a state table, whose names a key column must not have."""
_FILTERS = {name: side.where for name, side in SIDE_OUTPUTS.items() if side.where}


def run_checks(tables: Sections, invalid: set[Path]) -> list[Problem]:
    """Return all problems between keys.

    A check that needs a key in `invalid` is skipped: the problem of that key is reported elsewhere.
    """
    return [
        Problem(tuple(at.split(".")) if isinstance(at, str) else at, message)
        for needs, check in _CHECKS
        if not any(tuple(key.split(".")) in invalid for key in needs)
        for at, message in check(tables)
    ]


def _needs(*keys: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        _CHECKS.append((keys, check))
        return check

    return register


def _refuse(keys: str, when: Callable[[Sections], object], message: str) -> None:
    """Register a check that needs `keys`; if `when` is true, it yields `message` at the first key.

    In the message, `{0.sink.path}` stands for the value of that key.
    """
    first, *others = keys.split()

    @_needs(first, *others)
    def check(tables: Sections) -> Problems:
        if when(tables):
            yield first, message.format(tables)


@_needs("source.key", "source.features", "model.inputs")
def _nothing_is_left_to_do(tables: Sections) -> Problems:
    source, inputs = tables.source, tables.model.input_features
    named: dict[Path, tuple[object, ...]] = {("source", "key"): source.key}
    for index, feature in enumerate(source.features):
        named["source", "features", index] = feature.name, feature.vocabulary
    for name, features in inputs.items():
        named["model", "inputs", name] = features
    for path, names in named.items():
        if TODO in names:
            yield path, f'still "{TODO}"; see the comment above the key'


_refuse(
    "source.features source.time_features",
    lambda tables: not tables.source.feature_names,
    "expected at least one feature, received an empty list",
)


@_needs("source.features", "source.time_features")
def _features_are_unique(tables: Sections) -> Problems:
    source = tables.source
    first: dict[str, int] = {}
    for index, feature in enumerate(source.features):
        path: Path = ("source", "features", index)
        if feature.name in first:
            other = first[feature.name]
            yield path, f'"{feature.name}" is already feature {other}; name each column once'
        elif feature.name in source.time_feature_names:
            yield path, f'"{feature.name}" is already added by time_features; remove one of the two'
        first.setdefault(feature.name, index)


@_needs(
    *("source.rename", "source.features", "source.key", "source.time", "source.reset"),
    *("output.columns", "target.column", "target.weight"),
)
def _renamed_columns_are_used_once(tables: Sections) -> Problems:
    source, carried = tables.source, tables.output.columns
    used = {*source.key, source.time, source.reset, *(f.name for f in source.features)}
    used |= {*(carried or ()), *tables.target.columns}
    first: dict[str, str] = {}
    for new, olds in source.renames.items():
        path = ("source", "rename", new) if new in source.rename else ("source", "features")
        if new not in used and carried != ("*",):
            hint = did_you_mean(new, sorted(filter(None, used)))
            yield path, f'"{new}" is not a column in use{hint}'
        for old in olds:
            if old in used:
                yield path, f'"{old}" is a column in use; it cannot be an old name too'
            elif old in first:
                yield path, f'"{old}" is already an old name of "{first[old]}"'
            first.setdefault(old, new)


_refuse(
    "model.inputs source.features",
    lambda tables: tables.model.inputs and tables.source.embedded,
    "the ids of a feature with embed have an input of their own; remove inputs, or embed",
)


@_needs("source.features")
def _vocabularies_are_for_ids(tables: Sections) -> Problems:
    for index, feature in enumerate(tables.source.features):
        path: Path = ("source", "features", index)
        if feature.vocabulary is None and feature.oov:
            yield (*path, "oov"), "needs vocabulary, the list of known values"
        if feature.vocabulary is None and feature.embed:
            yield (*path, "embed"), "needs vocabulary, the values that have ids"
        for key in ("valid", "clip", "nan"):
            if feature.vocabulary is not None and getattr(feature, key) is not None:
                yield (*path, key), "applies to features read as float32, not to ids; remove it"


def _needs_time(key: str, without: str = ", the column of the times") -> None:
    """Register the check that a key of [source] is set only if source.time is set, too."""
    default = SourceSection.model_fields[key].default
    _refuse(
        f"source.{key} source.time",
        lambda tables: tables.source.time is None and getattr(tables.source, key) != default,
        f"needs source.time{without}",
    )


_needs_time("time_features")
_needs_time("time_zone")
_needs_time("max_gap")
_needs_time("late", ": without it no row is late")
_needs_time("repeated", ": without it no row is repeated")
_needs_time("sort")
_needs_time("order")
_refuse(
    "state.idle source.time",
    lambda tables: tables.state.idle and tables.source.time is None,
    "needs source.time, the column of the times: without it nothing says for how long a stream was "
    "silent",
)
_refuse(
    "state.idle window.kind",
    lambda tables: tables.state.idle and tables.window.kind == "whole",
    'kind = "whole" keeps no state between runs; to cut a stream at gaps, set source.max_gap',
)
_refuse(
    "source.sort source.path",
    lambda tables: tables.source.sort != "none" and tables.source.piped,
    "only files can be sorted, not stdin; sort the rows before they are piped, or write them to "
    "files",
)
_refuse(
    "source.after source.path",
    lambda tables: tables.source.after is not None and tables.source.piped,
    'chooses files, but path is "-": all rows of stdin are scored; remove after',
)


@_needs("source.time", "source.after")
def _after_is_one_of_three(tables: Sections) -> Problems:
    after = tables.source.after
    if after is not None and len(after.model_fields_set) != 1:
        yield "source.after", "expected one of path, partition and time"
    elif after is not None and after.time is not None and tables.source.time is None:
        yield "source.after", "time needs source.time, the column to compare"


@_needs("source.key", "source.time")
def _key_names_are_free(tables: Sections) -> Problems:
    key, time = tables.source.key, tables.source.time
    for name in key:
        if name in STATE_COLUMNS:
            yield (
                "source.key",
                f'"{name}" is reserved for a column of the state table; rename the key column',
            )
    if time in key:
        yield (
            "source.time",
            f'"{time}" is also a key, so each stream would have a single time; remove it from '
            "source.key",
        )


_refuse(
    "window.stride window.kind",
    lambda tables: (
        tables.window.kind != "independent" and "stride" in tables.window.model_fields_set
    ),
    'only kind = "independent" has a stride, but kind is "{0.window.kind}"; remove stride',
)


@_needs("model.inputs", "source.features", "source.time_features")
def _inputs_are_features(tables: Sections) -> Problems:
    inputs, features = tables.model.input_features, tables.source.feature_names
    used = {feature: name for name, wanted in inputs.items() for feature in wanted}
    for feature, name in used.items():
        if feature not in features:
            hint = did_you_mean(feature, features)
            yield (
                ("model", "inputs", name),
                f'"{feature}" is not a feature{hint} (features: {", ".join(features)})',
            )
    idle = [feature for feature in features if feature not in used]
    if inputs and idle and used.keys() <= set(features):
        yield (
            "model.inputs",
            f"no input uses {choices(idle)}; add each feature to an input, or remove it",
        )


def _model_is(tables: Sections, *suffixes: str) -> bool:
    return without_options(tables.model.path).lower().endswith(suffixes)


_refuse(
    "model.state model.path",
    lambda tables: tables.model.state and not _model_is(tables, ".onnx"),
    "applies to ONNX graphs only; {0.model.path} is not an .onnx file. Remove state",
)
_refuse(
    "model.layers model.path",
    lambda tables: tables.model.layers and _model_is(tables, ".onnx", ".keras"),
    "{0.model.path} defines its own layers; remove [[model.layers]] (--set model.layers=[])",
)


@_needs("output.emit", "output.last_of", "window.kind")
def _last_of_goes_with_last(tables: Sections) -> Problems:
    output, independent = tables.output, tables.window.kind == "independent"
    if output.last_of is not None and output.emit != "last":
        yield (
            "output.last_of",
            f'only emit = "last" counts steps, but emit is "{output.emit}"; remove last_of, or '
            'set emit = "last"',
        )
    elif output.last_of is not None and independent:
        yield (
            "output.last_of",
            'kind = "independent" already gives one row per window; remove last_of, and set '
            "window.stride instead",
        )
    elif output.last_of is None and output.emit == "last" and not independent:
        yield (
            "output.emit",
            'emit = "last" needs last_of, such as last_of = 24: one row of every 24 steps',
        )


@_needs("output.names", "output.columns", "source.key", "source.time")
def _names_are_free(tables: Sections) -> Problems:
    carried = tables.columns or ()
    if clash := [name for name in tables.output.names or () if name in carried]:
        yield (
            "output.names",
            f"{choices(clash)} is also a column copied from the source; choose another name, or "
            "remove it from output.columns",
        )


@_needs("output.model_column", "output.names", "output.columns", "source.key", "source.time")
def _model_column_is_free(tables: Sections) -> Problems:
    name, key = tables.output.model_column, "output.model_column"
    if name in (tables.output.names or ()):
        yield key, f'"{name}" is also in output.names; choose another name'
    elif name in (tables.columns or ()):
        yield key, f'"{name}" is also a column copied from the source; choose another name'


@_needs("source.late", "source.repeated", "source.bad", "sink.path", "sink.rejects")
def _rejects_have_a_place(tables: Sections) -> Problems:
    keys = ("late", "repeated", "bad")
    rejecting = [key for key in keys if getattr(tables.source, key) == "reject"]
    if rejecting and tables.sink.path == PIPE and tables.sink.rejects is None:
        yield (
            f"source.{rejecting[0]}",
            "rejected rows need a directory, as the output goes to stdout; set sink.rejects",
        )


_refuse(
    "sink.partition_by sink.path",
    lambda tables: tables.sink.partition_by and tables.sink.path == PIPE,
    "partitions are folders, but the output goes to stdout; remove partition_by, or set sink.path "
    "to a directory",
)


@_needs("sink.path", "sink.format", *PUBLISH_KEYS)
def _tables_index_parquet_parts(tables: Sections) -> Problems:
    for key in tables.publish.used:
        if tables.sink.path == PIPE:
            yield (
                f"publish.{key}",
                'a table indexes the parts of a folder, but sink.path is "-"; set sink.path to a '
                "directory or URI, or remove the key",
            )
        elif tables.sink.format not in INDEXED_FORMATS:
            yield (
                f"publish.{key}",
                f'a table indexes Parquet files, but sink.format is "{tables.sink.format}"; set '
                'sink.format = "parquet", or remove the key',
            )


@_needs(*_FILTERS.values())
def _filters_can_be_read(tables: Sections) -> Problems:
    for key in _FILTERS.values():
        try:
            if text := attrgetter(key)(tables):
                parse_filter(text)
        except ValueError as error:
            yield key, str(error)


@_needs("sink.path", *_FILTERS.values())
def _copies_are_beside_a_folder(tables: Sections) -> Problems:
    for name, key in _FILTERS.items():
        if attrgetter(key)(tables) and tables.sink.path == PIPE:
            yield (
                key,
                f"{name} are committed with a directory, but the output goes to stdout; remove "
                "where, or set sink.path to a directory",
            )


@_needs(
    *("target.column", "target.horizon", "target.rows", "target.weight", "target.season"),
    *("target.as", "source.time", "train.loss"),
)
def _target_is_one_row_of_a_stream(tables: Sections) -> Problems:
    target = tables.target
    if target.horizon and target.rows:
        yield "target.rows", "horizon is set too; remove one of the two"
    elif target.horizon and tables.source.time is None:
        yield (
            "target.horizon",
            "needs source.time, the column of the times; or set rows, a number of rows",
        )
    if target.season and tables.source.time is None:
        yield "target.season", "needs source.time, the column of the times"
    if target.as_ == "change" and not target.ahead:
        yield "target.as", "a change needs a later value: set horizon or rows, or remove as"
    if target.as_ == "change" and not tables.train.may_scale:
        yield "target.as", f"expected a loss of numbers, received {tables.train.loss}; remove as"
    for key in () if target.column else ("horizon", "rows", "weight", "season"):
        if getattr(target, key):
            yield f"target.{key}", "needs target.column, the column of the labels"


@_needs("state.save")
def _state_files_are_named_as_such(tables: Sections) -> Problems:
    path = tables.state.save
    if path is not None and not without_options(path).endswith((".parquet", ".arrow")):
        yield "state.save", f"expected a file name ending in .parquet or .arrow, received {path!r}"


def windows_of_predict(steps: int | None) -> dict[str, str | int]:
    """Return the keys of [window] with which a run gives what predict gives.

    steps: how many each input has; None for complete sequences.
    """
    if steps is None:
        return {"kind": "whole"}
    return {"kind": "independent", "steps": steps, "stride": 1}


def both_answers(steps: int, not_carried: str | None) -> str:
    """Describe the kinds that can be set; `not_carried`: why carry cannot be set (None: it can)."""
    carry = (
        ": the state continues from row to row, for a model trained that way; after training on "
        "windows its scores differ from what predict gives"
    )
    if not_carried is not None:
        carry = f" is not possible: {not_carried}"
    return (
        f'  kind = "independent", steps = {steps}, stride = 1: what predict gives. Each row is '
        f"scored from zero by the {steps} rows that end with it; the first {steps - 1} rows of a "
        f'stream have no score\n  kind = "carry"{carry}'
    )


def use_of(window: WindowSection, steps: int) -> str:
    """Describe what the kind of window means for a model with a fixed number of `steps`."""
    if window.kind == "carry":
        return "the state continues from row to row, beyond the windows that predict reads"
    if window.kind == "whole":
        return "each stream is one sequence, of any length"
    if window.steps != steps:
        return f"windows have {window.steps} steps"
    return f"each window of {steps} rows starts from zero, as in predict"
