"""The Open Inference Protocol V2: requests and answers as tensors, in JSON or in bytes behind JSON.

https://github.com/open-inference/open-inference-protocol, with its binary tensor data extension.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import orjson
import pyarrow as pa

from streamrnn.base.display import as_text, count
from streamrnn.errors import DataError
from streamrnn.plugins.serve.values import RequestColumns

T = TypeVar("T")

_NUMPY = {
    "BOOL": np.dtype("?"),
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
}
_KINDS = {str: "text", list: "a list", dict: "an object", bool: "true or false"}
_NAMES = {pa.from_numpy_dtype(kind): name for name, kind in _NUMPY.items()}


def _datatype(kind: pa.DataType) -> str:
    """Return a column's datatype: INT64 for a time, in its unit; BYTES for a type without one."""
    return "INT64" if pa.types.is_temporal(kind) else _NAMES.get(kind, "BYTES")


def tensors_of(fields: Iterable[pa.Field]) -> list[dict[str, Any]]:
    """Return descriptions of columns as tensors of shape [-1], as the number of rows is open."""
    return [{"name": f.name, "datatype": _datatype(f.type), "shape": [-1]} for f in fields]


class Request(NamedTuple):
    """A request: its rows, its parameters, its id if it has one, and the outputs to answer.

    `named`: {"id": id}, or {} without an id. `outputs`: (name, whether to answer in binary) of each
    requested output; if there are none, all outputs are answered, in binary if `binary` is true.
    """

    rows: pa.RecordBatch
    parameters: Mapping[str, Any]
    named: Mapping[str, Any]
    outputs: Sequence[tuple[str, bool]]
    binary: bool


def read_request(
    body: bytes,
    header_length: str | None,
    columns: RequestColumns,
    answer: pa.Schema | None,
    check: Callable[[int], None],
) -> Request:
    """Read a request. Raises DataError.

    `header_length`: the number of bytes of JSON at the start of `body`, as text; None if all are
    JSON. `answer`: the schema of answers, which must have the requested outputs; None before it is
    known. `check` is called with the number of rows, which it may refuse.
    """
    place = len(body)
    if header_length is not None:
        is_number = header_length.isdecimal() and len(header_length) < 12
        if not is_number or int(header_length) > place:
            raise DataError(
                f"Inference-Header-Content-Length: expected a number up to {place}, received "
                f"{header_length!r:.40}"
            )
        place = int(header_length)
    try:
        request = orjson.loads(body[:place])
        rows, tensors = None, []
        for tensor in _typed(list, request["inputs"], "inputs"):
            name = _typed(str, _typed(dict, tensor, "tensor")["name"], "name of a tensor")
            what, kind = f"tensor {name!r:.80}", tensor.get("datatype")
            shape = _typed(list, tensor["shape"], f"{what}: shape")
            size = shape[0] if len(shape) == 1 else None
            if type(size) is not int or size < 0 or rows not in (None, size):
                raise DataError(
                    f"{what}: expected shape [rows], with as many rows as other tensors, "
                    f"received {shape!r:.40}"
                )
            if kind not in (*_NUMPY, "BYTES"):
                choices = ", ".join((*_NUMPY, "BYTES"))
                raise DataError(f"{what}: datatype: expected {choices}, received {kind!r:.40}")
            check(size)
            rows, taken = size, _parameters(tensor, f"{what}: ").get("binary_data_size")
            if taken is None:
                values = _typed(list, tensor["data"], f"{what}: data")
                _check_values(values, kind, what)
            elif type(taken) is not int or not 0 <= taken <= len(body) - place:
                raise DataError(
                    f"tensor {name!r}: expected a binary_data_size up to {len(body) - place}, the "
                    f"number of bytes left, received {taken!r:.40}"
                )
            else:
                blob, place = body[place : place + taken], place + taken
                values = _from_bytes(name, kind, blob, size)
            if len(values) != size:
                raise DataError(f"tensor {name!r}: expected {size} values, received {len(values)}")
            tensors.append((name, values))
        if place != len(body):
            raise DataError(
                f"expected {place} bytes of JSON and binary tensors, received {len(body)}"
            )
        parameters = _parameters(request)
        key = "binary_data_output"
        binary = _typed(bool, parameters.get(key, False), f"parameters: {key}")
        outputs = []
        for output in _optional(list, request, "outputs"):
            name = _typed(str, output["name"], "name of an output")
            what = f"output {name!r:.80}: "
            wanted = _parameters(output, what).get("binary_data", binary)
            outputs.append((name, _typed(bool, wanted, f"{what}binary_data")))
        named = {"id": _typed(str, request["id"], "id")} if "id" in request else {}
        batch = columns.batch(tensors, rows or 0)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            "expected a request of the Open Inference Protocol V2 with inputs of shape [rows], "
            f"received {body[:40]!r}: {type(error).__name__}: {error}"
        ) from None
    read = Request(batch, parameters, named, outputs, binary)
    if answer is not None:
        _outputs(read, answer)
    return read


