"""The writer of .onnx files: from a GraphDef to bytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from streamrnn.errors import UnsupportedError
from streamrnn.nn.formats.guard import extra_needed
from streamrnn.plugins.onnx.graph import GraphDef, Value

_IR_VERSION = 8
_MAX_BYTES = 2_000_000_000
"""A message of protocol buffers has at most 2 GiB."""


def encode(graph: GraphDef, path: str | Path) -> bytes:
    """Return the bytes of a graph as one ONNX file: equal graphs give equal bytes.

    The first open axis of inputs and outputs is named "batch", a second one "time". Raises
    UnsupportedError, naming `path`, without the extra onnx, or for weights of 2 GB and more.
    """
    with extra_needed("onnx", "onnx", path, "writing"):
        import onnx
    size = sum(array.nbytes for array in graph.constants.values())
    if size > _MAX_BYTES:
        raise UnsupportedError(
            f"{path}: the weights have {size:,} bytes; one ONNX file has at most {_MAX_BYTES:,}"
        )
    helper = onnx.helper
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(n.op, n.inputs, n.outputs, name=n.name, **n.attributes)
                for n in graph.nodes
            ],
            graph.name,
            _values(onnx, graph.inputs),
            _values(onnx, graph.outputs),
            [onnx.numpy_helper.from_array(a, name) for name, a in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", graph.opset)],
        ir_version=_IR_VERSION,
        producer_name="streamrnn",
    )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _values(onnx: Any, values: Sequence[Value]) -> list[Any]:
    made = []
    for value in values:
        names = iter(("batch", "time"))
        dims = [next(names, None) if n is None else n for n in value.dims]
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
        made.append(onnx.helper.make_tensor_value_info(value.name, kind, dims))
    return made
