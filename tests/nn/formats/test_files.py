"""Files that Keras, PyTorch and ONNX exporters wrote, beyond the contracts of all of them."""

import json
import pickle
import sys

import numpy as np
import pytest
from contracts.rows_models import FILES, RECORDED, STACKED, TORCH

import streamrnn
from streamrnn import Input, Sequential, layers
from streamrnn.errors import ConfigError, MissingFileError, ModelFileError, UnsupportedError
from streamrnn.models import StepRunner
from streamrnn.nn.formats import dispatch
from streamrnn.nn.formats.convert import convert
from streamrnn.nn.formats.dispatch import read
from streamrnn.nn.formats.guard import Loaded, reading


def recorded(name, kind):
    return [RECORDED[key] for key in sorted(RECORDED) if key.startswith(f"{name}/{kind}_")]


def needs(path):
    pytest.importorskip("onnx" if path.suffix == ".onnx" else "h5py", reason="needs the extra")
    return path


def outputs(model, name):
    arrays = recorded(name, "x")
    made = model(arrays if len(arrays) > 1 else arrays[0])
    made = list(made.values()) if isinstance(made, dict) else made
    return made if isinstance(made, list) else [made]


def assert_as_recorded(model, name):
    for ours, theirs in zip(outputs(model, name), recorded(name, "y"), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_torch_weights():
    """Depth, directions and sizes come from names and shapes."""
    model = streamrnn.load_model(FILES / "torch.safetensors", layers=TORCH, strict=True)
    assert_as_recorded(model, "torch")
    assert [layer.name for layer in model.layers] == ["emb", "enc_l0", "enc_l1", "dec", "norm", "out"]  # fmt: skip  # noqa: E501


def test_keras_weights_with_tables():
    """A weights-only file, its architecture in tables; the number of features is seen."""
    needs(FILES / "stacked_cells.weights.h5")
    model = streamrnn.load_model(FILES / "stacked_cells.weights.h5", layers=STACKED, strict=True)
    assert_as_recorded(model, "stacked_cells")
    assert model.input_specs[0][1] == (None, 2)


def test_what_is_left_is_listed():
    """Picked by prefix, a file may hold more; strict refuses it."""
    path = FILES / "torch.safetensors"
    loaded = read(path, layers=TORCH[:1])
    assert len(loaded.left) == 24
    assert "not used: dec.bias_hh_l0" in loaded.table()
    with pytest.raises(ModelFileError, match=r"strict: 24 stored arrays are not used: dec\.bias"):
        read(path, layers=TORCH[:1], strict=True)


def test_one_group_of_a_keras_file():
    """`weights` names a group in an HDF5 file as well."""
    needs(FILES / "stacked_cells.weights.h5")
    table = {**STACKED[0], "weights": "layers/rnn"}
    loaded = read(FILES / "stacked_cells.weights.h5", layers=[table])
    assert len(loaded.assignments) == 12
    assert loaded.left == [f"layers/rnn_1/cell/vars/{i}" for i in range(3)]
    with pytest.raises(
        ConfigError, match=r"has no group 'layers/lstm' with arrays; its groups: layers/"
    ):
        read(FILES / "stacked_cells.weights.h5", layers=[{**STACKED[0], "weights": "layers/lstm"}])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"weights": "encoder"},
            "no array starts with 'encoder.'; the file has the prefixes 'dec'",
        ),
        (
            {"weights": None, "type": "Linear"},
            r"set the prefix of its weights, for instance weights = 'dec'",
        ),
        ({"units": 5}, r"units = 5, but the arrays imply 4"),
        (
            {"type": "GRU"},
            r"dec.weight_ih_l0 has shape \(16, 6\), expected 12 rows for GRU with 4 units",
        ),
        ({"type": "Dense"}, r"array 'dec.weight' not found"),
        ({"type": "Conv1D"}, r"Conv1D.*: PyTorch weights are read for LSTM, GRU"),
        ({"type": "LSMT"}, r"'LSMT' is not supported; did you mean 'LSTM'"),
        ({"colour": 1}, r"unknown argument 'colour'"),
    ],
)
def test_wrong_tables(change, expected):
    """What is wrong, where, and what there is instead."""
    table = {k: v for k, v in {**TORCH[2], **change}.items() if v is not None}
    with pytest.raises((ConfigError, ModelFileError, UnsupportedError), match=expected):
        streamrnn.load_model(FILES / "torch.safetensors", layers=[table])


