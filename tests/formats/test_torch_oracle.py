"""State dicts that PyTorch writes give what PyTorch computes."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the oracles extra")

from safetensors.torch import save_file  # noqa: E402

import streamrnn  # noqa: E402
from streamrnn.errors import UnsupportedError  # noqa: E402
from streamrnn.models import Stream  # noqa: E402

KINDS = {
    "LSTM": (torch.nn.LSTM, {}),
    "GRU": (torch.nn.GRU, {}),
    "RNN": (torch.nn.RNN, {}),
    "RNN-relu": (torch.nn.RNN, {"nonlinearity": "relu"}),
}


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("levels", "both", "bias"), list(itertools.product((1, 3), (False, True), (True, False)))
)
def test_recurrent_layers(kind, levels, both, bias, tmp_path):
    """Depth, directions and biases are seen from the names."""
    torch.manual_seed(1)
    cls, more = KINDS[kind]
    module = torch.nn.ModuleDict({"rnn": cls(
        3, 5, num_layers=levels, bidirectional=both, bias=bias, batch_first=True, **more)})  # fmt: skip
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    table = {"type": kind.partition("-")[0], "weights": "rnn", **more}
    model = streamrnn.load_model(tmp_path / "w.safetensors", layers=[table])
    x = random(2, 7, 3)
    with torch.no_grad():
        expected = module["rnn"](torch.tensor(x))[0].numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


def test_a_whole_module(tmp_path):
    """Embedding, LSTM, LayerNorm, BatchNorm1d, cells and Linear, with ReLU between."""
    torch.manual_seed(2)
    nn = torch.nn
    module = nn.ModuleDict(
        {
            "emb": nn.Embedding(9, 4),
            "enc": nn.ModuleDict({"lstm": nn.LSTM(4, 6, batch_first=True)}),
            "norm": nn.LayerNorm(6),
            "bn": nn.BatchNorm1d(6),
            "cell": nn.GRUCell(6, 3),
            "out": nn.Linear(3, 2),
        }
    ).eval()
    module["bn"].running_mean += torch.rand(6)
    module["bn"].running_var += torch.rand(6)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    model = streamrnn.load_model(
        tmp_path / "w.safetensors",
        layers=[
            {"type": "Embedding", "weights": "emb"},
            {"type": "LSTM", "weights": "enc.lstm"},
            {"type": "LayerNorm", "weights": "norm"},
            {"type": "BatchNorm1d", "weights": "bn"},
            {"type": "GRUCell", "weights": "cell"},
            {"type": "Activation", "activation": "relu"},
            {"type": "Linear", "weights": "out"},
        ],
        strict=True,
    )
    ids = np.random.default_rng(0).integers(0, 9, (2, 5))
    with torch.no_grad():
        y = module["norm"](module["enc"]["lstm"](module["emb"](torch.tensor(ids)))[0])
        y = module["bn"](y.transpose(1, 2)).transpose(1, 2)
        h, steps = torch.zeros(2, 3), []
        for t in range(5):
            h = module["cell"](y[:, t], h)
            steps.append(module["out"](torch.relu(h)))
    expected = torch.stack(steps, 1).numpy()
    np.testing.assert_allclose(model(ids), expected, atol=1e-5)
    stream = Stream(model)
    states = stream.initial_state(2)
    parts = [stream.run([ids[:, a:b]], None, states)[0] for a, b in ((0, 2), (2, 5))]
    np.testing.assert_array_equal(np.concatenate(parts, 1), model(ids))


def test_projections_are_refused_by_name(tmp_path):
    """proj_size changes what h is."""
    save_file(torch.nn.LSTM(3, 4, proj_size=2).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(UnsupportedError, match="proj_size"):
        streamrnn.load_model(tmp_path / "w.safetensors", layers=[{"type": "LSTM", "weights": ""}])


def test_bfloat16_is_refused_by_name(tmp_path):
    """NumPy has no such type."""
    save_file({"a.weight": torch.ones(2, 2, dtype=torch.bfloat16)}, tmp_path / "w.safetensors")
    with pytest.raises(UnsupportedError, match=r"a.weight is stored as BF16"):
        streamrnn.load_model(tmp_path / "w.safetensors", layers=[{"type": "Linear", "weights": "a"}])
