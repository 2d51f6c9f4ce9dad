"""The request of a fit: its keys, the model it starts from, its source; the state after its rows.

The keys identify a fit: a fit with other keys does not resume it.
"""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.jobs.fitting.commit import STATE_FILE, FitCommit, FitFile, FitFolder, FitIdentity
from streamrnn.jobs.fitting.plan import without_calibration
from streamrnn.jobs.fitting.staging import Reader
from streamrnn.jobs.fitting.summary import FitOptions, FitSummary
from streamrnn.jobs.preflight import (
    ModelFile,
    file_source,
    plan_first_run,
    reader,
    seen_by_init,
    with_target,
)
from streamrnn.nn.formats import EmbeddedIds, check_layers, load_model, untrained
from streamrnn.nn.formats.native import encoded
from streamrnn.nn.models.mixture import members_of
from streamrnn.stream.checkpoints import SeenFiles, UsedFile, with_seen
from streamrnn.stream.config import Config, value_of, whole_schedule
from streamrnn.stream.scoring import LoadedPipeline, Scorer, starting_table
from streamrnn.stream.sources import Position, Reading, SourceBatch, SourceFile, load_vocabulary
from streamrnn.stream.states import StateTable, state_digest, write_state_file

_TABLES = (
    "source.",
    "window.",
    "target.",
    "train.",
    "model.inputs",
    "model.layers",
    "output.warmup",
    "output.calibrate",
    "state.map",
)
_FREE = {
    "source.path",
    "source.format",
    "source.batch_rows",
    "source.max_rejects",
    "target.season",
    "train.state",
}


def check_request(config: Config) -> None:
    """Raise ConfigError unless the pipeline can be fitted."""
    if not config.target.column:
        raise ConfigError(
            "fit: [target] column is missing: name the column that the model learns to forecast"
        )
    if config.source.path is None or config.source.piped:
        raise ConfigError(
            "fit: [source] path must name files, not stdin: fit reads rows more than once"
        )
    if Path(config.model.path).suffix.lower() != ".safetensors" or "://" in config.model.path:
        raise ConfigError(
            f"fit: [model] path: {location(config.model.path)}: fit writes a native file to a "
            "disk; expected a path that ends in .safetensors, and no URI. To train a model in "
            "another format, name it in [train] init"
        )
    train = config.train
    if train.keep == "all" and train.seeds == 1:
        raise ConfigError('[train] keep = "all" needs several seeds: set [train] seeds, or --seeds')
    if train.scale_target and not train.may_scale:
        why = "must keep their unit" if train.is_regression else "are classes, not numbers"
        raise ConfigError(
            f"[train] scale_target: remove the key, as the labels of {train.loss} {why}"
        )
    if train.validation is None and whole_schedule(train.schedule)["name"] == "plateau":
        raise ConfigError(
            "[train] schedule: plateau needs validation, which judges each epoch. Set [train] "
            "validation, or another schedule"
        )
    if config.output.calibrate and not (train.quantiles and train.validation):
        raise ConfigError(
            "[output] calibrate: a fit calibrates quantiles on its validation rows; set "
            "[train] loss = { quantile = [0.1, 0.5, 0.9] } and [train] validation"
        )
    since = None if train.validation is None else train.validation.since
    for key, limit in (("until", train.until), ("validation.since", since)):
        if limit is not None and config.source.time is None:
            raise ConfigError(f"[train] {key} needs [source] time: name the column of the times")
    if train.validation is not None and since is None and train.validation.streams is None:
        raise ConfigError("[train] validation: set since, streams, or both")
    if train.patience and train.validation is None:
        raise ConfigError(
            "[train] patience needs validation, which judges each epoch. Set [train] validation, "
            "or remove patience"
        )


def initial_model(
    config: Config, folder: FitFolder, options: FitOptions, last: FitCommit | None
) -> bytes:
    """Return the native file of the model to start from.

    An interrupted fit has stored its own; --continue starts from the model of the last fit; else
    this is [train] init, or [model] layers with the weights of the seed.
    """
    if last is not None and not last.record.done:
        return folder.initial()
    if options.extend and last is not None:
        model = load_model(folder.model)
        core = without_calibration(model)
        return folder.model.read_bytes() if core is model else encoded(core)
    return _first_model(config)


def load_untrained(config: Config, state_table: pa.Table | None) -> LoadedPipeline | None:
    """Load a pipeline with the model that a first fit starts from.

    Returns None without [train] init if [model] layers is empty or has weights.
    """
    layers = config.model.layers
    if config.train.init is None and (not layers or any("weights" in layer for layer in layers)):
        return None
    return load_for_training(config, reader(state_table), _first_model(config))


