"""Read, export, import and compare the state tables of outputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Floats
from streamrnn.base.display import without_options
from streamrnn.errors import StateError
from streamrnn.jobs.outputs.streams import largest_first, rows_of
from streamrnn.stream.checkpoints import OutputFolder, load_state, refuse_inside_output
from streamrnn.stream.config import value_of
from streamrnn.stream.operators import KINDS
from streamrnn.stream.states import (
    Layout,
    check_suffix,
    diff,
    from_arrow,
    key_names,
    meta,
    read_state_file,
    write_state_file,
)
from streamrnn.stream.states.diff import StateDiff
from streamrnn.stream.states.positions import last_position, to_json


def read_states(
    path: str, keys: Sequence[str] = (), sort: str | None = None, *, seen: bool = False
) -> pa.Table:
    """Read the state table of the last commit of an output folder, or of a file.

    With `keys` (as for `drop_streams`), read only these streams; with `sort`, sort by that column,
    largest first. With `seen` the table's metadata lists the files that the state has seen, as in
    an exported table, for a run that starts from it. Raises ConfigError for an unknown key or
    column, MissingFileError, DataError, CheckpointError, and StateError if there is no state.

    >>> read_states("out/weather").column_names[:4]
    ['origin', 'steps', 'last_time', 'gru/h']
    >>> read_states("out/weather", keys=["JFK"])["origin"].to_pylist()
    ['JFK']
    """
    table = _read_states(path, seen)
    if keys:
        table = table.filter(pa.array(rows_of(table, keys, path)))
    return table if sort is None else largest_first(table, sort)


def _read_states(path: str, seen: bool) -> pa.Table:
    is_file = without_options(path).endswith((".parquet", ".arrow"))
    if is_file and ("://" in path or not Path(path).is_dir()):
        return read_state_file(path)
    table = load_state(path, seen=seen)
    if table is None:
        raise StateError(f"{path}: this output has no state")
    return table


def export_state(output: str, file: str) -> int:
    """Write the state of an output folder to a .parquet or .arrow file.

    Returns the number of streams. Raises what `read_states` raises, ConfigError, SinkError.

    >>> export_state("out/weather", "states.parquet")
    3
    >>> read_states("states.parquet").num_rows
    3
    """
    check_suffix(file)
    refuse_inside_output(file, "--output")
    table = read_states(output, seen=True)
    write_state_file(table, file)
    return int(table.num_rows)


def import_state(file: str, output: str) -> int:
    """Replace the state of an output folder by a state table, in one commit.

    Returns the number of streams. Raises StateError unless keys, states and model match the folder
    and all values are valid, as for `[state] init`; no stream may lose its last time. The position
    in a checkpoint of `Pipeline` is kept: for a `process` that starts from the state of the folder,
    and for messages of a run over files whose rows `process` has scored.

    >>> export_state("out/weather", "states.parquet")
    3
    >>> import_state("states.parquet", "out/weather")
    3
    """
    new = read_state_file(file)
    with OutputFolder.reopen(output) as folder:
        old = folder.load_state()
        if old is None or folder.manifest is None:
            raise StateError(
                f"{output}: no state to replace. To start a run from a table, name it in "
                "the pipeline: [state] init"
            )
        _check_alike(new, old, file, output)
        layout = _layout_of(old.schema, folder.manifest.config)
        before = from_arrow(old, layout, _zeros(layout), output, same_pipeline=True)
        table = from_arrow(new, layout, _zeros(layout), file, before=before)
        positions = to_json(last_position(new, file))
        folder.replace_state(table.to_arrow().cast(old.schema), positions=positions)
    return len(table)


def _layout_of(schema: pa.Schema, config: Mapping[str, Any]) -> Layout:
    """Return the layout of a committed state, given the config of its run."""
    if not KINDS[value_of("window.kind", config)].waits:
        return Layout.of(schema, 0, 0)
    steps, stride = (int(value_of(f"window.{name}", config)) for name in ("steps", "stride"))
    return Layout.of(schema, steps - 1, stride)


def _zeros(layout: Layout) -> dict[str, Floats]:
    """Return placeholder initial states, because each stream of a table needs a state."""
    return {name: np.zeros(size, np.float32) for name, size in layout.states.items()}


def diff_states(a: str, b: str) -> StateDiff:
    """Compare the states of two output folders or files.

    >>> bool(diff_states("out/weather", "out/weather"))  # any difference?
    False
    """
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
            raise StateError(f"{file}: column {field.name!r} is missing, which {output} has")
