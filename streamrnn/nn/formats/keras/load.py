"""Readers of Keras's files: whole models, weights of a model, and layers described by tables."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from streamrnn.errors import ConfigError, ModelFileError, UnsupportedError
from streamrnn.nn.formats.assignment import Assignment, Loaded, ModelFormat, assign_weights
from streamrnn.nn.formats.guard import Budget, build, parse_json
from streamrnn.nn.formats.keras import archive, h5, legacy, tree
from streamrnn.nn.formats.keras.config import major_of, translate
from streamrnn.nn.formats.tables import LayerTable, Tables, parse, stack
from streamrnn.nn.layers import initializers
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.models import Model


def load_weights(model: Model, path: Path) -> None:
    """Set the weights of a model from any of Keras's files."""
    if path.suffix.lower() == ".keras":
        stored, is_legacy = h5.read(archive.read(path).weights, path, skip=tree.NOT_WEIGHTS), False
    else:
        _, stored, is_legacy = _read_hdf5(path)
    _assign(model, None, stored, is_legacy=is_legacy)


def _load_archive(path: Path) -> Loaded:
    contents = archive.read(path)
    stored = h5.read(contents.weights, path, skip=tree.NOT_WEIGHTS)
    config = _as_mapping(archive.with_vocabularies(contents.config, contents.assets, stored.arrays))
    model = _built(config, contents.version, stored.size)
    return _assign(model, config, stored, is_legacy=False)


def _load_hdf5(path: Path, layers: Tables | None) -> Loaded:
    root, stored, is_legacy = _read_hdf5(path)
    if layers is not None:
        return _with_tables(stored, parse(layers), is_legacy=is_legacy)
    if "model_config" not in root:
        raise UnsupportedError(
            "this file has weights without an architecture: describe it in [[model.layers]] "
            "(or load_model(path, layers=…), or streamrnn convert IN OUT --layers FILE), or "
            "build the model and call load_weights(path)"
        )
    parsed = parse_json(str(root["model_config"]), "model_config")
    version = root.get("keras_version") or stored.attributes[""].get("keras_version") or "1"
    config = _as_mapping(legacy.with_reset_after(parsed, stored))
    return _assign(_built(config, str(version), stored.size), config, stored, is_legacy=True)


def _read_hdf5(path: Path) -> tuple[Mapping[str, h5.H5Text], h5.Tree, bool]:
    """Return attributes and weights of an HDF5 file, and whether it has the legacy lists of names.

    A complete model has the attribute model_config.
    """
    stored = h5.read(path.read_bytes(), path, skip=("optimizer_weights", *tree.NOT_WEIGHTS))
    root = stored.attributes.get("", {})
    if "model_config" in root:
        return root, stored.below("model_weights"), True
    if "layer_names" in root:
        return root, stored, True
    if any(name in stored.children("") for name in tree.ROOTS):
        return root, stored, False
    raise ModelFileError(
        "this HDF5 file was not written by Keras: it has no model_config, no layer_names and no "
        "layers"
    )


def _assign(model: Model, config: tree.LayerEntry, stored: h5.Tree, *, is_legacy: bool) -> Loaded:
    """Set all weights of a model; the file has its layers in the order of the config, if any."""
    if is_legacy:
        order = [layer for layer, _, _ in tree.members(model, config)]
        assignments, left = legacy.find_assignments(order, stored)
    else:
        assignments, left = tree.find_assignments(model, config, stored)
    return Loaded(model, assign_weights(model, assignments, left))


def _as_mapping(config: object) -> Mapping[str, object]:
    if not isinstance(config, Mapping):
        raise ModelFileError(f"the model's config is not a JSON object: {config!r:.60}")
    return config


def _built(config: Mapping[str, object], version: str, stored: int) -> Model:
    model = build(translate(config, version), stored)
    if not isinstance(model, Model):
        raise ModelFileError(f"the file contains a {type(model).__name__}, not a model")
    model.graph  # noqa: B018 (raises if the file does not define the input)
    return model


def _with_tables(stored: h5.Tree, tables: Sequence[LayerTable], *, is_legacy: bool) -> Loaded:
    """Build a Sequential from the tables' layers, with the weights of an .h5 file.

    Weights are assigned in order, or from the groups that the tables name (`weights`: the layer's
    name in a legacy file, else a group such as "layers/lstm_1"). If tables name groups, the file
    may contain more of them.
    """
    version = str(stored.attributes.get("", {}).get("keras_version", "3"))
    with initializers.replaced_by(Budget(stored.size).zeros):
        layers = [_layer(table, version) for table in tables]
    for table in tables:
        start = f"{table.weights}/"
        if table.weights is not None and not any(name.startswith(start) for name in stored.arrays):
            groups = sorted({_group_of(name) for name in stored.arrays})
            raise ConfigError(
                f"{table}: the file has no group {table.weights!r} with arrays; its groups: "
                f"{', '.join(groups)}"
            )
    with initializers.replaced_by(Budget(stored.size).zeros):
        model = stack(layers, _features(layers, tables, stored, is_legacy))
    if all(table.weights is None for table in tables):
        return _assign(model, None, stored, is_legacy=is_legacy)
    assignments: list[Assignment] = []
    for layer, table in zip(layers, tables, strict=True):
        if table.weights is not None:
            form = legacy if is_legacy else tree
            assignments += form.from_group(layer, table.weights, stored)
    used = {part for assignment in assignments for part in assignment.source.split(" + ")}
    left = [name for name in stored.arrays if name not in used and not tree.is_seed(name)]
    return Loaded(model, assign_weights(model, assignments), left)


def _layer(table: LayerTable, version: str) -> Layer:
    row, key = legacy.row_of(table.kind), "recurrent_activation"
    minor = re.match(r"2\.(\d+)", version)
    is_old = major_of(version) < 2 or (minor is not None and int(minor.group(1)) < 3)
    if row and key in row.before_3 and key not in table.arguments and is_old:
        raise UnsupportedError(
            f"{table}: the file was written by Keras {version}, in which "
            'recurrent_activation was "hard_sigmoid" by default ("sigmoid" from 2.3 on): set '
            "recurrent_activation"
        )
    return table.make(translate(table.config(), version))


def _features(
    layers: Sequence[Layer], tables: Sequence[LayerTable], stored: h5.Tree, is_legacy: bool
) -> int | None:
    """Return the number of input features, from the first array of the first layer with weights."""
    for layer, table in zip(layers, tables, strict=True):
        form = legacy if is_legacy else tree
        array = form.first_array(stored, layer, table.weights)
        if array is not None and array.ndim:
            return int(array.shape[1] if array.ndim == 3 else array.shape[0])
    return None


def _group_of(array: str) -> str:
    parts = array.split("/")
    return "/".join(parts[:2]) if parts[0] in tree.ROOTS else parts[0]


KERAS = ModelFormat(_load_archive, load_weights)
HDF5 = ModelFormat(_load_hdf5, load_weights)
