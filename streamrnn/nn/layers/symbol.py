"""Symbols: the outputs of a layer that is called on an Input instead of an array.

A symbol has a shape (with None for sizes that only the data decide) and the node that makes it: one
call of one layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from streamrnn.errors import ArgumentError
from streamrnn.nn.layers import registry
from streamrnn.nn.layers.structure import Shape, leaves, map_lists

if TYPE_CHECKING:
    from streamrnn.nn.layers.layer import Layer

INPUT = "input"
"""Placeholder, among the operands of an operation, for the next tensor that it is called on."""


def _operator(function: str, *, swapped: bool = False) -> Callable[..., "Symbol"]:
    def operator(self: "Symbol", *others: object) -> "Symbol":
        return add_operation(function, *((*others, self) if swapped else (self, *others)))

    operator.__doc__ = f"streamrnn.ops.{function}"
    return operator


@dataclass(slots=True, eq=False, repr=False)
class Symbol:
    """One tensor of a graph: `shape` with the batch first, `dtype`, and the node that makes it."""

    shape: Shape
    dtype: str
    node: "Node"
    index: int

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def name(self) -> str:
        """The name of its layer; an Input's name is the name of the array it stands for."""
        return self.layer.name

    @property
    def layer(self) -> "Layer":
        """The layer whose call makes this tensor."""
        return self.node.layer

    @property
    def label(self) -> str:
        """Keras's name of a connection: layer[node][tensor]."""
        return f"{self.layer.name}[{self.node.index}][{self.index}]"

    def __repr__(self) -> str:
        return f"<Symbol {self.label} shape={self.shape} dtype={self.dtype}>"

    # Operators as in keras.ops; `==` is left to Python, which compares identities.
    __add__, __radd__ = _operator("add"), _operator("add", swapped=True)
    __sub__, __rsub__ = _operator("subtract"), _operator("subtract", swapped=True)
    __mul__, __rmul__ = _operator("multiply"), _operator("multiply", swapped=True)
    __truediv__, __rtruediv__ = _operator("true_divide"), _operator("true_divide", swapped=True)
    __floordiv__, __rfloordiv__ = _operator("floor_divide"), _operator("floor_divide", swapped=True)
    __matmul__ = _operator("matmul")
    __mod__, __rmod__ = _operator("mod"), _operator("mod", swapped=True)
    __pow__, __rpow__ = _operator("power"), _operator("power", swapped=True)
    __abs__ = _operator("absolute")
    __and__ = _operator("logical_and")
    __ge__ = _operator("greater_equal")
    __gt__ = _operator("greater")
    __invert__ = _operator("logical_not")
    __le__ = _operator("less_equal")
    __lt__ = _operator("less")
    __neg__ = _operator("negative")
    __or__ = _operator("logical_or")
    __array_ufunc__ = None  # array + symbol is left to the symbol

    def __getitem__(self, key: Any) -> "Symbol":
        entries = key if isinstance(key, tuple) else (key,)
        return add_operation("get_item", self, key=[_stored(entry) for entry in entries])

    def __iter__(self) -> Any:
        raise TypeError("a symbol has no values to iterate over; index it, as in x[:, 0:1]")


class Node:
    """One call of a layer on symbols: its inputs, its other arguments, the symbols it makes."""

    __slots__ = ("index", "inputs", "kwargs", "layer", "outputs", "symbols")

    def __init__(self, layer: "Layer", inputs: Any, kwargs: dict[str, Any]) -> None:
        self.layer = layer
        self.inputs = inputs
        self.kwargs = kwargs
        self.symbols = [*symbols_in(inputs), *symbols_in(kwargs)]
        self.index = len(layer.nodes)
        self.outputs: list[Symbol] = []
        layer.nodes.append(self)

    def make_outputs(self, shapes: Any, dtypes: str) -> Any:
        """Make symbols in the structure of `shapes`: lists and dictionaries; a tuple is a shape."""

        def make(shape: Shape) -> Symbol:
            symbol = Symbol(shape, dtypes, self, len(self.outputs))
            self.outputs.append(symbol)
            return symbol

        return map_lists(make, shapes)


def symbols_in(tree: object) -> list[Symbol]:
    """Return the symbols among the leaves of a structure."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, Symbol)]


def add_operation(function: str, *operands: Any, **arguments: Any) -> Symbol:
    """Add a function of `streamrnn.ops` to the graph of the symbols among its operands."""
    operation = registry.get("Operation")(
        function,
        [INPUT if isinstance(operand, Symbol) else operand for operand in operands],
        arguments,
    )
    symbols = [operand for operand in operands if isinstance(operand, Symbol)]
    symbol: Symbol = operation(symbols if len(symbols) > 1 else symbols[0])
    return symbol


def _stored(entry: Any) -> Any:
    """Convert an index to the form that a config holds."""
    if isinstance(entry, slice):
        return {"slice": [entry.start, entry.stop, entry.step]}
    if entry is Ellipsis:
        return "..."
    if entry is None or (isinstance(entry, int | np.integer) and not isinstance(entry, bool)):
        return None if entry is None else int(entry)
    raise ArgumentError(
        f"get_item: an index of a symbol must be an integer, a slice, None or ..., received "
        f"{entry!r:.60}"
    )
