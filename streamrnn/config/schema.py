# ruff: noqa: TRY004 - pydantic gathers ValueError, and lets TypeError through
"""The tables of the pipeline file: every key, its type, its default and its one line of help.

The help, the JSON Schema and the sample of `streamrnn init` are all made from these classes.
"""

import math
import os
from collections.abc import Callable
from datetime import timedelta
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
"""The path that stands for stdin or stdout."""
OLD_KINDS = {"fixed": "independent"}
"""Kinds of window that had another name: old -> new. Files and outputs that name them are read."""

FLOAT32_MAX = 3.4028234663852886e38
NULL_POLICIES = ("error", "previous", "skip")
_EXPECTED_NULLS = 'expected "error", "previous", "skip" or a number'


def _names(value: Any) -> Any:
    """One name or a list of them, each given once, as a tuple."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"expected a name or a list of names, got {received(value)}")
    if "" in names:
        raise ValueError("a name is empty")
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
        raise ValueError('"*" is all columns already; give it alone')
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
    """[low, high] as a tuple of two floats; infinite ends are open ends."""
    pair = value if isinstance(value, list | tuple) else ()
    numbers = [end for end in pair if isinstance(end, int | float) and not isinstance(end, bool)]
    if len(pair) != 2 or len(numbers) != 2 or any(math.isnan(end) for end in numbers):
        raise ValueError(f"expected two numbers [low, high], got {received(value)}")
    low, high = float(numbers[0]), float(numbers[1])
    if low > high:
        raise ValueError(f"low must not be above high, got [{low}, {high}]")
    return low, high


def _nulls(value: Any) -> Any:
    """A policy, or a number (then a float) that stands in for null."""
    if isinstance(value, str):
        if value in NULL_POLICIES:
            return value
        hint = did_you_mean(value, NULL_POLICIES)
        raise ValueError(f"{_EXPECTED_NULLS}, got {received(value)}{hint}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_EXPECTED_NULLS}, got {received(value)}")
    if not abs(value) <= FLOAT32_MAX:
        raise ValueError(f"{value} is no number that float32 can hold")
    return float(value)


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError(f'expected a length of time such as "6h", got {received(value)}')
    return parse_duration(value)


def _features(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list of columns, got {received(value)}")
    return tuple({"name": item} if isinstance(item, str) else item for item in value)


def _inputs(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"expected a table of input = features, got {received(value)}")
    return {name: _filled(features) for name, features in value.items()}


def _layers(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(item, dict) for item in value):
        raise ValueError("expected tables [[model.layers]], one a layer")
    for index, layer in enumerate(value):
        kind = layer.get("type")
        if not isinstance(kind, str) or not kind:
            found = f"got {received(kind)}" if "type" in layer else f"got the keys {list(layer)}"
            raise ValueError(f'layer {index} needs a type, such as type = "LSTM"; {found}')
    return tuple(value)


def _kind(value: Any) -> Any:
    return OLD_KINDS.get(value, value) if isinstance(value, str) else value


def _fspath(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


_STRING: dict[str, Any] = {"type": "string", "minLength": 1}
_LIST = {"type": "array", "items": _STRING, "uniqueItems": True}
_ONE_OR_MORE = {"anyOf": [_STRING, _LIST]}

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
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": PATTERN}),
]


class Section(BaseModel):
    """A frozen table that refuses unknown keys and converts nothing silently."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FeatureSection(Section):
    """One feature: a column, and what counts as a value of it."""

    name: Text = Field(description="the column")
    valid: Range | None = Field(
        default=None, description="values outside [low, high] (both inclusive) count as null"
    )
    clip: Range | None = Field(default=None, description="values are limited to [low, high]")
    nulls: Nulls | None = Field(default=None, description="as source.nulls, for this feature alone")


Features = Annotated[
    tuple[FeatureSection, ...],
    BeforeValidator(_features),
    WithJsonSchema(
        {"type": "array", "items": {"anyOf": [_STRING, FeatureSection.model_json_schema()]}},
    ),
]


