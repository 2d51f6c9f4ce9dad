"""Configs of all versions of Keras, translated to the form that `registry.deserialize` reads.

No config causes an import or runs code: its classes belong to streamrnn or are registered. Inbound
nodes of functional models get the form of Keras 3, and their arguments are checked. Operations of
keras.ops, such as `x * 2`, become layers of class Operation.
"""

import re
from collections.abc import Callable, Collection, Mapping
from itertools import pairwise
from typing import Any, NotRequired, TypedDict, TypeGuard

from streamrnn.errors import ModelFileError, StreamRNNError, UnsupportedError
from streamrnn.nn.formats.guard import MAX_LAYERS
from streamrnn.nn.formats.keras.legacy import KERAS_CELLS, renamed, row_of
from streamrnn.nn.formats.tables import INNER_KEYS
from streamrnn.nn.layers import initializers, registry
from streamrnn.nn.layers.functions import ARRAY_FUNCTIONS
from streamrnn.nn.layers.ops import split_keys
from streamrnn.nn.layers.registry import snake_case
from streamrnn.nn.layers.structure import leaves
from streamrnn.nn.layers.symbol import INPUT
from streamrnn.nn.models.config import TENSOR, Call, has_class

_CUDNN = {f"CuDNN{name}": name for name, row in KERAS_CELLS.items() if row.cudnn}
OPERATIONS = {
    "NotEqual": "NotEqual",
    "Any": "Any",
    "LogicalOr": "LogicalOr",
    "ExpandDims": "ExpandDims",
    "ZerosLike": "ZerosLike",
    "OnesLike": "OnesLike",
    "Concatenate": "JoinedMasks",
}
"""The operations that masks of functional graphs consist of -> streamrnn's layers."""
ACTIVATION_KEYS = ("activation", "recurrent_activation")
LOWER_DTYPES = ("float16", "bfloat16", "mixed_float16", "mixed_bfloat16")
_IGNORED_DTYPES = (None, "float32", "int64", "int32", "string", *LOWER_DTYPES)

_IGNORED = {
    # Only for training, for other devices, or for Keras's own execution.
    "*": "autocast build_config compile_config jit_compile lora_alpha module shared_object_id",
    "InputLayer": "ragged sparse optional trainable input_tensor type_spec",
    "SpatialDropout1D": "noise_shape data_format",
    "StringLookup": "sparse vocabulary_dtype vocabulary_size",
    "IntegerLookup": "sparse vocabulary_size",
    "CategoryEncoding": "sparse",
    "Discretization": "sparse",
    "MultiHeadAttention": "query_shape value_shape key_shape",
    "BatchNormalization": "fused virtual_batch_size adjustment",
}
"""Class -> keys that change no result and are dropped; layers refuse other unknown keys."""
_ARRAYS = ("__numpy__", "__tensor__")
"""Classes of an array in a config: NumPy's, and the class of Keras's backend."""
_ARGUMENTS = ("initial_state", "mask", "training")
_OPERANDS = ("condition", "x", "xs", "x1", "x2", "key", "indices")
"""The arguments in a call of an operation that are its operands, in their order."""
NO_GRAPH = (
    "the file of a subclassed model contains no graph: rebuild the model here with Sequential or "
    "Model, load the file in Keras, and pass the get_weights() of its model to set_weights"
)
_RENAMED = {"divide": "true_divide"}
_DROPPED = ("dtype", "name", "sparse", "trainable")


class LayerConfig(TypedDict):
    """A layer of a config: its class and arguments, and in a functional model its calls."""

    class_name: str
    config: dict[str, object]
    name: NotRequired[str]
    inbound_nodes: NotRequired[list[Call]]


def major_of(version: str) -> int:
    """Return the major version of Keras, which decides what some names mean; 3 by default."""
    match = re.match(r"\d+", version)
    return int(match.group()) if match else 3


