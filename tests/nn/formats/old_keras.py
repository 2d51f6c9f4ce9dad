"""Old layouts that no writer of today makes, synthesised with h5py from their description.

Each is the same model: weights come as Keras 3 has them, and go into the file as the old writer
would have put them.
"""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Weights = dict[str, list[Any]]


def legacy(
    path: Path, layers: Weights, version: str, config: Any | None = None, *, names: Any = None
) -> None:
    """A legacy .h5: arrays in the order given. config: of a whole model; None for weights only.

    names: layer -> names of its arrays.
    """
    with h5py.File(path, "w") as file:
        root = file if config is None else file.create_group("model_weights")
        file.attrs["keras_version"] = root.attrs["keras_version"] = np.bytes_(version)
        if config is not None:
            file.attrs["model_config"] = np.bytes_(json.dumps(config))
        root.attrs["layer_names"] = [np.bytes_(name) for name in layers]
        for layer, arrays in layers.items():
            group = root.create_group(layer)
            found = names[layer] if names else [f"{layer}/w_{i}:0" for i in range(len(arrays))]
            group.attrs["weight_names"] = [np.bytes_(name) for name in found]
            for name, array in zip(found, arrays, strict=True):
                group.create_dataset(name, data=array)


def checkpoint_archive(path: Path, config: Any, arrays: dict[str, Any], version: str) -> None:
    """A .keras file of 2.12 to 2.14: its weights under _layer_checkpoint_dependencies."""
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(f"_layer_checkpoint_dependencies/{name}", data=array)
        file.create_dataset("optimizer/vars/0", data=np.int64(3))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights.getvalue())


def keras1(weights: list[Any], order: tuple[int, ...]) -> list[Any]:
    """kernel, recurrent kernel, bias -> (W, U, b) of each gate, the gates in the file's order."""
    parts = [np.split(array, len(order), axis=-1) for array in weights]
    return [part[gate] for gate in order for part in parts]


def cudnn(weights: list[Any], gates: int) -> list[Any]:
    """kernel, recurrent kernel, bias as CuDNN's layers stored them (tf_keras' converter, back)."""
    kernel, recurrent, bias = weights

    def undone(part: Any) -> Any:
        # The converter fills a matrix by columns with what it reads by rows: the other way round.
        return part.flatten(order="F").reshape(part.shape)

    flat = np.concatenate([0.25 * bias, 0.75 * bias]) if gates == 4 else bias.reshape(-1)
    return [
        np.hstack([undone(part) for part in np.hsplit(kernel, gates)]),
        np.hstack([part.T for part in np.hsplit(recurrent, gates)]),
        flat,
    ]
