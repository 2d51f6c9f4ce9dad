"""State tables of outputs: read, export, import, compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from streamrnn.checkpoints import (
    OutputFolder,
    load_state,
    read_manifest,
    refuse_inside_output,
)
from streamrnn.config import value_of
from streamrnn.errors import MissingFileError, StateError
from streamrnn.operators import KINDS
from streamrnn.states import (
    Layout,
    check_suffix,
    diff,
    from_arrow,
    key_names,
    meta,
    read_state_file,
    write_state_file,
)
from streamrnn.states.diff import StateDiff


def read_states(path: str) -> pa.Table:
    """The state table of an output folder's last commit, or of a file.

    Raises MissingFileError, DataError, CheckpointError.
    """
    if path.endswith((".parquet", ".arrow")) and ("://" in path or not Path(path).is_dir()):
        return read_state_file(path)
    if "://" not in path and not Path(path).exists():
        raise MissingFileError(f"{path}: there is no such output folder or state table")
    table = load_state(path)
    if table is None:
        raise StateError(f"{path}: this run keeps no state")
    return table


def export_state(output: str, file: str) -> int:
    """Write the state of an output folder to a file; the number of streams."""
    check_suffix(file)
    refuse_inside_output(file, "--output")
    table = read_states(output)
    write_state_file(table, file)
    return int(table.num_rows)


def open_existing(output: str) -> OutputFolder:
    """The folder of a run, locked, with what it was run with; never a new one.

    Raises CheckpointError.
    """
    manifest = read_manifest(output)
    return OutputFolder.open(
        output,
        rejects=manifest.rejects_path or None,
        keep=int(manifest.config.get("checkpoint.keep", 1)),
    )


def import_state(file: str, output: str) -> int:
    """Put a state table in place of an output folder's, as a commit; the number of streams.

    Raises StateError unless keys, states and model are the folder's, and the values such as a
    stream can have: what `[state] init` asks, and that no stream loses its last time.
    """
    new = read_state_file(file)
    with open_existing(output) as folder:
        old = folder.load_state()
        if old is None or folder.manifest is None:
            raise StateError(
                f"{output}: there is no state to replace. To start a run from a table, name it in "
                "the pipeline: [state] init"
            )
        _check_alike(new, old, file, output)
        layout = _layout_of(old.schema, folder.manifest.config)
        before = from_arrow(old, layout, _nothing(layout), output, ours=True)
        table = from_arrow(new, layout, _nothing(layout), file, before=before)
        folder.replace_state(table.to_arrow().cast(old.schema))
    return len(table)


def _layout_of(schema: pa.Schema, config: Mapping[str, Any]) -> Layout:
    """The layout of a committed state, of a run with this config."""
    if not KINDS[value_of("window.kind", config)].waits:
        return Layout.of(schema, 0, 0)
    return Layout.of(schema, int(config["window.steps"]) - 1, int(config["window.stride"]))


def _nothing(layout: Layout) -> dict[str, Any]:
    """Initial states that nobody needs: all streams of a table have one."""
    return {name: np.zeros(size, np.float32) for name, size in layout.states.items()}


def diff_states(a: str, b: str) -> StateDiff:
    """What differs between the states of two output folders or files."""
    return diff(read_states(a), read_states(b), a, b)


def _check_alike(new: pa.Table, old: pa.Table, file: str, output: str) -> None:
    here, there = key_names(new, file), key_names(old, output)
    if here != there:
        raise StateError(
            f"{file}: its keys are {', '.join(here)}; those of {output} are {', '.join(there)}"
        )
    for name in ("fingerprint", "layers"):
        mine, yours = meta(new, name), meta(old, name)
        if mine != yours:
            raise StateError(
                f"{file}: this is the state of another model.\n  {file}: {mine[:200]}\n"
                f"  {output}: {yours[:200]}"
            )
    for field in old.schema:
        if field.name not in new.schema.names:
            raise StateError(f"{file}: there is no column {field.name!r}, which {output} has")