def test_a_file_without_permission():
    """Nothing is wrong with its contents."""
    denied = pytest.raises(ModelFileError, match=r"m\.keras: cannot be read: permission denied")
    with denied, reading("m.keras"):
        raise PermissionError(13, "Permission denied", "m.keras")


def test_tables_from_toml(tmp_path):
    """As `convert --layers FILE` has them."""
    lines = [f'[[layers]]\ntype = "{t["type"]}"\nweights = "{t["weights"]}"\n' for t in TORCH]
    (tmp_path / "layers.toml").write_text("".join(lines))
    model = streamrnn.load_model(FILES / "torch.safetensors", layers=tmp_path / "layers.toml")
    assert_as_recorded(model, "torch")


def test_missing_and_unused_arrays_are_both_listed():
    """A model of another shape gets all that is wrong at once, and keeps its weights."""
    needs(FILES / "stacked_cells.weights.h5")
    model = Sequential([Input((None, 2)), layers.RNN(layers.LSTMCell(5), name="other")])
    with pytest.raises(ModelFileError, match="has 2 layers of class rnn, but the model has 1"):
        model.load_weights(FILES / "stacked_cells.weights.h5")
    model = Sequential([Input((None, 2)), layers.LSTM(2, name="lstm")])
    before = model.get_weights()
    with pytest.raises(ModelFileError) as caught:
        model.load_weights(FILES / "stacked_cells.weights.h5")
    assert "missing from the file: lstm/cell/kernel (2, 8)" in str(caught.value)
    assert "arrays that no layer uses: layers/rnn/cell/cells/gru_cell/vars/0" in str(caught.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))


def test_stateful_as_the_file_says():
    """The state of calls is the file's own; the batch size that of the first call."""
    needs(FILES / "every_cell.keras")
    model = streamrnn.load_model(FILES / "every_cell.keras")
    assert not any(getattr(layer, "stateful", False) for layer in model.layers)


@pytest.mark.parametrize("name", ["torch_old", "torch_dynamo"])
def test_states_of_a_graph(name):
    """h and c are inputs that hn and cn carry on, found by following the graph, or named."""
    pytest.importorskip("streamrnn.plugins.onnx", reason="a plug-in")
    path = needs(FILES / f"{name}.onnx")
    x, h, c = recorded(name, "x")
    for state in (None, {"h": "hn", "c": "cn"}):
        model = streamrnn.load_model(path, state=state)
        stream = StepRunner(model)
        assert stream.outputs == [("y", 2)]
        assert model.input_specs == [("x", (None, 3), "float32")]
        begin = {"graph/h": h, "graph/c": c}
        states = {
            n: np.ascontiguousarray(a.swapaxes(0, 1).reshape(2, -1)) for n, a in begin.items()
        }
        parts = [stream.run([x[:, a:b]], None, states)[0] for a, b in ((0, 2), (2, 3), (3, 5))]
        y, hn, _ = recorded(name, "y")
        np.testing.assert_allclose(np.concatenate(parts, 1), y, atol=1e-5)
        np.testing.assert_allclose(states["graph/h"].reshape(2, 2, 4).swapaxes(0, 1), hn, atol=1e-5)


def test_wrong_states_of_a_graph():
    """Names that the graph does not have."""
    pytest.importorskip("streamrnn.plugins.onnx", reason="a plug-in")
    path = needs(FILES / "torch_old.onnx")
    with pytest.raises(ConfigError, match=r"'z' is not an input of the graph; it has x, h, c"):
        streamrnn.load_model(path, state={"z": "hn"})
    with pytest.raises(
        ConfigError, match=r"state\.h: 'z' is not an output of the graph; it has y, hn"
    ):
        streamrnn.load_model(path, state={"h": "z"})
    with pytest.raises(ConfigError, match="state is for ONNX graphs"):
        streamrnn.load_model(FILES / "torch.safetensors", state={"h": "hn"})


def test_a_format_of_a_plugin_takes_the_options_in_its_signature(tmp_path, monkeypatch):
    received = []

    def read_mine(path, *, layers=None):
        received.append(layers)
        return Loaded(Sequential([Input((2,))]), [], [])

    monkeypatch.setattr(dispatch, "plugin_names", lambda kind: ["mine"])
    monkeypatch.setattr(dispatch, "load_plugin", lambda kind, name: read_mine)
    path = tmp_path / "m.mine"
    path.write_bytes(b"")
    streamrnn.load_model(path, layers=[{"type": "GRU"}])
    assert received == [[{"type": "GRU"}]]
    with pytest.raises(ConfigError, match="node is for ONNX graphs, not"):
        streamrnn.load_model(path, node="/rnn/LSTM")


