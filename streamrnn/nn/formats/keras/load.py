"""Readers of Keras's files: whole models, weights of a model, and layers described by tables.

A .keras archive is a zip of config.json, metadata.json, model.weights.h5 and assets.
"""

import re
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from streamrnn.base.arrays import Array
from streamrnn.errors import ConfigError, ModelFileError, UnsupportedError
from streamrnn.nn.formats.guard import (
    MAX_JSON_BYTES,
    Assignment,
    Budget,
    Loaded,
    ModelFormat,
    assign_weights,
    build,
    parse_json,
)
from streamrnn.nn.formats.keras import h5, legacy, tree
from streamrnn.nn.formats.keras.config import LOWER_DTYPES, NO_GRAPH, major_of, translate
from streamrnn.nn.formats.tables import LayerTable, Tables, parse, stack
from streamrnn.nn.layers import initializers
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.registry import snake_case
from streamrnn.nn.layers.structure import leaves
from streamrnn.nn.models import Model

WEIGHTS = "model.weights.h5"
_MAX_EXPANSION = 100
_FREE_BYTES = 1 << 20
_MAX_MEMBERS = 10_000
_LOOKUPS = ("StringLookup", "IntegerLookup")


def load_weights(model: Model, path: Path) -> None:
    """Set the weights of a model from any of Keras's files."""
    if path.suffix.lower() == ".keras":
        stored = h5.read(_read_archive(path).weights, path, skip=tree.NOT_WEIGHTS)
    else:
        _, stored = _read_hdf5(path)
    _assign(model, None, stored)


def _load_archive(path: Path) -> Loaded:
    contents = _read_archive(path)
    stored = h5.read(contents.weights, path, skip=tree.NOT_WEIGHTS)
    config = _with_vocabularies(contents.config, contents.assets, stored.arrays)
    return _built(path, config, contents.version, stored)


def _load_hdf5(path: Path, layers: Tables | None) -> Loaded:
    root, stored = _read_hdf5(path)
    if layers is not None:
        return _with_tables(stored, parse(layers))
    if "model_config" not in root:
        raise UnsupportedError(
            "this file has weights without an architecture: describe it in [[model.layers]] "
            "(or load_model(path, layers=…), or streamrnn convert IN OUT --layers FILE), or "
            "build the model and call load_weights(path)"
        )
    parsed = parse_json(str(root["model_config"]), "model_config")
    version = root.get("keras_version") or stored.attributes[""].get("keras_version") or "1"
    return _built(path, legacy.with_reset_after(parsed, stored), str(version), stored)


def _read_hdf5(path: Path) -> tuple[Mapping[str, h5.H5Text], h5.Tree]:
    """Return the attributes and the weights of a file."""
    stored = h5.read(path.read_bytes(), path, skip=("optimizer_weights", *tree.NOT_WEIGHTS))
    root = stored.attributes.get("", {})
    if "model_config" in root:
        return root, replace(stored.below("model_weights"), is_legacy=True)
    if "layer_names" in root:
        return root, replace(stored, is_legacy=True)
    if any(name in stored.children("") for name in tree.ROOTS):
        return root, stored
    raise ModelFileError(
        "this HDF5 file was not written by Keras: it has no model_config, no layer_names and no "
        "layers"
    )


def _assign(model: Model, config: tree.LayerEntry, stored: h5.Tree) -> Loaded:
    """Set all weights of a model; `config` (None: the model) has the layers in the file's order."""
    if stored.is_legacy:
        order = [layer for layer, _, _ in tree.members(model, config)]
        assignments, left = legacy.find_assignments(order, stored)
    else:
        assignments, left = tree.find_assignments(model, config, stored)
    return Loaded(model, assign_weights(model, assignments, left))


