# ruff: noqa: TRY004 - pydantic collects ValueError, but not TypeError
"""The schema of the pipeline file: every key, its type, its default and its line of help.

The JSON Schema, the sample of `streamrnn init` and many messages are generated from these classes.
"""

import math
import os
from collections.abc import Callable
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from streamrnn.config.durations import PATTERN, format_duration, parse_duration
from streamrnn.config.paths import rejects_beside
from streamrnn.config.problems import choices, did_you_mean, received

PIPE = "-"
"""The path that means stdin or stdout."""
OLD_KINDS = {"fixed": "independent"}
"""Former names of kinds of window: old -> new. Files and outputs with the old names are read."""

FLOAT32_MAX = 3.4028234663852886e38
NULL_POLICIES = ("error", "previous", "skip")
_EXPECTED_NULLS = 'expected "error", "previous", "skip" or a number'


def _names(value: Any) -> Any:
    """Return one name or a list of unique names as a tuple."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"expected a name or a list of names, got {received(value)}")
    if "" in names:
        raise ValueError("expected non-empty names, got an empty one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{choices(twice)} is given more than once; name each column once")
    return tuple(names)


def _filled(value: Any) -> Any:
    names = _names(value)
    if not names:
        raise ValueError("expected at least one name, got an empty list")
    return names


def _columns(value: Any) -> Any:
    names = _names(value)
    if "*" in names and len(names) > 1:
        raise ValueError('"*" means all columns; give it alone')
    return names


def _members(*options: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        names = _names(value)
        for name in names:
            if name not in options:
                hint = did_you_mean(name, options)
                raise ValueError(f"expected {choices(options)}, got {received(name)}{hint}")
        return names

    return check


def _range(value: Any) -> Any:
    """Return [low, high] as a tuple of two floats; an infinite end is open."""
    pair = value if isinstance(value, list | tuple) else ()
    numbers = [end for end in pair if isinstance(end, int | float) and not isinstance(end, bool)]
    if len(pair) != 2 or len(numbers) != 2 or any(math.isnan(end) for end in numbers):
        raise ValueError(f"expected two numbers [low, high], got {received(value)}")
    low, high = float(numbers[0]), float(numbers[1])
    if low > high:
        raise ValueError(f"expected low <= high, got [{low}, {high}]")
    return low, high


def _nulls(value: Any) -> Any:
    """Return a policy, or the number that replaces null as a float."""
    if isinstance(value, str):
        if value in NULL_POLICIES:
            return value
        hint = did_you_mean(value, NULL_POLICIES)
        raise ValueError(f"{_EXPECTED_NULLS}, got {received(value)}{hint}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_EXPECTED_NULLS}, got {received(value)}")
    if not abs(value) <= FLOAT32_MAX:
        raise ValueError(f"expected a number within the range of float32, got {value}")
    return float(value)


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError(f'expected a duration such as "6h", got {received(value)}')
    return parse_duration(value)


def _features(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list of columns, got {received(value)}")
    return tuple({"name": item} if isinstance(item, str) else item for item in value)


def _inputs(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"expected a table of input = features, got {received(value)}")
    return {name: _filled(features) for name, features in value.items()}


def _vocabulary(value: Any) -> Any:
    """Check a path, or a list of strings or of integers; return the list as a tuple."""
    path = _fspath(value)
    if isinstance(path, str) and path:
        return path
    values = list(value) if isinstance(value, list | tuple) else []
    if not values or {type(item) for item in values} not in ({str}, {int}):
        raise ValueError(
            f"expected a file, a list of strings or a list of integers, got {received(value)}"
        )
    return tuple(values)


def _oov(value: Any) -> Any:
    if isinstance(value, bool) or value not in (0, 1):
        raise ValueError(f"expected 0 or 1, got {received(value)}")
    return value


def _rename(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"expected a table of new name = old name, got {received(value)}")
    return {name: _filled(old) for name, old in value.items()}


def _layers(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(item, dict) for item in value):
        raise ValueError("expected a table [[model.layers]] per layer")
    for index, layer in enumerate(value):
        kind = layer.get("type")
        if not isinstance(kind, str) or not kind:
            found = f"got {received(kind)}" if "type" in layer else f"got the keys {list(layer)}"
            raise ValueError(f'layer {index} needs a type, such as type = "LSTM"; {found}')
    return tuple(value)


def _kind(value: Any) -> Any:
    return OLD_KINDS.get(value, value) if isinstance(value, str) else value


def _time_text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _fspath(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


_STRING: dict[str, Any] = {"type": "string", "minLength": 1}
_LIST = {"type": "array", "items": _STRING, "uniqueItems": True}
_ONE_OR_MORE = {"anyOf": [_STRING, _LIST]}

OnChange = Literal["error", "carry"]
"""What to do if the model is not the one that made the state."""
Text = Annotated[str, Field(min_length=1)]
FilePath = Annotated[str, BeforeValidator(_fspath), Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Natural = Annotated[int, Field(ge=0, le=2**31 - 1)]
Key = Annotated[tuple[str, ...], BeforeValidator(_filled), WithJsonSchema(_ONE_OR_MORE)]
Names = Annotated[tuple[str, ...], BeforeValidator(_filled), WithJsonSchema(_ONE_OR_MORE)]
Columns = Annotated[tuple[str, ...], BeforeValidator(_columns), WithJsonSchema(_ONE_OR_MORE)]
TimeFeatures = Annotated[
    tuple[Literal["hour", "day_of_week", "day_of_year"], ...],
    BeforeValidator(_members("hour", "day_of_week", "day_of_year")),
]
Kind = Annotated[
    Literal["carry", "independent", "whole"],
    BeforeValidator(_kind),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["carry", "independent", "whole"]},
                {"enum": list(OLD_KINDS), "deprecated": True},
            ]
        }
    ),
]
Range = Annotated[
    tuple[float, float],
    BeforeValidator(_range),
    WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}),
]
Nulls = Annotated[
    Literal["error", "previous", "skip"] | float,
    BeforeValidator(_nulls),
    WithJsonSchema({"anyOf": [{"enum": list(NULL_POLICIES)}, {"type": "number"}]}),
]
Vocabulary = Annotated[
    str | tuple[str | int, ...],
    BeforeValidator(_vocabulary),
    WithJsonSchema(
        {
            "anyOf": [
                _STRING,
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
                {"type": "array", "items": {"type": "integer"}, "minItems": 1},
            ]
        }
    ),
]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PATTERN}),
]


class Section(BaseModel):
    """A frozen table that refuses unknown keys and makes no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FeatureSection(Section):
    """One feature: a column and its valid values."""

    name: Text = Field(description="the column")
    from_: Names = Field(
        default=(), alias="from", description="old names that files may have for the column"
    )
    valid: Range | None = Field(
        default=None, description="values outside [low, high] (inclusive) are treated as null"
    )
    clip: Range | None = Field(default=None, description="values are limited to [low, high]")
    nulls: Nulls | None = Field(default=None, description="as source.nulls, for this feature only")
    nan: Literal["error", "null"] | None = Field(
        default=None, description="as source.nan, for this feature only"
    )
    vocabulary: Vocabulary | None = Field(
        default=None,
        description="the model reads ids (position + oov) of these values: a list, a text file "
        "with one per line, or a .csv or .parquet file of values and ids",
    )
    oov: Annotated[
        int, BeforeValidator(_oov), WithJsonSchema({"type": "integer", "enum": [0, 1]})
    ] = Field(
        default=0,
        description="a value outside the vocabulary: 0 (it is an error) | 1 (it has id 0)",
    )


