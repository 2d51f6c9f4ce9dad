"""QuantizeLinear and DequantizeLinear: a graph with such pairs computes in float32 between them.

Weights stored as integers become float32 when the graph is folded. A pair around a value rounds it
to what the integers can hold, as in the file.
"""

from collections.abc import Mapping

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import UnsupportedError
from streamrnn.plugins.onnx.graph import NodeDef
from streamrnn.plugins.onnx.operator_table import check_of, operator

QUANTIZED = frozenset({
    "ConvInteger",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QAttention",
    "QEmbedLayerNormalization",
    "QGemm",
    "QLinearAdd",
    "QLinearConv",
    "QLinearMatMul",
})  # fmt: skip
"""Operators that compute in integers; most of them take the scale from a whole batch."""

_TYPES = {"int8": np.int8, "uint8": np.uint8}
_CODES = {2: "uint8", 3: "int8"}


def refuse_quantized(op: str, name: str) -> None:
    """Raise UnsupportedError for an operator that computes in integers."""
    if op in QUANTIZED:
        raise UnsupportedError(
            f"node {name!r} ({op}): the graph is quantized, and this operator computes in integers "
            "(a dynamic one scales them by the whole batch, so that a row depends on the others). "
            "Use the float32 model that it was made from, or quantize with QuantizeLinear and "
            "DequantizeLinear (QDQ)"
        )


def _along(axis: int, x: Array, value: Array) -> Array:
    """Return a scale or zero point in a shape that can be broadcast with x."""
    if value.size == 1 and value.ndim < 2:
        return value.reshape(())
    return value.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


@operator("DequantizeLinear", "axis", "block_size", "output_dtype")
def _dequantize(x: Array, scale: Array, zero: Array | None = None, *, axis: int = 1) -> Array:
    """Return (x - zero point) * scale as float32."""
    whole = x.astype(np.int64)
    if zero is not None:
        whole = whole - _along(axis, x, zero).astype(np.int64)
    return np.asarray(whole.astype(np.float32) * _along(axis, x, scale))


@operator("QuantizeLinear", "axis", "block_size", "output_dtype", "precision", "saturate")
def _quantize(
    x: Array, scale: Array, zero: Array | None = None, *, axis: int = 1, output_dtype: int = 2
) -> Array:
    """Return x / scale + zero point, rounded to even, limited to the range of the integers."""
    dtype = _TYPES[_CODES.get(output_dtype, "uint8")] if zero is None else zero.dtype
    limits = np.iinfo(dtype)
    whole = np.rint(x / _along(axis, x, scale))
    if zero is not None:
        whole = whole + _along(axis, x, zero).astype(np.float32)
    return np.minimum(np.maximum(whole, limits.min), limits.max).astype(dtype)


@check_of("QuantizeLinear")
@check_of("DequantizeLinear")
def _check_quantization(node: NodeDef, constants: Mapping[str, Array]) -> None:
    """Refuse blocks, types other than 8 bits, and computed scales."""
    attributes = node.attributes
    if attributes.get("block_size", 0):
        raise UnsupportedError(f"{node}: scales of blocks (block_size) are not supported")
    quantizes = node.op == "QuantizeLinear"
    if attributes.get("output_dtype", 0) not in ((0, *_CODES) if quantizes else (0, 1)):
        raise UnsupportedError(f"{node}: output_dtype={attributes['output_dtype']}")
    if attributes.get("precision", 0) not in (0, 1):
        raise UnsupportedError(f"{node}: precision={attributes['precision']}, expected float32")
    zero = node.inputs[2] if len(node.inputs) > 2 else ""
    if quantizes and zero and str(getattr(constants.get(zero), "dtype", "")) not in _TYPES:
        raise UnsupportedError(f"{node}: zero points must be constant, int8 or uint8")