def _built(path: Path, config: object, version: str, stored: h5.Tree) -> Loaded:
    if not isinstance(config, Mapping):
        raise ModelFileError(f"the model's config is not a JSON object: {config!r:.60}")
    if lower := sorted({of for of in leaves(config) if of in LOWER_DTYPES}):
        warnings.warn(f"{path}: layers of {', '.join(lower)} compute in float32 here", stacklevel=2)
    try:
        translated = translate(config, version)
    except UnsupportedError:
        if isinstance(config.get("config"), Mapping) and "layers" not in config["config"]:
            raise UnsupportedError(f"{config.get('class_name')}: {NO_GRAPH}") from None
        raise
    model = build(translated, stored.size)
    if not isinstance(model, Model):
        raise ModelFileError(f"the file contains a {type(model).__name__}, not a model")
    model.graph  # noqa: B018 (raises if the file does not define the input)
    return _assign(model, config, stored)


def _with_tables(stored: h5.Tree, tables: Sequence[LayerTable]) -> Loaded:
    """Build a Sequential from the tables' layers, with the weights of an .h5 file.

    Weights are assigned in order, or from the groups that the tables name (`weights`: the layer's
    name in a legacy file, else a group such as "layers/lstm_1"). If tables name groups, the file
    may contain other groups, which are not used.
    """
    version = str(stored.attributes.get("", {}).get("keras_version", "3"))
    form = legacy if stored.is_legacy else tree
    with initializers.replaced_by(Budget(stored.size).zeros):
        layers = [_layer(table, version, stored) for table in tables]
        firsts = (
            form.first_array(stored, layer, table.weights)
            for layer, table in zip(layers, tables, strict=True)
        )
        first = next((array for array in firsts if array is not None and array.ndim), None)
        model = stack(layers, None if first is None else first.shape[1 if first.ndim == 3 else 0])
    if all(table.weights is None for table in tables):
        return _assign(model, None, stored)
    assignments: list[Assignment] = []
    for layer, table in zip(layers, tables, strict=True):
        if table.weights is not None:
            assignments += form.from_group(layer, table.weights, stored)
    used = {part for assignment in assignments for part in assignment.source.split(" + ")}
    left = [name for name in stored.arrays if name not in used and not tree.is_seed(name)]
    return Loaded(model, assign_weights(model, assignments), left)


def _layer(table: LayerTable, version: str, stored: h5.Tree) -> Layer:
    row, key = legacy.row_of(table.kind), "recurrent_activation"
    minor = re.match(r"2\.(\d+)", version)
    is_old = major_of(version) < 2 or (minor is not None and int(minor.group(1)) < 3)
    if row and key in row.before_3 and key not in table.arguments and is_old:
        raise UnsupportedError(
            f"{table}: the file was written by Keras {version}, in which "
            'recurrent_activation was "hard_sigmoid" by default ("sigmoid" from 2.3 on): set '
            "recurrent_activation"
        )
    layer = table.make(translate(table.config(), version))
    start = f"{table.weights}/"
    if table.weights is not None and not any(name.startswith(start) for name in stored.arrays):
        paths = [name.split("/") for name in stored.arrays]
        groups = {"/".join(path[: 2 if path[0] in tree.ROOTS else 1]) for path in paths}
        raise ConfigError(
            f"{table}: the file has no group {table.weights!r} with arrays; its groups: "
            f"{', '.join(sorted(groups))}"
        )
    return layer


@dataclass(frozen=True)
class _Archive:
    """The contents of a .keras file. assets: path below assets/ -> bytes."""

    config: object
    version: str
    weights: bytes
    assets: dict[str, bytes]