Features = Annotated[
    tuple[FeatureSection, ...],
    BeforeValidator(_features),
    WithJsonSchema(
        {"type": "array", "items": {"anyOf": [_STRING, FeatureSection.model_json_schema()]}},
    ),
]


class AfterSection(Section):
    """Where the files to read begin."""

    path: FilePath | None = Field(default=None, description="after this file")
    partition: Text | None = Field(
        default=None, description="after this partition: date=2013-01-05, or the value alone"
    )
    time: Annotated[Text | None, BeforeValidator(_time_text)] = Field(
        default=None, description="files whose rows are all later than this"
    )


class SourceSection(Section):
    """The rows to score, and the features of the model."""

    path: FilePath | None = Field(
        default=None,
        description='file, glob, directory (hive partitions too), URI, or "-": Arrow IPC on stdin',
        examples=["data/log.parquet"],
    )
    format: Literal["auto", "parquet", "arrow"] = Field(
        default="auto",
        description="file format: parquet | arrow (IPC) | auto (by name; Parquet in a directory)",
    )
    order: Literal["path", "time"] = Field(
        default="path",
        description="order of files: path (natural: 2 before 10) | time (by their statistics)",
    )
    after: AfterSection | None = Field(
        default=None,
        description="read only new files that come after { path = … }, { partition = … } or "
        "{ time = … }",
        examples=[{"partition": "date=2013-01-05"}],
    )
    key: Key = Field(
        description="column or columns that identify a stream, of any type but float",
        examples=[["device"]],
    )
    time: Text | None = Field(
        default=None,
        description="timestamp, date or integer column; without it, file order counts",
        examples=["time"],
    )
    features: Features = Field(
        description="inputs of the model: a column, or { name, from, valid, clip, nulls, nan, "
        "vocabulary, oov }",
        examples=[["temperature", {"name": "pressure", "valid": [0, 1100], "clip": [900, 1100]}]],
    )
    rename: Annotated[
        dict[str, tuple[str, ...]],
        BeforeValidator(_rename),
        WithJsonSchema({"type": "object", "additionalProperties": _ONE_OR_MORE}),
    ] = Field(
        default_factory=dict,
        description="new name = old name of a column, or a list of them, in some of the files",
        examples=[{"temperature": "temp_c"}],
    )
    time_features: TimeFeatures = Field(
        default=(),
        description="hour, day_of_week, day_of_year: each appends a sine and a cosine to features",
    )
    nulls: Nulls = Field(
        default="error",
        description="null in a feature: error | previous (value of the stream) | skip (the row) | "
        "a number",
    )
    nan: Literal["error", "null"] = Field(
        default="error", description="NaN in a feature: error | null (it is treated as null)"
    )
    reset: Text | None = Field(
        default=None,
        description="boolean column: true resets the stream before that row",
        examples=["new_session"],
    )
    max_gap: Duration | None = Field(
        default=None,
        description="a longer gap between two rows resets the stream; needs time",
        examples=["6h"],
    )
    late: Literal["error", "drop", "reject", "apply"] = Field(
        default="error",
        description="a row earlier than its stream's last time: error | drop | reject | apply",
    )
    bad: Literal["error", "reject"] = Field(
        default="error", description="a row with NaN, a null key or an overflow: error | reject"
    )
    max_rejects: Natural = Field(default=1000, description="a run stops when it rejects more rows")
    batch_rows: Count = Field(default=131072, description="rows per record batch")

    @property
    def piped(self) -> bool:
        """Whether rows are read from stdin."""
        return self.path == PIPE

    @property
    def time_feature_names(self) -> tuple[str, ...]:
        """Names of the features that time_features appends: hour_sin, hour_cos and so on."""
        return tuple(f"{name}_{wave}" for name in self.time_features for wave in ("sin", "cos"))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all features, in order."""
        return (*(feature.name for feature in self.features), *self.time_feature_names)

    @property
    def renames(self) -> dict[str, tuple[str, ...]]:
        """Old names of columns, those of features included."""
        found = dict(self.rename)
        for feature in self.features:
            if feature.from_:
                found[feature.name] = (*found.get(feature.name, ()), *feature.from_)
        return found

    def nulls_of(self, feature: FeatureSection) -> Literal["error", "previous", "skip"] | float:
        """Return the null policy of a feature, by default that of the source."""
        return self.nulls if feature.nulls is None else feature.nulls

    def nan_of(self, feature: FeatureSection) -> Literal["error", "null"]:
        """Return what a NaN in a feature is, by default as for the source."""
        return self.nan if feature.nan is None else feature.nan


class WindowSection(Section):
    """How streams are cut into windows."""

    kind: Kind = Field(
        default="carry",
        description="carry (keep the state) | independent (each window from zero) | whole (a "
        "stream is one window)",
    )
    lanes: Count = Field(
        default=64, description="streams computed side by side; does not change results"
    )
    steps: Count = Field(
        default=128,
        description="rows of a stream per window; changes results in kind independent only",
    )
    stride: Count = Field(
        default_factory=lambda data: data.get("steps", 128),
        description="kind independent only: a window starts every stride rows of a stream; "
        "default steps",
        examples=[128],
    )


class ModelSection(Section):
    """The model, and how features and states connect to it."""

    path: FilePath = Field(
        description=".safetensors, .keras, .h5, .hdf5 or .onnx", examples=["model.safetensors"]
    )
    on_change: OnChange = Field(
        default="error",
        description="if it is not the model of the last run: error | carry (each stream keeps its "
        "state)",
    )
    threads: Natural = Field(default=0, description="0: all cores; does not change results")
    inputs: Annotated[
        dict[str, tuple[str, ...]],
        BeforeValidator(_inputs),
        WithJsonSchema({"type": "object", "additionalProperties": _ONE_OR_MORE}),
    ] = Field(
        default_factory=dict,
        description="for a model with several inputs: input = a feature, or a list of features",
        examples=[{"ids": "token", "x": ["temperature", "pressure"]}],
    )
    state: dict[str, Text] = Field(
        default_factory=dict,
        description="for ONNX: state input of the graph = state output of the graph",
        examples=[{"h": "hn", "c": "cn"}],
    )
    layers: Annotated[
        tuple[dict[str, Any], ...],
        BeforeValidator(_layers),
        WithJsonSchema(
            {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"type": _STRING, "weights": {"type": "string"}},
                    "required": ["type"],
                },
            }
        ),
    ] = Field(
        default=(),
        description="for weights without an architecture, per layer: type, weights (name prefix), "
        "Keras arguments",
        examples=[[{"type": "LSTM", "units": 32, "weights": "encoder.lstm"}]],
    )

    @property
    def carries(self) -> bool:
        """Whether another model than the last run's takes over the state."""
        return self.on_change == "carry"


