"""Write and read a checkpoint of `process`: a state table whose metadata has a header."""

import base64
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, get_args

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.base.storage import real_path
from streamrnn.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DTypeError,
    MissingFileError,
    SinkError,
    StateError,
    UnsupportedError,
)
from streamrnn.jobs.preflight import ModelFile
from streamrnn.stream.config import Config, absolute_paths
from streamrnn.stream.config.problems import choices
from streamrnn.stream.config.values import OnChange
from streamrnn.stream.scoring import LoadedPipeline, Scorer, starting_table
from streamrnn.stream.states import (
    CarryAdvice,
    check_model,
    checked,
    checksum,
    identity_of,
    read_with_identity,
    with_checksum,
    write_state_file,
)
from streamrnn.stream.states.positions import CallPosition, from_json, to_json

_HEADER, _MODEL = b"streamrnn.session", b"streamrnn.model"
_LAYOUT = 1
_RESTORE = "Restore it from a backup, or write it again."


class Readable(Protocol):
    """A binary file to read from."""

    def read(self) -> bytes:
        """Return all bytes that are left."""


class Writable(Protocol):
    """A binary file to write to."""

    def write(self, data: memoryview, /) -> object:
        """Write bytes; return how many, or None for all of them."""


def check_writable(path: object) -> None:
    """Raise DTypeError unless this is a path or a binary file, as `Pipeline.checkpoint` takes."""
    binary = hasattr(path, "write") and not isinstance(path, io.TextIOBase)
    if not binary and not isinstance(path, str | os.PathLike):
        raise DTypeError(
            f"checkpoint: expected a path or a binary file, received {type(path).__name__}"
        )


def write_all(file: Writable, data: bytes | memoryview) -> None:
    """Write all bytes, even to an unbuffered file, which may write only some bytes per call."""
    rest = memoryview(data)
    while rest:
        written = file.write(rest)
        if written == 0 or (written is None and isinstance(file, io.RawIOBase)):
            raise SinkError(f"checkpoint: the file takes no more bytes; {len(rest):,} are missing")
        rest = rest[written if isinstance(written, int) else len(rest) :]


class LastCheckpoint:
    """The checkpoint file that a pipeline resumed from or wrote last.

    `contents` maps the real path of the file to the identities that it may have; _NO_FILE is the
    identity of a missing file. A failed write adds the identity of what it wrote, but an overwrite
    never adds the identity of what another job wrote. The mapping is replaced, never changed, so
    that a copy keeps its own.
    """

    def __init__(self) -> None:
        self.contents: dict[str, set[str]] = {}

    def read(self, path: str) -> pa.Table:
        """Read a checkpoint file. Raises MissingFileError, and DataError if it is damaged."""
        table, identity = read_with_identity(path)
        self.contents = {real_path(path): {identity}}
        return checked(table, path)

    def write(self, table: pa.Table, path: str, *, overwrite: bool) -> None:
        """Write the file, replacing an earlier one.

        Raises SinkError if the file cannot be written. Unless `overwrite` is set, raises
        CheckpointError if the file last read or written is gone, or if another file is there.
        """
        table = with_checksum(table)
        try:
            place, new = real_path(path), checksum(table.schema)
        except (OSError, ValueError, pa.ArrowException) as error:  # a URI that cannot be opened
            raise SinkError(f"{location(path)}: cannot write the checkpoint: {error}") from error

        def check() -> None:
            there, resumable = _content(path)
            expected = self.contents.get(place, {_NO_FILE})
            if there in expected:
                expected = {there}
            elif not overwrite:
                raise CheckpointError(_refusal(location(path), there, expected, resumable))
            self.contents = {**self.contents, place: {*expected, new}}

        write_state_file(table, path, check)
        self.contents = {place: {new}}


_NO_FILE = "no file"


