"""The pipeline of an output, from the config that its last commit records."""

from collections.abc import Mapping
from typing import Any

from streamrnn.errors import ConfigError, StreamRNNError
from streamrnn.stream.checkpoints import read_manifest
from streamrnn.stream.config import Config, value_of
from streamrnn.stream.scoring import LoadedPipeline

_INSTEAD = "Report on the pipeline file instead: streamrnn report pipeline.toml"


def recorded_pipeline(output: str) -> LoadedPipeline | str:
    """Load the model of an output; return why it cannot be loaded, in a sentence.

    Relative paths are those of the run. Vocabularies are not recorded, only what they were. Raises
    MissingFileError or CheckpointError without a readable output.
    """
    config = recorded_config(output)
    try:
        return LoadedPipeline(Config.parse(_tables(config)))
    except StreamRNNError as error:
        return f"the pipeline cannot be loaded as the output records it: {error}. {_INSTEAD}."


def recorded_config(output: str) -> Mapping[str, Any]:
    """Return the values by key that the last commit of an output records."""
    return read_manifest(output).config


def _tables(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of a pipeline file. Raises ConfigError if they are not all recorded.

    Defaults are left out: some may not be set, such as a stride in most kinds of window.
    """
    tables: dict[str, dict[str, Any]] = {}
    keys = {key: value for key, value in flat.items() if not key.startswith("source.features.")}
    for key, value in keys.items():
        table, _, name = key.partition(".")
        default = value_of(key, {other: keys[other] for other in keys if other != key})
        if key != "source.schema" and value is not None and value != default:
            tables.setdefault(table, {})[name] = value
    source = tables.get("source", {})
    source["features"] = [
        {"name": name, **_keys(flat, f"source.features.{name}.")}
        for name in source.get("features", [])
    ]
    return tables


def _keys(flat: Mapping[str, Any], head: str) -> dict[str, Any]:
    found = {key.removeprefix(head): value for key, value in flat.items() if key.startswith(head)}
    if found.get("vocabulary") is not None:
        raise ConfigError(
            f"feature {head.split('.', 2)[2][:-1]!r} has a vocabulary, which is not recorded."
        )
    names = ("valid", "clip", "nulls", "nan", "from")
    return {name: found[name] for name in names if found.get(name) not in (None, [])}
