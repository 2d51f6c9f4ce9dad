"""The states of an output's streams: read, export, import, compare, drop and reset them.

What a killed run left behind is removed here, too.
"""

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Array, Bools
from streamrnn.base.display import as_text, count, short_model, without_options
from streamrnn.base.storage.store import AnyPath, open_files
from streamrnn.errors import ConfigError, StateError
from streamrnn.jobs.outputs.server_log import refuse_behind
from streamrnn.nn.formats import load_model
from streamrnn.nn.models.mixture import quantiles_of
from streamrnn.stream.checkpoints import Manifest, OutputFolder, load_state, refuse_inside_output
from streamrnn.stream.checkpoints.directory import INSIDE, STAGING
from streamrnn.stream.config import did_you_mean, value_of
from streamrnn.stream.operators import KINDS
from streamrnn.stream.sources import ticks
from streamrnn.stream.sources.formats.base import TICKS
from streamrnn.stream.states import (
    Layout,
    StateDiff,
    check_suffix,
    diff,
    from_arrow,
    key_names,
    meta,
    read_state_file,
    write_state_file,
)
from streamrnn.stream.states.positions import last_position, to_json


def read_states(
    path: AnyPath, keys: Sequence[str] = (), sort: str | None = None, *, seen: bool = False
) -> pa.Table:
    """Read the state table of the last commit of an output folder, or of a file.

    With `keys` (as for `drop_streams`), read only these streams; with `sort`, sort by that column,
    largest first, null last; rows with equal values keep their order. With `seen` the table's
    metadata lists the files that the state has seen, as in an exported table, for a run that starts
    from the table.

    Raises ConfigError for an unknown key or column, MissingFileError, DataError, CheckpointError,
    and StateError if there is no state.

    >>> read_states("out/weather").column_names[:4]
    ['origin', 'steps', 'last_time', 'gru/h']
    >>> read_states("out/weather", keys=["JFK"])["origin"].to_pylist()
    ['JFK']
    """
    path = os.fspath(path)
    is_file = without_options(path).endswith((".parquet", ".arrow"))
    if is_file and ("://" in path or not Path(path).is_dir()):
        table = read_state_file(path)
    elif (table := load_state(path, seen=seen)) is None:
        raise StateError(f"{path}: this output has no state")
    if keys:
        table = table.filter(pa.array(rows_of(table, keys, path)))
    if sort is not None:
        names = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
        if sort not in names:
            raise ConfigError(
                f"--sort {sort}: expected one of {', '.join(names)}{did_you_mean(sort, names)}"
            )
        order = pc.sort_indices(table.select([sort]), sort_keys=[(sort, "descending")])
        table = table.take(order)
    return table


def export_state(output: AnyPath, file: AnyPath) -> int:
    """Write the state of an output folder to a .parquet or .arrow file.

    Returns the number of streams. Raises what `read_states` raises, ConfigError, SinkError.

    >>> export_state("out/weather", "states.parquet")
    3
    >>> read_states("states.parquet").num_rows
    3
    """
    output, file = os.fspath(output), os.fspath(file)
    check_suffix(file)
    refuse_inside_output(file, "--output")
    table = read_states(output, seen=True)
    write_state_file(table, file)
    return int(table.num_rows)


def import_state(file: AnyPath, output: AnyPath) -> int:
    """Replace the state of an output folder with a state table, in one commit.

    Returns the number of streams. Raises StateError unless keys, states and model match the folder
    and all values are valid, as for `[state] init`; no stream may lose its last time. If the table
    is a checkpoint of `Pipeline`, its position is kept: a later `process` that starts from the
    folder continues after it, and a run can say in its messages that `process` may have scored rows
    of its files.

    >>> export_state("out/weather", "states.parquet")
    3
    >>> import_state("states.parquet", "out/weather")
    3
    """
    file, output = os.fspath(file), os.fspath(output)
    new = read_state_file(file)
    with OutputFolder.reopen(output) as folder:
        old = folder.load_state()
        if old is None or folder.manifest is None:
            raise StateError(
                f"{output}: no state to replace. To start a run from a table, name it in "
                "[state] init of the pipeline file"
            )
        refuse_behind(output, folder.manifest)
        _check_alike(new, old, file, output)
        config = folder.manifest.config
        waiting = stride = 0
        if KINDS[value_of("window.kind", config)].waits:
            waiting = int(value_of("window.steps", config)) - 1
            stride = int(value_of("window.stride", config))
        layout = Layout.of(old.schema, waiting, stride)
        # Placeholders for the initial states, because each stream of a table needs a state.
        zeros = {name: np.zeros(size, np.float32) for name, size in layout.states.items()}
        before = from_arrow(old, layout, zeros, output, same_pipeline=True)
        table = from_arrow(new, layout, zeros, file, before=before)
        positions = to_json(last_position(new, file))
        folder.replace_state(table.to_arrow().cast(old.schema), positions=positions)
    return len(table)


