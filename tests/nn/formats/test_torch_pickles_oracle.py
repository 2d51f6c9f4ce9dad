"""The lines in the message for a file of torch.save convert it; the next message has its layers."""

import pickle
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


IN_A_CHECKPOINT = '["model_state_dict"]'
SAVED = {
    save_state_dict: "",
    save_checkpoint: IN_A_CHECKPOINT,
    save_as_before_1_6: "",
    save_tied: "",
}
NEEDS_TRUST = {
    save_module: ".state_dict()",
    save_module_in_checkpoint: '["model"].state_dict()',
    save_protocol_4: "",
}
"""Of each: what the message adds to the weights that were loaded."""


def message_of(path):
    with pytest.raises((UnsupportedError, ModelFileError)) as caught:
        streamrnn.load_model(path)
    return str(caught.value)


def convert(message, taken):
    """Run the lines of the message, taking the weights from what is loaded."""
    lines = [line[4:] for line in message.splitlines() if line.startswith("    ")]
    exec("\n".join(f"{n}{taken}" if n.startswith("weights = torch.") else n for n in lines), {})


def suggested(path):
    """Return the tables that the message for a file without layers suggests."""
    message = message_of(path)
    return tomllib.loads(message[message.index("[[model.layers]]\n") :])["model"]["layers"]


def scorer():
    torch.manual_seed(4)
    return Scorer().eval()


CALLS = ["emb", "enc.lstm", "norm", "gru", "rnn", "out"]


def check_outputs(module):
    """What the recipe wrote, with the suggested tables in the order of calls, equals the module."""
    layers = sorted(suggested("m.safetensors"), key=lambda layer: CALLS.index(layer["weights"]))
    model = streamrnn.load_model("m.safetensors", layers=layers, strict=True)
    ids = np.random.default_rng(0).integers(0, 9, (2, 5))
    with torch.no_grad():
        expected = module(torch.tensor(ids)).numpy()
    np.testing.assert_allclose(model(ids), expected, atol=1e-5)


@pytest.mark.parametrize("save", SAVED, ids=lambda save: save.__name__)
def test_the_recipe_converts_and_the_tables_load(save, workdir):
    module = scorer()
    save(module, "m.pt")
    convert(message_of("m.pt"), SAVED[save])
    check_outputs(module)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("save", NEEDS_TRUST, ids=lambda save: save.__name__)
def test_what_needs_trust_is_refused_first(save, workdir):
    """The lines as they are run no code of the file; with weights_only=False they convert it."""
    module = scorer()
    save(module, "m.pt")
    message = message_of("m.pt")
    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        convert(message, NEEDS_TRUST[save])
    convert(message.replace("weights_only=True", "weights_only=False", 1), NEEDS_TRUST[save])
    check_outputs(module)


@pytest.mark.filterwarnings("ignore:.torch.jit")  # deprecated, in another category since 2.15
def test_torchscript(workdir):
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    torch.jit.save(torch.jit.script(module), "m.pt")
    message = message_of("m.pt")
    expression = 'torch.jit.load("m.pt").state_dict()'
    assert f"TorchScript: {expression}" in message
    loaded = 'torch.load("m.pt", map_location="cpu", weights_only=True)'
    convert(message.replace(loaded, expression), "")
    layers = suggested("m.safetensors")
    layers.insert(1, {"type": "Activation", "activation": "relu"})
    model = streamrnn.load_model("m.safetensors", layers=layers, strict=True)
    x = np.ones((2, 3, 3), np.float32)
    with torch.no_grad():
        expected = module(torch.tensor(x)).numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-6)


def test_half_precision_is_converted_to_float32(workdir):
    module = scorer().to(torch.bfloat16)
    save_state_dict(module, "m.pt")
    convert(message_of("m.pt"), "")
    layers = sorted(suggested("m.safetensors"), key=lambda layer: CALLS.index(layer["weights"]))
    model = streamrnn.load_model("m.safetensors", layers=layers, strict=True)
    expected = module.out.bias.detach().float().numpy()
    np.testing.assert_array_equal(model.layers[-1].get_weights()[1], expected)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.LSTM(3, 4, proj_size=2), 'type = "LSTM"'),
        (nn.Conv1d(3, 4, 2), 'no layer can take "bias" (4,), "weight" (4, 3, 2)'),
        (nn.Linear(3, 4, bias=False), 'type = "Embedding"  # or "Linear" without a bias'),
        (nn.RNN(3, 4), 'type = "RNN"  # add nonlinearity = "relu" if the RNN has it'),
        (nn.LSTMCell(3, 4), 'type = "LSTMCell"'),
        (nn.GRUCell(3, 4), 'type = "GRUCell"'),
        (nn.BatchNorm1d(3), 'type = "BatchNorm1d"'),
    ],
    ids=lambda v: type(v).__name__,
)
def test_the_type_of_a_layer_is_seen_from_its_arrays(module, expected, tmp_path):
    save_file(nn.ModuleDict({"x": module}).state_dict(), tmp_path / "m.safetensors")
    message = message_of(tmp_path / "m.safetensors")
    assert expected in message
    assert '= "x"' in message
