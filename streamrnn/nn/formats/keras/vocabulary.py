"""Vocabularies of lookup layers that an archive stores as text files instead of in the config."""

from collections.abc import Mapping

from streamrnn.errors import ModelFileError
from streamrnn.nn.formats.keras.tree import ROOTS
from streamrnn.nn.layers.naming import snake_case

_LOOKUPS = ("StringLookup", "IntegerLookup")


def filled(config: object, assets: Mapping[str, bytes]) -> object:
    """Return the config with each missing vocabulary read from the archive's assets."""
    return _filled(config, assets, "") if assets and isinstance(config, Mapping) else config


def _filled(
    entry: Mapping[str, object], assets: Mapping[str, bytes], path: str
) -> dict[str, object]:
    inner = entry.get("config")
    if not isinstance(inner, Mapping):
        return dict(entry)
    if entry.get("class_name") in _LOOKUPS and inner.get("vocabulary") is None:
        vocabulary = _vocabulary(inner.get("name"), assets, path)
        return {**entry, "config": {**inner, "vocabulary": vocabulary}}
    layers = inner.get("layers")
    if not isinstance(layers, list):
        return dict(entry)
    counts: dict[str, int] = {}
    filled_layers: list[object] = []
    for layer in layers:
        if not isinstance(layer, Mapping):
            filled_layers.append(layer)
            continue
        kind = snake_case(str(layer.get("class_name")))
        number = counts[kind] = counts.get(kind, -1) + 1
        group = f"{path}layers/{kind}{f'_{number}' * (number > 0)}/"
        filled_layers.append(_filled(layer, assets, group))
    return {**entry, "config": {**inner, "layers": filled_layers}}


def _vocabulary(layer: object, assets: Mapping[str, bytes], path: str) -> list[str]:
    for name in (path, *(path.replace("layers/", f"{root}/") for root in ROOTS)):
        if (data := assets.get(f"{name}vocabulary.txt")) is not None:
            return data.decode("utf-8").split("\n")
    raise ModelFileError(
        f"layer {layer!r} has no vocabulary, neither in the config nor as "
        f"assets/{path}vocabulary.txt"
    )
