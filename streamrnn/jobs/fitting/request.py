"""The request of a fit: the model it starts from, and the keys that identify it."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.jobs.fitting.commit import FitCommit, FitFolder, FitIdentity
from streamrnn.jobs.fitting.plan import without_calibration
from streamrnn.jobs.fitting.summary import FitOptions
from streamrnn.jobs.preflight import ModelFile, reader
from streamrnn.nn.formats import EmbeddedIds, check_layers, load_model, untrained
from streamrnn.nn.formats.native import encoded
from streamrnn.nn.models.mixture import members_of
from streamrnn.stream.config import Config, value_of, whole_schedule
from streamrnn.stream.scoring import LoadedPipeline
from streamrnn.stream.sources import load_vocabulary
from streamrnn.stream.states import state_digest

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
        raise ConfigError("fit: [source] path must name files, which are read again; not stdin")
    if Path(config.model.path).suffix.lower() != ".safetensors" or "://" in config.model.path:
        raise ConfigError(
            f"fit: [model] path: {location(config.model.path)}: fit writes a native file to a "
            "disk; expected a path that ends in .safetensors. To train a model of another "
            "format, name it in [train] init"
        )
    train = config.train
    if train.keep == "all" and train.seeds == 1:
        raise ConfigError('[train] keep = "all" needs several seeds: set [train] seeds, or --seeds')
    if train.scale_target and not train.may_scale:
        why = "in a unit of their own" if train.is_regression else "classes, not numbers"
        raise ConfigError(f"[train] scale_target: labels of {train.loss} are {why}")
    if train.validation is None and whole_schedule(train.schedule)["name"] == "plateau":
        raise ConfigError("[train] schedule: plateau needs validation, which judges each epoch")
    if config.output.calibrate and not (train.quantiles and train.validation):
        raise ConfigError(
            "[output] calibrate: a fit calibrates quantiles by the rows of the validation; set "
            "[train] loss = { quantile = [0.1, 0.5, 0.9] } and [train] validation"
        )
    if train.until is not None and config.source.time is None:
        raise ConfigError("[train] until: needs source.time, the column of the times")
    if train.validation is not None:
        if train.validation.since is not None and config.source.time is None:
            raise ConfigError(
                "[train] validation.since: needs source.time, the column of the times"
            )
        if train.validation.since is None and train.validation.streams is None:
            raise ConfigError("[train] validation: set since, streams, or both")
    if train.patience and train.validation is None:
        raise ConfigError("[train] patience: needs validation, which judges each epoch")


def initial_model(
    config: Config, folder: FitFolder, options: FitOptions, last: FitCommit | None
) -> bytes:
    """Return the native file of the model to start from.

    This is the start of an interrupted fit, the model of the last fit, [train] init, or the layers
    in [model] with the weights of the seed.
    """
    if last is not None and not last.record.done:
        return folder.initial()
    if options.extend and last is not None:
        model = load_model(folder.model)
        core = without_calibration(model)
        return folder.model.read_bytes() if core is model else encoded(core)
    return _first_model(config)


def load_untrained(config: Config, state_table: pa.Table | None) -> LoadedPipeline | None:
    """Load a pipeline with the model that a first fit starts from; None if the file names none.

    `state_table`: the state in memory that the pipeline starts from.
    """
    layers = config.model.layers
    if config.train.init is None and (not layers or any("weights" in layer for layer in layers)):
        return None
    with ModelFile("model.safetensors", _first_model(config)).on_disk() as path:
        return load_for_training(config, reader(state_table), path)


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
    model = config.model.model_copy(update={"layers": ()})
    return config.model_copy(update={"model": model})


def load_for_training(
    config: Config, read_init: Callable[[str], pa.Table], path: str
) -> LoadedPipeline:
    """Load the model that is trained; refuse outputs of later runs that it will not have."""
    trained = for_training(config)
    if config.output.quantiles is not None:
        LoadedPipeline(trained.model_copy(update={"output": config.output}), read_init, path)
    return LoadedPipeline(trained, read_init, path)


def for_training(config: Config) -> Config:
    """Return the config for training: precision and quantiles apply only to later runs.

    So do the names of the outputs, where they are quantiles.
    """
    config = without_layers(config)
    model = config.model.model_copy(update={"precision": "auto"})
    if config.output.quantiles is None:
        return config.model_copy(update={"model": model})
    output = config.output.model_copy(update={"quantiles": None, "names": None})
    return config.model_copy(update={"model": model, "output": output})


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
    """Raise CheckpointError that lists the differences, if there are any."""
    changed = [
        f"{key}: {_short(before)} then, {_short(after)} now"
        for key, before, after in differences(then, now)
    ]
    if then.get("continues") and now.get("continues") is False:
        raise CheckpointError(
            f"{location(str(folder.path))}: an interrupted fit with --continue is there. Resume it "
            "with --continue, or fit anew with --full-refresh."
        )
    if now.get("continues") and then.get("continues") is False:
        raise CheckpointError(
            f"{location(str(folder.path))}: the first fit is not finished. Resume it without "
            "--continue."
        )
    if changed:
        raise CheckpointError(
            f"{location(str(folder.path))} is of another fit:\n  " + "\n  ".join(changed) + "\n"
            "Restore these keys, or fit anew with --full-refresh."
        )


def differences(then: FitIdentity, now: FitIdentity) -> list[tuple[str, object, object]]:
    """Return the keys in which two fits differ, with both values.

    If a fit is older than a key of the pipeline file, the key counts as its default.
    """
    values = [(key, _value(key, then), _value(key, now)) for key in sorted({*then, *now})]
    return [item for item in values if item[1] != item[2]]


def _value(key: str, identity: FitIdentity) -> object:
    return value_of(key, identity) if "." in key else identity.get(key)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def check_folder(folder: FitFolder, last: FitCommit | None, options: FitOptions) -> None:
    """Raise ConfigError if the last fit here did not write the model file, or is to continue."""
    digest = folder.model_digest()
    digests = [] if last is None else last.record.model_digests[-1:]
    if digest is not None and not options.overwrite and digest not in digests:
        raise ConfigError(
            f"fit: [model] path: {location(os.fspath(folder.model))} exists, and is not what the "
            "last fit here wrote. Set another path, or replace it with --overwrite."
        )
    if options.extend and last is None:
        raise ConfigError(
            f"--continue: there is no fit in {location(str(folder.path))}; run fit without it"
        )