def diff_states(a: AnyPath, b: AnyPath) -> StateDiff:
    """Compare the states of two output folders or files.

    >>> bool(diff_states("out/weather", "out/weather"))  # any difference?
    False
    """
    a, b = os.fspath(a), os.fspath(b)
    return diff(read_states(a), read_states(b), a, b)


def _check_alike(new: pa.Table, old: pa.Table, file: str, output: str) -> None:
    keys, expected = key_names(new, file), key_names(old, output)
    if keys != expected:
        raise StateError(
            f"{file}: its keys are {', '.join(keys)}, expected {', '.join(expected)} as in {output}"
        )
    for name in ("fingerprint", "layers"):
        received, wanted = meta(new, name), meta(old, name)
        if received != wanted:
            raise StateError(
                f"{file}: this is the state of another model.\n  {file}: {received[:200]}\n"
                f"  {output}: {wanted[:200]}"
            )
    for field in old.schema:
        if field.name not in new.schema.names:
            raise StateError(f"{file}: column {field.name!r}, which {output} has, is missing")


def rows_of(table: pa.Table, keys: Sequence[str], output: str) -> Bools:
    """Return which rows (S,) belong to the keys. Raises ConfigError for an unknown key."""
    names = key_names(table)
    rows = np.zeros(table.num_rows, bool)
    if isinstance(keys, str):
        raise ConfigError(f"keys: expected a list of strings, received {keys!r}: write [{keys!r}]")
    for key in keys:
        if not isinstance(key, str):
            raise ConfigError(
                "keys: expected a string per stream, with commas between the values of several key "
                f"columns, received {key!r}"
            )
        try:
            values = next(csv.reader([key]), []) or [key]
        except csv.Error:
            raise ConfigError(
                f"--key {key}: expected a line of CSV, with double quotes around a value that has "
                "a line break"
            ) from None
        if len(values) != len(names):
            raise ConfigError(
                f"--key {key}: expected {count(len(names), 'value')} ({', '.join(names)}), "
                f"received {len(values)}"
            )
        chosen = np.ones(table.num_rows, bool)
        for name, value in zip(names, values, strict=True):
            chosen &= _equal(table.column(name), value, name)
        if not chosen.any():
            candidates = _shown(table.column(names[0]).slice(0, 1000))
            raise ConfigError(
                f"--key {key}: no such stream in {output}{did_you_mean(values[0], candidates)}"
            )
        rows |= chosen
    return rows


def _equal(column: pa.ChunkedArray, text: str, name: str) -> Bools:
    """Return which values of a key column a text means: by their type, else as they are shown."""
    equal = np.zeros(len(column), bool)
    mistyped = False
    try:
        if len(column):
            typed = pc.equal(column, pa.scalar(text).cast(column.type))
            equal = typed.to_numpy(zero_copy_only=False)
    except pa.ArrowNotImplementedError:  # a type without equality, such as JSON
        pass
    except (pa.ArrowException, UnicodeEncodeError):
        mistyped = True
    if not equal.any():
        equal = np.array([shown == text for shown in _shown(column)], bool)
    if mistyped and not equal.any():
        raise ConfigError(
            f"--key {text}: expected {column.type}, the type of the key column {name!r}"
        )
    return equal


def _shown(column: pa.ChunkedArray) -> list[str]:
    # As text from Arrow: Python's times would lose nanoseconds, and end in the year 9999.
    temporal = pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)
    return [as_text(key) for key in (column.cast(pa.string()) if temporal else column).to_pylist()]


def drop_streams(output: AnyPath, keys: Sequence[str]) -> int:
    """Forget streams, in one commit: their next rows start new streams.

    keys: one string per stream, with the values of several key columns separated by commas, as in
    CSV. Returns how many were dropped. Raises ConfigError for an unknown key, StateError if there
    is no state, CheckpointError.

    >>> drop_streams("out/weather", ["JFK"])
    1
    """
    output = os.fspath(output)
    return _change(output, lambda table, _: table.filter(pa.array(~rows_of(table, keys, output))))


