"""What a job opens and checks: its source, the state and the model to start from, its paths."""

import itertools
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.base.storage import open_store, sink_errors
from streamrnn.errors import ConfigError, MissingFileError, SinkError, StreamRNNError
from streamrnn.jobs.outputs import read_states
from streamrnn.nn.formats import file_name, on_disk
from streamrnn.nn.models.steps import notes_on_row_steps
from streamrnn.stream.checkpoints import (
    SeenFiles,
    Select,
    SourcePlan,
    plan_sources,
    refuse_inside_output,
    refuse_nested_output,
    refuse_no_directory,
    seen_files,
)
from streamrnn.stream.config import SIDE_OUTPUTS, Config, is_pipe, title, value_of
from streamrnn.stream.scoring import (
    BoundPipeline,
    BoundTarget,
    LoadedPipeline,
    starting_table,
    target_columns,
)
from streamrnn.stream.sources import (
    FileSource,
    Source,
    SourceFile,
    StreamSource,
    after_partition,
    after_path,
    after_time,
    canonical_name,
    list_of_format,
    open_table,
    suffixes_of,
)
from streamrnn.stream.states import StateTable

IN_MEMORY = "memory:"
"""What the name of a state in memory begins with, in [state] init."""
CALIBRATION = "calibration"
"""The beginning of the name of the layer with which a fit shifts quantiles."""
_LOGGER = logging.getLogger("streamrnn.pipeline")


def run_config(bound: BoundPipeline) -> dict[str, Any]:
    """Return the config as a commit stores it: its keys, and the types of the columns in use."""
    schema = {f.name: str(f.type) for f in bound.schema}
    contents = {
        f"source.features.{name}.vocabulary": vocabulary.fingerprint
        for name, vocabulary in bound.loaded.contract.vocabularies.items()
    }
    return {**bound.loaded.config.canonical(), **contents, "source.schema": schema}


def notes_on_model(loaded: LoadedPipeline) -> list[str]:
    """Return notes on steps that are taken for rows, and on a model that no fit has calibrated."""
    config, notes = loaded.config, notes_on_row_steps(loaded.model, loaded.runner.own)
    if not config.output.calibrate or not config.model.path.lower().endswith(".safetensors"):
        return notes
    if loaded.model.layers[-1].name.startswith(CALIBRATION):
        return notes
    return [
        *notes,
        "[output] calibrate is set, but the model was not calibrated: its quantiles are as "
        "trained. Train it again: streamrnn fit PIPELINE --full-refresh, and --overwrite if no fit "
        "wrote the model",
    ]


def open_source(
    loaded: LoadedPipeline,
    rows: int | None = None,
    *,
    also: Sequence[str] = (),
    follow: bool = False,
) -> Source:
    """Open the source that the pipeline file names, with `rows` per record batch.

    By default `rows` is as in the pipeline file. `also`: more columns to read from stdin, which can
    be opened only once (for files, see `FileSource.with_columns`). Files are listed, but no row is
    read yet. Raises MissingFileError if there are no files, unless `follow` is set, as files may
    still arrive.
    """
    if loaded.config.source.piped:
        features = loaded.contract.features_alone(loaded.config.columns)
        size = rows or loaded.config.source.batch_rows
        renames = loaded.config.source.renames
        columns = loaded.columns and list(dict.fromkeys([*loaded.columns, *also]))
        bad = loaded.config.source.bad == "reject"
        return StreamSource(columns, size, features=features, renames=renames, rejects=bad)
    return file_source(loaded, rows, follow=follow)


def file_source(
    loaded: LoadedPipeline, rows: int | None = None, *, follow: bool = False
) -> FileSource:
    """List the files of the source (or of its table), and return a source of them.

    Raises what `open_source` raises (for a table without rows only if there is no output folder),
    and ConfigError without [source] path.
    """
    config = loaded.config.source
    if config.path is None:
        raise ConfigError("[source] path is missing: name the data to read")
    table = open_table(config.path, config.format, config.version)
    if table is None and config.version is not None:
        raise ConfigError(
            f"[source] version is for Delta and Iceberg tables; {config.path} is neither. Remove "
            "the key."
        )
    if table is not None:
        if not table.files and not follow and loaded.config.sink.folder is None:
            raise MissingFileError(f"[source] path: {config.path}: {table.version} has no rows")
        return loaded.source(table.files, rows, table)
    files, format = [], config.format
    try:
        files = list_of_format(config.path, format)
    except MissingFileError:
        if not follow:
            raise
    if not files and not follow:
        endings = " or ".join(suffixes_of(format))
        others = ", or else files of one other format, such as .csv" if format == "auto" else ""
        raise MissingFileError(
            f"[source] path: {config.path}: no file to read (expected files that end in "
            f"{endings}{others}, as set by [source] format). Fix the path, or wait for files with "
            "--follow."
        )
    return loaded.source(files, rows)


