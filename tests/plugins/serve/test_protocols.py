"""The Open Inference Protocol, Arrow bodies, metrics, states, admin calls; what is no request."""

import json
import os
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pytest
import serving
from selection import slow

from streamrnn import Pipeline

LOG = logs.random_log(40, streams=4)
ARROW = {"content-type": "application/vnd.apache.arrow.stream"}
V2 = "/v2/models/live"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return serving.make(tmp_path_factory.mktemp("protocols"), rows=20)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[serving.Server]:
    with serving.served(folder, "source.late=drop", "serve.queue_rows=1000") as running:
        yield running


def table(prefix: str, rows: int = 40) -> pa.Table:
    """Rows of the log in streams of their own."""
    names = pa.array([prefix + name for name in LOG["id"].to_pylist()])
    return LOG.set_column(0, "id", names).drop(["new"]).slice(0, rows)


@pytest.fixture(scope="module")
def scores(folder: Path) -> list[float]:
    """What a pipeline computes for the rows of the log."""
    config = logs.config(str(folder / "in"), str(folder / "m.safetensors"), None)
    found: list[float] = Pipeline.from_dict(config).process(LOG)["score"].to_pylist()
    return found


def stream(data: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, allow_64bit=True)
    with pa.ipc.new_stream(sink, data.schema, options=options) as writer:
        writer.write_table(data)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("path", ["/score", f"{V2}/infer"])
def test_an_arrow_body_has_an_arrow_answer(
    server: serving.Server, scores: list[float], path: str
) -> None:
    """Whatever the order of its columns, and types that are cast."""
    data = table(path).select(["b", "a", "t", "id"])
    data = data.set_column(0, "b", data["b"].cast(pa.int64()))
    status, body = server.send(path, stream(data), ARROW)
    assert status == 200
    answer = pa.ipc.open_stream(body).read_all()
    assert answer["score"].to_pylist() == scores
    assert answer["t"].type == LOG["t"].type


def test_a_small_body_does_not_become_large(server: serving.Server) -> None:
    """More rows than may wait are refused before any array is made of them."""
    nulls = [pa.Array.from_buffers(pa.null(), rows, [None]) for rows in (1001, 2**31, 2**50)]
    v2 = {"inputs": [tensor("id", "BYTES", [""] * 1001)]}
    requests = [
        ("/score", json.dumps([{}] * 1001).encode(), {}),
        *(("/score", stream(pa.table({"a": column})), ARROW) for column in nulls),
        (f"{V2}/infer", json.dumps(v2).encode(), {}),
    ]
    for path, body, headers in requests:
        status, answer = server.send(path, body, headers)
        assert (status, b"at most 1000 rows (queue_rows of [serve])" in answer) == (413, True)
    for compression in ("lz4", "zstd"):
        status, answer = server.send("/score", stream(table("zip-"), compression), ARROW)
        assert (status, b"without compression" in answer) == (400, True), answer
    dictionary = (
        table("zip-").select([0]).set_column(0, "id", [table("zip-")["id"].dictionary_encode()])
    )
    assert b"without compression" in server.send("/score", stream(dictionary, "zstd"), ARROW)[1]
    mixed = {"content-type": "Application/vnd.Apache.arrow.Stream ; x=y"}
    assert server.send("/score", stream(table("mixed-")), mixed)[0] == 200


@pytest.mark.parametrize("zone", ["UTC", "Nowhere"])
def test_a_time_beyond_that_of_python_is_named(server: serving.Server, zone: str) -> None:
    """In whatever zone; rows that are none have no value to name."""
    data = table("far-", 1)
    far = data.set_column(1, "t", pa.array([2**55], pa.timestamp("s", zone)))
    status, answer = server.send("/score", stream(far), ARROW)
    assert (status, b"column 't': expected timestamp[us, tz=UTC], received " in answer) == (
        400,
        True,
    )
    assert b"None" not in answer
    none = far.set_column(1, "t", pa.array([b""], pa.binary(0))).slice(0, 0)
    status, answer = server.send("/score", stream(none), ARROW)
    assert (status, b"received None" in answer) == (400, True)