def _read_archive(path: Path) -> _Archive:
    """Read a .keras file. Raises ModelFileError if it is damaged or expands beyond the limits."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ModelFileError(
            f"damaged, or not a .keras archive ({error}); a legacy HDF5 model must end in .h5"
        ) from None


def _read(archive: zipfile.ZipFile) -> _Archive:
    members = {info.filename: info for info in archive.infolist()}
    if len(members) > _MAX_MEMBERS:
        raise ModelFileError(
            f"the archive has {len(members):,} members; the maximum is {_MAX_MEMBERS:,}"
        )
    names = list(members)
    other = next((name for name in names if name.startswith("model.weights")), None)
    if "config.json" in members and WEIGHTS not in members and other:
        raise UnsupportedError(
            f"weights are read from {WEIGHTS} only, not from {other}; install h5py and save the "
            "model again, without sharding"
        )
    for required in ("config.json", WEIGHTS):
        if required not in members:
            raise ModelFileError(f"the archive has no {required}, only {', '.join(names[:8])}")
    metadata: object = {}
    if "metadata.json" in members:
        text = _member(archive, members["metadata.json"], MAX_JSON_BYTES)
        metadata = parse_json(text, "metadata.json")
    if not isinstance(metadata, Mapping):
        raise ModelFileError(f"metadata.json is not a JSON object: {metadata!r:.60}")
    return _Archive(
        config=parse_json(_member(archive, members["config.json"], MAX_JSON_BYTES), "config.json"),
        version=str(metadata.get("keras_version", "3")),
        weights=_member(archive, members[WEIGHTS]),
        assets={
            name.removeprefix("assets/"): _member(archive, members[name], MAX_JSON_BYTES)
            for name in names
            if name.startswith("assets/") and not name.endswith("/")
        },
    )


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int | None = None) -> bytes:
    """Read one member. Raises ModelFileError if it expands beyond the limits."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelFileError(
            f"{info.filename} has compression method {info.compress_type}, which Keras does not use"
        )
    allowed = _MAX_EXPANSION * info.compress_size + _FREE_BYTES
    if info.file_size > min(allowed, limit or allowed):
        raise ModelFileError(
            f"{info.filename} would expand to {info.file_size:,} bytes from "
            f"{info.compress_size:,}, which is more than is allowed"
        )
    with archive.open(info) as member:
        data = member.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise ModelFileError(
            f"{info.filename} does not have the {info.file_size:,} bytes that it declares"
        )
    return data


def _with_vocabularies(
    entry: object, assets: Mapping[str, bytes], arrays: dict[str, Array], path: str = ""
) -> object:
    """Return a config with what lookups learned, from the archive's assets and arrays below a path.

    Weights of tokens are removed from `arrays`: they are arguments of the layers here.
    """
    inner = entry.get("config") if isinstance(entry, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(inner, Mapping):
        return entry
    if entry.get("class_name") in _LOOKUPS:
        return {**entry, "config": {**inner, **_learned(inner, assets, arrays, path)}}
    if not isinstance(inner.get("layers"), list):
        return entry
    counts: Counter[str] = Counter()
    layers = []
    for layer in inner["layers"]:
        kind = snake_case(str(layer.get("class_name"))) if isinstance(layer, Mapping) else ""
        group = f"{path}layers/{kind}{f'_{counts[kind]}' * (counts[kind] > 0)}/"
        counts[kind] += 1
        layers.append(_with_vocabularies(layer, assets, arrays, group))
    return {**entry, "config": {**inner, "layers": layers}}


def _learned(
    config: Mapping[str, object], assets: Mapping[str, bytes], arrays: dict[str, Array], path: str
) -> dict[str, object]:
    """Return what the config of a lookup may lack: the vocabulary and the weights of its tokens."""
    groups = [path.replace("layers/", f"{root}/") for root in tree.ROOTS]
    weights = [arrays.pop(f"{group}{tree.OF_TOKENS}", None) for group in groups]
    if not assets or config.get("vocabulary") is not None:
        return {}
    for group in groups:
        if (data := assets.get(f"{group}vocabulary.txt")) is not None:
            tokens = data.decode("utf-8").split("\n")
            # With pad_to_max_tokens, zeros follow the weights.
            of_tokens = [array.reshape(-1)[: len(tokens)] for array in weights if array is not None]
            return {
                "vocabulary": tokens,
                "idf_weights": of_tokens[0].tolist() if of_tokens else None,
            }
    raise ModelFileError(
        f"layer {config.get('name')!r} has no vocabulary, neither in the config nor as "
        f"assets/{path}vocabulary.txt"
    )


KERAS = ModelFormat(_load_archive, load_weights)
HDF5 = ModelFormat(_load_hdf5, load_weights)
