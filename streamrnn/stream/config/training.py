"""The tables [target] and [train]: what outputs forecast, and how `streamrnn fit` trains."""

import math
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from streamrnn.stream.config.notations import format_duration
from streamrnn.stream.config.problems import did_you_mean, received, unexpected
from streamrnn.stream.config.values import (
    NUMBER,
    POSITIVE,
    STRING,
    Count,
    DurationOrNone,
    FilePath,
    Horizons,
    JsonSchema,
    Names,
    Natural,
    Section,
    Text,
    TimeText,
    any_of,
    array_of,
    levels_of,
    setting,
    table_of,
)


def _table(properties: JsonSchema, required: str) -> JsonSchema:
    """Return the JSON Schema of a table that has these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": [required],
        "additionalProperties": False,
    }


def _share(value: Any) -> bool:
    return type(value) is float and 0 < value < 1


def _shares(value: Any) -> bool:
    listed = isinstance(value, list | tuple) and len(value) > 0 and all(map(_share, value))
    return listed and sorted(set(value)) == list(value)


def _rate(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _count(value: Any) -> bool:
    return type(value) is int and 1 <= value < 2**31


_KEYS: dict[str, tuple[Callable[[Any], bool], str, JsonSchema]] = {
    "warmup": (_share, "a share of the training, above 0 and below 1", NUMBER),
    "factor": (
        lambda value: _rate(value) and 0 < value <= 1,
        "a number above 0, at most 1",
        NUMBER,
    ),
    "at": (
        _shares,
        "one or more shares of the training, above 0 and below 1, in ascending order and each "
        "once, such as [0.5, 0.75]",
        array_of(NUMBER),
    ),
    "patience": (_count, "a number of epochs, 1 or more", POSITIVE),
    "min_rate": (_rate, "a number, 0 or more", NUMBER),
}
SCHEDULE_KEYS: dict[str, Mapping[str, Any]] = {
    "constant": {},
    "cosine": {},
    "exponential": {"factor": 0.01},
    "step": {"at": (0.5, 0.75), "factor": 0.1},
    "plateau": {"factor": 0.5, "patience": 3, "min_rate": 0.0},
}
"""The keys of each schedule and their defaults. Every schedule may have warmup, too."""


def _schedule(value: Any) -> Any:
    table = {"name": value} if isinstance(value, str) else value
    name = table.get("name") if isinstance(table, Mapping) else None
    if not isinstance(name, str) or name not in SCHEDULE_KEYS:
        wrong = value if name is None else name
        hint = did_you_mean(name, SCHEDULE_KEYS) if isinstance(name, str) else ""
        example = 'a table such as { name = "cosine", warmup = 0.1 }'
        raise unexpected(f"one of {', '.join(SCHEDULE_KEYS)}, or {example}", wrong, hint)
    keys = ["name", *SCHEDULE_KEYS[name], "warmup"]
    for key, option in table.items():
        if key not in keys:
            raise ValueError(
                f"{key}: unknown key of schedule {name}{did_you_mean(key, keys)} (known here: "
                f"{', '.join(keys[1:])})"
            )
        if key != "name" and not _KEYS[key][0](option):
            raise ValueError(f"{key}: expected {_KEYS[key][1]}, received {received(option)}")
    listed = {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    return name if list(listed) == ["name"] else listed


Schedule = Annotated[
    str | dict[str, Any],
    BeforeValidator(_schedule),
    WithJsonSchema(
        any_of(
            {"enum": list(SCHEDULE_KEYS)},
            _table(
                {"name": {"enum": list(SCHEDULE_KEYS)}, **{k: s for k, (_, _, s) in _KEYS.items()}},
                "name",
            ),
        )
    ),
]
"""A name, or a table with a name and at least one other key."""


def whole_schedule(value: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return a schedule as a table with all its keys.

    >>> whole_schedule("exponential")
    {'name': 'exponential', 'warmup': 0.0, 'factor': 0.01}
    """
    table = {"name": value} if isinstance(value, str) else dict(value)
    return {"name": table["name"], "warmup": 0.0, **SCHEDULE_KEYS[table["name"]], **table}


