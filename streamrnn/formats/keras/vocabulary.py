"""Vocabularies of lookup layers that an archive keeps as text files instead of in the config."""

from collections.abc import Mapping
from typing import Any

from streamrnn.errors import ModelFileError
from streamrnn.formats.keras.tree import ROOTS
from streamrnn.layers.naming import snake_case

_LOOKUPS = ("StringLookup", "IntegerLookup")


def filled(config: Any, assets: Mapping[str, bytes]) -> Any:
    """The config with each vocabulary that is missing in it read from the archive's assets."""
    return _filled(config, assets, "") if assets and isinstance(config, Mapping) else config


def _filled(entry: Mapping[str, Any], assets: Mapping[str, bytes], path: str) -> dict[str, Any]:
    inner = entry.get("config")
    if not isinstance(inner, Mapping):
        return dict(entry)
    if entry.get("class_name") in _LOOKUPS and inner.get("vocabulary") is None:
        return {**entry, "config": {**inner, "vocabulary": _vocabulary(entry, assets, path)}}
    layers = inner.get("layers")
    if not isinstance(layers, list):
        return dict(entry)
    counts: dict[str, int] = {}
    made = []
    for layer in layers:
        if not isinstance(layer, Mapping):
            made.append(layer)
            continue
        kind = snake_case(str(layer.get("class_name")))
        number = counts[kind] = counts.get(kind, -1) + 1
        made.append(_filled(layer, assets, f"{path}layers/{kind}{f'_{number}' * (number > 0)}/"))
    return {**entry, "config": {**inner, "layers": made}}


def _vocabulary(entry: Mapping[str, Any], assets: Mapping[str, bytes], path: str) -> list[str]:
    for name in (path, *(path.replace("layers/", f"{root}/") for root in ROOTS)):
        if (data := assets.get(f"{name}vocabulary.txt")) is not None:
            return data.decode("utf-8").split("\n")
    raise ModelFileError(
        f"layer {entry['config'].get('name')!r} has no vocabulary, in the config or as "
        f"assets/{path}vocabulary.txt"
    )
