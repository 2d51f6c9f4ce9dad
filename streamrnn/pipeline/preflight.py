"""What is checked before a run: the files of the source, and paths inside one another."""

from __future__ import annotations

import itertools
import os
from typing import Any

from streamrnn.checkpoints import refuse_inside_output, refuse_nested_output
from streamrnn.errors import ConfigError, DataError, MissingFileError
from streamrnn.scoring import BoundPipeline, LoadedPipeline, RunOptions
from streamrnn.sources import (
    Source,
    SourceFile,
    StreamSource,
    list_files,
    suffixes_of,
)


def run_config(bound: BoundPipeline) -> dict[str, Any]:
    """What a commit remembers of the config, and of the columns it was used with."""
    schema = {f.name: str(f.type) for f in bound.schema}
    return {**bound.loaded.config.canonical(), "source.schema": schema}


def open_source(loaded: LoadedPipeline, options: RunOptions, rows: int | None = None) -> Source:
    """What the pipeline file names as source, `rows` in a record batch (default: as it says).

    Files are those of now; nothing is read yet. Raises DataError if there are none.
    """
    if loaded.config.source.piped:
        return StreamSource(loaded.columns, rows or loaded.config.source.batch_rows)
    return loaded.source(source_files(loaded, options), rows)


def source_files(loaded: LoadedPipeline, options: RunOptions) -> list[SourceFile]:
    """The files that the source names now. Raises DataError if there are none."""
    path = loaded.config.source.path
    assert path is not None
    endings = suffixes_of(loaded.config.source.format)
    try:
        files = list_files(path, endings)
    except MissingFileError:
        if not options.follow:
            raise
        return []
    if not files and not options.follow:
        raise DataError(
            f"[source] path: {path}: there is no file to read (expected names ending in "
            f"{' or '.join(endings)}; [source] format says which). "
            "To wait for files, run with --follow."
        )
    return files


def refuse_own_output(loaded: LoadedPipeline, source: Source) -> None:
    """Raise ConfigError if source, sink, rejects or saved state lie inside one another, or in
    another output."""
    config = loaded.config
    outputs = {
        "[sink] path": config.sink.folder,
        "[sink] rejects": config.sink.rejects,
        "[state] save": config.state.save,
    }
    places = {name: _real(path) for name, path in outputs.items() if path is not None}
    path = config.source.path
    inputs = [_real(file.path) for file in source.files]
    inputs += [_real(path)] if source.replayable else []
    for name, place in places.items():
        if any(_overlap(place, each) for each in inputs):
            raise ConfigError(
                f"{name}: {outputs[name]} and the source {path} lie inside one another: the "
                "next run would read its own output. Name a place outside the source."
            )
    for name, other in itertools.combinations(places, 2):
        if _overlap(places[name], places[other]):
            raise ConfigError(
                f"{other}: {outputs[other]} and {name} {outputs[name]} lie inside one another: "
                "readers of the output would find what is no output. Name a place beside it."
            )
    for name in places:
        refuse = refuse_inside_output if name == "[state] save" else refuse_nested_output
        refuse(str(outputs[name]), name)


def _real(path: str | None) -> str:
    local = str(path).removeprefix("file://")
    return local.rstrip("/") if "://" in local else os.path.realpath(local)


def _overlap(a: str, b: str) -> bool:
    return a == b or a.startswith(b + "/") or b.startswith(a + "/")