def drop_idle(output: AnyPath, silence: timedelta) -> int:
    """Forget streams whose last row is older than the newest row of all by more than `silence`.

    Silence is measured in the data's time, not by the clock. Returns how many were dropped. Raises
    ConfigError unless `silence` is above 0, StateError if there is no state, or its last times are
    neither timestamps nor dates, CheckpointError.

    >>> from datetime import timedelta
    >>> drop_idle("out/weather", timedelta(days=90))
    0
    """
    output = os.fspath(output)
    if silence <= timedelta():
        raise ConfigError(f"silence: expected a length of time above zero, received {silence}")

    def active(table: pa.Table, _: Manifest) -> pa.Table:
        kind = table.schema.field("last_time").type if "last_time" in table.column_names else None
        if kind is None or not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            raise StateError(
                f"{output}: silence is measured in timestamps or dates, but last_time is "
                f"{kind or 'not kept: the pipeline has no [source] time'}"
            )
        times = table.column("last_time").combine_chunks()
        last, timed = ticks(times), times.is_valid().to_numpy(zero_copy_only=False)
        if not timed.any():
            return table
        # In whole ticks, because not all units can be converted to another without loss.
        if pa.types.is_date32(kind):
            silent = silence // timedelta(days=1)
        else:
            unit = TICKS[getattr(kind, "unit", "ms")]
            silent = silence // timedelta(microseconds=1) * unit // TICKS["us"]
        oldest = int(last[timed].max()) - silent
        # An imported state may have no times; how long such a stream was silent is unknown.
        return table.filter(pa.array(~timed | (last >= max(oldest, -(1 << 63)))))

    return _change(output, active)


def reset_streams(output: AnyPath, keys: Sequence[str]) -> int:
    """Reset streams to the initial state of the model, in one commit.

    Unlike a dropped stream, a reset stream keeps its last time, so that earlier rows are still
    late. `keys` as for `drop_streams`. The model file is read again. Returns how many were reset.
    Raises what `drop_streams` and `load_model` raise, and StateError if the model file has changed.

    >>> reset_streams("out/weather", ["JFK", "LGA"])
    2
    """
    output = os.fspath(output)
    count = 0

    def reset(table: pa.Table, manifest: Manifest) -> pa.Table:
        nonlocal count
        rows = rows_of(table, keys, output)
        count = int(rows.sum())
        return _with_initial(table, rows, _initial(manifest, output))

    _change(output, reset)
    return count


def clear_leftovers(output: str) -> int:
    """Finish or remove what a killed run left behind, as the next run would.

    Returns the number of files that were moved or removed.

    >>> clear_leftovers("out/weather")
    0
    """
    files = open_files(output)

    def names() -> set[str]:
        return {f"{area}/{name}" for area in (INSIDE, STAGING) for name in files.entries(area)}

    before = names()
    with OutputFolder.reopen(output):
        return len(before - names())


def _change(output: str, change: Callable[[pa.Table, Manifest], pa.Table]) -> int:
    """Commit a changed state table; return how many streams were removed."""
    with OutputFolder.reopen(output) as folder:
        table = folder.load_state()
        if table is None or folder.manifest is None:
            raise StateError(f"{output}: this output has no state")
        refuse_behind(output, folder.manifest)
        changed = change(table, folder.manifest)
        if not changed.equals(table):
            folder.replace_state(changed.combine_chunks())
        return int(table.num_rows - changed.num_rows)


def _initial(manifest: Manifest, output: str) -> Mapping[str, Array]:
    """Return the initial state of one stream, from the model that made the state."""
    config = manifest.config
    if "model.path" not in config:
        raise StateError(f"{output}: its manifest does not record the path of the model")
    path = str(config["model.path"])
    options = {name: config.get(f"model.{name}") for name in ("layers", "state", "precision")}
    model = load_model(path, **{name: value for name, value in options.items() if value})
    if levels := config.get("output.quantiles"):
        model = quantiles_of(model, levels)
    if model.fingerprint() != manifest.model:
        raise StateError(
            f"{path} is no longer the model that made the state of {output}. Restore that model.\n"
            f"  state: model {short_model(manifest.model)}\n"
            f"  file:  model {short_model(model.fingerprint())}"
        )
    kind = KINDS[value_of("window.kind", config)]
    return kind.runner(model).initial_state(1) if kind.carries_state else {}


def _with_initial(table: pa.Table, rows: Bools, initial: Mapping[str, Array]) -> pa.Table:
    """Return the table with `rows` reset, except for key and last time."""
    for index, field in enumerate(table.schema):
        if field.name == "steps":
            value: object = 0
        elif field.name in initial:
            value = initial[field.name][0].tolist()
        elif field.name.startswith("previous/"):
            value = None
        elif field.name.startswith("waiting/"):
            value = []
        else:
            continue
        # The old values followed by the new one; each row takes its value from these.
        both = pa.concat_arrays([*table.column(index).chunks, pa.array([value], field.type)])
        chosen = np.where(rows, len(both) - 1, np.arange(table.num_rows))
        table = table.set_column(index, field, both.take(pa.array(chosen)))
    return table