def tensor(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


def test_tensors_in_json(server: serving.Server, scores: list[float]) -> None:
    """Times as integers, then as text; a null is accepted, and a null output is a NaN: null."""
    data = table("v2-")
    inputs = [
        tensor("id", "BYTES", data["id"].to_pylist()),
        tensor("t", "INT64", data["t"].cast(pa.int64()).to_pylist()),
        tensor("a", "FP64", data["a"].to_pylist()),
        tensor("b", "INT32", data["b"].to_pylist()),
    ]
    status, body = server.send(f"{V2}/infer", json.dumps({"id": "7", "inputs": inputs}).encode())
    answer = json.loads(body)
    assert (status, answer["id"], answer["model_name"]) == (200, "7", "live")
    found = {output["name"]: output for output in answer["outputs"]}
    assert found["score"] == tensor("score", "FP32", scores)
    assert found["t"]["data"] == inputs[1]["data"]
    assert set(found["reason"]["data"]) == {""}
    late = [
        tensor("id", "BYTES", [data["id"][-1].as_py()]),
        tensor("t", "BYTES", ["2020-01-01T00:00:00Z"]),
        tensor("a", "FP64", [None]),
        tensor("b", "INT32", [1]),
    ]
    request = {"inputs": late, "outputs": [{"name": "score"}, {"name": "reason"}]}
    status, body = server.send(f"{V2}/infer", json.dumps(request).encode())
    assert status == 400  # a null that is an error
    late[2]["data"] = [1.0]
    status, body = server.send(f"{V2}/infer", json.dumps(request).encode())
    score, reason = json.loads(body)["outputs"]
    assert (status, score["data"], reason["data"]) == (200, [None], ["late"])


def test_tensors_in_binary(server: serving.Server, scores: list[float]) -> None:
    data = table("binary-")
    texts = b"".join(struct.pack("<i", len(t)) + t.encode() for t in data["id"].to_pylist())
    blobs = {
        "id": ("BYTES", texts),
        "t": ("INT64", data["t"].cast(pa.int64()).to_numpy().tobytes()),
        "a": ("FP64", data["a"].to_numpy().tobytes()),
        "b": ("INT32", data["b"].to_numpy().tobytes()),
    }
    head = json.dumps(
        {
            "inputs": [
                {"name": name, "datatype": kind, "shape": [40],
                 "parameters": {"binary_data_size": len(blob)}}
                for name, (kind, blob) in blobs.items()
            ],
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "score"}, {"name": "id", "parameters": {"binary_data": False}}],
        }
    ).encode()  # fmt: skip
    body = b"".join([head, *(blob for _, blob in blobs.values())])
    headers = {"Inference-Header-Content-Length": str(len(head))}
    status, answer = server.send(f"{V2}/infer", body, headers)
    assert status == 200, answer
    assert np.frombuffer(answer[-160:], "<f4").tolist() == scores
    assert json.loads(answer[:-160])["outputs"][1]["data"] == data["id"].to_pylist()


