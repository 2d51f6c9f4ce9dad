"""The message for a file of torch.save holds lines that convert it, and tables that load it."""

import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="needs the oracles extra")

from safetensors.torch import save_file  # noqa: E402

import streamrnn  # noqa: E402
from streamrnn.errors import ModelFileError, UnsupportedError  # noqa: E402

nn: Any = torch.nn


class Scorer(nn.Module):
    """Layers of several kinds in the order of their calls."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(9, 4)
        self.enc = nn.ModuleDict({"lstm": nn.LSTM(4, 6, num_layers=2, batch_first=True)})
        self.norm = nn.LayerNorm(6)
        self.gru = nn.GRU(6, 5, batch_first=True)
        self.rnn = nn.RNN(5, 3, batch_first=True)
        self.out = nn.Linear(3, 2)

    def forward(self, ids):
        y = self.norm(self.enc["lstm"](self.emb(ids))[0])
        return self.out(self.rnn(self.gru(y)[0])[0])


def checkpoint(module, **more):
    """A dict as training loops save it, with the state of an optimizer that has stepped."""
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 2, dtype=torch.int64)).sum().backward()
    optimizer.step()
    return {"epoch": 3, "loss": torch.tensor(0.5), "optimizer": optimizer.state_dict(), **more}


def save_state_dict(module, path):
    torch.save(module.state_dict(), path)


def save_module(module, path):
    torch.save(module, path)


def save_checkpoint(module, path):
    made = checkpoint(module)
    torch.save({**made, "model_state_dict": module.state_dict()}, path)


def save_nested(module, path):
    torch.save({"args": {"lr": 0.1}, "best": {"net": module.state_dict(), "score": 1.0}}, path)


def save_module_in_checkpoint(module, path):
    torch.save({**checkpoint(module), "model": module, "where": Path("x")}, path)


def save_as_before_1_6(module, path):
    torch.save(module.state_dict(), path, _use_new_zipfile_serialization=False)


def save_protocol_4(module, path):
    torch.save(module.state_dict(), path, pickle_protocol=4)


def save_tied(module, path):
    """Views and shared memory, which save_file refuses as they are."""
    state = module.state_dict()
    whole = torch.cat([state["out.bias"], state["out.bias"]])
    state["out.bias"] = whole[:2]
    state["out.weight"] = state["out.weight"].t().contiguous().t()
    torch.save(state, path)


SAVED = {
    save_state_dict: ("a state_dict", ""),
    save_module: ("a whole module of class", "weights_only=False runs code of the file"),
    save_checkpoint: ("a checkpoint with a state_dict under ['model_state_dict']", ""),
    save_nested: ("a checkpoint with a state_dict under ['best']['net']", ""),
    save_module_in_checkpoint: ("a checkpoint with a whole module of class", "only if you trust"),
    save_as_before_1_6: ("a state_dict", ""),
    save_protocol_4: ("a state_dict", "only if you trust"),
    save_tied: ("a state_dict", ""),
}


def advice(path):
    with pytest.raises(UnsupportedError) as caught:
        streamrnn.load_model(path)
    return str(caught.value)


def convert(message):
    """Run the lines of the message, and return its tables."""
    lines = message.splitlines()
    exec("\n".join(line[4:] for line in lines if line.startswith("    ")), {})
    tables = lines[next(i for i, line in enumerate(lines) if line.startswith("[[")) :]
    return tomllib.loads("\n".join(tables))["model"]["layers"]


def scorer():
    torch.manual_seed(4)
    return Scorer().eval()


@pytest.mark.parametrize("save", SAVED, ids=lambda save: save.__name__)
@pytest.mark.parametrize("main", [False, True], ids=["importable", "in-main"])
def test_the_recipe_converts_and_the_tables_load(save, main, tmp_path, monkeypatch):
    """Whatever was saved: outputs equal those of the module."""
    monkeypatch.chdir(tmp_path)
    if main:
        monkeypatch.setattr(Scorer, "__module__", "__main__")
        monkeypatch.setattr(sys.modules["__main__"], "Scorer", Scorer, raising=False)
    module = scorer()
    save(module, "m.pt")
    message = advice("m.pt")
    what, note = SAVED[save]
    assert f"It holds {what}" in message
    assert (note in message) if note else ("weights_only=True" in message)
    if "whole module" in what:
        assert f"class {Scorer.__module__}.Scorer" in message
        assert ("The class must be defined in the script." in message) == main
    layers = convert(message)
    model = streamrnn.load_model("m.safetensors", layers=layers, strict=True)
    ids = np.random.default_rng(0).integers(0, 9, (2, 5))
    with torch.no_grad():
        expected = module(torch.tensor(ids)).numpy()
    np.testing.assert_allclose(model(ids), expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    torch.jit.save(torch.jit.script(module), "m.pt")
    message = advice("m.pt")
    assert "It holds a TorchScript module" in message
    layers = convert(message)
    layers.insert(1, {"type": "Activation", "activation": "relu"})
    model = streamrnn.load_model("m.safetensors", layers=layers, strict=True)
    x = np.ones((2, 3, 3), np.float32)
    with torch.no_grad():
        expected = module(torch.tensor(x)).numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-6)


def test_half_precision_is_converted_to_float32(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = scorer().to(torch.bfloat16)
    save_state_dict(module, "m.pt")
    message = advice("m.pt")
    assert "tensor.float()" in message
    model = streamrnn.load_model("m.safetensors", layers=convert(message), strict=True)
    expected = module.out.bias.detach().float().numpy()
    np.testing.assert_array_equal(model.layers[-1].get_weights()[1], expected)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.LSTM(3, 4, proj_size=2), 'type = "LSTM"'),
        (nn.Conv1d(3, 4, 2), 'no layer can take "weight" (4, 3, 2), "bias" (4,)'),
        (nn.Linear(3, 4, bias=False), 'type = "Embedding"  # or "Linear" without a bias'),
        (nn.RNN(3, 4), 'type = "RNN"  # add nonlinearity = "relu" if it has that'),
        (nn.LSTMCell(3, 4), 'type = "LSTMCell"'),
        (nn.GRUCell(3, 4), 'type = "GRUCell"'),
        (nn.BatchNorm1d(3), 'type = "BatchNorm1d"'),
    ],
    ids=lambda v: type(v).__name__,
)
def test_the_type_of_a_layer_is_seen_from_its_arrays(module, expected, tmp_path):
    torch.save(nn.ModuleDict({"x": module}), tmp_path / "m.pt")
    message = advice(tmp_path / "m.pt")
    assert expected in message
    assert '= "x"' in message


@pytest.mark.parametrize("value", [torch.ones(3), [torch.ones(3)], {"epoch": 3}, {}])
def test_a_file_without_a_model(value, tmp_path):
    torch.save(value, tmp_path / "m.pt")
    expected = "It holds no model: no tensor in it has a name. Save model.state_dict()"
    assert expected in advice(tmp_path / "m.pt")


def test_a_state_dict_as_safetensors_without_tables_gets_them(tmp_path):
    """The file that the recipe writes, given to a pipeline as it is."""
    module = scorer()
    path = tmp_path / "m.safetensors"
    save_file(module.state_dict(), path)
    with pytest.raises(ModelFileError, match="is not a streamrnn model") as caught:
        streamrnn.load_model(path)
    message = str(caught.value)
    layers = tomllib.loads(message[message.index("[[model.layers]]\n") :])["model"]["layers"]
    calls = ["emb", "enc.lstm", "norm", "gru", "rnn", "out"]  # the file has them by name
    layers.sort(key=lambda layer: calls.index(layer["weights"]))
    model = streamrnn.load_model(path, layers=layers, strict=True)
    ids = np.random.default_rng(0).integers(0, 9, (2, 5))
    with torch.no_grad():
        expected = module(torch.tensor(ids)).numpy()
    np.testing.assert_allclose(model(ids), expected, atol=1e-5)
