"""How keys of the pipeline file are declared: valid values, their JSON Schema, and tables."""

import math
import os
import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.fields import FieldInfo

from streamrnn.base.display import location, uri_fault
from streamrnn.base.plugin import plugin_names
from streamrnn.stream.config.notations import (
    PATTERN,
    format_duration,
    parse_duration,
    partition_texts,
)
from streamrnn.stream.config.problems import choices, did_you_mean, received, unexpected


class Section(BaseModel):
    """A frozen table that refuses unknown keys, and values of a wrong type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, location(value) if isinstance(value, str) else value

    @classmethod
    def by_key(cls) -> dict[str, FieldInfo]:
        """Return the fields by their keys in the pipeline file."""
        return {field.alias or name: field for name, field in cls.model_fields.items()}


def setting(
    help: str,
    default: Any = None,
    *,
    factory: Callable[..., Any] | None = None,
    alias: str | None = None,
    example: Any = None,
) -> Any:
    """Declare a key of a table by its line of help; with the default `...` it is required.

    `factory`, if set, makes the default, and may use the values of the keys before this one. The
    sample of `streamrnn init` shows the `example`.
    """
    examples = None if example is None else [example]
    if factory is not None:
        return Field(default_factory=factory, alias=alias, description=help, examples=examples)
    return Field(default, alias=alias, description=help, examples=examples)


FLOAT32_MAX = 3.4028234663852886e38
NULL_POLICIES = ("error", "previous", "skip")
TYPE_NAMES = (
    *("string", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float32", "float64", "double", "date32"),
    *("timestamp[s]", "timestamp[ms]", "timestamp[us]", "timestamp[ns]"),
)
"""Names of column types, as Arrow writes them."""
_TYPE = re.compile(
    "|".join(map(re.escape, TYPE_NAMES))
    + r"|timestamp\[(s|ms|us|ns), tz=[A-Za-z0-9_+/:-]+\]|decimal128\([0-9]{1,2}, [0-9]{1,2}\)"
)
_NULLS = '"error", "previous", "skip" or a number'


def _names(value: Any) -> Any:
    """Return one name or a list of unique names as a tuple."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise unexpected("a name or a list of names", value)
    if "" in names:
        raise ValueError("expected non-empty names, received an empty one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{choices(twice)} is given more than once; name each column once")
    return tuple(names)


def _filled(value: Any) -> Any:
    names = _names(value)
    if not names:
        raise ValueError("expected at least one name, received an empty list")
    return names


def _table_name(value: Any) -> Any:
    if isinstance(value, str) and not all(("." in value, *value.split("."))):
        raise unexpected("namespace.table", value)
    return value


def _columns(value: Any) -> Any:
    names = _names(value)
    if "*" in names and len(names) > 1:
        raise ValueError('"*" means all columns; give it alone')
    return names


def _time_features(value: Any) -> Any:
    names, options = _names(value), get_args(TimeFeature)
    for name in names:
        if name not in options:
            raise unexpected(choices(options), name, did_you_mean(name, options))
    return names


def _source_format(value: Any) -> Any:
    """Return the name of a format of files or tables; a plug-in may add a format of tables."""
    if value not in SOURCE_FORMAT_NAMES:
        names = tuple(dict.fromkeys([*SOURCE_FORMAT_NAMES, *plugin_names("table")]))
        if value not in names:
            raise unexpected(choices(names), value, did_you_mean(str(value), names))
    return value


def _range(value: Any) -> Any:
    """Return [low, high] as two floats; an infinite end is open."""
    pair = value if isinstance(value, list | tuple) else ()
    numbers = [end for end in pair if isinstance(end, int | float) and not isinstance(end, bool)]
    if len(pair) != 2 or len(numbers) != 2 or any(math.isnan(end) for end in numbers):
        raise unexpected("two numbers [low, high]", value)
    low, high = float(numbers[0]), float(numbers[1])
    if low > high:
        raise ValueError(f"expected low <= high, received [{low}, {high}]")
    return low, high


def _nulls(value: Any) -> Any:
    if isinstance(value, str):
        if value in NULL_POLICIES:
            return value
        raise unexpected(_NULLS, value, did_you_mean(value, NULL_POLICIES))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise unexpected(_NULLS, value)
    if not abs(value) <= FLOAT32_MAX:
        raise ValueError(f"expected a number within the range of float32, received {value}")
    return float(value)


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta) and value > timedelta():
        return value
    if not isinstance(value, str):
        raise unexpected('a duration such as "6h"', value)
    return parse_duration(value)