def _typed(kind: type[T], value: Any, what: str) -> T:
    """Return a value of a request. Raises DataError if its type is not `kind`."""
    if type(value) is kind:
        return value
    raise DataError(f"{what}: expected {_KINDS[kind]}, received {value!r:.40}")


def _optional(kind: type[T], of: Mapping[str, Any], name: str, what: str = "") -> T:
    """Return a field that may be missing or null, which is the same as empty."""
    value = of.get(name)
    return kind() if value is None else _typed(kind, value, f"{what}{name}")


def _parameters(of: Mapping[str, Any], what: str = "") -> dict[str, Any]:
    return _optional(dict, of, "parameters", what)


def _check_values(values: Sequence[Any], kind: str, what: str) -> None:
    """Raise DataError unless the JSON values of a tensor are null or of its datatype.

    Columns of lists and objects, which V2 has no datatype for, are BYTES.
    """
    types: set[type] = {int}
    limits = np.iinfo(_NUMPY[kind]) if "INT" in kind else None
    if kind == "BYTES":
        types = {str, list, dict}
    elif kind == "BOOL":
        types = {bool}
    elif kind.startswith("FP"):
        types = {int, float}
    for row, value in enumerate(values):
        if value is None:
            continue
        if type(value) not in types or (limits and not limits.min <= value <= limits.max):
            raise DataError(f"{what}: row {row} (from 0): expected {kind}, received {value!r:.40}")


def _from_bytes(name: str, kind: str, blob: bytes, size: int) -> Any:
    if kind == "BYTES":  # four bytes with its length precede each text
        texts, place = [], 0
        for _ in range(size):
            begin = place + 4
            place = begin + int.from_bytes(blob[place:begin], "little")
            texts.append(blob[begin:place].decode())
            if place > len(blob):
                break
        if place != len(blob):
            ends = f"text {len(texts) - 1} (from 0) ends" if texts else "these end"
            raise DataError(
                f"tensor {name!r}: expected {count(size, 'text')} in its {len(blob)} bytes, each "
                f"preceded by its length in four bytes; {ends} at byte {place}"
            )
        return texts
    if len(blob) != size * _NUMPY[kind].itemsize:
        raise DataError(f"tensor {name!r}: its {len(blob)} bytes are not {size} values of {kind}")
    return pa.array(np.frombuffer(blob, _NUMPY[kind]))


def write_answer(
    answer: pa.RecordBatch, request: Request, model: str
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of an answer. Raises DataError for an unknown output."""
    described, blobs = [], []
    for name, binary in _outputs(request, answer.schema):
        column = _without_nulls(answer.column(name))
        tensor: dict[str, Any] = {"name": name, "datatype": _datatype(column.type)}
        tensor["shape"] = [len(column)]
        if not binary:
            tensor["data"] = column.to_pylist()
        else:
            if pa.types.is_string(column.type):
                texts = [text.encode() for text in column.to_pylist()]
                blob = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
            else:
                values = column.to_numpy(zero_copy_only=False)
                blob = values.astype(_NUMPY[tensor["datatype"]], copy=False).tobytes()
            blobs.append(blob)
            tensor["parameters"] = {"binary_data_size": len(blob)}
        described.append(tensor)
    text = orjson.dumps({"model_name": model, "outputs": described, **request.named})
    if not blobs:
        return text, {"content-type": "application/json"}
    return b"".join([text, *blobs]), {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(text)),
    }


def _outputs(request: Request, answer: pa.Schema) -> Sequence[tuple[str, bool]]:
    for name, _ in request.outputs:
        if name not in answer.names:
            raise DataError(f"output {name!r:.80}: expected one of {answer.names}")
    return request.outputs or [(name, request.binary) for name in answer.names]


def _without_nulls(column: pa.Array) -> pa.Array:
    """Return a column for a tensor, which has no nulls: nulls become NaN, "", 0 or False.

    Times become integers. Values of types without a datatype become text: JSON if nested.
    """
    if pa.types.is_temporal(column.type):
        wide = column.type.bit_width == 64
        column = column.view(pa.int64() if wide else pa.int32()).cast(pa.int64())
    elif pa.types.is_nested(column.type) or "binary" in str(column.type):
        texts = ["" if value is None else _text(value) for value in column.to_pylist()]
        return pa.array(texts, pa.string())
    elif _datatype(column.type) == "BYTES":
        return column.cast(pa.string()).fill_null("")
    if pa.types.is_boolean(column.type):
        return column.fill_null(False)
    return column.fill_null(float("nan") if pa.types.is_floating(column.type) else 0)


def _text(value: Any) -> str:
    return as_text(value) if type(value) is bytes else orjson.dumps(value, as_text).decode()