def seen_by_init(loaded: LoadedPipeline, source: Source) -> SeenFiles | None:
    """Return the files that the initial state has seen, if its table lists them."""
    init = loaded.config.state.init
    if init is None or source.of_files is None:
        return None
    seen = seen_files(loaded.read_init(init), f"[state] init: {init}")
    return seen and seen.within({file.name for file in source.files}, loaded.columns)


def seen_before(loaded: LoadedPipeline, source: Source) -> SeenFiles | None:
    """Return what `seen_by_init` returns, for a message; None if the table cannot be read."""
    with suppress(StreamRNNError):
        return seen_by_init(loaded, source)
    return None


def plan_first_run(loaded: LoadedPipeline, source: Source) -> tuple[BoundPipeline, SourcePlan]:
    """Plan what a run into a new output would read, and set the source's files to that.

    It skips files that the initial state has seen, or that do not come after `[source] after`.
    Also return the bound pipeline. Raises CheckpointError, ConfigError, DataError and DTypeError.
    """
    files, seen = source.of_files, seen_by_init(loaded, source)
    plan, home = SourcePlan(tuple(source.files)), ""
    if seen is not None:
        home, source.earlier = seen.home, seen.schema
    bound = loaded.bind(source.schema, source.name)
    if files is not None:
        select = after_rule(loaded, files)
        plan = plan_sources(seen, files.files, files, home=home, select=select)
    started = int(plan.position is not None)
    source.files = list(plan.files)
    if loaded.config.source.order == "time":
        source.files[started:] = source.in_time_order(plan.files[started:])
    return bound, plan


def after_rule(loaded: LoadedPipeline, source: FileSource) -> Select:
    """Return a rule that leaves out new files without rows, and files excluded by `[source] after`.

    If the output has used files, the file that `after` names may be gone. Calls of the rule raise
    ConfigError and DataError.
    """
    config, after = loaded.config.source, loaded.config.source.after

    def select(new: Sequence[SourceFile], used: Sequence[str]) -> Sequence[SourceFile]:
        new = [file for file in new if not source.awaits_rows(file)]
        if after is None:
            return new
        if after.path is not None:
            chosen = {file.name for file in after_path(source.files, after.path, used)}
            return [file for file in new if file.name in chosen]
        if after.partition is not None:
            return after_partition(new, after.partition, source.files)
        return after_time(new, source, str(config.time), str(after.time), config.time_zone)

    return select


def with_target(bound: BoundPipeline, source: FileSource) -> tuple[FileSource, BoundTarget | None]:
    """Return the source with the columns of `[target]`, and the bound target (None: no `[target]`).

    Raises DataError for a missing column, DTypeError for one of a type that cannot be used.
    """
    columns = target_columns(bound.loaded)
    if columns is None:
        return source, None
    wide = source.with_columns(columns.names)
    return wide, BoundTarget.of(bound, wide.schema)


def lenient(loaded: LoadedPipeline) -> LoadedPipeline:
    """Return a copy for which no row is an error.

    Scored rows are valid; rows in files that were not scored yet may not be.
    """
    source, copied = loaded.config.source, copy(loaded)
    late = "drop" if source.late == "error" else source.late
    repeated = "score" if source.repeated == "error" else source.repeated
    update = {"late": late, "repeated": repeated, "bad": "reject", "max_rejects": 2**31 - 1}
    copied.config = loaded.config.with_keys(source=update)
    return copied


def reader(state_table: pa.Table | None) -> Callable[[str], pa.Table]:
    """Return a reader of the table that [state] init names; `state_table` is a table in memory."""

    def read(name: str) -> pa.Table:
        if not name.startswith(IN_MEMORY):
            return read_states(name, seen=True)
        if state_table is None:
            raise ConfigError(
                f"[state] init: {name} is a state that was passed in memory. A checkpoint does not "
                "keep it; pass it again as state= of Pipeline.from_toml or from_dict"
            )
        return state_table

    return read


def logged_table(bound: BoundPipeline) -> StateTable:
    """Return the state to start from; log which parts of `[state] init` are ignored."""
    notes: list[str] = []
    table = starting_table(bound, None, "", notes, on_change=bound.loaded.config.model.on_change)
    for note in notes:
        _LOGGER.warning("[state] init: %s", note)
    return table


@dataclass(frozen=True)
class ModelFile:
    """A model file in memory: its name and its bytes."""

    name: str
    content: bytes

    @classmethod
    def read(cls, path: str) -> "ModelFile":
        """Read a model file, or the object of a URI. Raises MissingFileError."""
        try:
            with on_disk(path) as file:
                return cls(file_name(path), file.read_bytes())
        except FileNotFoundError as error:
            raise MissingFileError(f"[model] path: {location(path)}: no such file") from error

    @contextmanager
    def on_disk(self) -> Iterator[str]:
        """Write the file to a temporary folder, which is removed afterwards; yield its path."""
        with ExitStack() as stack:
            with sink_errors("make", "a temporary folder"):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="streamrnn-"))
            path = Path(folder) / self.name
            with sink_errors("write", str(path)):
                path.write_bytes(self.content)
            yield str(path)


