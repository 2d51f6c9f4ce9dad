"""Input, the start of a graph, and Operation, a function of keras.ops or an operator in a graph."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.base.display import closest
from streamrnn.errors import ArgumentError, ShapeError
from streamrnn.nn.layers import registry
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.functions import ARRAY_FUNCTIONS
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.registry import ConfigDict, StoredConfig, builtin_layer
from streamrnn.nn.layers.structure import Shape, Shapes
from streamrnn.nn.layers.symbol import INPUT, Node, Symbol, add_operation, symbols_in

_SIZES = ((2, 5, 7, 11), (3, 6, 8, 13))
"""Two sizes to try for each unknown axis: output sizes that differ between them are unknown."""


@builtin_layer
class Operation(Layer):
    """A function of `streamrnn.ops` on tensors, as made by `x * 2` or `ops.mean(x, axis=1)`.

    function: its name in `streamrnn.ops`, or an activation's name. operands: numbers, lists of
    numbers, and "input" for each tensor. arguments: by name, such as axis. The indices of get_item
    are in its argument key: integers, None, "..." and {"slice": [start, stop, step]}. canonical:
    the arguments of a built layer, with axes counted from the end.

    It runs on streams unless it combines or moves steps, treats steps unequally, or changes the
    number of axes; then an error names the function. It passes no mask on, as in Keras.
    """

    supports_masking = False

    def __init__(
        self,
        function: str,
        operands: Sequence[Any] = (INPUT,),
        arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if function not in ARRAY_FUNCTIONS:
            near = None if hasattr(np, function) else closest(function, ARRAY_FUNCTIONS)
            raise ArgumentError(
                f"Operation: the function {function!r} is not supported"
                + (f"; did you mean {near!r}?" if near else "")
                + f". Supported: {', '.join(sorted(ARRAY_FUNCTIONS))}"
            )
        kwargs["name"] = kwargs.get("name") or registry.unique(function)
        super().__init__(**kwargs)
        self.function = function
        self.operands = [_plain(operand) for operand in operands]
        self.arguments = {key: _plain(value) for key, value in (arguments or {}).items()}
        self.constants = [_constant(operand) for operand in self.operands]
        self._along = ARRAY_FUNCTIONS[function].along

    # ---- shapes

    def build(self, input_shape: Shapes) -> None:
        shapes = input_shape if isinstance(input_shape, list) else [input_shape]
        wanted = sum(constant is None for constant in self.constants)
        if len(shapes) != wanted:
            raise ShapeError(f"{self}: expected {wanted} tensors, received {len(shapes)}")
        self.rank = max(len(shape) for shape in shapes)
        self.canonical = dict(self.arguments)
        if self._along in ("axis", "new"):
            self.canonical["axis"] = self._axes_from_the_end()
        elif self._along == "key":
            self.canonical["key"] = self._full_key()
        self.ragged = self.rank < 3 or self._mixes() is None
        self.compute_output_shape(input_shape)

    def _axes_from_the_end(self) -> Any:
        """Return the argument `axis`, counted from the end.

        The same number then holds for arrays with and without the axis of steps.
        """
        last = ("softmax", "log_softmax", "concatenate", "normalize", "one_hot")
        axis_argument = self.arguments.get("axis", -1 if self.function in last else None)
        if axis_argument is None:
            raise ArgumentError(
                f"{self}: axis=None includes the batch, whose rows must stay independent; set "
                "`axis`"
            )
        axes = [int(axis) for axis in np.atleast_1d(axis_argument)]
        rank = self.rank + len(axes) * (self._along == "new")
        for axis in axes:
            if not -rank <= axis < rank:
                raise ArgumentError(f"{self}: axis={axis} is out of range for {rank} axes")
            if axis % rank == 0:
                raise ArgumentError(
                    f"{self}: axis={axis} is the batch, whose rows must stay independent"
                )
        from_end = [axis % rank - rank for axis in axes]
        return from_end if isinstance(axis_argument, list | tuple) else from_end[0]

    def _full_key(self) -> list[Any]:
        """Return the indices of get_item with a slice for each axis that the key leaves out."""
        key: list[Any] = [
            slice(*entry["slice"])
            if isinstance(entry, Mapping)
            else (Ellipsis if entry == "..." else entry)
            for entry in self.arguments["key"]
        ]
        used = sum(entry is not None and entry is not Ellipsis for entry in key)
        if used > self.rank or sum(entry is Ellipsis for entry in key) > 1:
            raise ArgumentError(
                f"{self}: {len(key)} indices do not fit {self.rank} axes (only one of the indices "
                "can be ..., and None takes no axis)"
            )
        rest = [slice(None)] * (self.rank - used)
        at = next((i for i, entry in enumerate(key) if entry is Ellipsis), len(key))
        key[at : at + 1] = rest
        if key[0] != slice(None):
            raise ArgumentError(
                f"{self}: the first index must keep all rows of the batch; write x[:, …]"
            )
        return key

    def compute_output_shape(self, input_shape: Shapes) -> Shape:
        shapes = input_shape if isinstance(input_shape, list) else [input_shape]
        key = self._along == "key"
        computed, misfits = [], []
        for sizes in _sizes_for(self.arguments["key"]) if key else _SIZES:
            full = [
                [sizes[min(a, 3)] if n is None else n for a, n in enumerate(shape)]
                for shape in shapes
            ]
            try:
                arrays = [np.broadcast_to(np.float32(0), shape) for shape in full]  # of 4 bytes
                with np.errstate(all="ignore"):
                    computed.append(np.shape(self._result(arrays)))
            except (ValueError, IndexError) as error:
                if isinstance(error, ArgumentError):
                    raise
                misfits.append(self._misfit(shapes, error))
        if misfits and not (key and computed):
            raise misfits[-1]
        return tuple(n[0] if len(set(n)) == 1 else None for n in zip(*computed, strict=True))

    def _misfit(self, shapes: Sequence[Shape], error: Exception) -> ShapeError:
        return ShapeError(f"{self}: inputs of shapes {shapes} do not fit: {error}")

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Return None: an operation passes no mask on."""

    # ---- computing

    def apply(self, inputs: Any, context: CallContext) -> Array:
        arrays = inputs if isinstance(inputs, list) else [inputs]
        try:
            # A slice is a view, and kernels read rows in one piece.
            return np.ascontiguousarray(self._result(arrays, on_stream=context.kind == "stream"))
        except (ValueError, IndexError) as error:
            if isinstance(error, ArgumentError):
                raise
            raise self._misfit([array.shape for array in arrays], error) from None

    def all_operands(self, inputs: Sequence[Array]) -> list[Any]:
        """Return the operands with the tensors in their places."""
        tensors = iter(inputs)
        return [
            next(tensors) if constant is None else operand
            for operand, constant in zip(self.operands, self.constants, strict=True)
        ]

    def _result(self, arrays: Sequence[Array], *, on_stream: bool = False) -> Any:
        arguments = dict(self.canonical)
        if self._along == "key" and on_stream and self.rank == 2:  # steps come after the rows
            arguments["key"] = [slice(None), *arguments["key"]]
        return ARRAY_FUNCTIONS[self.function].compute(*self.all_operands(arrays), **arguments)

    # ---- as part of a stream

    def why_not_stepwise(self, input_shape: Any) -> str | None:
        shape = self.compute_output_shape(input_shape)
        if (self.rank == 2) != (len(shape) == 2) or self.rank < 2 or len(shape) < 2:
            return f"{self.function} returns shape {shape}, which has other axes than its input"
        return self._mixes()

    def _mixes(self) -> str | None:
        """Return how the function combines steps or treats them unequally; None if it does not."""
        over_time = f"{self.function} combines the steps of the time axis"
        sequence = self.rank >= 3
        inner = self.rank - (2 if sequence else 1)
        for constant in self.constants:
            beyond = () if constant is None else constant.shape[: max(constant.ndim - inner, 0)]
            if any(size != 1 for size in beyond):  # axes of size 1 in front are broadcast
                return f"{self.function} has an operand with a number for each step"
        if self._along == "all":
            return f"{self.function} may move the time axis"
        if self._along == "axis" and sequence:
            axes = np.atleast_1d(self.canonical["axis"]) % self.rank
            return over_time if (axes == 1).any() else None
        if self._along == "new":
            new = np.atleast_1d(self.canonical["axis"])
            at = new % (self.rank + len(new))
            return f"{self.function} moves the time axis" if (at <= 1).any() else None
        if self._along == "key" and sequence and self.canonical["key"][1] != slice(None):
            return f"{self.function} takes some steps of the time axis"
        return None

    # ---- config

    def get_config(self) -> ConfigDict:
        return {
            **super().get_config(),
            "function": self.function,
            "operands": self.operands,
            "arguments": self.arguments,
        }


