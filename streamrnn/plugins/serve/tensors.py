"""The Open Inference Protocol V2: requests and answers as tensors, in JSON or binary after it.

https://github.com/open-inference/open-inference-protocol; its binary tensor data extension.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.errors import DataError
from streamrnn.plugins.serve.values import JsonColumns

_NUMPY = {
    "BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
}  # fmt: skip
_NAMES = {
    pa.bool_(): "BOOL", pa.float16(): "FP16", pa.float32(): "FP32", pa.float64(): "FP64",
    **{getattr(pa, name.lower())(): name for name in _NUMPY if "INT" in name},
}  # fmt: skip


def datatype(kind: pa.DataType) -> str:
    """Return the datatype of a column: that of a time is INT64, in its unit; of text BYTES."""
    if pa.types.is_temporal(kind):
        return "INT64"
    return _NAMES.get(kind, "BYTES")


def tensors_of(schema: pa.Schema) -> list[dict[str, Any]]:
    """Return the description of columns as tensors of shape [rows]."""
    return [{"name": f.name, "datatype": datatype(f.type), "shape": [-1]} for f in schema]


def read_request(
    body: bytes, header_length: str | None, columns: JsonColumns
) -> tuple[pa.RecordBatch, dict[str, Any]]:
    """Return the rows of a request, and its JSON without them. Raises DataError."""
    length = len(body) if header_length is None else _length(header_length, len(body))
    try:
        request = orjson.loads(body[:length])
        inputs = {tensor["name"]: tensor for tensor in request.pop("inputs")}
        binary, rows = body[length:], None
        arrays: dict[str, pa.Array] = {}
        for name, tensor in inputs.items():
            (size,) = tensor["shape"]
            if type(size) is not int or size < 0 or rows not in (None, size):
                raise DataError(f"tensor {name!r}: expected shape [rows], received [{size!r:.40}]")
            rows = size
            taken = tensor.get("parameters", {}).get("binary_data_size")
            if taken is None:
                values = tensor["data"]
            else:
                values = _from_bytes(name, tensor["datatype"], binary[:taken], size)
                binary = binary[taken:]
            if len(values) != size:
                raise DataError(f"tensor {name!r}: expected {size} values, received {len(values)}")
            if name in columns.schema.names:
                arrays[name] = columns.array(name, values)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            "expected a request of the Open Inference Protocol V2 with inputs of shape [rows], "
            f"received {body[:40]!r}: {type(error).__name__}: {error}"
        ) from None
    return columns.filled(arrays, rows or 0), request


def _length(text: str, most: int) -> int:
    if text.isdecimal() and len(text) < 12 and int(text) <= most:
        return int(text)
    raise DataError(
        f"Inference-Header-Content-Length: expected at most {most}, received {text!r:.40}"
    )


def _from_bytes(name: str, kind: str, data: bytes, size: int) -> Any:
    if kind == "BYTES":
        return list(_texts(data))
    if kind not in _NUMPY or len(data) != size * np.dtype(_NUMPY[kind]).itemsize:
        raise DataError(f"tensor {name!r}: expected {size} values of {kind!r:.20} in its bytes")
    return np.frombuffer(data, _NUMPY[kind])


def _texts(data: bytes) -> Iterator[str]:
    """Yield texts, before each of which its length is, in four bytes."""
    place = 0
    while place < len(data):
        end = place + 4 + int.from_bytes(data[place : place + 4], "little")
        yield data[place + 4 : end].decode()
        place = end


def write_answer(
    answer: pa.RecordBatch, request: Mapping[str, Any], model: str
) -> tuple[bytes, dict[str, str]]:
    """Return the body of an answer, and its headers. Raises DataError for an unknown output."""
    outputs = request.get("outputs") or [{"name": name} for name in answer.schema.names]
    as_bytes = request.get("parameters", {}).get("binary_data_output", False)
    described, blobs = [], []
    for output in outputs:
        name, wanted = output.get("name"), output.get("parameters", {})
        if name not in answer.schema.names:
            raise DataError(f"output {name!r:.80}: expected one of {answer.schema.names}")
        column = _without_nulls(answer.column(name))
        tensor = {"name": name, "datatype": datatype(column.type), "shape": [len(column)]}
        if wanted.get("binary_data", as_bytes):
            blobs.append(_bytes_of(column))
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = column.to_pylist()
        described.append(tensor)
    head: dict[str, Any] = {"model_name": model, "outputs": described}
    if "id" in request:
        head["id"] = request["id"]
    text = orjson.dumps(head)
    if not blobs:
        return text, {"content-type": "application/json"}
    return b"".join([text, *blobs]), {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(text)),
    }


def _without_nulls(column: pa.Array) -> pa.Array:
    """Return a column as a tensor has it: a number that is null is NaN, a text "", other types 0.

    Types that have no datatype are text.
    """
    if pa.types.is_temporal(column.type):
        wide = column.type.bit_width == 64
        column = column.view(pa.int64() if wide else pa.int32()).cast(pa.int64())
    elif datatype(column.type) == "BYTES":
        return pc.fill_null(column.cast(pa.string()), "")
    if pa.types.is_floating(column.type):
        return pc.fill_null(column, pa.scalar(float("nan"), column.type))
    return pc.fill_null(column, pa.scalar(0, pa.int64()).cast(column.type))


def _bytes_of(column: pa.Array) -> bytes:
    if pa.types.is_string(column.type):
        texts = [text.encode() for text in column.to_pylist()]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    data: bytes = (
        column.to_numpy(zero_copy_only=False).astype(_NUMPY[datatype(column.type)]).tobytes()
    )
    return data