@pytest.mark.parametrize(
    ("blob", "sizes", "text"),
    [
        (b"\5\0\0\0he", [6], "text 0 (from 0) ends at byte 9"),
        (b"\2\0\0\0he\1\0", [8], "text 0 (from 0) ends at byte 6"),
        (b"\2\0\0", [3], "text 0 (from 0) ends at byte 6"),
        (b"\2\0\0\0he", [1000], "expected a binary_data_size up to 6"),
        (b"\2\0\0\0he", [-1], "expected a binary_data_size up to 6"),
        (b"\2\0\0\0he", [True], "expected a binary_data_size up to 6"),
        (b"\2\0\0\0hexx", [6], "bytes of JSON and binary tensors, received"),
        (b"\2\0\0\0he\2\0\0\0he", [6, 7], "expected a binary_data_size up to 6"),
    ],
)
def test_bytes_of_tensors_are_exact(
    server: serving.Server, blob: bytes, sizes: list[Any], text: str
) -> None:
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
        for name, size in zip(("id", "other"), sizes, strict=False)
    ]
    head = json.dumps({"inputs": inputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    status, answer = server.send(f"{V2}/infer", head + blob, headers)
    assert (status, text in json.loads(answer)["error"]) == (400, True), answer


@pytest.mark.parametrize(
    "wrong", [{"outputs": [{"name": "none"}]}, {"outputs": [1]}, {"parameters": [1]}]
)
def test_an_output_that_is_wrong_adds_no_row(server: serving.Server, wrong: dict[str, Any]) -> None:
    inputs = [tensor("id", "BYTES", ["unscored"]), tensor("t", "INT64", [0])]
    inputs += [tensor("a", "FP64", [1.0]), tensor("b", "INT32", [1])]
    status, answer = server.send(f"{V2}/infer", json.dumps({"inputs": inputs, **wrong}).encode())
    assert (status, b"expected" in answer) == (400, True), answer
    assert server.send("/state/unscored")[0] == 404


TYPES = "BOOL, FP16, FP32, FP64, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, BYTES"


@pytest.mark.parametrize(
    ("place", "wrong", "text"),
    [
        (
            "tensor",
            {"datatype": "FP99"},
            f"tensor 'a': datatype: expected {TYPES}, received 'FP99'",
        ),
        ("tensor", {"datatype": None}, f"tensor 'a': datatype: expected {TYPES}, received None"),
        ("tensor", {"datatype": ["FP64"]}, f"datatype: expected {TYPES}, received ['FP64']"),
        ("tensor", {"name": 5}, "name of a tensor: expected text, received 5"),
        ("tensor", {"data": "1"}, "tensor 'a': data: expected a list, received '1'"),
        ("tensor", {"shape": 1}, "tensor 'a': shape: expected a list, received 1"),
        ("tensor", {"shape": [1, 1]}, "tensor 'a': expected shape [rows]"),
        ("tensor", {"parameters": [1]}, "tensor 'a': parameters: expected an object, received [1]"),
        ("tensor", {"parameters": []}, "tensor 'a': parameters: expected an object, received []"),
        ("tensor", {"data": ["1"]}, "'a': row 0 (from 0): expected FP64, received '1'"),
        ("tensor", {"data": [True]}, "'a': row 0 (from 0): expected FP64, received True"),
        ("tensor", {"datatype": "INT64", "data": [1.5]}, "expected INT64, received 1.5"),
        ("tensor", {"datatype": "INT8", "data": [300]}, "expected INT8, received 300"),
        ("tensor", {"datatype": "UINT8", "data": [-1]}, "expected UINT8, received -1"),
        ("tensor", {"datatype": "BOOL", "data": [2]}, "expected BOOL, received 2"),
        ("tensor", {"datatype": "BYTES", "data": [3]}, "expected BYTES, received 3"),
        ("request", {"outputs": {}}, "outputs: expected a list, received {}"),
        ("request", {"parameters": False}, "parameters: expected an object, received False"),
        ("request", {"id": 7}, "id: expected text, received 7"),
        ("request", {"parameters": "x"}, "parameters: expected an object, received 'x'"),
        ("request", {"parameters": {"binary_data_output": "no"}}, "expected true or false"),
        ("request", {"inputs": {"a": 1}}, "inputs: expected a list, received {'a': 1}"),
        ("request", {"inputs": [1]}, "tensor: expected an object, received 1"),
        ("request", {"outputs": {"name": "score"}}, "outputs: expected a list"),
        ("request", {"outputs": [{"name": 1}]}, "name of an output: expected text, received 1"),
        (
            "request",
            {"outputs": [{"name": "score", "parameters": {"binary_data": 1}}]},
            "output 'score': binary_data: expected true or false, received 1",
        ),
    ],
)
def test_a_field_of_the_protocol_that_is_wrong_is_named(
    server: serving.Server, place: str, wrong: dict[str, Any], text: str
) -> None:
    """With what it may be; and no row is scored."""
    inputs = [tensor("id", "BYTES", ["unread"]), tensor("t", "INT64", [0])]
    inputs += [tensor("b", "INT32", [1]), tensor("a", "FP64", [1.0])]
    request = {"inputs": inputs}
    (inputs[-1] if place == "tensor" else request).update(wrong)
    status, answer = server.send(f"{V2}/infer", json.dumps(request).encode())
    assert (status, text in json.loads(answer)["error"]) == (400, True), answer
    assert server.send("/state/unread")[0] == 404


def test_metadata_metrics_and_states(server: serving.Server) -> None:
    described = json.loads(server.send(V2)[1])
    assert [tensor["datatype"] for tensor in described["inputs"]] == [
        "BYTES", "INT64", "FP64", "INT32"
    ]  # fmt: skip
    assert described["outputs"][2] == {"name": "score", "datatype": "FP32", "shape": [-1]}
    assert server.send("/v2/models/other")[0] == 404
    assert server.send(f"{V2}/ready") == (200, b'{"ready":true}\n')
    assert json.loads(server.send("/v2")[1])["extensions"] == ["binary_tensor_data"]
    server.score(table("state-", 1).to_pylist())
    assert "streamrnn_forgotten_producers 0.0" in server.send("/metrics")[1].decode()
    text = server.send("/metrics")[1].decode()
    assert 'streamrnn_request_seconds_count{status="200"}' in text
    (name,) = table("state-", 1)["id"].to_pylist()
    status, state = server.send(f"/state/{name}")
    assert (status, json.loads(state)["steps"]) == (200, 1)
    assert server.send("/state/nobody")[0] == 404
    openapi = json.loads(server.send("/openapi.json")[1])
    rows = openapi["paths"]["/score"]["post"]["requestBody"]["content"]["application/json"]
    assert list(rows["schema"]["items"]["properties"]) == ["id", "t", "a", "b"]
    assert "get" in openapi["paths"]["/state/{key}"]
    slashed = table("a/b/", 1).to_pylist()
    assert server.score(slashed)[0] == 200
    assert server.send(f"/state/{slashed[0]['id']}")[0] == 200
    assert server.send(f"/state/{slashed[0]['id'].replace('/', '%2F')}")[0] == 200
    assert server.send("/state/a/b")[0] == 404


def test_each_refusal_is_counted(server: serving.Server) -> None:
    assert [server.send(path)[0] for path in ("/none", "/score")] == [404, 405]
    text = server.send("/metrics")[1].decode()
    for status in (404, 405):
        assert f'streamrnn_request_seconds_count{{status="{status}"}}' in text


def test_a_page_in_a_browser_is_refused(server: serving.Server) -> None:
    """A browser on this machine lets any page send a request, though not read the answer."""
    row = table("page-", 1).to_pylist()
    body = json.dumps(row, default=str).encode()
    own = f"http://127.0.0.1:{server.port}"
    for origin in ("http://example.org", "null", own, f"{own}.example.org", ""):
        assert server.send("/score", body, {"origin": origin, "host": "example.org"})[0] == 403
        assert server.send(V2, None, {"origin": origin})[0] == 403
    assert server.send(f"/state/{row[0]['id']}")[0] == 404


def test_a_page_whose_host_leads_to_this_machine_is_refused(server: serving.Server) -> None:
    """Its GET has no Origin (DNS rebinding)."""
    for host in ("example.org", "127.0.0.1.example.org", "localhost.example.org:80", ""):
        status, answer = server.send(V2, None, {"host": host})
        assert (status, b"--behind-proxy" in answer) == (403, True)
    for host in ("localhost", "LOCALHOST:8080", "127.0.0.1", "[::1]:8080"):
        assert server.send(V2, None, {"host": host})[0] == 200


@slow
def test_lists_are_text_in_tensors(tmp_path: Path) -> None:
    """Slow: a server whose rows have lists."""
    logs.small_model().save(tmp_path / "m.safetensors")
    lists = pa.array([[1, 2]] * len(LOG), pa.list_(pa.int64()))
    more = LOG.append_column("more", lists).append_column("blob", pa.array([b"\xff"] * len(LOG)))
    logs.write(more, tmp_path / "in/0.parquet")
    (tmp_path / "live.toml").write_text(serving.PIPELINE)
    inputs = [tensor("id", "BYTES", ["x", "y"]), tensor("t", "INT64", [0, 0])]
    inputs += [tensor("a", "FP64", [1.0, 1.0]), tensor("b", "INT32", [1, 1])]
    inputs += [tensor("more", "BYTES", [[3, None], None]), tensor("blob", "BYTES", ["é", None])]
    columns = 'output.columns=["id", "more", "blob"]'
    with serving.served(tmp_path, columns) as server:
        for binary in (False, True):
            request = {"inputs": inputs, "parameters": {"binary_data_output": binary}}
            status, body = server.send(f"{V2}/infer", json.dumps(request).encode())
            assert status == 200, body
            assert b"[3,null]" in body
            if not binary:
                found = {output["name"]: output for output in json.loads(body)["outputs"]}
                assert found["more"] == tensor("more", "BYTES", ["[3,null]", ""])
                assert found["blob"] == tensor("blob", "BYTES", ["é", ""])
        assert server.score([{"id": "z", "t": 0, "a": 1, "b": 1, "blob": "é"}])[1][0]["blob"] == "é"
        assert server.stop() == 0


def test_admin_calls_are_for_this_machine(server: serving.Server, folder: Path) -> None:
    """Not for a page of the web, nor through a proxy."""
    for header in ({"origin": "http://x"}, {"x-forwarded-for": "10.0.0.1"}):
        assert server.send("/admin/commit", b"", header)[0] == 403
    assert server.send("/admin/commit", b"") == (200, b'{"committed":true}\n')
    assert (folder / "out/_streamrnn").exists()
    logs.small_model().save(folder / "m2.safetensors")
    body = json.dumps({"path": "m2.safetensors", "on_change": "carry"}).encode()
    assert server.send("/admin/model", body) == (200, b'{"loaded":true}\n')
    for wrong in (b"", b"{},{}"):
        status, answer = server.send("/admin/model", wrong)
        assert (status, b'expected {\\"path\\"' in answer) == (400, True), answer
    for wrong in (b"{}", b"[]", b"x", b'{"path": "none.safetensors"}'):
        status, answer = server.send("/admin/model", wrong)
        assert status in (400, 409)
        assert str(folder).encode() not in answer
    assert server.score(table("after-", 2).to_pylist())[0] == 200


def test_no_request_makes_it_fail(server: serving.Server) -> None:
    """Random bytes, and requests of each kind with some bytes changed or missing."""
    rng = random.Random(5)
    v2 = json.dumps({"inputs": [tensor("id", "BYTES", ["x"]), tensor("a", "FP64", [1.0])]}).encode()
    kinds: list[tuple[str, bytes, dict[str, str]]] = [
        ("/score", json.dumps(table("f", 2).to_pylist(), default=str).encode(), {}),
        ("/score", stream(table("f", 2)), ARROW),
        (f"{V2}/infer", v2, {}),
        (f"{V2}/infer", v2 + bytes(8), {"Inference-Header-Content-Length": str(len(v2))}),
        ("/admin/model", b'{"path": "x", "on_change": "y"}', {}),
    ]
    for number in range(int(os.environ.get("STREAMRNN_FUZZ", "200"))):
        path, body, headers = kinds[number % len(kinds)]
        changed = bytearray(body)
        for _ in range(rng.randint(1, 6)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        status, answer = server.send(
            path, bytes(changed[: rng.randint(1, 2 * len(changed))]), headers
        )
        assert status in (200, 400, 409, 413), (path, bytes(changed), answer)
        assert b"Traceback" not in answer
    for number in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(rng.randbytes(rng.randint(1, 300)) if number % 2 else b"POST /score HTTP/9")
    assert server.send("/v2/health/ready")[0] == 200