class OutputSection(Section):
    """The rows and columns of the output."""

    emit: Literal["every", "last", "final"] = Field(
        default="every",
        description="every (row) | last (of each last_of steps of a stream) | final (row of each "
        "stream)",
    )
    last_of: Count | None = Field(
        default=None, description='emit = "last": steps per output row', examples=[24]
    )
    columns: Columns | None = Field(
        default=None,
        description='columns to copy from the source; default key and time; "*" means all',
        examples=[["device", "time"]],
    )
    names: Names | None = Field(
        default=None,
        description="names of the output columns, one per unit; default the output layer's name",
        examples=[["forecast"]],
    )
    warmup: Natural = Field(
        default=0,
        description="output is null for this many steps after a stream starts or is reset",
    )
    model_column: Text | None = Field(
        default=None,
        description="a column for the fingerprint of the model that computed the row",
        examples=["model"],
    )


def _beside(data: dict[str, Any]) -> str | None:
    path = data.get("path")
    return None if path in (None, PIPE) else rejects_beside(path)


class SinkSection(Section):
    """Where the output is written."""

    path: FilePath | None = Field(
        default=None, description='directory, URI, or "-": Arrow IPC on stdout',
        examples=["out/scores"],
    )  # fmt: skip
    format: Literal["parquet", "arrow"] = Field(
        default="parquet", description="format of the parts: parquet | arrow (IPC files)"
    )
    rejects: FilePath | None = Field(
        default_factory=_beside,
        description='directory of rejected rows; default path + ".rejects"',
        examples=["out/scores.rejects"],
    )

    @property
    def folder(self) -> str | None:
        """The directory or URI of the output; None for stdout, or if not set."""
        return None if self.path == PIPE else self.path


class StateSection(Section):
    """State from and for other runs."""

    init: FilePath | None = Field(
        default=None,
        description="start from this state: an exported table, or the output folder of a run",
        examples=["before.parquet"],
    )
    map: dict[str, Text] = Field(
        default_factory=dict,
        description="layer of this model = layer of another one: in init, or in the output itself",
        examples=[{"decoder": "encoder"}],
    )
    save: FilePath | None = Field(
        default=None,
        description="export the state table to this file at the end",
        examples=["after.parquet"],
    )


class CheckpointSection(Section):
    """How often a run commits, and how many commits are kept."""

    every: Count = Field(default=16, description="record batches per commit")
    keep: Natural = Field(
        default=7, description="ends of earlier runs to keep, for `streamrnn rewind`"
    )


class Sections(Section):
    """All tables of a pipeline file."""

    source: SourceSection
    window: WindowSection = WindowSection()
    model: ModelSection
    output: OutputSection = OutputSection()
    sink: SinkSection = SinkSection()
    state: StateSection = StateSection()
    checkpoint: CheckpointSection = CheckpointSection()