def _content(path: str) -> tuple[str, bool]:
    """Return the identity of a file, and whether it is a checkpoint; _NO_FILE if there is none."""
    try:
        identity, schema = identity_of(path)
    except MissingFileError:
        return _NO_FILE, False
    except DataError:
        return "unreadable", False
    return identity, _HEADER in (schema.metadata or {})


def _refusal(path: str, there: str, expected: set[str], resumable: bool) -> str:
    resume = "resume from it with Pipeline.resume, " if resumable else ""
    if there == _NO_FILE:
        return (
            f"{path}: the checkpoint that this pipeline resumed from or wrote last is gone; "
            "nothing was written. If it was removed to start again, start this job again, too; "
            "else write the checkpoint with overwrite=True."
        )
    if _NO_FILE in expected:
        return (
            f"{path}: there is a file that this pipeline neither resumed from nor wrote last; "
            f"nothing was written. To continue, {resume}write to another path, or replace it with "
            "overwrite=True."
        )
    return (
        f"{path}: the file is not the checkpoint that this pipeline resumed from or wrote last: it "
        f"was replaced in between; nothing was written. To continue, {resume}write to another "
        "path, or replace it with overwrite=True. What this pipeline scored since is in no "
        "checkpoint."
    )


@dataclass(frozen=True)
class CheckpointHeader:
    """What `process` needs, besides the state table, to resume.

    `schema` is the schema of the rows, `counters` are the scorer's, `position` is the last batch's,
    `model` is the model file, if the checkpoint includes it, and `name` is the name of the pipeline
    file, if any.
    """

    config: Config
    schema: pa.Schema
    counters: Mapping[str, int]
    position: CallPosition | None = None
    model: ModelFile | None = None
    name: str | None = None

    def attach(self, table: pa.Table, folder: str) -> pa.Table:
        """Add the header to a state table; relative paths are resolved from `folder`."""
        header = {
            "layout": _LAYOUT,
            "config": json.dumps(absolute_paths(self.config, folder)),
            "schema": base64.b64encode(self.schema.serialize()).decode(),
            "rows": self.counters["rows_read"],
            "rejected": self.counters["rejected"],
            "positions": to_json(self.position),
            "name": self.name,
        }
        metadata = {**table.schema.metadata, _HEADER: json.dumps(header).encode()}
        if self.model is not None:
            content = base64.b64encode(self.model.content).decode()
            metadata[_MODEL] = json.dumps({"name": self.model.name, "content": content}).encode()
        return table.replace_schema_metadata(metadata)

    @classmethod
    def of(cls, table: pa.Table, owner: str) -> "CheckpointHeader":
        """Read the header of a checkpoint, which messages call `owner`. Raises StateError."""
        metadata = table.schema.metadata or {}
        if _HEADER not in metadata:
            raise StateError(
                f"{owner}: not a checkpoint of a pipeline. To start from a state table, name it in "
                "[state] init."
            )
        try:
            header = dict(json.loads(metadata[_HEADER]))
            _check_layout(header.get("layout"), owner)
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(header["schema"])))
            counters = {"rows_read": header["rows"], "rejected": header["rejected"]}
            config = Config.parse(dict(json.loads(header["config"])))
            position = from_json(header["positions"])
            model = None
            if _MODEL in metadata:
                included = json.loads(metadata[_MODEL])
                content = base64.b64decode(included["content"])
                model = ModelFile(os.path.basename(included["name"]), content)
        except StateError:
            raise
        except (
            ValueError,
            LookupError,
            TypeError,
            OSError,
            RecursionError,
            pa.ArrowException,
        ) as error:
            reason = f"{type(error).__name__}: {error}"
            raise StateError(f"{owner}: the checkpoint is damaged: {reason}. {_RESTORE}") from error
        if not all(type(n) is int and n >= 0 for n in counters.values()):
            raise StateError(
                f"{owner}: the checkpoint is damaged: expected counters of 0 or more, received "
                f"{counters}. {_RESTORE}"
            )
        return cls(config, schema, counters, position, model, header.get("name"))