def test_one_node_of_a_graph():
    """A recurrent node becomes a layer that runs by itself, the rest is listed."""
    pytest.importorskip("streamrnn.plugins.onnx", reason="a plug-in")
    path = needs(FILES / "torch_old.onnx")
    loaded = read(path, node="/rnn/LSTM")
    (layer,) = loaded.model.layers
    assert isinstance(layer, layers.LSTM)
    assert layer.units == 4
    assert len(loaded.left) == 5
    x, h, c = recorded("torch_old", "x")
    whole = streamrnn.load_model(path)
    _, hn, _ = whole(x, h, c).values()
    np.testing.assert_array_equal(layer(x, initial_state=[h[0], c[0]])[:, -1], hn[0])
    with pytest.raises(ConfigError, match=r"no recurrent node 'LSTM'; it has '/rnn/LSTM', "):
        read(path, node="LSTM")


def test_convert_checks(tmp_path):
    """Differences to what was recorded; arrays that do not fit; files that are none."""
    check = tmp_path / "check.npz"
    (ids,), (y,) = recorded("torch", "x"), recorded("torch", "y")
    np.savez(check, x=ids, y=y)
    source, target = FILES / "torch.safetensors", tmp_path / "m.safetensors"
    _, differences = convert(source, target, layers=TORCH, check=check)
    assert [d.output for d in differences] == ["out"]
    assert differences[0].absolute < 1e-5
    np.savez(check, x=ids, y=y + 0.5)
    _, (difference,) = convert(source, target, layers=TORCH, check=check)
    assert difference.absolute == pytest.approx(0.5, abs=1e-5)
    assert "largest difference 0.5" in str(difference)
    target.unlink()
    for arrays, expected in (
        (
            {"x": ids, "y": y[:1]},
            r"output 'out' is float32 \(2, 5, 2\), but the recorded one is .* \(1, 5, 2\)",
        ),
        ({"y": y}, "is not recorded: expected x, x_0"),
        ({"x": ids}, "expected recorded outputs as y, y_0"),
    ):
        np.savez(check, **arrays)
        with pytest.raises(streamrnn.errors.DataError, match=expected):
            convert(source, target, layers=TORCH, check=check)
    check.write_bytes(b"PK\3\4 nothing")
    with pytest.raises(streamrnn.errors.DataError, match=r"check\.npz"):
        convert(source, target, layers=TORCH, check=check)
    assert not target.exists()


class Opened:
    """Fails once a pickle of it is read."""

    def __reduce__(self):
        return sys.exit, ("opened",)


def test_the_name_of_a_pickle_cannot_add_lines_to_the_recipe(tmp_path):
    name = 'm"\nimport os\n.pt'
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UnsupportedError) as caught:
        streamrnn.load_model(tmp_path / name)
    recipe = str(caught.value).removeprefix(f"{tmp_path / name}: ")
    assert f"torch.load({json.dumps(name)}, map" in recipe
    assert "\nimport os" not in recipe


def test_pickles_and_unknown_endings(tmp_path):
    """A pickle is never opened: the message has the lines that make it a safetensors file."""
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Opened()))
    with pytest.raises(UnsupportedError) as caught:
        streamrnn.load_model(tmp_path / "model.pt")
    message = str(caught.value)
    assert 'torch.load("model.pt", map_location="cpu", weights_only=True)\n' in message
    assert 'save_file(weights, "model.safetensors")\n' in message
    assert "weights_only=False, which runs code of the file: set it only if you trust" in message
    with pytest.raises(MissingFileError, match="no such model file"):
        streamrnn.load_model(tmp_path / "none.pt")
    with pytest.raises(UnsupportedError, match=r"unknown suffix '\.tflite'; .*\.onnx$"):
        streamrnn.load_model("model.tflite")


def test_a_checkout_that_is_not_installed_says_how_to_get_plugins(monkeypatch):
    """Its entry points are in no distribution on sys.path."""
    monkeypatch.setattr(dispatch, "plugin_names", lambda kind: [])
    with pytest.raises(
        UnsupportedError, match=r"'\.onnx'; .* of a plug-in\. .* pip install -e \.$"
    ):
        streamrnn.load_model("model.onnx")
