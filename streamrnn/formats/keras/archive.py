"""The .keras archive: a zip of config.json, metadata.json, model.weights.h5 and assets."""

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamrnn.errors import ModelFileError, UnsupportedError
from streamrnn.formats.guard import MAX_JSON_BYTES, parse_json

_WEIGHTS = "model.weights.h5"
_MAX_EXPANSION = 100
_FREE_BYTES = 1 << 20
_MAX_MEMBERS = 10_000


@dataclass(frozen=True)
class Archive:
    """The parts of a .keras file. assets: path below assets/ -> bytes."""

    config: Any
    version: str
    weights: bytes
    assets: dict[str, bytes] = field(default_factory=dict)


def read(path: str | Path) -> Archive:
    """Open a .keras file. Raises ModelFileError for what is damaged or swells when unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise ModelFileError(
            f"damaged, or no .keras archive ({error}); a legacy HDF5 model must end in .h5"
        ) from None


def _read(archive: zipfile.ZipFile) -> Archive:
    members = {info.filename: info for info in archive.infolist()}
    if len(members) > _MAX_MEMBERS:
        raise ModelFileError(f"the archive has {len(members):,} members; no model has so many")
    names = list(members)
    if "config.json" not in members:
        raise ModelFileError(f"no config.json in the archive, only {', '.join(names[:8])}")
    if _WEIGHTS not in members:
        if any(name.startswith("model.weights") for name in names):
            raise UnsupportedError(
                f"weights are read from {_WEIGHTS} only, not from "
                f"{next(n for n in names if n.startswith('model.weights'))}; save the model with "
                "h5py installed and without sharding"
            )
        raise ModelFileError(f"no {_WEIGHTS} in the archive, only {', '.join(names[:8])}")
    metadata = (
        parse_json(_member(archive, members["metadata.json"], MAX_JSON_BYTES), "metadata.json")
        if "metadata.json" in members
        else {}
    )
    return Archive(
        config=parse_json(_member(archive, members["config.json"], MAX_JSON_BYTES), "config.json"),
        version=str(metadata.get("keras_version", "3")),
        weights=_member(archive, members[_WEIGHTS]),
        assets={
            name.removeprefix("assets/"): _member(archive, members[name], MAX_JSON_BYTES)
            for name in names
            if name.startswith("assets/") and not name.endswith("/")
        },
    )


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int | None = None) -> bytes:
    """One member's bytes, if it does not unpack to far more than it takes in the archive."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelFileError(f"{info.filename} is packed in a way that Keras does not use")
    allowed = _MAX_EXPANSION * info.compress_size + _FREE_BYTES
    if info.file_size > min(allowed, limit or allowed):
        raise ModelFileError(
            f"{info.filename} would unpack to {info.file_size:,} bytes, from {info.compress_size:,}"
        )
    with archive.open(info) as member:
        data = member.read(info.file_size + 1)
    if len(data) != info.file_size:
        raise ModelFileError(f"{info.filename} has not the {info.file_size:,} bytes it declares")
    return data
