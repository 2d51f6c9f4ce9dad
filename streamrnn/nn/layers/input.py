"""Input: the start of a graph."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ArgumentError
from streamrnn.nn.layers import naming
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.registry import ConfigDict, StoredConfig, builtin_layer
from streamrnn.nn.layers.symbol import Node, Symbol

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
        super().__init__(name=name or naming.unique("input", first=1), **kwargs)
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