def _horizons(value: Any) -> Any:
    """Return lengths of time without repeats; () for the row itself."""
    if value in (0, timedelta()) and not isinstance(value, bool):
        return ()
    lengths = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(length, str | timedelta) for length in lengths):
        raise ValueError(
            f'expected a duration such as "3h", a list of them, or 0, received {received(value)}; '
            "a number of rows is set by target.rows"
        )
    lengths = tuple(map(_duration, lengths))
    if min(lengths, default=timedelta()) <= timedelta():
        raise unexpected("one or more durations above zero, or 0 alone", value)
    if len(set(lengths)) < len(lengths):
        raise unexpected("each duration once", value)
    return lengths


def _horizons_value(lengths: tuple[timedelta, ...]) -> list[str] | str | int:
    texts = [format_duration(length) for length in lengths]
    return texts if len(texts) > 1 else texts[0] if texts else 0


def _length_or_number(value: Any, expected: str) -> Any:
    if type(value) is int and value >= 1:
        return value
    if not isinstance(value, str | timedelta):
        raise unexpected(expected, value)
    return _duration(value)


def _idle(value: Any) -> Any:
    or_ticks = 'a duration such as "30d", or, if times are integers, an integer from 1 on'
    return None if value in (None, "") else _length_or_number(value, or_ticks)


def _replay(value: Any) -> Any:
    or_rows = '"all", a duration such as "90d", or a number of rows per stream, at least 1'
    return value if value == "all" else _length_or_number(value, or_rows)


def length_text(value: Any) -> Any:
    """Return a length of time, or what may replace it, as a pipeline file writes it."""
    return format_duration(value) if isinstance(value, timedelta) else value


def feature_tables(value: Any) -> Any:
    """Return a list of columns or tables as a tuple of tables."""
    if not isinstance(value, list | tuple):
        raise unexpected("a list of columns", value)
    return tuple({"name": item} if isinstance(item, str) else item for item in value)


def _names_by_name(expected: str, names_of: Callable[[Any], Any] = _filled) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise unexpected(f"a table of {expected}", value)
        return {name: names_of(names) for name, names in value.items()}

    return check


def _input(value: Any) -> Any:
    if not isinstance(value, dict):
        return _filled(value)
    steps = value.get("steps")
    if value.keys() != {"features", "steps"} or type(steps) is not int or steps < 1:
        raise unexpected("{ features = …, steps = the number of last rows that it reads }", value)
    return {"features": _filled(value["features"]), "steps": steps}


def _vocabulary(value: Any) -> Any:
    """Check a path, a table, or a list of strings or of integers; return the list as a tuple."""
    path = _fspath(value)
    if isinstance(path, str) and path:
        return path
    if isinstance(value, dict) and {type(number) for number in value.values()} == {int}:
        return value
    values = list(value) if isinstance(value, list | tuple) else []
    if not values or {type(item) for item in values} not in ({str}, {int}):
        raise unexpected(
            "a file, a list of strings or of integers, or a table of value = id", value
        )
    return tuple(values)


def _oov(value: Any) -> Any:
    if isinstance(value, bool) or value not in (0, 1):
        raise unexpected("0 or 1", value)
    return value


def _column_types(value: Any) -> Any:
    if not isinstance(value, dict):
        raise unexpected("a table of column = type", value)
    for name, kind in value.items():
        if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
            hint = did_you_mean(kind, TYPE_NAMES) if isinstance(kind, str) else ""
            raise ValueError(
                f"{name}: expected {choices(TYPE_NAMES)}, a timestamp with a zone such as "
                f'"timestamp[us, tz=UTC]", or a decimal such as "decimal128(10, 2)", received '
                f"{received(kind)}{hint}"
            )
    return value


def _delimiter(value: Any) -> Any:
    if not isinstance(value, str) or len(value) != 1 or not value.isascii() or value in '"\r\n':
        raise unexpected("one ASCII character, not a double quote or a line break", value)
    return value


