"""Structures of arrays, symbols and shapes: nested lists, tuples and dictionaries."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, TypeVar

import numpy as np

Shape = tuple[int | None, ...]
"""The size of each axis, the batch first; None where it is not known."""
Shapes = Shape | list[Shape]
"""The shape of one input, or of each of several."""

T = TypeVar("T")
Nested: TypeAlias = list["Nested[T]"] | T
"""One value, or nested lists of them: states as Keras nests them."""


def map_lists(f: Callable[[Any], Any], tree: Any) -> Any:
    """Apply f to the leaves of nested lists and dictionaries; a tuple (a shape) is a leaf."""
    if isinstance(tree, dict):
        return {key: map_lists(f, item) for key, item in tree.items()}
    return [map_lists(f, item) for item in tree] if isinstance(tree, list) else f(tree)


def map_structure(f: Callable[[Any], Any], tree: Any) -> Any:
    """Apply f to the leaves of nested lists, tuples and dictionaries; tuples become lists."""
    if isinstance(tree, list | tuple):
        return [map_structure(f, item) for item in tree]
    if isinstance(tree, dict):
        return {key: map_structure(f, item) for key, item in tree.items()}
    return f(tree)


def filled(structure: object, values: Iterable[object]) -> Any:
    """Return a structure with these values, from left to right, in place of its leaves."""
    remaining = iter(values)
    return map_structure(lambda _: next(remaining), structure)


def leaves(tree: object) -> Iterator[Any]:
    """Yield the leaves of nested lists, tuples and dictionaries, from left to right."""
    if isinstance(tree, list | tuple):
        for item in tree:
            yield from leaves(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from leaves(item)
    else:
        yield tree


def several(inputs: object) -> bool:
    """Return whether this is a list of inputs, not one input given as nested numbers."""
    return (
        isinstance(inputs, list | tuple)
        and len(inputs) > 0
        and all(isinstance(item, np.ndarray) or hasattr(item, "__array__") for item in inputs)
    )


def unshared(outputs: Any, inputs: Any) -> Any:
    """Return the outputs of a call as arrays that share no memory with its inputs.

    A caller may change either in place. Inside a graph, a layer that computes nothing, such as
    Dropout outside training, returns its input itself.
    """
    if isinstance(outputs, list | tuple | dict):
        return map_structure(lambda output: unshared(output, inputs), outputs)
    arrays = [inputs] if type(inputs) is np.ndarray else leaves(inputs)
    shared = any(np.may_share_memory(outputs, x) for x in arrays)
    return outputs.copy() if shared else outputs
