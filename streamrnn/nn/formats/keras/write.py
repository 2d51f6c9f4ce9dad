"""Models as .keras archives, which Keras 3 loads without this package.

Layers here have Keras's arguments, so the writer only needs the module of each class in Keras, and
the few values that are objects there. Equal models give equal bytes.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamrnn.errors import UnsupportedError
from streamrnn.nn.formats.guard import (
    checked_target,
    extra_needed,
    refuse_integers,
    write_atomically,
)
from streamrnn.nn.formats.keras import tree
from streamrnn.nn.formats.keras.config import ACTIVATION_KEYS, OPERATIONS, with_histories
from streamrnn.nn.formats.keras.load import WEIGHTS
from streamrnn.nn.formats.tables import INNER_KEYS
from streamrnn.nn.layers import registry
from streamrnn.nn.layers.registry import ConfigDict, StoredConfig
from streamrnn.nn.models import Model

_VERSION = "3.0.0"
_WHEN = (1980, 1, 1, 0, 0, 0)
_OPERATIONS = {ours: keras for keras, ours in OPERATIONS.items()}
_MODELS = {
    "Model": ("keras.src.models.functional", "Functional"),
    "Sequential": ("keras", "Sequential"),
}
"""Model -> its module and class in Keras."""
_OURS = ("Gaussian", "LayerNormLSTMCell", "Operation", "PeepholeLSTMCell", "Spread")
"""Layers of this package that are not in Keras, apart from plug-ins' layers."""
_AS_LAYERS = {
    "leaky_relu": ("LeakyReLU", ("negative_slope",)),
    "elu": ("ELU", ("alpha",)),
    "relu": ("ReLU", ("negative_slope", "threshold", "max_value")),
}
"""Activation with parameters -> the layer that replaces it in Keras, and its arguments."""


def save_keras(model: Model, path: str | Path) -> None:
    """Write a model as a .keras file; after an error, an earlier file at `path` is unchanged.

    Raises UnsupportedError, naming the layer, if Keras does not have it, or if the extra keras is
    not installed; SinkError where no file can be written, OSError if writing it fails.
    """
    path = checked_target(path, ".keras", "a Keras model")
    refuse_integers(model, "a .keras file")
    sized = all(symbol.shape[0] is not None for symbol in model.inputs)
    config = _entry(registry.serialize(model), sized=sized)
    with extra_needed("h5py", "keras", path, "writing"):
        import h5py  # noqa: PLC0415 - an extra
    weights, data = io.BytesIO(), io.BytesIO()
    with h5py.File(weights, "w") as file:
        for group, arrays in tree.written_arrays(model).items():
            file.require_group(group)
            for place, array in arrays.items():
                file.create_dataset(place, data=array)
    members = {
        "metadata.json": json.dumps({"keras_version": _VERSION}).encode(),
        "config.json": json.dumps(config).encode(),
        WEIGHTS: weights.getvalue(),
    }
    with zipfile.ZipFile(data, "w") as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name, _WHEN), content)
    write_atomically({path: data.getvalue()})


def _entry(stored: StoredConfig, *, sized: bool) -> ConfigDict:
    """Return a layer's config as Keras 3 stores it; sized: inputs have a fixed number of rows."""
    kind, inner = stored["class_name"], dict(stored["config"])
    if "/" in inner.get("name", ""):
        raise _refused(stored, 'Keras refuses a name with "/"; rename the layer')
    if kind in _OPERATIONS:
        return _operation(_OPERATIONS[kind], stored)
    cls = registry.get(kind)
    if kind in _OURS or not registry.is_own(cls) or ".plugins." in cls.__module__:
        raise _refused(stored, "Keras has no such layer")
    if kind in ("DepthwiseConv1D", "SeparableConv1D") and inner["padding"] == "causal":
        raise _refused(stored, "Keras has no such layer with causal padding; use Conv1D(groups=…)")
    inner.pop("batch_input_shape", None)
    if inner.get("stateful") and not sized:
        why = "in Keras, stateful=True needs the number of rows: set Input(batch_size=…)"
        raise _refused(stored, why)
    if inner.get("trainable"):  # the default, which not every layer of Keras takes
        del inner["trainable"]
    for key, value in inner.items():
        if key in ACTIVATION_KEYS:
            inner[key] = _activation(value, stored)
        elif key in INNER_KEYS and isinstance(value, Mapping):
            inner[key] = _entry(value, sized=sized)
        elif key in ("cells", "layers"):
            inner[key] = [_entry(layer, sized=sized) for layer in value]
    if kind == "Model":
        layers = stored["config"]["layers"]
        models = [layer["name"] for layer in layers if layer["class_name"] == kind]
        for key in ("input_layers", "output_layers"):  # there, Keras counts their calls from 1
            inner[key] = with_histories(
                inner[key], lambda of, call, i: [of, call + (of in models), i]
            )
    if kind == "MultiHeadAttention" and "inbound_nodes" in stored:
        calls = [{**call, "args": call["args"][0]} for call in stored["inbound_nodes"]]
        stored = {**stored, "inbound_nodes": calls}
    module, name = _MODELS.get(kind, ("keras.layers", kind))
    return {
        **stored,
        "module": module,
        "class_name": name,
        "config": inner,
        "registered_name": None,
    }


def _operation(kind: str, stored: StoredConfig) -> ConfigDict:
    """Return a mask's operation; NotEqual's number and LogicalOr's second mask become operands."""
    config = stored["config"]
    inner = {"name": config["name"]}
    if kind in ("OnesLike", "ZerosLike"):
        inner["dtype"] = "bool"
    elif kind in ("Any", "Concatenate", "ExpandDims"):
        inner["axis"] = -1
    compared = [config["value"]] if kind == "NotEqual" else []
    calls = [
        {**call, "args": call["args"][0] if kind == "LogicalOr" else [*call["args"], *compared]}
        for call in stored["inbound_nodes"]
    ]
    return {
        **stored,
        "module": "keras.src.ops.numpy",
        "class_name": kind,
        "config": inner,
        "registered_name": kind,
        "inbound_nodes": calls,
    }


def _activation(spec: Any, stored: StoredConfig) -> Any:
    """Return an activation by its name, or, if it has parameters, as Keras's layer."""
    name, *numbers = [spec] if isinstance(spec, str) else spec
    if name == "hard_sigmoid_02":
        raise _refused(stored, f"Keras 3 has no activation {name!r}")
    if not numbers:
        return name
    if name not in _AS_LAYERS:
        raise _refused(stored, f"Keras has no activation {name!r} with parameters")
    kind, arguments = _AS_LAYERS[name]
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": dict(zip(arguments, numbers, strict=False)),
        "registered_name": None,
    }


def _refused(stored: StoredConfig, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"layer {stored['config']['name']!r} ({stored['class_name']}): {why}. Write .onnx or the "
        "native .safetensors, or train a model without this layer"
    )
