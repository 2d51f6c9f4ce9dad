"""Which keys may change between two runs of one output, and the values of missing keys.

A key is free if a change to it cannot alter committed rows, or is noticed in another way, such as
by the model's fingerprint; all others are fixed. An output records the keys it was written with. A
key that is newer than the output has its default.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from streamrnn.stream.config.load import STAND_INS, problem_of
from streamrnn.stream.config.paths import SIDE_OUTPUTS
from streamrnn.stream.config.problems import received
from streamrnn.stream.config.schema import PUBLISH_KEYS, TABLES, FeatureSection

# All keys of these tables are free. Published tables only index the parts, labels are compared with
# outputs and do not change them, and a fit itself compares the keys that it depends on.
_FREE_TABLES = ("publish", "target", "train", "checkpoint", "engine", "serve")
FREE = frozenset(
    {
        "source.path",  # files are identified by their names
        "source.format",
        "source.version",
        "source.delimiter",  # the content of used files is compared
        "source.null_values",
        "source.order",
        "source.after",
        "source.rename",
        "source.features.*.from",
        "source.batch_rows",
        "source.late",  # affects only rows not read yet
        "source.bad",
        "source.max_rejects",
        "window.lanes",
        "model.path",  # the model's fingerprint is compared
        "model.layers",  # in the fingerprint
        "model.precision",  # in the fingerprint
        "model.on_change",
        "model.replay",
        "model.threads",
        "sink.path",
        "output.names",  # the columns of the output are compared
        "output.quantiles",  # in the fingerprint
        "output.calibrate",  # in the fingerprint
        "output.sort",  # affects only rows not scored yet
        "state.map",  # read by the first run, or a run with another model
        "state.save",
        # Rows are copied, not changed.
        *(key for side in SIDE_OUTPUTS.values() for key in (side.path, side.where) if key),
        *(f"{name}.{key}" for name in _FREE_TABLES for key in TABLES[name].by_key()),
    }
) - {"target.as"}  # it changes what outputs are


def may_change(key: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether a key may differ between two runs with these configs (dotted key -> value)."""
    kinds = (value_of("window.kind", then), value_of("window.kind", now))
    if key == "window.steps":
        return kinds == ("carry", "carry")
    if key == "target.column":  # of changes, what is added to outputs
        return "change" not in (value_of("target.as", then), value_of("target.as", now))
    if key == "window.stride":
        return "independent" not in kinds
    if key.startswith("source.features."):  # in FREE, `*` stands for the feature's name
        return f"source.features.*.{key.rpartition('.')[2]}" in FREE
    return key in FREE


def value_of(key: str, config: Mapping[str, Any]) -> Any:
    """Return the value of a key in a config; its default, if any, if the config lacks the key."""
    if key in config:
        return config[key]
    table, _, name = key.partition(".")
    last = name.rpartition(".")[2]
    if name.startswith("features."):
        # A feature without `nulls` or `nan` takes the source's.
        if last in ("nulls", "nan"):
            return value_of(f"source.{last}", config)
        return _default(FeatureSection, last, {})
    if table not in TABLES:
        return None
    beside = {key.partition(".")[2]: config[key] for key in config if key.startswith(f"{table}.")}
    return _default(TABLES[table], name, beside)


def side_filters(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the filters that are set: side output -> the filter of the rows that it receives."""
    keys = {name: side.where for name, side in SIDE_OUTPUTS.items() if side.where}
    return {name: text for name, key in keys.items() if (text := value_of(key, config))}


def _default(table: Any, name: str, beside: Mapping[str, Any]) -> Any:
    """Return the default of a key, which may depend on keys of its table; None without one."""
    field = table.by_key().get(name)
    if field is None or field.is_required():
        return None
    return field.get_default(call_default_factory=True, validated_data=dict(beside))


_USED = (
    "source.time_zone",
    "source.types",
    "window.kind",
    "window.steps",
    "window.stride",
    "model.path",
    "model.layers",
    "model.state",
    "output.quantiles",
    "sink.format",
    "sink.partition_by",
    *PUBLISH_KEYS,
    "checkpoint.keep",
    "serve.log",
)


def check_recorded(config: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError, naming the key, for a value that no pipeline file could have.

    Only the keys that are used without a pipeline file are checked.
    """
    for key in filter(config.__contains__, _USED):
        table, _, name = key.partition(".")
        section = TABLES[table]
        try:
            section.model_validate({**STAND_INS.get(table, {}), name: config[key]})
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                problem = problem_of(detail, table, section)
                if problem is not None and detail["loc"][0] == name:
                    raise ValueError(f"{key}: {problem.message}") from None
    check_schema_types(config.get("source.schema", {}))


def check_schema_types(schema: object) -> None:
    """Raise TypeError unless `schema` maps columns to the names of their types."""
    if not isinstance(schema, Mapping):
        raise TypeError(f"source.schema: expected a table, received {received(schema)}")
    for column, kind in schema.items():
        if not isinstance(kind, str):
            raise TypeError(
                f"source.schema: column {column!r}: expected the name of a type, received "
                f"{received(kind)}"
            )