def translate(entry: object, version: str) -> LayerConfig:
    """Translate the config of a layer or model. Raises UnsupportedError, naming layer and class."""
    if not isinstance(entry, Mapping) or "class_name" not in entry or "config" not in entry:
        raise ModelFileError(
            f"expected a config with class_name and config, received {entry!r:.100}"
        )
    name = str(entry["class_name"])
    registered = entry.get("registered_name")
    if name == "Sequential":
        config = entry["config"]
        if isinstance(config, list):  # the form of Keras 1 and early Keras 2
            config = {"layers": config}
        stack: dict[str, object] = {"layers": [translate(e, version) for e in _entries(config)]}
        stack |= {key: config[key] for key in ("name", "trainable") if key in config}
        built = (entry.get("build_config") or {}).get("input_shape")
        if shape := config.get("build_input_shape") or built:
            stack["build_input_shape"] = shape
        return {"class_name": name, "config": stack}
    if name in ("Functional", "Model"):
        return {"class_name": "Model", "config": _functional(entry["config"], version)}
    if not isinstance(entry["config"], Mapping):
        raise ModelFileError(
            f"the config of a {name} is not a JSON object: {entry['config']!r:.60}"
        )
    if _is_operation(entry):
        if name not in OPERATIONS:
            raise _unsupported(
                entry, f"the operation {name} (keras.ops) is not supported, only layers"
            )
        class_name = OPERATIONS[name]
    else:
        try:
            class_name = registry.get(_CUDNN.get(name, registered or name)).__name__
        except StreamRNNError as error:
            raise _unsupported(entry, str(error)) from None
        if class_name != _CUDNN.get(name, name) or class_name not in registry.names():
            class_name = str(registered or name)
    return {"class_name": class_name, "config": _layer(class_name, name, entry["config"], version)}


def _is_operation(entry: Mapping[str, object]) -> bool:
    return ".ops" in str(entry.get("module", ""))


def _is_of_masks(entry: Mapping[str, Any]) -> bool:
    """Return whether an operation has a form in which Keras writes masks."""
    kind, config = str(entry.get("class_name")), entry["config"]
    if kind == "NotEqual":
        args = [v for n in entry["inbound_nodes"] for v in (*n["args"], *n["kwargs"].values())]
        return sum(isinstance(value, Mapping) for value in args) == len(entry["inbound_nodes"])
    if kind == "Any":
        return config.get("axis") in (-1, [-1], 2, [2]) and not config.get("keepdims")
    if kind == "ExpandDims":
        return bool(config.get("axis") == -1) and not _reads_floats(entry)
    if kind == "Concatenate":
        return not _reads_floats(entry)
    if kind in ("ZerosLike", "OnesLike"):
        return bool(config.get("dtype") == "bool")
    return kind in OPERATIONS


def _reads_floats(entry: Mapping[str, Any]) -> bool:
    """Return whether the first tensor that an operation is called on is stated to be of floats."""
    value: Any = entry.get("inbound_nodes")
    while isinstance(value, list) and value:
        first = value[0]
        value = first["args"] if isinstance(first, Mapping) and "args" in first else first
    config = value.get("config") if isinstance(value, Mapping) else None
    return isinstance(config, Mapping) and config.get("dtype") in ("float32", *LOWER_DTYPES)


def _unsupported(entry: Mapping[str, Any], reason: str) -> UnsupportedError:
    name = entry.get("name") or entry["config"].get("name")
    return UnsupportedError(f"layer {name!r} ({entry['class_name']}): {reason}")


