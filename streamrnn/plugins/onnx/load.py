"""ONNX files: from bytes to a graph, and back; a graph, or one of its recurrent nodes, as a model.

No other module imports onnx.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ConfigError, ModelFileError, UnsupportedError
from streamrnn.nn.formats.guard import (
    Assignment,
    Loaded,
    assign_weights,
    extra_needed,
    require_finite,
)
from streamrnn.nn.kernels.packing import dequantized
from streamrnn.nn.layers import Input, PeepholeLSTMCell, registry
from streamrnn.nn.layers.registry import snake_case
from streamrnn.nn.models import Sequential
from streamrnn.plugins.onnx.evaluate import fold, unused
from streamrnn.plugins.onnx.graph import DTYPES, INTEGERS, GraphDef, NodeDef, Value, require_sound
from streamrnn.plugins.onnx.model import OnnxModel
from streamrnn.plugins.onnx.recurrent import RECURRENT, Direction, Recurrent, check, prepare

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


def load_onnx(
    path: str | Path, *, node: str | None = None, state: Mapping[str, str] | None = None
) -> Loaded:
    """Read the graph of a file as a model, or one of its recurrent nodes as a Sequential."""
    path = Path(path)
    graph = parse_graph(path.read_bytes(), path)
    left = unused(graph)
    folded = fold(graph)
    require_finite(folded.weights())
    if node is not None:
        return _one_node(graph, folded, node)
    model = OnnxModel(folded, state, name=snake_case(path.stem).replace("/", "_") or "graph")
    model.check_weights()
    assignments = [Assignment(name, f"graph/{name}", w) for name, w in folded.weights().items()]
    return Loaded(model, assignments, left)


def _one_node(graph: GraphDef, folded: GraphDef, name: str) -> Loaded:
    nodes = [node for node in folded.nodes if node.op in RECURRENT]
    node = next((node for node in nodes if name in (node.name, *node.outputs)), None)
    if node is None:
        listed = ", ".join(repr(node.name) for node in nodes) or "none"
        raise ConfigError(f"node: the graph has no recurrent node {name!r}; it has {listed}")
    check(node)
    recurrent = prepare(node, folded.constants)
    states = [i for i in node.inputs[5:7] if i in folded.constants]
    if any(folded.constants[i].any() for i in states):
        raise UnsupportedError(
            f"{node} has a constant initial state ({states[0]!r}), which a layer cannot store; "
            "load the whole graph, or export the model with initial states of zero and pass this "
            "state as initial_state in calls"
        )
    label = name.strip("/").replace("/", ".")
    both = len(recurrent.directions) > 1
    names = ("forward", "backward") if both else (label,)
    config, *back = (
        _one_direction(recurrent, direction, name)
        for direction, name in zip(recurrent.directions, names, strict=True)
    )
    if back:
        two_sides = {"name": label, "layer": config, "backward_layer": back[0]}
        config = {"class_name": "Bidirectional", "config": two_sides}
    model = Sequential([Input((None, recurrent.features)), registry.deserialize(config)])
    sides = ("forward_layer/cell", "backward_layer/cell") if both else ("cell",)
    assignments = []
    for side, direction in zip(sides, recurrent.directions, strict=True):
        bias = node.input(3) or "(no bias)"
        assignments += [
            Assignment(node.inputs[1], f"{label}/{side}/kernel", dequantized(direction.kernel)),
            Assignment(
                node.inputs[2], f"{label}/{side}/recurrent_kernel", dequantized(direction.recurrent)
            ),
            Assignment(bias, f"{label}/{side}/bias", direction.bias),
        ]
        if direction.peepholes is not None:
            assignments += [
                Assignment(node.inputs[7], f"{label}/{side}/{gate}_gate_peephole_weights", weights)
                for gate, weights in zip(PeepholeLSTMCell.GATES, direction.peepholes, strict=True)
            ]
    used = set(node.inputs)
    left = [n for n in graph.weights() if n not in used]
    return Loaded(model, assign_weights(model, assignments), left)


def _one_direction(recurrent: Recurrent, direction: Direction, name: str) -> dict[str, object]:
    """Return the config of a layer; raise UnsupportedError if no layer computes the direction."""
    why = ""
    if direction.coupled:
        why = "no layer has input_forget=1"
    for spec in direction.activations:
        if not isinstance(spec, str):
            why = why or f"no layer has activation {spec[0]!r} with {spec[1:]}"
    *gate, state = direction.activations
    if gate[1:] and gate[1] != state:
        why = why or f"activations g and h differ ({gate[1]}, {state}), which no layer supports"
    if why:
        raise UnsupportedError(f"{recurrent.node}: {why}; load the whole graph")
    cell: dict[str, object] = {"units": recurrent.units, "activation": state}
    if gate:
        cell["recurrent_activation"] = gate[0]
    if option := RECURRENT[recurrent.node.op].before_reset:
        cell[option] = recurrent.reset_after
    options: dict[str, object] = {"return_sequences": True, "name": name}
    if direction.backwards:
        options["go_backwards"] = True
    if direction.peepholes is None:
        return {
            "class_name": recurrent.cell_class.removesuffix("Cell"),
            "config": {**cell, **options},
        }
    peephole = {"class_name": "PeepholeLSTMCell", "config": {**cell, "name": "cell"}}
    return {"class_name": "RNN", "config": {"cell": peephole, **options}}


def parse_graph(data: bytes, path: str | Path) -> GraphDef:
    """Parse an .onnx file.

    Raises ModelFileError, or UnsupportedError, which names the node or tensor if one is the cause.
    """
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
            f"{path}: the weights take {size:,} bytes; an ONNX file can hold at most {_MAX_BYTES:,}"
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