def _first_model(config: Config) -> bytes:
    layers = [dict(layer) for layer in config.model.layers]
    if config.train.init is not None:
        model = load_model(config.train.init)
        if members_of(model):
            raise ConfigError(
                f"[train] init: {location(config.train.init)} is a model of several seeds; start "
                "from one of them, as in MODEL.fit/seeds/0"
            )
        if layers:
            check_layers(model, layers)
        return encoded(without_calibration(model))
    if not layers:
        raise ConfigError(
            "fit: expected the layers of the model in [model] layers, or a model to start from in "
            "[train] init; neither is set"
        )
    source = config.source
    embedded = [
        EmbeddedIds(f.name, max(load_vocabulary(f.vocabulary, f.oov, f.name).ids) + 1, f.embed)
        for f in source.embedded
        if f.vocabulary is not None
    ]
    features = len(source.feature_names) - len(embedded)
    return encoded(untrained(layers, features, config.train.seed, embedded))


def without_layers(config: Config) -> Config:
    """Return the config for a native file, which has its own layers."""
    return config.with_keys(model={"layers": ()})


def load_for_training(
    config: Config, read_init: Callable[[str], pa.Table], model: bytes
) -> LoadedPipeline:
    """Load the model to train, a native file, and check it against the pipeline and its [output].

    Precision, quantiles and the names of quantiles apply only to later runs.
    """
    trained, output = config.with_keys(model={"layers": (), "precision": "auto"}), config.output
    with ModelFile("model.safetensors", model).on_disk() as path:
        if output.quantiles is not None:
            LoadedPipeline(trained, read_init, path)
            trained = trained.with_keys(output={"quantiles": None, "names": None, "sort": False})
        return LoadedPipeline(trained, read_init, path)


def fit_identity(loaded: LoadedPipeline, config: Config, initial: bytes) -> FitIdentity:
    """Return what two fits must have in common for one to resume the other, by dotted keys."""
    canonical = loaded.config_with_vocabularies().canonical()
    canonical["model.layers"] = [dict(layer) for layer in config.model.layers]
    kept = {
        key: value
        for key, value in canonical.items()
        if key.startswith(_TABLES) and key not in _FREE
    }
    state = config.state.init
    return {
        **kept,
        "the initial model": hashlib.sha256(initial).hexdigest(),
        "the initial state": None if state is None else state_digest(loaded.read_init(state)),
    }


def refuse_another_fit(then: FitIdentity, now: FitIdentity, folder: FitFolder) -> None:
    """Raise CheckpointError if the fits differ.

    The message lists the differences, unless only one of the fits has --continue.
    """
    changed = [
        f"{key}: {_short(before)} then, {_short(after)} now"
        for key, before, after in differences(then, now)
    ]
    if then.get("continues") and now.get("continues") is False:
        raise CheckpointError(
            f"{location(str(folder.path))}: an interrupted fit with --continue is there. Resume it "
            "with --continue, or fit again with --full-refresh."
        )
    if now.get("continues") and then.get("continues") is False:
        raise CheckpointError(
            f"{location(str(folder.path))}: the first fit is not finished. Resume it without "
            "--continue."
        )
    if changed:
        raise CheckpointError(
            f"{location(str(folder.path))} is of another fit:\n  " + "\n  ".join(changed) + "\n"
            "Restore these keys, or fit again with --full-refresh."
        )


def differences(then: FitIdentity, now: FitIdentity) -> list[tuple[str, object, object]]:
    """Return the keys in which two fits differ, with both values.

    If a fit is older than a key of the pipeline file, the key has its default value there.
    """
    values = [(key, _value(key, then), _value(key, now)) for key in sorted({*then, *now})]
    return [item for item in values if item[1] != item[2]]


def _value(key: str, identity: FitIdentity) -> object:
    return value_of(key, identity) if "." in key else identity.get(key)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def check_folder(folder: FitFolder, last: FitCommit | None, options: FitOptions) -> None:
    """Raise ConfigError if the model file exists and is not what the last fit here wrote.

    `options.overwrite` permits such a file. With `options.extend`, a missing fit is an error, too.
    """
    digest = folder.model_digest()
    digests = [] if last is None else last.record.model_digests[-1:]
    if digest is not None and not options.overwrite and digest not in digests:
        raise ConfigError(
            f"fit: [model] path: {location(os.fspath(folder.model))} exists, and is not what the "
            "last fit here wrote. Set another path, or replace it with --overwrite."
        )
    if options.extend and last is None:
        raise ConfigError(
            f"--continue: there is no fit in {location(str(folder.path))}; run fit without "
            "that option"
        )


