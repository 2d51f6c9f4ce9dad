"""Products of matrices, by the kernel of dense layers: no row depends on the others."""

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ShapeError
from streamrnn.nn.kernels import dense
from streamrnn.plugins.onnx.graph import NodeDef
from streamrnn.plugins.onnx.operator_table import NodeInputs, operator, require_room


@operator("MatMul")
def _matmul(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return x W. W: one matrix, or matrices whose leading axes are broadcast with those of x."""
    x, w = inputs
    if w.ndim == 1:
        return _matrices(node, np.atleast_2d(x), w[:, None]).reshape(x.shape[:-1])
    if x.ndim == 1:
        return _matrices(node, x[None], w).reshape(*w.shape[:-2], w.shape[-1])
    return _matrices(node, x, w)


def _matrices(node: NodeDef, x: Array, w: Array) -> Array:
    if w.ndim == 2:
        return product(node, x, w, None)
    lead = np.broadcast_shapes(x.shape[:-2], w.shape[:-2])
    require_room(node, (*lead, x.shape[-2], w.shape[-1]), x, w)
    require_room(node, (*lead, *w.shape[-2:]), x, w)
    pairs = zip(
        np.broadcast_to(x, (*lead, *x.shape[-2:])).reshape(-1, *x.shape[-2:]),
        np.broadcast_to(w, (*lead, *w.shape[-2:])).reshape(-1, *w.shape[-2:]),
        strict=True,
    )
    made = [product(node, a, b, None) for a, b in pairs]
    return np.array(made, np.float32).reshape(*lead, x.shape[-2], w.shape[-1])


@operator("Gemm", "alpha", "beta", "transA", "transB")
def _gemm(node: NodeDef, inputs: NodeInputs, opset: int) -> Array:
    """Return alpha x W + beta b."""
    a, b = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    x, w = inputs[:2]
    x = x.T if node.attributes.get("transA", 0) else x
    w = np.float32(a) * (w.T if node.attributes.get("transB", 0) else w)
    bias = inputs[2] if len(inputs) > 2 else None
    if bias is None:
        return product(node, x, w, None)
    if bias.size not in (1, w.shape[1]):
        shifted: Array = product(node, x, w, None) + np.float32(b) * bias
        return shifted
    return product(node, x, w, np.broadcast_to(np.float32(b) * bias.reshape(-1), w.shape[1]))


def product(node: NodeDef, x: Array, w: Array, bias: Array | None) -> Array:
    """Return x W + b over the last axis of x, each row independently."""
    if x.shape[-1] != w.shape[0] or x.dtype != np.float32 or w.dtype != np.float32:
        raise ShapeError(f"{node}: {x.dtype} {x.shape} cannot be multiplied by {w.dtype} {w.shape}")
    require_room(node, (*x.shape[:-1], w.shape[1]), x)
    y = np.empty((*x.shape[:-1], w.shape[1]), np.float32)
    packed = dense.pack(
        np.ascontiguousarray(w), None if bias is None else np.ascontiguousarray(bias)
    )
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    dense.run(packed, rows, y.reshape(-1, w.shape[1]), activation="linear")
    return y