def _layer(
    class_name: str, keras_name: str, config: Mapping[str, object], version: str
) -> dict[str, object]:
    if major_of(version) == 1:
        config = renamed(keras_name, config)
    ignored = set(f"{_IGNORED['*']} {_IGNORED.get(class_name, '')}".split())
    arguments: dict[str, object] = {}
    for key, value in config.items():
        if key in ignored:
            continue
        if key == "dtype":
            ignores = LOWER_DTYPES if class_name == "InputLayer" else _IGNORED_DTYPES
            if _dtype(value) not in ignores:
                arguments[key] = _dtype(value)
        elif key in ACTIVATION_KEYS:
            name = value.get("config") if isinstance(value, Mapping) else value
            has_other_slope = name == "hard_sigmoid" and major_of(version) < 3  # 0.2
            arguments[key] = "hard_sigmoid_02" if has_other_slope else value
        elif key.endswith("_initializer"):
            arguments[key] = _known_initializer(value)
        elif key == "cells" and isinstance(value, list):
            arguments[key] = [translate(cell, version) for cell in value]
        elif key == "cell" and isinstance(value, list):
            stacked = {"class_name": "StackedRNNCells", "config": {"cells": value}}
            arguments[key] = translate(stacked, version)
        elif key in INNER_KEYS and isinstance(value, Mapping):
            arguments[key] = translate(value, version)
        else:
            arguments[key] = _unwrapped(value)
    row = row_of(class_name)
    if row and keras_name in _CUDNN:
        return {**arguments, **(row.cudnn or {})}
    if row and major_of(version) < 3:  # defaults of that time, for keys that are missing
        return {**row.before_3, **arguments}
    return arguments


def _dtype(value: object) -> object:
    if isinstance(value, Mapping):  # a DTypePolicy
        inner = value.get("config")
        return inner.get("name") if isinstance(inner, Mapping) else None
    return value


def _known_initializer(value: object) -> object:
    """Return an initializer, or "zeros" for a custom class: the weights are in the file."""
    try:
        initializers.get(value)
    except (StreamRNNError, TypeError):
        return "zeros"
    return value


def _functional(config: object, version: str) -> dict[str, object]:
    if not isinstance(config, Mapping) or not {"input_layers", "output_layers"} <= set(config):
        raise UnsupportedError(NO_GRAPH)
    layers: list[LayerConfig] = []
    splits: set[object] = set()
    for entry in _entries(config):
        if not isinstance(entry, Mapping):
            raise ModelFileError(f"expected a layer's config, received {entry!r:.80}")
        if _is_operation(entry) and not _is_of_masks(entry):
            if entry["class_name"] == "Split":
                splits.add(entry["name"])
            layers += _parts(entry) if entry["class_name"] == "Split" else [_operation(entry)]
            continue
        layer = translate(entry, version)
        name = entry.get("name") or entry["config"]["name"]
        layer["config"] = {**layer["config"], "name": name}
        layer["name"] = name
        layer["inbound_nodes"] = _calls(entry.get("inbound_nodes", []), layer)
        layers.append(layer)
    # Models count their calls from 1: in Keras 3 only at the ends, and not a Sequential.
    is_old = major_of(version) < 3
    ends = [config["input_layers"], config["output_layers"]]
    counted = [ends, [layer["inbound_nodes"] for layer in layers if is_old]]
    from_0 = {name for name, call in pairwise(leaves(counted)) if call == 0}
    kinds = ("Model", "Sequential") if is_old else ("Model",)
    models = {layer["name"] for layer in layers if layer["class_name"] in kinds} - from_0

    def change(from_1: Collection[str]) -> Callable[[str, int, int], list[str | int]]:
        return lambda name, call, i: (
            [f"{name}_part_{i}", 0, 0] if name in splits else [name, call - (name in from_1), i]
        )

    inputs, outputs = with_histories(ends, change(models))
    for layer in layers:
        within = change(models if is_old else ())
        layer["inbound_nodes"] = with_histories(layer["inbound_nodes"], within)
    if is_old and isinstance(outputs, list) and len(outputs) == 1:
        outputs = outputs[0]  # before Keras 3, a single output is in a list, too
    return {
        "name": config.get("name"),
        "trainable": config.get("trainable", True),
        "layers": layers,
        "input_layers": inputs,
        "output_layers": outputs,
    }


def with_histories(value: Any, change: Callable[[str, int, int], list[str | int]]) -> Any:
    """Return a structure with each [layer, call, output] changed."""
    if _is_history(value):
        return change(*value[:3])
    if isinstance(value, Mapping):
        return {key: with_histories(item, change) for key, item in value.items()}
    return [with_histories(item, change) for item in value] if isinstance(value, list) else value


