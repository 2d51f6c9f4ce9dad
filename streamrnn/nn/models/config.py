"""Write and read the config of a functional model, in the form of Keras 3."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict, TypeGuard

import numpy as np

from streamrnn.errors import ModelFileError
from streamrnn.nn.layers import registry
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.operation import InputLayer
from streamrnn.nn.layers.structure import map_structure
from streamrnn.nn.layers.symbol import Symbol

if TYPE_CHECKING:
    from streamrnn.nn.models.model import Model

TENSOR = "__keras_tensor__"
_ARRAY = "__numpy__"


class Call(TypedDict):
    """One call of a layer: an inbound node."""

    args: list[object]
    kwargs: dict[str, object]


def functional_config(model: "Model") -> dict[str, object]:
    """Return name, trainable, layers with their inbound nodes, input_layers and output_layers."""
    nodes = {id(node) for node in model.graph.nodes}
    calls = {  # layer -> its calls in this model
        layer.name: [node for node in layer.nodes if id(node) in nodes]
        for layer in model.graph.layers
    }
    numbers = {id(node): n for of_layer in calls.values() for n, node in enumerate(of_layer)}
    entries = [
        {
            **registry.serialize(layer),
            "name": layer.name,
            "inbound_nodes": [
                {"args": [_to_json(n.inputs, numbers)], "kwargs": _to_json(n.kwargs, numbers)}
                for n in ([] if isinstance(layer, InputLayer) else calls[layer.name])
            ],
        }
        for layer in model.graph.layers
    ]
    return {
        "name": model.name,
        "trainable": model.trainable,
        "layers": entries,
        "input_layers": map_structure(lambda s: _history(s, numbers), model._input_structure),
        "output_layers": map_structure(lambda s: _history(s, numbers), model._output_structure),
    }


def _history(symbol: Symbol, numbers: dict[int, int]) -> list[str | int]:
    return [symbol.layer.name, numbers[id(symbol.node)], symbol.index]


def _to_json(tree: object, numbers: dict[int, int]) -> object:
    def leaf(value: object) -> object:
        if isinstance(value, Symbol):
            return {
                "class_name": TENSOR,
                "config": {
                    "shape": list(value.shape),
                    "dtype": value.dtype,
                    "keras_history": _history(value, numbers),
                },
            }
        if isinstance(value, np.ndarray):
            return {
                "class_name": _ARRAY,
                "config": {"value": value.tolist(), "dtype": str(value.dtype)},
            }
        return value

    return map_structure(leaf, tree)


def functional_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of Model(…) for a config, with all layers made and called.

    Raises ModelFileError if a call needs a tensor that no other call makes.
    """
    entries = list(config["layers"])
    layers = {entry["name"]: registry.deserialize(entry) for entry in entries}
    symbols: dict[tuple[str, int], list[Symbol]] = {}
    waiting: list[tuple[str, int, Call]] = []
    for entry in entries:
        layer = layers[entry["name"]]
        if isinstance(layer, InputLayer):
            symbols[entry["name"], 0] = [layer.symbol]
        waiting += [(entry["name"], i, call) for i, call in enumerate(entry["inbound_nodes"])]
    while waiting:
        ready = [job for job in waiting if all(key in symbols for key in _needs(job[2]))]
        if not ready:
            name, number, call = waiting[0]
            missing = next(key for key in _needs(call) if key not in symbols)
            raise ModelFileError(
                f"call {number} of layer {name!r} needs {missing[0]!r} (call {missing[1]}): that "
                "call is missing, or itself needs this one"
            )
        for name, number, call in ready:
            if number and (name, number - 1) not in symbols:
                continue
            symbols[name, number] = _call(layers[name], call, symbols)
        waiting = [job for job in waiting if (job[0], job[1]) not in symbols]
    return {
        "name": config.get("name"),
        "trainable": config.get("trainable", True),
        "inputs": _resolve(config["input_layers"], symbols),
        "outputs": _resolve(config["output_layers"], symbols),
    }


def _needs(arguments: object) -> list[tuple[str, int]]:
    """Return (layer, call number) of each tensor among the arguments of a call."""
    if has_class(arguments, TENSOR):
        name, number, _ = arguments["config"]["keras_history"]
        return [(name, number)]
    if isinstance(arguments, Mapping):
        arguments = list(arguments.values())
    items = arguments if isinstance(arguments, list | tuple) else ()
    return [need for item in items for need in _needs(item)]


def has_class(value: object, kind: str) -> TypeGuard[Mapping[str, Any]]:
    """Return whether a value in a config is an object of this class."""
    return isinstance(value, Mapping) and value.get("class_name") == kind


def _call(
    layer: Layer, call: Call, symbols: Mapping[tuple[str, int], list[Symbol]]
) -> list[Symbol]:
    def value_of(value: object) -> Any:
        if has_class(value, TENSOR):
            name, number, index = value["config"]["keras_history"]
            return symbols[name, number][index]
        if has_class(value, _ARRAY):
            return np.array(value["config"]["value"], dtype=value["config"]["dtype"])
        if isinstance(value, list | tuple):
            return [value_of(item) for item in value]
        if isinstance(value, Mapping):
            return {key: value_of(item) for key, item in value.items()}
        return value

    args = value_of(call["args"])
    kwargs = {k: value_of(v) for k, v in call.get("kwargs", {}).items() if v is not None}
    if kwargs.get("training") is False:  # the default, which Keras always writes
        del kwargs["training"]
    before = len(layer.nodes)
    layer(*args, **kwargs)
    return layer.nodes[before].outputs


def _resolve(tensors: object, symbols: Mapping[tuple[str, int], list[Symbol]]) -> object:
    """Replace [layer, node, tensor], or each such list in a structure, by the symbol it names."""
    if isinstance(tensors, list | tuple):
        if len(tensors) == 3 and isinstance(tensors[0], str):
            name, number, index = tensors
            if (name, number) not in symbols or index >= len(symbols[name, number]):
                raise ModelFileError(
                    f"the model's inputs or outputs refer to {tensors}, which does not exist"
                )
            return symbols[name, number][index]
        return [_resolve(tensor, symbols) for tensor in tensors]
    if isinstance(tensors, Mapping):
        return {key: _resolve(tensor, symbols) for key, tensor in tensors.items()}
    raise ModelFileError(f"expected [layer, node, tensor], received {tensors!r:.80}")