SCALED = ("mse", "mae", "huber", "log_cosh", "gaussian_nll")
"""Names of regression losses whose labels may be standardized."""
REGRESSIONS = (*SCALED, "mape", "msle", "poisson", "cosine_similarity")
LOSSES = (
    *REGRESSIONS,
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "kl_divergence",
    "hinge",
    "squared_hinge",
    "categorical_hinge",
)
"""Names of losses; the quantile loss is a table."""


def _loss(value: Any) -> Any:
    if isinstance(value, dict) and list(value) == ["quantile"]:
        return {"quantile": levels_of("quantile: ", value["quantile"])}
    if not isinstance(value, str) or value not in LOSSES:
        hint = did_you_mean(value, LOSSES) if isinstance(value, str) else ""
        raise unexpected(
            f"one of {', '.join(LOSSES)}, or {{ quantile = [0.1, 0.5, 0.9] }}", value, hint
        )
    return value


def _named(value: Any) -> Any:
    """Return a table with a name, "adam" by default: a name alone becomes {"name": name}."""
    table = {"name": value} if isinstance(value, str) else value
    if isinstance(table, dict):
        table = {"name": "adam", **table}
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise unexpected('a name, or a table such as { name = "adam" }', value)
    return table


def _class_weight(value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        raise unexpected('a table of classes and weights such as { "0" = 1, "1" = 20 }', value)
    for name, weight in value.items():
        if not re.fullmatch("0|[1-9][0-9]*", str(name)):  # 01 would be 1 again
            raise ValueError(f'{name}: expected the number of a class, such as "0"')
        if not _rate(weight):
            raise ValueError(f"{name}: expected a number, 0 or more, received {received(weight)}")
    return {str(name): float(weight) for name, weight in value.items()}


def _names(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        raise unexpected('a list of names such as ["mae"]', value)
    return tuple(names)


def _pieces(value: Any) -> Any:
    if value == "auto" or _count(value):
        return value
    raise unexpected('"auto" or an integer from 1 to 2147483647', value)


_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Loss = Annotated[
    str | dict[str, tuple[float, ...]],
    BeforeValidator(_loss),
    WithJsonSchema(
        any_of({"enum": list(LOSSES)}, _table({"quantile": array_of(NUMBER)}, "quantile"))
    ),
]
_Named = Annotated[
    dict[str, Any], BeforeValidator(_named), WithJsonSchema(any_of(STRING, {"type": "object"}))
]
_MetricNames = Annotated[tuple[str, ...], BeforeValidator(_names), WithJsonSchema(array_of(STRING))]
_Pieces = Annotated[
    str | int, BeforeValidator(_pieces), WithJsonSchema(any_of({"const": "auto"}, POSITIVE))
]
_ClassWeight = Annotated[
    dict[str, float],
    BeforeValidator(_class_weight),
    WithJsonSchema(table_of(NUMBER, minProperties=1)),
]


class TargetSection(Section):
    """What the outputs forecast: the labels of training windows, and of `streamrnn evaluate`."""

    column: Names = setting(
        "the column that is forecast, or several; null: the row has no label",
        (),
        example="temperature",
    )
    horizon: Horizons = setting(
        "0 (default: the row itself) | exactly how much later the row with the label is, or a list",
        (),
        example="3h",
    )
    as_: Literal["value", "change"] = setting(
        "value | change (the model learns it less the value at the row, which a run adds again)",
        "value",
        alias="as",
    )
    rows: Natural = setting("instead of horizon: how many rows of the stream later the label is", 0)
    weight: Text | None = setting(
        "column of weights; a step with 0 or null changes the state, but its label does not count",
        example="weight",
    )
    season: DurationOrNone = setting(
        '"" | "24h": fit and evaluate also compare with the value one or more whole days before '
        "the label",
        timedelta(),
        example="24h",
    )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of labels and weights, each once."""
        return tuple(dict.fromkeys([*self.column, *filter(None, [self.weight])]))

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the labels: every horizon of the first column, then of the next."""
        if len(self.horizon) < 2:
            return self.column
        ahead = [format_duration(length) for length in self.horizon]
        return tuple(f"{column} {length}" for column in self.column for length in ahead)

    @property
    def added(self) -> tuple[str, ...]:
        """The columns whose values at a row are added to outputs, each once."""
        return tuple(dict.fromkeys(self.column)) if self.as_ == "change" else ()

    @property
    def ahead(self) -> bool:
        """Whether a label is the value of a later row."""
        return bool(self.horizon or self.rows)


class ValidationSection(Section):
    """The rows that each epoch is judged on; no weight is trained on them."""

    since: TimeText | None = setting(
        "all rows from this time on; the state continues from the training rows"
    )
    streams: Annotated[float, Field(gt=0, lt=1)] | None = setting(
        "this share of the streams, chosen by a hash of the key"
    )


class TrainSection(Section):
    """How `streamrnn fit` trains; a run ignores it."""

    loss: _Loss = setting(
        "mse, mae, huber, gaussian_nll, …, { quantile = [0.1, 0.9] }, or a crossentropy (binary_…)",
        "mse",
    )
    metrics: _MetricNames = setting(
        "reported beside the loss, on the scale of the target: mae, accuracy, auc, …",
        (),
        example=["mae"],
    )
    optimizer: _Named = setting(
        "adam | adamw | rmsprop | sgd | …, or a table with its Keras arguments",
        {"name": "adam"},
        example={"name": "adam", "learning_rate": 0.005},
    )
    schedule: Schedule = setting(
        "of the learning rate: constant | cosine | exponential | step | plateau, or a table",
        "constant",
        example={"name": "cosine", "warmup": 0.1},
    )
    class_weight: _ClassWeight | None = setting(
        "weights of classes in the training loss; a class that is not listed has 1",
        example={"0": 1, "1": 20},
    )
    clip_norm: _Positive | None = setting(
        "limit of the norm of all gradients of an update, taken together", example=1.0
    )
    clip_value: _Positive | None = setting(
        "limit of the absolute value of each element of a gradient", example=0.5
    )
    scale_target: bool | None = setting(
        "standardize labels, append their scale to the model; default: true if loss and init "
        "allow it",
        example=True,
    )
    burn_in: Natural | None = setting(
        "no loss in this many steps after a stream starts or is reset; default output.warmup",
        example=24,
    )
    epochs: Count = setting("passes over the rows", 10)
    validation: ValidationSection | None = setting(
        "rows to judge each epoch by: { since = … }, { streams = 0.1 }, or both",
        example={"since": "2013-09-01"},
    )
    patience: Natural = setting(
        "stop after this many epochs without a better validation loss; 0: never", 0
    )
    pieces: _Pieces = setting(
        "cut each stream into this many pieces, trained side by side; auto: as many as fill the"
        " lanes",
        "auto",
    )
    seed: Natural = setting("seed of initial weights, dropout and the order of streams", 0)
    seeds: Count = setting(
        "train this many models side by side: with seed, seed + 1, and so on", 1, example=5
    )
    keep: Literal["best", "all"] = setting(
        "of several seeds: best (by validation) | all (one model, of their mean and spread)", "best"
    )
    until: TimeText | None = setting("rows from this time on are not read", example="2013-10-01")
    init: FilePath | None = setting(
        "a model to start from, instead of the layers in [model]", example="before.safetensors"
    )
    state: bool = setting(
        "save the state after the last row, from which a run or --continue starts", True
    )

    @property
    def quantiles(self) -> tuple[float, ...]:
        """The levels of a quantile loss; empty for another loss."""
        return self.loss["quantile"] if isinstance(self.loss, dict) else ()

    @property
    def is_regression(self) -> bool:
        """Whether labels are numbers, not classes."""
        return isinstance(self.loss, dict) or self.loss in REGRESSIONS

    @property
    def measures(self) -> bool:
        """Whether outputs forecast the labels themselves, so that errors can be measured."""
        return self.is_regression and not self.quantiles and self.loss != "gaussian_nll"

    @property
    def may_scale(self) -> bool:
        """Whether the loss allows labels to be standardized."""
        return isinstance(self.loss, dict) or self.loss in SCALED