def _entries(config: object) -> list[object]:
    entries = config.get("layers") if isinstance(config, Mapping) else None
    if not isinstance(entries, list):
        raise ModelFileError(f"a model's config has no list of layers: {config!r:.80}")
    if len(entries) > MAX_LAYERS:
        raise UnsupportedError(f"the model has {len(entries)} layers; the maximum is {MAX_LAYERS}")
    return entries


def _calls(nodes: object, layer: LayerConfig) -> list[Call]:
    """Return the calls of a layer in Keras 3's form, with supported arguments only.

    The second argument of NotEqual is moved into the layer's config (changed in place); both
    arguments of LogicalOr become one list.
    """
    name, cls = layer["name"], registry.get(layer["class_name"])
    takes_state, supported = cls.takes_state, (*_ARGUMENTS, *getattr(cls, "call_options", ()))
    # An argument of the layer before Keras 2.12.
    is_causal = "use_causal_mask" in supported and layer["config"].pop("causal", False)
    if not isinstance(nodes, list):
        raise ModelFileError(f"layer {name!r}: inbound_nodes is not a list: {nodes!r:.60}")
    calls: list[Call] = []
    for node in nodes:
        call: Mapping[str, Any] = (
            node if isinstance(node, Mapping) else _from_old(node, name, takes_state)
        )
        args, kwargs = list(call.get("args", [])), dict(call.get("kwargs") or {})
        if layer["class_name"] in ("LogicalOr", "NotEqual"):
            args += [kwargs.pop(key) for key in ("x1", "x2") if key in kwargs]
            args = [args if layer["class_name"] == "LogicalOr" else _compared(args, layer)]
        for value in args:
            items = value if isinstance(value, list) else [value]
            if not all(item is None or _is_tensor_or_list(item) for item in items):
                raise UnsupportedError(
                    f"layer {name!r}: it is called on {value!r:.60}, which is not a tensor"
                )
        kwargs = {key: value for key, value in kwargs.items() if value not in (None, [], False)}
        kwargs |= {"use_causal_mask": True} if is_causal else {}
        if unsupported := [key for key in kwargs if key not in supported]:
            raise UnsupportedError(
                f"layer {name!r}: it is called with {unsupported[0]}=, which is not supported; "
                f"supported: {', '.join(supported)}"
            )
        calls.append({"args": args, "kwargs": kwargs})
    return calls


def _from_old(node: object, name: str, takes_state: bool) -> Call:
    """Translate [[layer, node, tensor, kwargs], …], in which states are additional inputs."""
    if not isinstance(node, list) or not node:
        raise ModelFileError(
            f"layer {name!r}: expected an inbound node that lists tensors, received {node!r:.60}"
        )
    if isinstance(node[0], str):
        node = [node]
    tensors = [_tensor(history, name) for history in node]
    last = node[-1]
    kwargs = dict(last[3]) if len(last) > 3 and isinstance(last[3], Mapping) else {}
    kwargs = {key: _tensors_in(value, name) for key, value in kwargs.items()}
    if takes_state and len(tensors) > 1:
        return {"args": [tensors[0]], "kwargs": {**kwargs, "initial_state": tensors[1:]}}
    return {"args": [tensors[0] if len(tensors) == 1 else tensors], "kwargs": kwargs}


def _tensor(history: object, name: str) -> LayerConfig:
    if not _is_history(history):
        raise ModelFileError(
            f"layer {name!r}: expected [layer, node, tensor], received {history!r:.60}"
        )
    return {
        "class_name": TENSOR,
        "config": {"shape": None, "dtype": None, "keras_history": list(history[:3])},
    }


def _is_history(value: object) -> TypeGuard[list[Any]]:
    return (
        isinstance(value, list)
        and len(value) >= 3
        and isinstance(value[0], str)
        and all(isinstance(n, int) for n in value[1:3])
    )


def _tensors_in(value: object, name: str) -> object:
    if _is_history(value):
        return _tensor(value, name)
    return [_tensors_in(item, name) for item in value] if isinstance(value, list) else value


