"""Inbound nodes of functional models: convert old forms to Keras 3's, and check arguments.

Operations of keras.ops, such as `x * 2`, become layers of class Operation.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, TypeGuard

from streamrnn.errors import ModelFileError, UnsupportedError
from streamrnn.nn.layers.functions import ARRAY_FUNCTIONS
from streamrnn.nn.layers.registry import snake_case
from streamrnn.nn.layers.symbol import INPUT
from streamrnn.nn.models.config import TENSOR, Call, has_class

_ARRAYS = ("__numpy__", "__tensor__")
"""Classes of an array in a config: NumPy's, and the class of Keras's backend."""
_ARGUMENTS = ("initial_state", "mask", "training")
_OPERANDS = ("condition", "x", "xs", "x1", "x2", "key")
"""The arguments in a call of an operation that are its operands, in their order."""
_RENAMED = {"divide": "true_divide"}
_DROPPED = ("dtype", "name", "trainable")


class LayerConfig(TypedDict):
    """A layer of a config: its class and arguments, and in a functional model its calls."""

    class_name: str
    config: dict[str, object]
    name: NotRequired[str]
    inbound_nodes: NotRequired[list[Call]]


def translated(nodes: object, name: str, layer: LayerConfig, *, takes_state: bool) -> list[Call]:
    """Return the calls of layer `name` in Keras 3's form, with supported arguments only.

    The second argument of NotEqual is moved into the layer's config (changed in place); both
    arguments of LogicalOr become one list.
    """
    if not isinstance(nodes, list):
        raise ModelFileError(f"layer {name!r}: inbound_nodes is not a list: {nodes!r:.60}")
    calls: list[Call] = []
    for node in nodes:
        call: Mapping[str, Any] = (
            node if isinstance(node, Mapping) else _from_old(node, name, takes_state)
        )
        args, kwargs = list(call.get("args", [])), dict(call.get("kwargs") or {})
        if layer["class_name"] == "NotEqual":
            args, kwargs = _compared(args, kwargs, layer)
        elif layer["class_name"] == "LogicalOr":
            args = [[*args, *(kwargs.pop(key) for key in ("x1", "x2") if key in kwargs)]]
        for value in args:
            items = value if isinstance(value, list) else [value]
            if not all(item is None or _is_tensor_or_list(item) for item in items):
                raise UnsupportedError(
                    f"layer {name!r}: it is called on {value!r:.60}, which is not a tensor"
                )
        kwargs = {key: value for key, value in kwargs.items() if value not in (None, [])}
        if unsupported := [key for key in kwargs if key not in _ARGUMENTS]:
            raise UnsupportedError(
                f"layer {name!r}: it is called with {unsupported[0]}=, which is not supported; "
                f"supported: {', '.join(_ARGUMENTS)}"
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


def _is_history(value: object) -> TypeGuard[list[object]]:
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


def _compared(
    args: list[object], kwargs: dict[str, object], layer: LayerConfig
) -> tuple[list[object], dict[str, object]]:
    """Move the value of `not_equal(x, value)`, the same number in every call, into the config."""
    both = [*args, *(kwargs.pop(key) for key in ("x1", "x2") if key in kwargs)]
    value = both[1] if len(both) == 2 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnsupportedError(
            f"layer {layer['name']!r} (NotEqual): only a comparison with a number is supported, "
            f"received {value!r:.60}"
        )
    if layer["config"].setdefault("value", value) != value:
        raise UnsupportedError(
            f"layer {layer['name']!r} (NotEqual): its calls compare with different numbers"
        )
    return [both[0]], kwargs


def _is_tensor_or_list(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_tensor_or_list(item) for item in value)
    return isinstance(value, Mapping) and value.get("class_name") in (TENSOR, *_ARRAYS)


def operation_config(entry: Mapping[str, Any]) -> LayerConfig:
    """Return the config of an Operation with its call.

    Raises UnsupportedError, naming layer and operation, for a function that is not supported.
    """
    name, kind = str(entry.get("name")), str(entry["class_name"])
    function = _RENAMED.get(snake_case(kind), snake_case(kind))
    if function not in ARRAY_FUNCTIONS:
        supported = ", ".join(sorted(ARRAY_FUNCTIONS))
        why = f"the operation {kind} (keras.ops) is not supported; supported: {supported}"
        raise _refused(name, kind, why)
    nodes = entry.get("inbound_nodes") or []
    if len(nodes) != 1 or not isinstance(nodes[0], Mapping):
        raise _refused(
            name, kind, f"expected one call in Keras 3's form, received {len(nodes)} calls"
        )
    arguments = {
        key: unwrapped(value)
        for key, value in entry["config"].items()
        if key not in _DROPPED and (value is not None or key == "axis")
    }
    if function == "cast":
        arguments["dtype"] = entry["config"]["dtype"]
    operands = _operands(nodes[0], name, kind, arguments)
    if function == "get_item":
        key = operands.pop()
        arguments["key"] = [_index(i) for i in (key if isinstance(key, list) else [key])]
    if any(has_class(value, TENSOR) for value in arguments.values()):
        raise _refused(name, kind, "one of its arguments is a tensor, not a number")
    tensors = [operand for operand in operands if has_class(operand, TENSOR)]
    return {
        "class_name": "Operation",
        "name": name,
        "config": {
            "name": name,
            "function": function,
            "operands": [INPUT if has_class(o, TENSOR) else unwrapped(o) for o in operands],
            "arguments": arguments,
        },
        "inbound_nodes": [{"args": [tensors if len(tensors) > 1 else tensors[0]], "kwargs": {}}],
    }


def _operands(
    node: Mapping[str, Any], name: str, kind: str, arguments: dict[str, Any]
) -> list[Any]:
    """Return the operands of a call as a flat list; add its other keywords to `arguments`."""
    kwargs = dict(node.get("kwargs") or {})
    values = [*node.get("args", []), *(kwargs.pop(k) for k in _OPERANDS if k in kwargs)]
    arguments |= {key: unwrapped(value) for key, value in kwargs.items() if value is not None}
    operands: list[Any] = []
    for operand in values:
        several = isinstance(operand, list) and any(has_class(item, TENSOR) for item in operand)
        operands += operand if several else [operand]
    if not any(has_class(operand, TENSOR) for operand in operands):
        raise _refused(name, kind, "it is called on no tensor")
    return operands


def unwrapped(value: Any) -> Any:
    """Return an argument: a number, or lists of numbers, which Keras 3 may wrap as an array."""
    if isinstance(value, Mapping) and value.get("class_name") in _ARRAYS:
        return value["config"]["value"]
    return value


def _index(entry: Any) -> Any:
    if has_class(entry, "__slice__"):
        return {"slice": [entry["config"].get(key) for key in ("start", "stop", "step")]}
    return "..." if has_class(entry, "__ellipsis__") else entry


def _refused(name: str, kind: str, why: str) -> UnsupportedError:
    return UnsupportedError(f"layer {name!r} ({kind}): {why}")
