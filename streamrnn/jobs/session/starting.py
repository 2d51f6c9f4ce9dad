"""Where the first call of `process` starts: from the initial state, or from its own output."""

import logging
import warnings
from contextlib import suppress

import pyarrow as pa

from streamrnn.base.display import count, location
from streamrnn.errors import ConfigError, MissingFileError, StreamRNNError
from streamrnn.jobs.preflight import Start, logged_table, open_source, run_config
from streamrnn.jobs.session.data import BATCH
from streamrnn.stream.checkpoints import (
    Manifest,
    check_same_pipeline,
    check_schema,
    has_manifest,
    load_state,
    read_manifest,
)
from streamrnn.stream.config import Config
from streamrnn.stream.scoring import LoadedPipeline, RunOptions, Scorer, starting_table
from streamrnn.stream.sources import canonical_name, in_earlier_types
from streamrnn.stream.sources.casts import type_named
from streamrnn.stream.states import key_names
from streamrnn.stream.states.positions import from_json

_LOGGER = logging.getLogger("streamrnn.pipeline")


def require_output(config: Config) -> None:
    """Raise ConfigError if there can be no output to start from."""
    if config.sink.folder is None:
        path = "none" if config.sink.path is None else repr(config.sink.path)
        raise ConfigError(
            f'state="output": expected [sink] path to name the folder of an output, received {path}'
            '. A state in a folder with the name output is state="./output"'
        )


def first_scorer(loaded: LoadedPipeline, schema: pa.Schema, start: Start) -> Scorer:
    """Return the scorer of the first call of `process`, whose data has this schema.

    Raises the errors of a run that cannot start, or resume, from that state.
    """
    folder = loaded.config.sink.folder
    if start == "output" and folder is not None:
        if has_manifest(folder):
            return scorer_after(loaded, schema, read_manifest(folder), load_state(folder))
        _LOGGER.warning(
            "%s has no commit yet: streams start from the initial state", location(folder)
        )
    bound = loaded.bind(schema, BATCH)
    return Scorer(bound, logged_table(bound))


def scorer_after(
    loaded: LoadedPipeline,
    schema: pa.Schema,
    last: Manifest,
    state: pa.Table | None,
    *,
    quiet: bool = False,
) -> Scorer:
    """Return a scorer with the state and the column types of the output's last commit.

    Unless it is to be `quiet`, log what a user should know of the state. Raises the errors of a run
    that cannot resume from it.
    """
    place = location(str(loaded.config.sink.folder))
    bound = loaded.bind(in_earlier_types(schema, last.config.get("source.schema", {})), BATCH)
    on_change, folder = loaded.config.model.on_change, str(loaded.config.sink.folder)
    may_differ = on_change != "error"
    check_same_pipeline(last, loaded.fingerprint, run_config(bound), folder, new_model=may_differ)
    notes = [str(loaded.choice.note)] if loaded.choice.kept else []
    table = starting_table(
        bound,
        state,
        f"the state of {place}",
        notes,
        on_change=on_change,
        earlier_map=last.config.get("state.map", {}),
    )
    scorer = Scorer(bound, table)
    scorer.position = from_json(last.positions)
    for note in () if quiet else notes:
        _LOGGER.warning("%s: %s", place, note)
    return scorer


def check_first(loaded: LoadedPipeline, last: Manifest | None, state: pa.Table | None) -> None:
    """Raise what `scorer_after` or the first commit of rows would raise, before there are rows."""
    if last is None:
        return
    none = None if state is None else state.slice(0, 0)
    scorer = scorer_after(loaded, schema_before_rows(loaded, last), last, none, quiet=True)
    check_schema(last, scorer.bound.emitter.schema, str(loaded.config.sink.folder))


def schema_before_rows(loaded: LoadedPipeline, last: Manifest | None) -> pa.Schema:
    """Return the columns in use; a type that is unknown before the first rows is null.

    Types come from the last commit, else from the source's files, else from [state] init.
    """
    contract, config = loaded.contract, loaded.config
    path, init = config.source.path, config.state.init
    types = {f.name: pa.float64() for f in contract.floats if f.vocabulary is None}
    if contract.reset is not None:
        types[contract.reset] = pa.bool_()
    if last is not None:
        recorded = last.config["source.schema"].items()
        types |= {name: type_named(text) or pa.null() for name, text in recorded}
    else:
        if path is not None and not config.source.piped:
            with suppress(MissingFileError):
                return open_source(loaded, RunOptions()).schema
        if init is not None:
            table = loaded.read_init(init)
            types |= {key: table.schema.field(key).type for key in key_names(table, init)}
            if contract.time is not None and "last_time" in table.column_names:
                types[contract.time] = table.schema.field("last_time").type
    names = loaded.columns or list(dict.fromkeys([*contract.columns(), *types]))
    return pa.schema([(name, types.get(name, pa.null())) for name in names])


def warn_of_output(config: Config) -> None:
    """Warn the caller of `process` that it does not start from the state of the output."""
    folder, init = config.sink.folder, config.state.init
    if folder is None or (init is not None and canonical_name(init) == canonical_name(folder)):
        return
    with suppress(StreamRNNError, OSError, pa.ArrowException):
        last = read_manifest(folder)
        if last.state_rows:
            warnings.warn(
                f"process starts from {'the initial state' if init is None else '[state] init'}: "
                f"{location(folder)}, the output of this pipeline, has the state of "
                f"{count(last.state_rows, 'stream')} after commit {last.commit}. To start from "
                'it, load the pipeline with state="output".',
                UserWarning,
                stacklevel=3,
            )