def _compared(operands: list[object], layer: LayerConfig) -> object:
    """Return the x of not_equal(x, value); move the value, equal in all calls, into the config."""
    value = operands[1] if len(operands) == 2 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unsupported(
            layer, f"only a comparison with a number is supported, received {value!r:.60}"
        )
    if layer["config"].setdefault("value", value) != value:
        raise _unsupported(layer, "its calls compare with different numbers")
    return operands[0]


def _is_tensor_or_list(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_tensor_or_list(item) for item in value)
    return isinstance(value, Mapping) and value.get("class_name") in (TENSOR, *_ARRAYS)


def _operation(entry: Mapping[str, Any]) -> LayerConfig:
    """Return the config of an Operation with its call. Raises UnsupportedError."""
    name, kind = str(entry.get("name")), str(entry["class_name"])
    function = _RENAMED.get(snake_case(kind), snake_case(kind))
    if function not in ARRAY_FUNCTIONS:
        supported = ", ".join(sorted(ARRAY_FUNCTIONS))
        raise _unsupported(
            entry, f"the operation {kind} (keras.ops) is not supported; supported: {supported}"
        )
    nodes = entry.get("inbound_nodes") or []
    if len(nodes) != 1 or not isinstance(nodes[0], Mapping):
        raise _unsupported(
            entry, f"expected one call in Keras 3's form, received {len(nodes)} calls"
        )
    arguments = {
        key: _unwrapped(value)
        for key, value in entry["config"].items()
        if key not in _DROPPED and (value is not None or key == "axis")
    }
    if function == "cast":
        arguments["dtype"] = entry["config"]["dtype"]
    kwargs = dict(nodes[0].get("kwargs") or {})
    values = [*nodes[0].get("args", []), *(kwargs.pop(k) for k in _OPERANDS if k in kwargs)]
    arguments |= {key: _unwrapped(value) for key, value in kwargs.items() if value is not None}
    operands: list[Any] = []
    for operand in values:
        several = isinstance(operand, list) and any(has_class(item, TENSOR) for item in operand)
        operands += operand if several else [operand]
    if not any(has_class(operand, TENSOR) for operand in operands):
        raise _unsupported(entry, "it is called on no tensor")
    if function == "get_item":
        key = operands.pop()
        arguments["key"] = [_index(i) for i in (key if isinstance(key, list) else [key])]
    elif function == "take":
        arguments["indices"] = _unwrapped(operands.pop())
    if any(has_class(value, TENSOR) for value in arguments.values()):
        raise _unsupported(entry, "one of its arguments is a tensor, not a number")
    tensors = [operand for operand in operands if has_class(operand, TENSOR)]
    return {
        "class_name": "Operation",
        "name": name,
        "config": {
            "name": name,
            "function": function,
            "operands": [INPUT if has_class(o, TENSOR) else _unwrapped(o) for o in operands],
            "arguments": arguments,
        },
        "inbound_nodes": [{"args": [tensors if len(tensors) > 1 else tensors[0]], "kwargs": {}}],
    }


def _parts(entry: Mapping[str, Any]) -> list[LayerConfig]:
    """Return the parts of a Split, each as an operation with one output."""
    config, tensor = entry["config"], entry["inbound_nodes"][0]["args"][0]
    keys = split_keys(tensor["config"]["shape"], config["indices_or_sections"], config["axis"])
    parts = []
    for i, key in enumerate(keys):
        slices = [{"start": of.start, "stop": of.stop} for of in key]
        args = [tensor, [{"class_name": "__slice__", "config": of} for of in slices]]
        part = {"class_name": "GetItem", "config": {}, "inbound_nodes": [{"args": args}]}
        parts.append(_operation({**entry, **part, "name": f"{entry['name']}_part_{i}"}))
    return parts


def _unwrapped(value: Any) -> Any:
    """Return an argument: a number, or lists of numbers, which Keras 3 may wrap as an array."""
    if isinstance(value, Mapping) and value.get("class_name") in _ARRAYS:
        return value["config"]["value"]
    return value


def _index(entry: Any) -> Any:
    if has_class(entry, "__slice__"):
        return {"slice": [entry["config"].get(key) for key in ("start", "stop", "step")]}
    return "..." if has_class(entry, "__ellipsis__") else entry