class SourceSection(Section):
    """Where rows come from, and what of them the model sees."""

    path: FilePath | None = Field(
        default=None,
        description='file, glob, directory (hive partitions too), URI, or "-" (Arrow IPC on stdin)',
        examples=["data/log.parquet"],
    )
    format: Literal["auto", "parquet", "arrow"] = Field(
        default="auto",
        description="of the files: parquet | arrow (IPC) | auto (by name; of a directory Parquet)",
    )
    order: Literal["path", "time"] = Field(
        default="path",
        description="order of files: path (with numbers as numbers) | time (by their statistics)",
    )
    key: Key = Field(
        description="column or columns that name a stream, of any type but floats",
        examples=[["device"]],
    )
    time: Text | None = Field(
        default=None,
        description="timestamp, date or integer ticks; without it the order of the rows counts",
        examples=["time"],
    )
    features: Features = Field(
        description="what the model sees, in its order: a column, or a table { name, valid, clip, "
        "nulls }",
        examples=[["temperature", {"name": "pressure", "valid": [0, 1100], "clip": [900, 1100]}]],
    )
    time_features: TimeFeatures = Field(
        default=(),
        description="hour, day_of_week, day_of_year: each adds its sine and cosine after features",
    )
    nulls: Nulls = Field(
        default="error",
        description="a null in a feature: error | previous (value of the stream) | skip (the row) "
        "| a number",
    )
    reset: Text | None = Field(
        default=None,
        description="boolean column: true starts the stream fresh before that row",
        examples=["new_session"],
    )
    max_gap: Duration | None = Field(
        default=None,
        description="a longer silence starts the stream fresh; needs time",
        examples=["6h"],
    )
    late: Literal["error", "drop", "reject", "apply"] = Field(
        default="error",
        description="a row before its stream's last time: error | drop | reject | apply",
    )
    bad: Literal["error", "reject"] = Field(
        default="error", description="a row with NaN, a null key or an overflow: error | reject"
    )
    max_rejects: Natural = Field(
        default=1000, description="more rejected rows than this stop the run"
    )
    batch_rows: Count = Field(default=131072, description="rows of a record batch")

    @property
    def piped(self) -> bool:
        """Whether rows come on stdin."""
        return self.path == PIPE

    @property
    def time_feature_names(self) -> tuple[str, ...]:
        """What time_features add: hour_sin, hour_cos, …"""
        return tuple(f"{name}_{wave}" for name in self.time_features for wave in ("sin", "cos"))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """All that the model sees, in order."""
        return (*(feature.name for feature in self.features), *self.time_feature_names)

    def nulls_of(self, feature: FeatureSection) -> Literal["error", "previous", "skip"] | float:
        """The policy that holds for a feature: its own, else the source's."""
        return self.nulls if feature.nulls is None else feature.nulls


class WindowSection(Section):
    """How streams are cut into windows."""

    kind: Kind = Field(
        default="carry",
        description="carry (state goes on) | independent (windows of steps rows) | whole (a "
        "stream is one sequence)",
    )
    lanes: Count = Field(default=64, description="streams computed side by side; changes no result")
    steps: Count = Field(
        default=128,
        description="rows of a stream in a window; changes a result in kind independent only",
    )
    stride: Count = Field(
        default_factory=lambda data: data.get("steps", 128),
        description="kind independent only: a window begins every stride rows of a stream; "
        "default steps",
        examples=[128],
    )


class ModelSection(Section):
    """The model, and how features and states meet it."""

    path: FilePath = Field(
        description=".safetensors, .keras, .h5, .hdf5 or .onnx", examples=["model.safetensors"]
    )
    threads: Natural = Field(default=0, description="0: all cores; changes no result")
    inputs: Annotated[
        dict[str, tuple[str, ...]],
        BeforeValidator(_inputs),
        WithJsonSchema({"type": "object", "additionalProperties": _ONE_OR_MORE}),
    ] = Field(
        default_factory=dict,
        description="a model with several inputs: input = a feature, or a list of them",
        examples=[{"ids": "token", "x": ["temperature", "pressure"]}],
    )
    state: dict[str, Text] = Field(
        default_factory=dict,
        description="ONNX: the graph's input = the graph's output that carries it on",
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
        description="layers of weights without an architecture: type, weights (their prefix), "
        "Keras arguments",
        examples=[[{"type": "LSTM", "units": 32, "weights": "encoder.lstm"}]],
    )


class OutputSection(Section):
    """What comes out, and of which rows."""

    emit: Literal["every", "last", "final"] = Field(
        default="every",
        description="every row | the last of each last_of steps of a stream | the final of each "
        "stream",
    )
    last_of: Count | None = Field(
        default=None, description="emit last: one row out of so many steps", examples=[24]
    )
    columns: Columns | None = Field(
        default=None,
        description='columns carried through; default key and time; "*" is all',
        examples=[["device", "time"]],
    )
    names: Names | None = Field(
        default=None,
        description="output columns, one a unit; default the output layer's name",
        examples=[["forecast"]],
    )
    warmup: Natural = Field(
        default=0,
        description="output is null until a stream has had so many steps since it began fresh",
    )


def _beside(data: dict[str, Any]) -> str | None:
    path = data.get("path")
    return None if path in (None, PIPE) else rejects_beside(path)


class SinkSection(Section):
    """Where output goes."""

    path: FilePath | None = Field(
        default=None, description='a directory or its URI, or "-" (Arrow IPC on stdout)',
        examples=["out/scores"],
    )  # fmt: skip
    format: Literal["parquet", "arrow"] = Field(
        default="parquet", description="of the parts: parquet | arrow (IPC files)"
    )
    rejects: FilePath | None = Field(
        default_factory=_beside,
        description='directory of rejected rows; default the path with ".rejects" behind it',
        examples=["out/scores.rejects"],
    )

    @property
    def folder(self) -> str | None:
        """The directory or URI that rows go to; None for stdout, or where none is named."""
        return None if self.path == PIPE else self.path


class StateSection(Section):
    """State that comes from and goes to other runs."""

    init: FilePath | None = Field(
        default=None,
        description="start from this exported state table",
        examples=["before.parquet"],
    )
    map: dict[str, Text] = Field(
        default_factory=dict,
        description="this model's layer = that table's layer, if another model's; needs init",
        examples=[{"decoder": "encoder"}],
    )
    save: FilePath | None = Field(
        default=None,
        description="export the state table here at the end",
        examples=["after.parquet"],
    )


class CheckpointSection(Section):
    """How often a run commits, and how far back it can go."""

    every: Count = Field(default=16, description="record batches from one commit to the next")
    keep: Natural = Field(
        default=1, description="older commits to which `streamrnn rewind` can go back"
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