def _sizes_for(key: Sequence[Any]) -> list[tuple[int, ...]]:
    """Return several sizes to try for each unknown axis, given the key of get_item.

    Output sizes that depend on them are unknown. The last sizes are large enough for every index
    in the key.
    """
    slices = [entry["slice"] if isinstance(entry, Mapping) else [entry] for entry in key]
    most = sum(abs(n) for entry in slices for n in entry if isinstance(n, int))
    above = [(batch, *(size + most for size in sizes)) for batch, *sizes in _SIZES]
    return [(0,) * 4, *_SIZES, *above]


def operate(function: str, *operands: Any, **arguments: Any) -> Any:
    """Compute a function of arrays; with symbols among the operands, add it to their graph."""
    if any(isinstance(operand, Symbol) for operand in operands):
        return add_operation(function, *operands, **arguments)
    if symbols_in(operands):
        raise ArgumentError(f"{function}: a list that holds symbols is not an operand; stack them")
    compute: Callable[..., Any] = ARRAY_FUNCTIONS[function].compute
    return compute(*operands, **arguments)


def get_item(x: Any, key: Any) -> Any:
    """Return x[key], for integers, slices, None and `...`."""
    return x[key] if isinstance(x, Symbol) else np.asarray(x)[key]


def _constant(operand: Any) -> Array | None:
    """Return numbers as an array, None for a tensor. Raises ArgumentError for anything else."""
    if isinstance(operand, str) and operand == INPUT:
        return None
    try:
        array = np.asarray(operand)
    except ValueError:
        array = np.asarray("ragged")
    if array.dtype.kind not in "fiub":
        raise ArgumentError(
            f"an operand of an operation must be a symbol or numbers, received {operand!r:.60}"
        )
    return array


