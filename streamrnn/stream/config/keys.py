"""Which keys may change between two runs of one output, and the values of missing keys.

A key is free if changing it changes no bit of the output; all others are fixed. An output records
the keys it was written with; a key that is missing, because the output is older than the key, has
its default.
"""

from collections.abc import Mapping
from typing import Any

from streamrnn.stream.config.paths import SIDE_OUTPUTS
from streamrnn.stream.config.schema import PUBLISH_KEYS, FeatureSection, Sections

FREE = frozenset(
    {
        "source.path",  # files are identified by their names
        "source.format",
        "source.version",
        "source.delimiter",  # the content of used files is compared
        "source.order",
        "source.after",
        "source.rename",
        "source.features.*.from",
        "source.batch_rows",
        "source.late",  # only of rows not read yet
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
        *PUBLISH_KEYS,  # tables only index the parts
        "output.names",  # the columns of the output are compared
        "target.column",  # compared with outputs, not computed
        "target.horizon",
        "target.rows",
        "target.weight",
        "target.season",
        "train.loss",  # compared by fits, see `fitting`
        "train.metrics",
        "train.optimizer",
        "train.schedule",
        "train.class_weight",
        "train.clip_norm",
        "train.clip_value",
        "train.scale_target",
        "train.burn_in",
        "train.epochs",
        "train.validation",
        "train.patience",
        "train.pieces",
        "train.seed",
        "train.seeds",
        "train.keep",
        "train.until",
        "train.init",
        "train.state",
        "state.map",  # of the first run, or one with another model
        "state.save",
        "checkpoint.every",
        "checkpoint.keep",
        "engine.type",
        "engine.address",
        "engine.shards",
        "engine.epoch_rows",
        "serve.port",
        "serve.batch_rows",
        "serve.queue_rows",
        "serve.durable",
        "serve.log",
        "serve.keep_log",
        "serve.every",
        # Rows are copied, not changed.
        *(key for side in SIDE_OUTPUTS.values() for key in (side.path, side.where) if key),
    }
)


def may_change(key: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether a key may differ between two runs with these configs (dotted key -> value)."""
    kinds = (value_of("window.kind", then), value_of("window.kind", now))
    if key == "window.steps":
        return kinds == ("carry", "carry")
    if key == "window.stride":
        return "independent" not in kinds
    return _declared(key) in FREE


def _declared(key: str) -> str:
    """Return the name that FREE has for a key: that of a feature's has no feature.

    >>> _declared("source.features.wind.speed.clip")
    'source.features.*.clip'
    """
    if not key.startswith("source.features."):
        return key
    return f"source.features.*.{key.rpartition('.')[2]}"


def value_of(key: str, config: Mapping[str, Any]) -> Any:
    """Return the value of a key in a config, or its default if the config is older than the key."""
    if key in config:
        return config[key]
    table, _, name = key.partition(".")
    last = name.rpartition(".")[2]
    if name.startswith("features."):
        # A feature without `nulls` or `nan` has that of the source.
        if last in ("nulls", "nan"):
            return value_of(f"source.{last}", config)
        return _default(FeatureSection, last, {})
    found = Sections.model_fields.get(table)
    if found is None:
        return None
    beside = {key.partition(".")[2]: config[key] for key in config if key.startswith(f"{table}.")}
    return _default(found.annotation, name, beside)


def side_filters(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the filters that are set, by the name of the side output that has the copies."""
    keys = {name: side.where for name, side in SIDE_OUTPUTS.items() if side.where}
    return {name: text for name, key in keys.items() if (text := value_of(key, config))}


def _default(table: Any, name: str, beside: Mapping[str, Any]) -> Any:
    """Return the default of a key, which may depend on others in its table."""
    field = table.model_fields.get(name)
    if field is None or field.is_required():
        return None
    return field.get_default(call_default_factory=True, validated_data=dict(beside))
