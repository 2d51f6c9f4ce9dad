"""ONNX files: from bytes to a GraphDef, and back. No other module imports onnx."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ModelFileError, UnsupportedError
from streamrnn.nn.formats.guard import extra_needed
from streamrnn.plugins.onnx.graph import DTYPES, INTEGERS, GraphDef, NodeDef, Value, require_sound

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

MIN_OPSET, MAX_OPSET = 7, 28
_MAX_NODES = 20_000
_DOMAINS = ("", "ai.onnx")
_IR_VERSION = 8
_MAX_BYTES = 2_000_000_000
"""Largest number of bytes of weights in a file: a protocol buffer has at most 2 GiB."""
_CONSTANTS = {
    "value": None,
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}
"""Attributes of a Constant, and the types of their values."""
QUANTIZED = {
    "ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul",
    "MatMulInteger", "MatMulIntegerToFloat", "MatMulNBits", "QAttention",
    "QEmbedLayerNormalization", "QGemm", "QLinearAdd", "QLinearConv", "QLinearMatMul",
}  # fmt: skip
"""Operators that compute in integers; most of them take the scale from a whole batch."""


def parse_graph(data: bytes, path: str | Path) -> GraphDef:
    """Parse an .onnx file. Raises ModelFileError, or UnsupportedError with the node or tensor."""
    with extra_needed("onnx", "onnx", path):
        import onnx
        from google.protobuf.message import DecodeError
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise ModelFileError("damaged, or not an ONNX model (decoding failed)") from None
    return _Parser(onnx).graph(model)


class _Parser:
    def __init__(self, onnx: ModuleType) -> None:
        self.onnx = onnx
        self.constants: dict[str, Array] = {}

    def graph(self, model: "ModelProto") -> GraphDef:
        graph = model.graph
        opset = next((o.version for o in model.opset_import if o.domain in _DOMAINS), None)
        if opset is None:
            raise ModelFileError("not an ONNX model: it has no opset version")
        if not MIN_OPSET <= opset <= MAX_OPSET:
            raise UnsupportedError(
                f"opset {opset} is not supported, only {MIN_OPSET} to {MAX_OPSET}. Export the "
                "model again with opset_version=17"
            )
        if len(graph.node) > _MAX_NODES:
            raise UnsupportedError(
                f"the graph has {len(graph.node):,} nodes; the maximum is {_MAX_NODES:,}"
            )
        for proto in graph.node:
            if proto.op_type in QUANTIZED:
                name = proto.name or next(iter(proto.output), "")
                raise UnsupportedError(
                    f"node {name!r} ({proto.op_type}): the graph is quantized, and this operator "
                    "computes in integers (a dynamic one scales them by the whole batch, so that a "
                    "row depends on the others). Use the float32 model that it was made from, or "
                    "quantize with QuantizeLinear and DequantizeLinear (QDQ)"
                )
        if graph.sparse_initializer:
            raise UnsupportedError("sparse initializers are not supported; store them as dense")
        for tensor in graph.initializer:
            self.constants[tensor.name] = self.array(tensor, tensor.name)
        inputs = tuple(self._value(v) for v in graph.input if v.name not in self.constants)
        nodes = [self._node(proto) for proto in graph.node]
        parsed = GraphDef(
            graph.name or "graph",
            opset,
            inputs,
            tuple(self._value(v) for v in graph.output),
            tuple(node for node in nodes if node.op != "Constant"),
            self.constants,
        )
        require_sound(parsed)
        return parsed

    def _value(self, proto: "ValueInfoProto") -> Value:
        if proto.type.WhichOneof("value") != "tensor_type":
            raise UnsupportedError(
                f"{proto.name!r} is not a tensor; inputs and outputs must be tensors"
            )
        tensor = proto.type.tensor_type
        dims = tuple(
            d.dim_value if d.WhichOneof("value") == "dim_value" else None for d in tensor.shape.dim
        )
        return Value(proto.name, self._dtype(tensor.elem_type, proto.name), dims)

    def _dtype(self, code: int, name: str, *, stored: bool = False) -> str:
        try:
            dtype = str(self.onnx.helper.tensor_dtype_to_np_dtype(code))
        except (KeyError, ValueError, TypeError):
            dtype = f"type {code}"
        if dtype not in DTYPES and not (stored and dtype in INTEGERS):
            raise UnsupportedError(
                f"{name!r} is {dtype}; supported: {', '.join(DTYPES)}. Export it as float32"
            )
        return dtype

    def _node(self, proto: "NodeProto") -> NodeDef:
        name = proto.name or next((o for o in proto.output if o), "")
        op = proto.op_type
        if proto.domain not in _DOMAINS:
            op = f"{proto.domain}.{op}"
        node = NodeDef(op, name, tuple(proto.input), tuple(proto.output), {})
        attributes = {a.name: self._attribute(a, node) for a in proto.attribute}
        if op == "Constant":
            key = next(iter(attributes), "")
            if len(attributes) != 1 or key not in _CONSTANTS:
                raise UnsupportedError(
                    f"{node}: only one tensor, number or list of numbers is supported"
                )
            self.constants[node.outputs[0]] = np.asarray(attributes.pop(key), _CONSTANTS[key])
        for key, value in attributes.items():
            if not isinstance(value, np.ndarray):
                continue
            if value.size != 1:
                raise UnsupportedError(
                    f"{node}: attribute {key!r} is a tensor of shape {value.shape}, expected one "
                    "number"
                )
            attributes[key] = [str(value.dtype), value.reshape(-1).tolist()[0]]
        return NodeDef(op, name, node.inputs, node.outputs, attributes)

    def _attribute(self, proto: "AttributeProto", node: NodeDef) -> object:
        kind = self.onnx.AttributeProto
        if proto.type == kind.TENSOR:
            return self.array(proto.t, f"{node}, {proto.name}")
        if proto.type in (kind.INT, kind.FLOAT, kind.INTS, kind.FLOATS):
            value: object = self.onnx.helper.get_attribute_value(proto)
            return list(value) if isinstance(value, Iterable) else value
        if proto.type == kind.STRING:
            return proto.s.decode("utf-8", "replace")
        if proto.type == kind.STRINGS:
            return [s.decode("utf-8", "replace") for s in proto.strings]
        if proto.type in (kind.GRAPH, kind.GRAPHS):
            raise UnsupportedError(
                f"{node}: attribute {proto.name!r} is a graph; loops and branches are not supported"
                " (tf2onnx writes a GRU of Keras 3 as a Loop). If the model is from Keras, load "
                "its .keras file; in other graphs, export recurrent layers as LSTM, GRU or RNN"
            )
        raise UnsupportedError(f"{node}: attribute {proto.name!r} is of an unknown type")

    def array(self, tensor: "TensorProto", name: str) -> Array:
        """Return a stored tensor. Raises ModelFileError, UnsupportedError."""
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise UnsupportedError(
                f"{name!r} stores its values in another file, which is not opened: save the model "
                "in one file (onnx.save(model, path), or external_data=False in torch.onnx.export)"
            )
        self._dtype(tensor.data_type, name, stored=True)
        if any(n < 0 for n in tensor.dims):
            raise ModelFileError(f"{name!r} has the invalid shape {list(tensor.dims)}")
        try:
            array: Array = self.onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise ModelFileError(f"{name!r} is damaged ({error})") from None
        return np.ascontiguousarray(array).reshape(array.shape)


def encode(graph: GraphDef, path: str | Path) -> bytes:
    """Return the bytes of a graph as one ONNX file: equal graphs give equal bytes.

    The first open axis of inputs and outputs is named "batch", a second one "time". Raises
    UnsupportedError, which names `path`, if the extra onnx is missing, or for weights of more than
    2 GB.
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
    infos = []
    for value in values:
        names = iter(("batch", "time"))
        dims = [next(names, None) if n is None else n for n in value.dims]
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(value.dtype))
        infos.append(onnx.helper.make_tensor_value_info(value.name, kind, dims))
    return infos
