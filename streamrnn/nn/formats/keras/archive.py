"""The .keras archive: a zip of config.json, metadata.json, model.weights.h5 and assets."""

import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streamrnn.base.arrays import Array
from streamrnn.errors import ModelFileError, UnsupportedError
from streamrnn.nn.formats.guard import MAX_JSON_BYTES, parse_json
from streamrnn.nn.formats.keras.tree import OF_TOKENS, ROOTS
from streamrnn.nn.layers.registry import snake_case

WEIGHTS = "model.weights.h5"
_MAX_EXPANSION = 100
_FREE_BYTES = 1 << 20
_MAX_MEMBERS = 10_000


@dataclass(frozen=True)
class Archive:
    """The contents of a .keras file. assets: path below assets/ -> bytes."""

    config: object
    version: str
    weights: bytes
    assets: dict[str, bytes] = field(default_factory=dict)


def read(path: str | Path) -> Archive:
    """Read a .keras file. Raises ModelFileError if it is damaged or expands beyond the limits."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ModelFileError(
            f"damaged, or not a .keras archive ({error}); a legacy HDF5 model must end in .h5"
        ) from None


def _read(archive: zipfile.ZipFile) -> Archive:
    members = {info.filename: info for info in archive.infolist()}
    if len(members) > _MAX_MEMBERS:
        raise ModelFileError(
            f"the archive has {len(members):,} members; the maximum is {_MAX_MEMBERS:,}"
        )
    names = list(members)
    if "config.json" not in members:
        raise ModelFileError(f"the archive has no config.json, only {', '.join(names[:8])}")
    if WEIGHTS not in members:
        if any(name.startswith("model.weights") for name in names):
            raise UnsupportedError(
                f"weights are read from {WEIGHTS} only, not from "
                f"{next(n for n in names if n.startswith('model.weights'))}; install h5py and save "
                "the model again, without sharding"
            )
        raise ModelFileError(f"the archive has no {WEIGHTS}, only {', '.join(names[:8])}")
    metadata: object = {}
    if "metadata.json" in members:
        text = _member(archive, members["metadata.json"], MAX_JSON_BYTES)
        metadata = parse_json(text, "metadata.json")
    if not isinstance(metadata, Mapping):
        raise ModelFileError(f"metadata.json is not a JSON object: {metadata!r:.60}")
    return Archive(
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
            f"{info.filename} would expand to {info.file_size:,} bytes, more than is allowed, from "
            f"{info.compress_size:,}"
        )
    with archive.open(info) as member:
        data = member.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise ModelFileError(
            f"{info.filename} does not have the {info.file_size:,} bytes that it declares"
        )
    return data


_LOOKUPS = ("StringLookup", "IntegerLookup")


def with_vocabularies(
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
        layers.append(with_vocabularies(layer, assets, arrays, group))
    return {**entry, "config": {**inner, "layers": layers}}


def _learned(
    config: Mapping[str, object], assets: Mapping[str, bytes], arrays: dict[str, Array], path: str
) -> dict[str, object]:
    """Return the vocabulary of a lookup, and its tokens' weights, if its config lacks them."""
    groups = [path.replace("layers/", f"{root}/") for root in ROOTS]
    weights = [arrays.pop(f"{group}{OF_TOKENS}", None) for group in groups]
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
