"""Operations of keras.ops in functional models, such as `x * 2`, as layers of class Operation."""

from collections.abc import Mapping
from typing import Any

from streamrnn.errors import UnsupportedError
from streamrnn.nn.formats.keras.nodes import ARRAYS, LayerConfig
from streamrnn.nn.layers.functions import ARRAY_FUNCTIONS
from streamrnn.nn.layers.naming import snake_case
from streamrnn.nn.layers.symbol import INPUT

_TENSOR = "__keras_tensor__"
_OPERANDS = ("condition", "x", "xs", "x1", "x2", "key")
"""The arguments of a call that are operands, in their order."""
_RENAMED = {"divide": "true_divide"}
_DROPPED = ("dtype", "name", "trainable")


def translated(entry: Mapping[str, Any]) -> LayerConfig:
    """Return the config of an Operation with its call.

    Raises UnsupportedError, naming layer and operation, for a function that is not supported.
    """
    name, kind = str(entry.get("name")), str(entry["class_name"])
    function = _RENAMED.get(snake_case(kind), snake_case(kind))
    if function not in ARRAY_FUNCTIONS:
        raise _refused(
            name,
            kind,
            f"the operation {kind} (keras.ops) is not supported; supported: "
            f"{', '.join(sorted(ARRAY_FUNCTIONS))}",
        )
    nodes = entry.get("inbound_nodes") or []
    if len(nodes) != 1 or not isinstance(nodes[0], Mapping):
        raise _refused(name, kind, f"an operation is called once, this one {len(nodes)} times")
    arguments = {
        key: _value(value)
        for key, value in entry["config"].items()
        if key not in _DROPPED and (value is not None or key == "axis")
    }
    if function == "cast":
        arguments["dtype"] = entry["config"]["dtype"]
    operands = _operands(nodes[0], name, kind, arguments)
    if function == "get_item":
        key = operands.pop()
        arguments["key"] = [_index(i) for i in (key if isinstance(key, list) else [key])]
    if any(_is(value, _TENSOR) for value in arguments.values()):
        raise _refused(name, kind, "one of its arguments is a tensor")
    tensors = [operand for operand in operands if _is(operand, _TENSOR)]
    return {
        "class_name": "Operation",
        "name": name,
        "config": {
            "name": name,
            "function": function,
            "operands": [INPUT if _is(o, _TENSOR) else _value(o) for o in operands],
            "arguments": arguments,
        },
        "inbound_nodes": [{"args": [tensors if len(tensors) > 1 else tensors[0]], "kwargs": {}}],
    }


def _operands(
    node: Mapping[str, Any], name: str, kind: str, arguments: dict[str, Any]
) -> list[Any]:
    """Return the operands of a call as a flat list; move its other keywords to arguments."""
    kwargs = dict(node.get("kwargs") or {})
    values = [*node.get("args", []), *(kwargs.pop(k) for k in _OPERANDS if k in kwargs)]
    arguments |= {key: _value(value) for key, value in kwargs.items() if value is not None}
    operands: list[Any] = []
    for operand in values:
        several = isinstance(operand, list) and any(_is(item, _TENSOR) for item in operand)
        operands += operand if several else [operand]
    if not any(_is(operand, _TENSOR) for operand in operands):
        raise _refused(name, kind, "it is called on no tensor")
    return operands


def _is(value: object, class_name: str) -> bool:
    return isinstance(value, Mapping) and value.get("class_name") == class_name


def _value(value: Any) -> Any:
    """Return a number, or numbers, that Keras may have wrapped."""
    if isinstance(value, Mapping) and value.get("class_name") in ARRAYS:
        return value["config"]["value"]
    return value


def _index(entry: Any) -> Any:
    """Return an index as Operation stores it."""
    if _is(entry, "__slice__"):
        return {"slice": [entry["config"].get(key) for key in ("start", "stop", "step")]}
    return "..." if _is(entry, "__ellipsis__") else entry


def _refused(name: str, kind: str, why: str) -> UnsupportedError:
    return UnsupportedError(f"layer {name!r} ({kind}): {why}")
