"""Bind a pipeline to a DataFrame, and check what can be known before a job."""

import copy
import os
from dataclasses import replace
from typing import Any

import pyarrow as pa

from streamrnn.errors import ConfigError
from streamrnn.jobs.pipeline import Pipeline
from streamrnn.plugins.spark.partition import DATA, KIND
from streamrnn.plugins.spark.types import arrow_schema, in_zone
from streamrnn.stream.scoring import BoundPipeline, LoadedPipeline, starting_table
from streamrnn.stream.sources import new_names
from streamrnn.stream.states import read_state_file

FRAME = "the DataFrame"


def loaded_for_workers(pipeline: Pipeline | str | os.PathLike[str]) -> LoadedPipeline:
    """Return a pipeline with its model, whose workers use one thread each: Spark has the others."""
    if not isinstance(pipeline, Pipeline):
        pipeline = Pipeline.from_toml(pipeline)
    loaded = copy.copy(pipeline.loaded)
    model = loaded.config.model.model_copy(update={"threads": 1})
    loaded.config = loaded.config.model_copy(update={"model": model})
    return loaded


def with_new_columns(frame: Any, loaded: LoadedPipeline) -> Any:
    """Return the DataFrame with the new names of [source] rename."""
    names = new_names(frame.columns, loaded.renames, FRAME)
    return frame.toDF(*(names.get(name, name) for name in frame.columns)) if names else frame


def zone_of(loaded: LoadedPipeline, zone: str | None) -> str:
    """Return the time zone of times. Raises ConfigError for another than [source] time_zone."""
    own = loaded.config.source.time_zone
    if own and zone not in (None, own):
        raise ConfigError(
            f"zone={zone!r} and [source] time_zone = {own!r} differ: remove one of them, or make "
            "them equal"
        )
    return zone or "UTC"


def bound_to(frame: Any, loaded: LoadedPipeline, zone: str) -> BoundPipeline:
    """Bind a pipeline to the columns of a DataFrame, whose times are in a time zone.

    Raises DataError for a missing column, DTypeError for one that cannot be used, ConfigError for
    names that clash.
    """
    used = loaded.columns if loaded.columns is not None else list(frame.columns)
    bound = loaded.bind(arrow_schema(frame, used, zone), FRAME)
    for name in bound.emitter.schema.names:
        if name in (KIND, DATA):
            raise ConfigError(f"[output]: {name!r} is used internally: choose another name")
    return bound


def in_own_zone(schema: pa.Schema, bound: BoundPipeline) -> pa.Schema:
    """Return the schema of a state with the time zone of the bound columns: Spark has instants.

    Where hours or days are inputs of the model, its own zone stays, to be compared, unless [source]
    time_zone says which.
    """
    zone, contract = getattr(bound.layout.time, "tz", None), bound.loaded.contract
    if zone is None or (contract.time_features and not contract.time_zone):
        return schema
    return in_zone(schema, zone)


def for_workers(bound: BoundPipeline) -> BoundPipeline:
    """Return a bound pipeline that can be sent: without the table of [state] init."""
    loaded = copy.copy(bound.loaded)
    loaded.read_init = read_state_file
    state = loaded.config.state.model_copy(update={"init": None})
    loaded.config = loaded.config.model_copy(update={"state": state})
    return replace(bound, loaded=loaded)


def initial_state(bound: BoundPipeline) -> pa.Table | None:
    """Return the state that [state] init names, None if it names none."""
    if bound.loaded.config.state.init is None:
        return None
    return starting_table(bound, None, "").to_arrow()
