"""The config that an output records: values that are used without a pipeline file."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from streamrnn.stream.config.load import STAND_INS, problem_of
from streamrnn.stream.config.problems import received
from streamrnn.stream.config.schema import PUBLISH_KEYS, Sections

_USED = (
    "source.time_zone",
    "window.kind",
    "window.steps",
    "window.stride",
    "model.path",
    "model.layers",
    "model.state",
    "sink.format",
    "sink.partition_by",
    *PUBLISH_KEYS,
    "checkpoint.keep",
)


def check_recorded(config: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError, naming the key, for a value that no pipeline file has.

    `config`: dotted key -> value. Only keys that are used without a pipeline file are checked; the
    others are compared with it.
    """
    for key in _USED:
        if key in config:
            _check(key, config[key])
    check_schema_types(config.get("source.schema", {}))


def check_schema_types(schema: object) -> None:
    """Raise TypeError unless these are columns with their types as text."""
    if not isinstance(schema, Mapping):
        raise TypeError(f"source.schema: expected a table, received {received(schema)}")
    for column, kind in schema.items():
        if not isinstance(kind, str):
            raise TypeError(
                f"source.schema: column {column!r}: expected the name of a type, received "
                f"{received(kind)}"
            )


def _check(key: str, value: object) -> None:
    table, _, name = key.partition(".")
    section: Any = Sections.model_fields[table].annotation
    try:
        section.model_validate({**STAND_INS.get(table, {}), name: value})
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            problem = problem_of(detail, table, section)
            if problem is not None and detail["loc"][0] == name:
                raise ValueError(f"{key}: {problem.message}") from None