class FitSource:
    """The rows that a fit reads, from files that its initial state has not seen.

    `files` are the name, size and time of the files that were there when the fit began, in order;
    `later` is the number of files that came later, which are not read. `plain` reads the new
    files as a run would, and `wide` also reads the columns of [target]; `seen` are the files that
    the initial state has seen; None if its table lists none.
    """

    def __init__(self, loaded: LoadedPipeline, began_with: list[FitFile] | None = None) -> None:
        """Open the source of a loaded pipeline. Raises what a first run raises.

        `began_with`: the files of a fit that is resumed; others are not read.
        """
        plain = file_source(loaded)
        listed = list(plain.files)
        if began_with is not None:
            names = {file.name for file in began_with}
            plain.files = [file for file in listed if file.name in names]
        readable = list(plain.files)
        self.loaded, self.plain = loaded, plain
        self.later, self.files = len(listed) - len(readable), _fit_files(readable)
        self.seen = seen_by_init(loaded, plain)
        self.bound, self.plan = plan_first_run(loaded, plain)
        new = plain.files
        plain.files = new or readable  # any file has the types of the columns
        self.wide, target = with_target(self.bound, plain)
        assert target is not None  # checked before
        self.target = target
        self.wide.files, plain.files = list(new), new

    def reader(self, table: StateTable, rows: int | None = None) -> Reader:
        """Return a reader of the rows before [train] until; it starts from the states in `table`.

        It reads at most `rows` rows, by default all.
        """
        return Reader(Scorer(self.bound, table), self.target, rows)

    def batches(self) -> Iterator[SourceBatch]:
        """Read all record batches, with the columns of [target]."""
        return self.wide.batches(self.plan.position, self.plan.before)

    def refuse_changes(self) -> None:
        """Raise CheckpointError if a file of the source has changed or gone since the fit began."""
        now = {file.name: file for file in _fit_files(file_source(self.loaded).files)}
        for file in self.files:
            if now.get(file.name) != file:
                raise CheckpointError(
                    f"{file.name} changed while the fit read it. Rerun the same command if its "
                    "rows are the same, else start over with --full-refresh."
                )


def _fit_files(files: Sequence[SourceFile]) -> list[FitFile]:
    return [FitFile(file.name, file.size, file.mtime_ns) for file in files]


def until_stopped(
    batches: Iterator[SourceBatch], stop: threading.Event, summary: FitSummary
) -> Iterator[SourceBatch]:
    """Yield batches until `stop` is set; `summary` then records the interrupt."""
    for batch in batches:
        if stop.is_set():
            summary.interrupted = True
            return
        yield batch


def save_state(
    loaded: LoadedPipeline,
    source: FitSource,
    reader: Reader,
    folder: FitFolder,
    stop: threading.Event,
    summary: FitSummary,
) -> None:
    """Score the rows of a fit with the trained model, and write the state after them.

    Nothing is written once `stop` is set. The table lists the files that it has seen, so that a run
    starts at the next row. It lists none if rows that were left out come before rows that were
    read; a note in `summary` says so.
    """
    bound = loaded.bind(source.plain.schema, source.plain.name)
    scorer = Scorer(bound, starting_table(bound, None, "", on_change="carry"))
    readings: dict[str, Reading] = {}
    batches = source.plain.batches(source.plan.position, source.plan.before)
    for batch in reader.batches(until_stopped(batches, stop, summary)):
        scorer.score(loaded.contract.read(batch.batch, batch.origin))
        readings |= batch.readings
    if summary.interrupted:
        return
    table = scorer.table.to_arrow()
    if reader.mixed:
        summary.notes.append(
            "rows before and after [train] until alternate in the files, so the saved state does "
            "not record what it has seen: start a run from that state with [source] after"
        )
    else:
        used, position = _used(source, readings, reader.left)
        schema = {field.name: str(field.type) for field in source.bound.schema}
        earlier = () if source.seen is None else source.seen.sources
        names = {file.path for file in used}
        sources = (*(file for file in earlier if file.path not in names), *used)
        table = with_seen(table, SeenFiles(sources, position, str(folder.path), schema))
    write_state_file(table, folder.pending(STATE_FILE))


def _used(
    source: FitSource, readings: dict[str, Reading], left: tuple[str, int] | None
) -> tuple[list[UsedFile], Position | None]:
    """Return the files that were read, and the position in the last one; None at its end."""
    used = []
    for file in source.plain.files:
        if left is None or file.path != left[0]:
            used.append(UsedFile.of(file, readings.get(file.name)))
            continue
        row = left[1]
        if not row:
            return used, None
        reading = Reading(source.plain.content(file, row), opened_ns=time.time_ns())
        used.append(UsedFile.of(file, reading))
        group = first = 0
        for rows in source.plain.footer(file).groups:
            if row < first + rows:
                break
            group, first = group + 1, first + rows
        return used, Position(file.name, group, row - first, row, False)
    return used, None
