"""The official client of the protocol, and ten lines of httpx, against a server."""

from collections.abc import Iterator

import logs
import numpy as np
import pytest
import serving

from streamrnn import Pipeline

httpx = pytest.importorskip("httpx", reason="needs the oracles extra")
http = pytest.importorskip("tritonclient.http", reason="needs the oracles extra")
LOG = logs.random_log(40, streams=4)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[serving.Server]:
    with serving.served(serving.make(tmp_path_factory.mktemp("clients"), rows=20)) as running:
        yield running


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    folder = serving.make(tmp_path_factory.mktemp("batch"))
    config = logs.config(str(folder / "in"), str(folder / "m.safetensors"), None)
    found: list[float] = Pipeline.from_dict(config).process(LOG)["score"].to_pylist()
    return found


@pytest.mark.parametrize("binary", [True, False])
def test_the_client_of_triton(server: serving.Server, scores: list[float], binary: bool) -> None:
    client = http.InferenceServerClient(f"127.0.0.1:{server.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("live")
    assert client.get_model_metadata("live")["outputs"][2]["name"] == "score"
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    values = {
        "id": np.array([f"{binary}{name}".encode() for name in LOG["id"].to_pylist()], object),
        "t": LOG["t"].to_numpy().astype("datetime64[us]").astype(np.int64),
        "a": LOG["a"].to_numpy(),
        "b": LOG["b"].to_numpy(),
    }
    types = {"id": "BYTES", "t": "INT64", "a": "FP64", "b": "INT32"}
    inputs = []
    for name, array in values.items():
        inputs.append(http.InferInput(name, [40], types[name]))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    outputs = [http.InferRequestedOutput(name, binary_data=binary) for name in ("score", "id")]
    answer = client.infer("live", inputs, outputs=outputs, request_id="a")
    assert answer.as_numpy("score").tolist() == scores
    found = [x if isinstance(x, str) else x.decode() for x in answer.as_numpy("id").tolist()]
    assert found == [name.decode() for name in values["id"]]
    client.close()


def test_ten_lines_of_httpx(server: serving.Server, scores: list[float]) -> None:
    rows = [{**row, "t": row["t"].isoformat()} for row in LOG.drop(["new"]).to_pylist()]
    found = []
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        for number, row in enumerate(rows):
            numbered = {"producer": "httpx", "sequence": number}
            for _ in range(2):  # a retry
                answer = client.post("/score", params=numbered, json=[row])
            (scored,) = answer.raise_for_status().json()
            found.append(scored["score"])
    assert found == scores