def check_sink(config: Config) -> None:
    """Raise ConfigError if output or side outputs exist, but are not directories."""
    for name, path in _outputs(config).items():
        refuse_no_directory(path, name)


def refuse_own_output(loaded: LoadedPipeline, read: Sequence[SourceFile]) -> None:
    """Refuse paths that overlap; `read` are the files of the source.

    Raises ConfigError if two of source, sink, side outputs and saved state are the same or one lies
    inside the other, or if one lies in another output.
    """
    config = loaded.config
    outputs = _outputs(config)
    if config.state.save is not None:
        outputs["[state] save"] = config.state.save
    places = {name: _real(path) for name, path in outputs.items()}
    path = None if config.source.piped else config.source.path
    files = [file.name if file.store.local else _real(file.path) for file in read]
    above_files = _places(map(os.path.dirname, files))
    for name, place in places.items():
        if (
            any(_overlap_by_name(place, file) for file in files)
            or _place(place) in above_files
            or (path is not None and _overlap(place, _real(path)))
        ):
            raise ConfigError(
                f"{name}: {outputs[name]} and the source {path} overlap: the next run would "
                "read its own output. Choose a path outside the source."
            )
    for name, other in itertools.combinations(places, 2):
        if _overlap(places[name], places[other]):
            raise ConfigError(
                f"{other}: {outputs[other]} and {name} {outputs[name]} overlap: readers of the "
                "output would find files that do not belong to it. Choose paths outside each other."
            )
    for name in places:
        refuse = refuse_inside_output if name == "[state] save" else refuse_nested_output
        refuse(outputs[name], name)


def _outputs(config: Config) -> dict[str, str]:
    """Return the folders that a run writes rows to, by the titles of their keys."""
    paths = {title(SIDE_OUTPUTS[name].path): path for name, path in config.side_folders.items()}
    folder = config.sink.folder
    return paths if folder is None else {"[sink] path": folder, **paths}


def _real(path: str) -> str:
    return canonical_name(path).rstrip("/")


def _overlap(a: str, b: str) -> bool:
    return _overlap_by_name(a, b) or _place(a) in _places([b]) or _place(b) in _places([a])


def _overlap_by_name(a: str, b: str) -> bool:
    return a == b or a.startswith(b + "/") or b.startswith(a + "/")


def _places(folders: Iterable[str]) -> set[tuple[int, int]]:
    """Return device and inode of folders and of the folders above them.

    They are the same under all names that bind mounts give to a folder.
    """
    names: set[str] = set()
    for name in folders:
        while name not in names:
            names.add(name)
            name = os.path.dirname(name)
    return {place for name in names if (place := _place(name)) is not None}


def _place(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def refuse_result(
    path: str,
    command: str,
    example: str,
    config: Mapping[str, Any],
    is_earlier: Callable[[BinaryIO], bool],
) -> None:
    """Refuse a path at which the file that a command writes would do harm.

    `example`: a name for such a file; `config` has the values of a pipeline by key; `is_earlier`
    says whether a file was written by the command. Raises ConfigError if `path` is empty, a folder,
    a file that the command did not write, or the model, or lies in the source or an output;
    SinkError if the file cannot be read.
    """
    noun = example.partition(".")[0]
    if not path:
        raise ConfigError(
            f"{command}: expected the path of a file to write, received an empty path"
        )
    refuse_inside_output(path, command)
    place = canonical_name(path)
    for table in ("model", "source"):
        other = value_of(f"{table}.path", config)
        if not other or is_pipe(other):
            continue
        name = canonical_name(other).rstrip("/")
        inside = place.startswith(f"{name}/") or fnmatchcase(place, name)
        if place == name or (table == "source" and inside):
            raise ConfigError(
                f"{command}: {location(path)} is, or lies inside, [{table}] path "
                f"{location(other)}. Choose a path beside it."
            )
    try:
        store, place = open_store(path)
        if store.local and store.is_folder(place):
            raise ConfigError(
                f"{command}: {location(path)} is a folder: add the name of a file, such as "
                f"{location(path).rstrip('/')}/{example}"
            )
        if store.entry(place) is None:
            return
        with store.open(place) as file:
            earlier = is_earlier(file)
    except (OSError, pa.ArrowException) as error:
        raise SinkError(f"{location(path)}: cannot write the {noun}: {error}") from error
    if not earlier:
        raise ConfigError(
            f"{command}: {location(path)} exists, and is not an earlier {noun}, the only file "
            "that is replaced. Choose another path, or delete that file."
        )
