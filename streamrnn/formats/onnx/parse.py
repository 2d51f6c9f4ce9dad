"""From the bytes of an .onnx file to a GraphDef. The only place that imports onnx."""

from pathlib import Path
from typing import Any

import numpy as np

from streamrnn.errors import ModelFileError, UnsupportedError
from streamrnn.formats.guard import require_extra
from streamrnn.formats.onnx.graph import DTYPES, GraphDef, NodeDef, Value, require_sound

_MIN_OPSET, _MAX_OPSET = 7, 25
_MAX_NODES = 20_000
_DOMAINS = ("", "ai.onnx")


def parse(data: bytes, path: str | Path) -> GraphDef:
    """The graph of an .onnx file. Raises ModelFileError, UnsupportedError naming node or tensor."""
    onnx = require_extra("onnx", "onnx", path)
    protobuf = require_extra("google.protobuf.message", "onnx", path)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except protobuf.DecodeError:
        raise ModelFileError("damaged, or no ONNX model (its bytes cannot be decoded)") from None
    return _Reader(onnx).graph(model)


class _Reader:
    def __init__(self, onnx: Any) -> None:
        self.onnx: Any = onnx
        self.constants: dict[str, Any] = {}

    def graph(self, model: Any) -> GraphDef:
        graph = model.graph
        opset = self._opset(model)
        if len(graph.node) > _MAX_NODES:
            raise UnsupportedError(f"a graph of {len(graph.node):,} nodes; {_MAX_NODES:,} are read")
        if graph.sparse_initializer:
            raise UnsupportedError("sparse initializers are not supported; store them dense")
        for tensor in graph.initializer:
            self.constants[tensor.name] = self.array(tensor, tensor.name)
        inputs = tuple(self._value(v) for v in graph.input if v.name not in self.constants)
        nodes = [self._node(proto) for proto in graph.node]
        made = GraphDef(
            graph.name or "graph",
            opset,
            inputs,
            tuple(self._value(v) for v in graph.output),
            tuple(node for node in nodes if node.op != "Constant"),
            self.constants,
        )
        require_sound(made)
        return made

    def _opset(self, model: Any) -> int:
        versions = [o.version for o in model.opset_import if o.domain in _DOMAINS]
        if not versions:
            raise ModelFileError("no ONNX model: it does not say its opset")
        if not _MIN_OPSET <= versions[0] <= _MAX_OPSET:
            raise UnsupportedError(
                f"opset {versions[0]}; {_MIN_OPSET} to {_MAX_OPSET} are read. Export it again with "
                "opset_version=17"
            )
        return int(versions[0])

    def _value(self, proto: Any) -> Value:
        if proto.type.WhichOneof("value") != "tensor_type":
            raise UnsupportedError(f"{proto.name!r} is no tensor")
        tensor = proto.type.tensor_type
        dims = tuple(
            d.dim_value if d.WhichOneof("value") == "dim_value" else None for d in tensor.shape.dim
        )
        return Value(proto.name, self._dtype(tensor.elem_type, proto.name), dims)

    def _dtype(self, code: int, name: str) -> str:
        try:
            dtype = str(self.onnx.helper.tensor_dtype_to_np_dtype(code))
        except (KeyError, ValueError, TypeError):
            dtype = f"type {code}"
        if dtype not in DTYPES:
            raise UnsupportedError(
                f"{name!r} is {dtype}; supported are {', '.join(DTYPES)}. Export in float32"
            )
        return dtype

    def _node(self, proto: Any) -> NodeDef:
        name = proto.name or next((o for o in proto.output if o), "")
        op = proto.op_type
        if proto.domain not in _DOMAINS:
            op = f"{proto.domain}.{op}"
        node = NodeDef(op, name, tuple(proto.input), tuple(proto.output), {})
        attributes = {a.name: self._attribute(a, node) for a in proto.attribute}
        if op == "Constant":
            self._constant(node, attributes)
        for key, value in attributes.items():
            if isinstance(value, np.ndarray):
                attributes[key] = _number(node, key, value)
        return NodeDef(op, name, node.inputs, node.outputs, attributes)

    def _attribute(self, proto: Any, node: NodeDef) -> Any:
        kind = self.onnx.AttributeProto
        if proto.type == kind.TENSOR:
            return self.array(proto.t, f"{node}, {proto.name}")
        if proto.type in (kind.INT, kind.FLOAT, kind.INTS, kind.FLOATS):
            value = self.onnx.helper.get_attribute_value(proto)
            return list(value) if proto.type in (kind.INTS, kind.FLOATS) else value
        if proto.type == kind.STRING:
            return proto.s.decode("utf-8", "replace")
        if proto.type == kind.STRINGS:
            return [s.decode("utf-8", "replace") for s in proto.strings]
        raise UnsupportedError(f"{node}: attribute {proto.name!r} holds a graph or another type")

    def _constant(self, node: NodeDef, attributes: dict[str, Any]) -> None:
        dtypes = {
            "value_float": np.float32,
            "value_floats": np.float32,
            "value_int": np.int64,
            "value_ints": np.int64,
        }
        key = next(iter(attributes), "")
        if len(attributes) != 1 or key not in ("value", *dtypes):
            raise UnsupportedError(f"{node}: only one tensor, number or list of them is supported")
        self.constants[node.outputs[0]] = np.asarray(attributes.pop(key), dtype=dtypes.get(key))

    def array(self, tensor: Any, name: str) -> Any:
        """A stored tensor. Raises ModelFileError, UnsupportedError."""
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise UnsupportedError(
                f"{name!r} keeps its values in another file, which is not opened: save the model "
                "in one file (onnx.save(model, path), or external_data=False in torch.onnx.export)"
            )
        self._dtype(tensor.data_type, name)
        if any(n < 0 for n in tensor.dims):
            raise ModelFileError(f"{name!r} has the shape {list(tensor.dims)}")
        try:
            array = self.onnx.numpy_helper.to_array(tensor)
        except (ValueError, TypeError) as error:
            raise ModelFileError(f"{name!r} is damaged ({error})") from None
        return np.ascontiguousarray(array).reshape(array.shape)


def _number(node: NodeDef, key: str, value: Any) -> list[Any]:
    """A tensor of one number as [dtype, number]; others are no attribute of an operator we have."""
    if value.size != 1:
        raise UnsupportedError(f"{node}: attribute {key!r} holds a tensor of shape {value.shape}")
    return [str(value.dtype), value.reshape(-1).tolist()[0]]