def _check_layout(layout: object, owner: str) -> None:
    if layout == _LAYOUT:
        return
    written = "was written before version 0.1.0" if layout is None else f"has layout {layout}"
    raise StateError(
        f"{owner}: the checkpoint {written}; this version of streamrnn reads layout {_LAYOUT}. "
        "The checkpoint's state table can still be read: name the checkpoint in [state] init of "
        "the pipeline file, and pass to `process` the rows after the last one that the checkpoint "
        "has seen."
    )


_CARRY = (
    "To keep the state of each stream with the new model, load a checkpoint of the pipeline with "
    'Pipeline.resume(CHECKPOINT, MODEL, on_change="carry").'
)
_MAP = 'map: expected a mapping of layers of the new model to layers of the old one, {"new": "old"}'
_ADVICE = CarryAdvice(
    lambda layers: f'load a checkpoint with Pipeline.resume(…, on_change="carry", map={layers})',
    "start a pipeline from a checkpoint with a map of the layers that fit: "
    "Pipeline.from_toml(FILE, ['state.map={ this = \"other\" }'], state=CHECKPOINT). Layers "
    "that it leaves out start from their initial state.",
)


def check_arguments(model: object, on_change: object, mapping: object) -> None:
    """Raise ConfigError unless these are arguments that `Pipeline.resume` accepts."""
    if model is not None and not isinstance(model, str | os.PathLike):
        raise ConfigError(
            f"model: expected the path of a model file, received {type(model).__name__}. Save the "
            'model first, with model.save("model.safetensors"), and pass that path'
        )
    if on_change not in (None, *get_args(OnChange)):
        expected = choices(get_args(OnChange))
        raise ConfigError(f"on_change: expected {expected}, received {on_change!r}")
    if mapping is None:
        return
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{_MAP}, received {type(mapping).__name__}")
    for layer, origin in mapping.items():
        if not (isinstance(layer, str) and isinstance(origin, str)):
            raise ConfigError(f"{_MAP}, received {layer!r}: {origin!r}")


def included_model(loaded: LoadedPipeline, folder: str) -> ModelFile:
    """Read the model file of a loaded pipeline; a relative path is resolved from `folder`.

    Raises MissingFileError; UnsupportedError if the file has another model now.
    """
    path = loaded.config.model.path
    if "://" not in path:
        path = os.path.join(folder, path)
    file = ModelFile.read(path)
    with file.on_disk() as copy:
        if LoadedPipeline(loaded.config, model_path=copy).fingerprint != loaded.fingerprint:
            raise UnsupportedError(
                f"[model] path: {location(path)}: the file is not the model that was loaded. "
                "Load the pipeline again, or leave out include_model."
            )
    return file


def resumed_config(config: Config, model: str | None, mapping: Mapping[str, str] | None) -> Config:
    """Return the config of a checkpoint with the model and the map of `Pipeline.resume`, if any."""
    if mapping is not None:
        config = config.with_keys(state={"map": dict(mapping)})
    if model is not None:
        config = config.with_keys(model={"path": model})
    return config.with_keys(window={"kind": config.window.kind})


def resume_scorer(
    loaded: LoadedPipeline,
    header: CheckpointHeader,
    table: pa.Table,
    owner: str,
    on_change: OnChange | None,
) -> Scorer:
    """Return a scorer with the state and the counts of a checkpoint, which messages call `owner`.

    `on_change` is as in `Pipeline.resume`; None means the value in the pipeline file. Raises
    StateError.
    """
    bound = loaded.bind(header.schema, owner)
    on_change = on_change or loaded.config.model.on_change
    if on_change == "error":
        check_model(table, bound.layout, owner, _CARRY)
    state = starting_table(
        bound,
        table,
        owner,
        on_change=on_change,
        earlier_map=header.config.state.map,
        advice=_ADVICE,
    )
    scorer = Scorer(bound, state)
    scorer.resume_counts(header.counters)
    scorer.position = header.position
    return scorer
