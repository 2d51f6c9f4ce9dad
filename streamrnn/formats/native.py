"""The native format: one safetensors file.

Tensors: float32, one a weight, named by layer and weight ("lstm/cell/kernel"). Metadata:
`format` = "streamrnn", `version` = "1", `config` = the model's config as JSON, `order` = the
weights' names as JSON, in the order of `model.weights`.
"""

import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from streamrnn.errors import ModelFileError, StreamRNNError, UnsupportedError
from streamrnn.layers import registry
from streamrnn.models import Model

VERSION = "1"


def save(model: Model, path: str | Path) -> None:
    """Write a model. The file is complete under its name, or not there at all."""
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise UnsupportedError(f"{path}: the native format ends in .safetensors")
    model.graph  # noqa: B018 (raises where the model is not built)
    weights = model.named_weights()
    metadata = {
        "format": "streamrnn",
        "version": VERSION,
        "config": json.dumps(registry.serialize(model), separators=(",", ":")),
        "order": json.dumps(list(weights)),
    }
    data = to_bytes({name: np.asarray(w, order="C") for name, w in weights.items()}, metadata)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | Path) -> Model:
    """Read a model that `save` wrote. Raises ModelFileError, naming the file, where it is damaged.

    Layers of yours must be registered first (streamrnn.register_layer).
    """
    metadata, tensors = _read(path)
    if metadata.get("format") != "streamrnn" or "config" not in metadata:
        raise ModelFileError(
            f"{path}: this safetensors file holds no streamrnn model (no config in its metadata); "
            "weights of another framework need the architecture: [[model.layers]]"
        )
    if metadata.get("version") != VERSION:
        raise ModelFileError(
            f"{path}: written in version {metadata.get('version')!r} of the native format, this "
            f"release reads {VERSION!r}"
        )
    try:
        model = registry.deserialize(json.loads(metadata["config"]))
    except StreamRNNError as error:
        error.args = (f"{path}: {error}",)
        raise
    except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
        raise ModelFileError(f"{path}: the config is damaged ({error})") from error
    if not isinstance(model, Model):
        raise ModelFileError(f"{path}: the config is not one of a model")
    _place(model, tensors, path)
    return model


def load_weights(model: Model, path: str | Path) -> None:
    """Set the weights of a model from a file that `save` wrote: by name if the names are the same,
    else in order."""
    metadata, tensors = _read(path)
    if set(tensors) != set(model.named_weights()):
        order = json.loads(metadata.get("order", "[]"))
        if set(order) == set(tensors) and len(order) == len(model.named_weights()):
            tensors = dict(zip(model.named_weights(), (tensors[n] for n in order), strict=True))
    _place(model, tensors, path)


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, Any]]:
    try:
        with safe_open(str(path), framework="numpy") as file:
            return dict(file.metadata() or {}), {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError) as error:
        raise ModelFileError(f"{path}: not a safetensors file, or damaged ({error})") from error


def _place(model: Model, tensors: dict[str, Any], path: str | Path) -> None:
    """Every weight from its tensor, every tensor used once, all finite."""
    wanted = model.named_weights()
    if missing := [name for name in wanted if name not in tensors]:
        raise ModelFileError(f"{path}: weights are missing: {', '.join(missing)}")
    if left := [name for name in tensors if name not in wanted]:
        raise ModelFileError(f"{path}: weights that no layer takes: {', '.join(left)}")
    for name, weight in wanted.items():
        if tensors[name].shape != weight.shape:
            raise ModelFileError(
                f"{path}: {name} has shape {tensors[name].shape}, expected {weight.shape}"
            )
    require_finite(tensors, path)
    model.set_weights([tensors[name] for name in wanted])


def require_finite(weights: dict[str, Any], path: str | Path) -> None:
    """Raise ModelFileError, naming the weight, where one is NaN or infinite."""
    for name, weight in weights.items():
        if not np.isfinite(weight).all():
            raise ModelFileError(f"{path}: {name} holds NaN or infinity")
