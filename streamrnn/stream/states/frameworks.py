"""How frameworks arrange the states of a recurrent layer, as NumPy arrays.

The states of a layer are groups, one per cell (one for a layer without stacked cells). A group is
an ordered mapping from the name of a state ("h", "c", "s0") to an array (B, size).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import ConfigError, DTypeError, ShapeError

Groups = Sequence[Mapping[str, Floats]]
StateNames = Sequence[Sequence[str]]

_FEEDS = {"h": "initial_h", "c": "initial_c"}


class Framework(NamedTuple):
    """The form in which a framework takes and returns states. Errors name the owner, a layer.

    `arrange` makes an initial state from groups. `flatten` returns the arrays (B, …) of states in
    this form, group by group. Both raise ConfigError for states that the framework cannot express;
    `flatten` also raises ShapeError for other shapes. `with_output`: whether the states are
    followed by the output that some cells hold for masked steps.
    """

    arrange: Callable[[Groups, str], Any]
    flatten: Callable[[Any, StateNames, str], list[Any]]
    with_output: bool = False


def _to_keras(groups: Groups, owner: str) -> list[Any]:
    nested = [list(group.values()) for group in groups]
    return nested[0] if len(nested) == 1 else nested


def _from_keras(states: Any, names: StateNames, owner: str) -> list[Any]:
    if isinstance(states, tuple | list):
        return [leaf for item in states for leaf in _from_keras(item, names, owner)]
    return [states]


def _to_torch(groups: Groups, owner: str) -> Any:
    _check_names([list(group) for group in groups], owner, "PyTorch")
    stacked = []
    for name in groups[0]:
        arrays = [group[name] for group in groups]
        if len({array.shape for array in arrays}) > 1:
            raise ConfigError(
                f"{owner}: expected states of one size in a PyTorch module, received "
                + ", ".join(str(array.shape[1]) for array in arrays)
            )
        stacked.append(np.stack(arrays))
    return stacked[0] if len(stacked) == 1 else tuple(stacked)


def _from_torch(states: Any, names: StateNames, owner: str) -> list[Any]:
    _check_names(names, owner, "PyTorch")
    stacked = list(states) if isinstance(states, tuple | list) else [states]
    if len(stacked) != len(names[0]):
        raise ShapeError(
            f"{owner}: expected {' and '.join(names[0])} of shape (num_layers, batch, size), "
            f"received {len(stacked)} arrays"
        )
    layers = [_split(array, len(names), f"{owner}: PyTorch's num_layers") for array in stacked]
    return [layer for group in zip(*layers, strict=True) for layer in group]


def _to_onnx(groups: Groups, owner: str) -> dict[str, Floats]:
    _check_names([list(group) for group in groups], owner, "ONNX")
    return {_FEEDS[name]: array[np.newaxis] for name, array in groups[0].items()}


def _from_onnx(states: Any, names: StateNames, owner: str) -> list[Any]:
    _check_names(names, owner, "ONNX")
    expected = [_FEEDS[name] for name in names[0]]
    if not isinstance(states, Mapping) or sorted(states) != sorted(expected):
        received = ", ".join(states) if isinstance(states, Mapping) else type(states).__name__
        raise ConfigError(
            f"{owner}: expected a mapping with {' and '.join(expected)}, received {received}"
        )
    return [_split(states[name], 1, f"{owner}: {name}: num_directions")[0] for name in expected]


FRAMEWORKS = {
    "keras": Framework(_to_keras, _from_keras),
    "streamrnn": Framework(_to_keras, _from_keras, with_output=True),
    "torch": Framework(_to_torch, _from_torch),
    "onnx": Framework(_to_onnx, _from_onnx),
}
"""Name of the framework -> its form.

Keras: [h, c]; for stacked cells, a list of such lists. PyTorch: (h, c), or h alone, each
(num_layers, B, H); several layers or cells form one module. ONNX: {"initial_h": …, "initial_c": …},
each (num_directions = 1, B, H), for layout 0.
"""


def as_floats(states: Any, owner: str) -> Floats:
    """Return float32 or float16 states as float32. Raises DTypeError for other types."""
    array = np.asarray(states)
    if array.dtype not in (np.float32, np.float16):
        raise DTypeError(
            f"{owner}: expected states in float32, received {array.dtype}. Cast them "
            "yourself, as casting may round"
        )
    return array.astype(np.float32)


def _check_names(names: StateNames, owner: str, framework: str) -> None:
    if (
        any(list(group) not in (["h"], ["h", "c"]) for group in names)
        or len({len(group) for group in names}) != 1
    ):
        received = "; ".join(", ".join(group) for group in names)
        raise ConfigError(
            f"{owner}: expected the states h, or h and c, for {framework}, received {received}"
        )
    if framework == "ONNX" and len(names) > 1:
        raise ConfigError(
            f"{owner}: expected one layer for an ONNX node, received {len(names)}. "
            "Call once per layer"
        )


def _split(array: Any, layers: int, what: str) -> list[Any]:
    """Split an array (layers, B, H) into arrays (B, H)."""
    whole = np.asarray(array)
    if whole.ndim != 3 or len(whole) != layers:
        raise ShapeError(f"{what}: expected shape ({layers}, batch, size), received {whole.shape}")
    return list(whole)
