"""Readers of Keras's files: complete models, and weights for an existing model."""

from collections.abc import Mapping
from pathlib import Path

from streamrnn.errors import ModelFileError, UnsupportedError
from streamrnn.nn.formats.assignment import Loaded, assign_weights
from streamrnn.nn.formats.guard import build, parse_json, reading, require_file
from streamrnn.nn.formats.keras import archive, h5, legacy, tree
from streamrnn.nn.formats.keras.config import WrittenBy, translate
from streamrnn.nn.models import Model

_MODEL, _LEGACY, _TREE = "model", "legacy", "tree"


def load_keras(path: str | Path) -> Loaded:
    """Read the model of a .keras, .h5 or .hdf5 file, with its weights.

    Raises ModelFileError, UnsupportedError, MissingFileError.
    """
    path = require_file(path)
    with reading(path):
        if path.suffix.lower() == ".keras":
            return _archive(path)
        data = h5.read(path.read_bytes(), path, skip=("optimizer_weights", *tree.NOT_WEIGHTS))
        if _kind(data) != _MODEL:
            raise UnsupportedError(
                "this file has weights without an architecture: describe it in [[model.layers]] "
                "(or load_model(path, layers=…), or streamrnn convert IN OUT --layers FILE), or "
                "build the model and call load_weights(path)"
            )
        return _legacy_model(data)


def load_weights(model: Model, path: str | Path) -> Loaded:
    """Set the weights of a model from any of Keras's files."""
    path = require_file(path)
    with reading(path):
        return weights(model, path)


def weights(model: Model, path: Path) -> Loaded:
    """Set the weights of a model, for callers inside `reading`."""
    if path.suffix.lower() == ".keras":
        stored = h5.read(archive.read(path).weights, path, skip=tree.NOT_WEIGHTS)
        assignments, left = tree.find_assignments(model, None, stored)
        return Loaded(model, assign_weights(model, assignments, left))
    stored = h5.read(path.read_bytes(), path, skip=("optimizer_weights", *tree.NOT_WEIGHTS))
    kind = _kind(stored)
    if kind == _TREE:
        assignments, left = tree.find_assignments(model, None, stored)
    else:
        stored = stored.below("model_weights") if kind == _MODEL else stored
        assignments, left = legacy.find_assignments(model, legacy.layers_of(model), stored)
    return Loaded(model, assign_weights(model, assignments, left))


def stored_weights(path: Path) -> tuple[h5.Tree, bool]:
    """Return all weights of an HDF5 file, and whether it has the legacy lists of layers."""
    stored = h5.read(path.read_bytes(), path, skip=("optimizer_weights", *tree.NOT_WEIGHTS))
    kind = _kind(stored)
    return (stored.below("model_weights") if kind == _MODEL else stored), kind != _TREE


def _kind(stored: h5.Tree) -> str:
    root = stored.attributes.get("", {})
    if "model_config" in root:
        return _MODEL
    if "layer_names" in root:
        return _LEGACY
    if any(name in stored.children("") for name in tree.ROOTS):
        return _TREE
    raise ModelFileError(
        "this HDF5 file was not written by Keras: it has no model_config, no layer_names and no "
        "layers"
    )


def _archive(path: Path) -> Loaded:
    contents = archive.read(path)
    stored = h5.read(contents.weights, path, skip=tree.NOT_WEIGHTS)
    config = _as_mapping(archive.with_vocabularies(contents.config, contents.assets))
    model = _built(config, WrittenBy(contents.version), stored.size)
    assignments, left = tree.find_assignments(model, config, stored)
    return Loaded(model, assign_weights(model, assignments, left))


def _legacy_model(stored: h5.Tree) -> Loaded:
    root = stored.attributes[""]
    parsed = parse_json(str(root["model_config"]), "model_config")
    inner = stored.below("model_weights")
    version = root.get("keras_version") or inner.attributes[""].get("keras_version") or "1"
    config = _as_mapping(legacy.with_reset_after(parsed, inner))
    model = _built(config, WrittenBy(str(version)), stored.size)
    order = [layer for layer, _, _ in tree.members(model, config)]
    assignments, left = legacy.find_assignments(model, order, inner)
    return Loaded(model, assign_weights(model, assignments, left))


def _as_mapping(config: object) -> Mapping[str, object]:
    if not isinstance(config, Mapping):
        raise ModelFileError(f"the model's config is not an object: {config!r:.60}")
    return config


def _built(config: Mapping[str, object], origin: WrittenBy, stored: int) -> Model:
    model = build(translate(config, origin), stored)
    if not isinstance(model, Model):
        raise ModelFileError(f"the file contains a {type(model).__name__}, not a model")
    model.graph  # noqa: B018 (raises if the file does not define the input)
    return model
