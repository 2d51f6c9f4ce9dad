"""The types of ONNX's protocol buffers: the fields that the parser reads."""

from collections.abc import Sequence
from typing import Protocol


class TensorProto(Protocol):
    """The fields of a TensorProto."""

    name: str
    data_type: int
    data_location: int
    dims: Sequence[int]
    external_data: Sequence[object]


class AttributeProto(Protocol):
    """The fields of an AttributeProto."""

    name: str
    type: int
    t: TensorProto
    s: bytes
    strings: Sequence[bytes]


class NodeProto(Protocol):
    """The fields of a NodeProto."""

    name: str
    op_type: str
    domain: str
    input: Sequence[str]
    output: Sequence[str]
    attribute: Sequence[AttributeProto]


class Dimension(Protocol):
    """The fields of a TensorShapeProto.Dimension."""

    dim_value: int

    def WhichOneof(self, oneof_group: str) -> str | None:  # noqa: N802 (protobuf's name)
        """Return the name of the field of a group that is set, None if none is."""


class ShapeOfTensor(Protocol):
    """The fields of a TensorShapeProto."""

    dim: Sequence[Dimension]


class TensorType(Protocol):
    """The fields of a TypeProto.Tensor."""

    elem_type: int
    shape: ShapeOfTensor


class TypeProto(Protocol):
    """The fields of a TypeProto."""

    tensor_type: TensorType

    def WhichOneof(self, oneof_group: str) -> str | None:  # noqa: N802 (protobuf's name)
        """Return the name of the field of a group that is set, None if none is."""


class ValueInfoProto(Protocol):
    """The fields of a ValueInfoProto."""

    name: str
    type: TypeProto


class GraphProto(Protocol):
    """The fields of a GraphProto."""

    name: str
    node: Sequence[NodeProto]
    input: Sequence[ValueInfoProto]
    output: Sequence[ValueInfoProto]
    initializer: Sequence[TensorProto]
    sparse_initializer: Sequence[object]


class OpsetId(Protocol):
    """The fields of an OperatorSetIdProto."""

    domain: str
    version: int


class ModelProto(Protocol):
    """The fields of a ModelProto."""

    graph: GraphProto
    opset_import: Sequence[OpsetId]