def _texts(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise unexpected("a list of texts", value)
    return tuple(value)


def _layers(value: Any) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(item, dict) for item in value):
        raise ValueError("expected a table [[model.layers]] per layer")
    for number, layer in enumerate(value, start=1):
        kind = layer.get("type")
        if not isinstance(kind, str) or not kind:
            problem = (
                f"received {received(kind)}"
                if "type" in layer
                else f"received the keys {list(layer)}"
            )
            raise ValueError(
                f'[[model.layers]] number {number} needs a type, such as type = "LSTM"; {problem}'
            )
    return tuple(value)


def _time_text(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if type(value) is int else value


def _fspath(value: Any) -> Any:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(path, str) and "\0" in path:
        raise ValueError(f"a path cannot contain a null byte, received {received(path)}")
    if isinstance(path, str) and (fault := uri_fault(path)):
        raise ValueError(f"{fault}; received {received(path)}")
    return path


JsonSchema = dict[str, Any]
STRING: JsonSchema = {"type": "string", "minLength": 1}
NUMBER: JsonSchema = {"type": "number"}
POSITIVE: JsonSchema = {"type": "integer", "minimum": 1}
_DURATION: JsonSchema = {"type": "string", "pattern": PATTERN}


def any_of(*schemas: JsonSchema) -> JsonSchema:
    """Return the JSON Schema of a value that matches at least one of these schemas."""
    return {"anyOf": list(schemas)}


def array_of(items: JsonSchema, **limits: Any) -> JsonSchema:
    """Return the JSON Schema of a list."""
    return {"type": "array", "items": items, **limits}


def table_of(values: JsonSchema, **limits: Any) -> JsonSchema:
    """Return the JSON Schema of a table with any keys."""
    return {"type": "object", "additionalProperties": values, **limits}


_ONE_OR_MORE = any_of(STRING, array_of(STRING, uniqueItems=True))
_NAMES, _NAMES_BY_NAME = WithJsonSchema(_ONE_OR_MORE), WithJsonSchema(table_of(_ONE_OR_MORE))

NewModel = Literal["replay", "carry", "reset"]
"""How another model takes over the output of the previous one."""
WAYS = {
    "replay": "the new model reads earlier rows of the source into its own state, writes none of "
    "them, and continues: for a model that was trained again, if the files of these rows still "
    "exist",
    "carry": "each stream keeps its state: for the same model in another form or precision, or "
    "one fine-tuned from it",
    "reset": "every stream starts again from the initial state",
}
"""What each `NewModel` does."""
OTHER_WAYS = f"carry ({WAYS['carry']}), or reset ({WAYS['reset']})"
"""What to use where a replay is not possible."""
LiveChange = Literal["carry", "reset"]
"""How another model takes over in a session."""
OnChange = Literal["error", "replay", "carry", "reset"]
"""What to do if the state comes from another model."""
EngineType = Literal["local", "ray"]
SOURCE_FORMAT_NAMES = ("auto", "parquet", "arrow", "csv", "ndjson", "delta", "iceberg")
SourceFormat = Annotated[
    str,
    BeforeValidator(_source_format),
    WithJsonSchema({"enum": list(SOURCE_FORMAT_NAMES), "type": "string"}),
]
INDEXED_FORMATS = ("parquet",)
"""The formats of parts that tables can index."""
Text = Annotated[str, Field(min_length=1)]
TableName = Annotated[str, BeforeValidator(_table_name), Field(min_length=1)]
TimeText = Annotated[
    str,
    BeforeValidator(_time_text),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [STRING, {"type": "integer"}]}),
]
FilePath = Annotated[str, BeforeValidator(_fspath), Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Shards = Annotated[int, Field(ge=0, le=4096)]
Natural = Annotated[int, Field(ge=0, le=2**31 - 1)]
Version = Annotated[int, Field(ge=0, le=2**63 - 1)]


def levels_of(owner: str, quantiles: Any) -> tuple[float, ...]:
    """Return the levels of quantiles, one or more.

    Raises ValueError, whose message begins with `owner`.
    """
    levels = list(quantiles) if isinstance(quantiles, list | tuple) else [quantiles]
    numbers = [q for q in levels if isinstance(q, float) and 0 < q < 1]
    if not levels or len(numbers) < len(levels) or sorted(set(levels)) != levels:
        raise ValueError(
            f"{owner}expected one or more numbers above 0 and below 1, in ascending order and each "
            f"once, received {quantiles!r}"
        )
    return tuple(levels)


Levels = Annotated[
    tuple[float, ...],
    BeforeValidator(lambda value: levels_of("", value)),
    WithJsonSchema(array_of(NUMBER, minItems=1)),
]
Names = Annotated[tuple[str, ...], BeforeValidator(_filled), _NAMES]
Columns = Annotated[tuple[str, ...], BeforeValidator(_columns), _NAMES]
TimeFeature = Literal["hour", "day_of_week", "day_of_year"]
TimeFeatures = Annotated[tuple[TimeFeature, ...], BeforeValidator(_time_features)]
Kind = Literal["carry", "independent", "whole"]
Range = Annotated[
    tuple[float, float],
    BeforeValidator(_range),
    WithJsonSchema(array_of(NUMBER, minItems=2, maxItems=2)),
]
Nulls = Annotated[
    Literal["error", "previous", "skip"] | float,
    BeforeValidator(_nulls),
    WithJsonSchema(any_of({"enum": list(NULL_POLICIES)}, NUMBER)),
]
VocabularyValue = Annotated[
    str | tuple[str | int, ...] | dict[str, int],
    BeforeValidator(_vocabulary),
    WithJsonSchema(
        any_of(
            STRING,
            array_of({"type": "string"}, minItems=1),
            array_of({"type": "integer"}, minItems=1),
            table_of({"type": "integer"}, minProperties=1),
        )
    ),
]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(_DURATION),
]
Horizons = Annotated[
    tuple[timedelta, ...],
    BeforeValidator(_horizons),
    PlainSerializer(_horizons_value, return_type=list[str] | str | int),
    WithJsonSchema(any_of({"const": 0}, _DURATION, array_of(_DURATION))),
]
DurationOrNone = Annotated[
    timedelta,
    BeforeValidator(lambda value: timedelta() if value in ("", timedelta()) else _duration(value)),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(any_of({"const": ""}, _DURATION)),
]
Idle = Annotated[
    timedelta | int | None,
    BeforeValidator(_idle),
    PlainSerializer(length_text, return_type=str | int | None),
    WithJsonSchema(any_of({"const": ""}, _DURATION, POSITIVE)),
]
ReplayRange = Annotated[
    timedelta | int | str,
    BeforeValidator(_replay),
    PlainSerializer(length_text, return_type=str | int),
    WithJsonSchema(any_of({"const": "all"}, _DURATION, POSITIVE)),
]
Renames = Annotated[
    dict[str, tuple[str, ...]],
    BeforeValidator(_names_by_name("new name = old name")),
    _NAMES_BY_NAME,
]
ColumnTypes = Annotated[
    dict[str, str],
    BeforeValidator(_column_types),
    WithJsonSchema(table_of({"type": "string", "pattern": _TYPE.pattern})),
]
Delimiter = Annotated[
    str,
    BeforeValidator(_delimiter),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 1}),
]
_INPUT = {"type": "object", "properties": {"features": _ONE_OR_MORE, "steps": POSITIVE}}
NullValues = Annotated[
    tuple[str, ...],
    BeforeValidator(_texts),
    WithJsonSchema(array_of({"type": "string"})),
]
ModelInputs = Annotated[
    dict[str, tuple[str, ...] | dict[str, Any]],
    BeforeValidator(_names_by_name("input = features", _input)),
    WithJsonSchema(table_of(any_of(_ONE_OR_MORE, _INPUT))),
]
_LAYER = {"type": STRING, "weights": {"type": "string"}, "inputs": _ONE_OR_MORE}
LayerTables = Annotated[
    tuple[dict[str, Any], ...],
    BeforeValidator(_layers),
    WithJsonSchema(array_of({"type": "object", "properties": _LAYER, "required": ["type"]})),
]
PartitionBy = Annotated[
    tuple[str, ...],
    BeforeValidator(partition_texts),
    WithJsonSchema(any_of(STRING, table_of(STRING), array_of(any_of(STRING, table_of(STRING))))),
]
Oov = Annotated[int, BeforeValidator(_oov), WithJsonSchema({"type": "integer", "enum": [0, 1]})]


def check_new_model(value: object) -> NewModel | None:
    """Return `value` if it is None or one of the ways in which another model takes over.

    Raises ValueError, which lists the ways, if it is not.

    >>> check_new_model("carry")
    'carry'
    """
    if value is None or value in tuple(WAYS):
        return cast("NewModel | None", value)
    lines = "".join(f"\n  {way}: {what}" for way, what in WAYS.items())
    raise unexpected(choices(tuple(WAYS)), value, lines)
