"""Inbound nodes of functional models: the old form as the new one, and what a call may say."""

from collections.abc import Mapping
from typing import Any

from streamrnn.errors import ModelFileError, UnsupportedError

_TENSOR = "__keras_tensor__"
_KEPT = ("initial_state", "mask", "training")


def translated(
    nodes: Any, name: str, layer: dict[str, Any], *, takes_state: bool
) -> list[dict[str, Any]]:
    """The calls of layer `name` in Keras 3's form, with only what our layers take.

    NotEqual has its second argument moved into the layer's config (changed in place); the two of
    LogicalOr become one list.
    """
    if not isinstance(nodes, list):
        raise ModelFileError(f"layer {name!r}: inbound_nodes is {nodes!r:.60}")
    made = []
    for node in nodes:
        new = node if isinstance(node, Mapping) else _from_old(node, name, takes_state)
        args, kwargs = list(new.get("args", [])), dict(new.get("kwargs") or {})
        if layer["class_name"] == "NotEqual":
            args, kwargs = _compared(args, kwargs, layer)
        elif layer["class_name"] == "LogicalOr":
            args = [[*args, *(kwargs.pop(key) for key in ("x1", "x2") if key in kwargs)]]
        made.append({"args": _checked(args, name), "kwargs": _kept(kwargs, name)})
    return made


def _from_old(node: Any, name: str, takes_state: bool) -> dict[str, Any]:
    """[[layer, node, tensor, kwargs], …], where a layer with state gets it as further inputs."""
    if not isinstance(node, list) or not node:
        raise ModelFileError(f"layer {name!r}: a call is {node!r:.60}")
    if isinstance(node[0], str):
        node = [node]
    tensors = [_tensor(place, name) for place in node]
    last = node[-1]
    kwargs = dict(last[3]) if len(last) > 3 and isinstance(last[3], Mapping) else {}
    kwargs = {key: _tensors_in(value, name) for key, value in kwargs.items()}
    if takes_state and len(tensors) > 1:
        return {"args": [tensors[0]], "kwargs": {**kwargs, "initial_state": tensors[1:]}}
    return {"args": [tensors[0] if len(tensors) == 1 else tensors], "kwargs": kwargs}


def _tensor(place: Any, name: str) -> dict[str, Any]:
    if not _is_place(place):
        raise ModelFileError(f"layer {name!r}: expected [layer, node, tensor], found {place!r:.60}")
    return {
        "class_name": _TENSOR,
        "config": {"shape": None, "dtype": None, "keras_history": list(place[:3])},
    }


def _is_place(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 3
        and isinstance(value[0], str)
        and all(isinstance(n, int) for n in value[1:3])
    )


def _tensors_in(value: Any, name: str) -> Any:
    if _is_place(value):
        return _tensor(value, name)
    return [_tensors_in(item, name) for item in value] if isinstance(value, list) else value


def _compared(
    args: list[Any], kwargs: dict[str, Any], layer: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """`not_equal(x, value)`: the value is a number, and the same in every call."""
    both = [*args, *(kwargs.pop(key) for key in ("x1", "x2") if key in kwargs)]
    value = both[1] if len(both) == 2 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnsupportedError(
            f"layer {layer['name']!r} (NotEqual): only a comparison with a number is supported, "
            f"found {value!r:.60}"
        )
    if layer["config"].setdefault("value", value) != value:
        raise UnsupportedError(f"layer {layer['name']!r} (NotEqual): called with several numbers")
    return [both[0]], kwargs


def _checked(args: list[Any], name: str) -> list[Any]:
    for value in args:
        items = value if isinstance(value, list) else [value]
        if not all(item is None or _is_tensor_or_list(item) for item in items):
            raise UnsupportedError(f"layer {name!r}: it is called on {value!r:.60}, no tensor")
    return args


def _is_tensor_or_list(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_tensor_or_list(item) for item in value)
    return isinstance(value, Mapping) and value.get("class_name") in (_TENSOR, "__numpy__")


def _kept(kwargs: Mapping[str, Any], name: str) -> dict[str, Any]:
    kept = {}
    for key, value in kwargs.items():
        if value is None or value == []:
            continue
        if key not in _KEPT:
            raise UnsupportedError(
                f"layer {name!r}: it is called with {key}=, which is not supported; supported are "
                f"{', '.join(_KEPT)}"
            )
        kept[key] = value
    return kept