def _plain(value: Any) -> Any:
    """Return an operand or argument in JSON's types. Raises ArgumentError for other objects."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ArgumentError(
        "an operand or argument of an operation must be a symbol or numbers, received "
        f"{value!r:.60}"
    )


_DTYPES = ("float32", "int32", "int64", "bool", "string")


@builtin_layer
class InputLayer(Layer):
    """The layer of an `Input`: it has a shape and a dtype, and returns its input."""

    stepwise = True

    def __init__(
        self,
        shape: Sequence[int | None] | None = None,
        batch_size: int | None = None,
        dtype: object = None,
        batch_shape: Sequence[int | None] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if shape is not None and batch_shape is not None:
            raise ArgumentError(
                "Input: You cannot pass both `shape` and `batch_shape` at the same time: pass "
                "either shape (without the batch) or batch_shape"
            )
        if shape is None and batch_shape is None:
            raise ArgumentError(
                "Input: You must pass a `shape` argument: pass either shape (without the batch) "
                "or batch_shape"
            )
        if batch_shape is not None and batch_size is not None:
            raise ArgumentError(
                "Input: You cannot pass both `batch_size` and `batch_shape` at the same time"
            )
        sizes = batch_shape if shape is None else shape
        if not isinstance(sizes, list | tuple) or not all(
            size is None or (isinstance(size, int | np.integer) and size >= 0) for size in sizes
        ):
            raise ArgumentError(
                "Input: shape must be a tuple of sizes, None for an unknown size, "
                f"received {sizes!r}"
            )
        kwargs.pop("optional", None)
        super().__init__(name=name or registry.unique("input", first=1), **kwargs)
        self.dtype = str(dtype or "float32")
        if self.dtype not in _DTYPES:
            raise ArgumentError(
                f"{self}: dtype must be one of {', '.join(_DTYPES)}, received {dtype!r}"
            )
        self.batch_shape = tuple(batch_shape or (batch_size, *(shape or ())))
        self.built = True
        node = Node(self, [], {})
        self.symbol: Symbol = node.make_outputs(self.batch_shape, self.dtype)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        return inputs

    def get_config(self) -> ConfigDict:
        return {"batch_shape": list(self.batch_shape), "dtype": self.dtype, "name": self.name}

    @classmethod
    def from_config(cls, config: StoredConfig) -> Self:
        config = dict(config)
        if "batch_input_shape" in config:
            config["batch_shape"] = config.pop("batch_input_shape")
        return cls(**config)


def Input(  # noqa: N802 (Keras's name)
    shape: Sequence[int | None] | None = None,
    batch_size: int | None = None,
    dtype: object = None,
    batch_shape: Sequence[int | None] | None = None,
    name: str | None = None,
    **kwargs: Any,
) -> Symbol:
    """Return a symbol to call layers on. shape: without the batch; None for an unknown size."""
    layer = InputLayer(
        shape, batch_size=batch_size, dtype=dtype, batch_shape=batch_shape, name=name, **kwargs
    )
    return layer.symbol
