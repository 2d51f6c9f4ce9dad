"""State dicts that PyTorch writes give what PyTorch computes."""

import itertools
import tomllib
from typing import Any

import numpy as np
import pytest

torch: Any = pytest.importorskip("torch", reason="needs the oracles extra")

from command_line import run_command  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import streamrnn  # noqa: E402
from streamrnn.errors import ConfigError, ModelMismatchError, UnsupportedError  # noqa: E402
from streamrnn.models import StepRunner  # noqa: E402

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
    options = {"num_layers": levels, "bidirectional": both, "bias": bias, **more}
    module = torch.nn.ModuleDict({"rnn": cls(3, 5, batch_first=True, **options)})
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    table = {"type": kind.partition("-")[0], "weights": "rnn", **more}
    model = streamrnn.load_model(tmp_path / "w.safetensors", layers=[table])
    x = random(2, 7, 3)
    with torch.no_grad():
        expected = module["rnn"](torch.tensor(x))[0].numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_cells(kind, bias, tmp_path):
    """A cell that PyTorch calls step by step is a layer over the steps."""
    torch.manual_seed(3)
    cell = getattr(torch.nn, kind)(3, 5, bias=bias)
    save_file(torch.nn.ModuleDict({"cell": cell}).state_dict(), tmp_path / "w.safetensors")
    table = {"type": kind, "weights": "cell"}
    model = streamrnn.load_model(tmp_path / "w.safetensors", layers=[table])
    x, state, expected = random(2, 7, 3), None, []
    with torch.no_grad():
        for t in range(7):
            state = cell(torch.tensor(x[:, t]), state)
            expected.append((state[0] if kind == "LSTMCell" else state).numpy())
    np.testing.assert_allclose(model(x), np.stack(expected, 1), atol=1e-5)


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
    stream = StepRunner(model)
    states = stream.initial_state(2)
    parts = [stream.run([ids[:, a:b]], None, states)[0] for a, b in ((0, 2), (2, 5))]
    np.testing.assert_array_equal(np.concatenate(parts, 1), model(ids))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(
    ("levels", "both", "bias"), list(itertools.product((1, 2), (False, True), (True, False)))
)
def test_a_projection_is_a_dense_behind_each_level(levels, both, bias, tmp_path):
    """proj_size: what is fed back is the projected h."""
    torch.manual_seed(4)
    lstm = torch.nn.LSTM(3, 6, levels, bias=bias, batch_first=True, bidirectional=both, proj_size=2)
    save_file(lstm.state_dict(), tmp_path / "w.safetensors")
    model = streamrnn.load_model(tmp_path / "w.safetensors", layers=[{"type": "LSTM"}], strict=True)
    x = random(2, 9, 3)
    with torch.no_grad():
        expected = lstm(torch.tensor(x))[0].numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


def test_a_projection_of_too_many_units_is_refused(tmp_path):
    """The product with the recurrent weights is a matrix that no array of the file limits."""
    arrays = {"weight_hr_l0": torch.zeros(1, 3000), "weight_hh_l0": torch.zeros(12_000, 1)}
    save_file(arrays, tmp_path / "w.safetensors")
    with pytest.raises(UnsupportedError, match="projects 3,000 units"):
        streamrnn.load_model(tmp_path / "w.safetensors", layers=[{"type": "LSTM", "weights": ""}])


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(("both", "size"), [(False, None), (True, None), (False, 3), (True, 3)])
def test_the_last_step_of_a_stack_is_that_of_its_last_level(kind, both, size, tmp_path):
    """With both directions: h_n of the last level, the backward one at the first step."""
    if size and kind != "LSTM":
        return
    torch.manual_seed(5)
    options = {"proj_size": size} if size else {}
    rnn = getattr(torch.nn, kind)(3, 5, 3, batch_first=True, bidirectional=both, **options)
    save_file(rnn.state_dict(), tmp_path / "w.safetensors")
    table = {"type": kind, "weights": "", "return_sequences": False}
    model = streamrnn.load_model(tmp_path / "w.safetensors", layers=[table])
    x = random(2, 7, 3)
    with torch.no_grad():
        states = rnn(torch.tensor(x))[1]
    h = (states[0] if kind == "LSTM" else states)[-2 if both else -1 :]
    np.testing.assert_allclose(model(x), np.concatenate(list(h.numpy()), 1), atol=1e-5)


def test_prefixes_of_a_sequential_are_inferred_in_order(tmp_path):
    """Its members are numbered; ten comes after two."""
    torch.manual_seed(6)
    nn = torch.nn
    parts = [nn.Linear(3, 3) for _ in range(11)]
    module = nn.ModuleDict({"net": nn.Sequential(*parts), "rnn": nn.GRU(3, 4, batch_first=True)})
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    tables = [*({"type": "Linear"} for _ in parts), {"type": "GRU"}]
    model = streamrnn.load_model(tmp_path / "w.safetensors", layers=tables, strict=True)
    x = random(2, 4, 3)
    with torch.no_grad():
        expected = module["rnn"](module["net"](torch.tensor(x)))[0].numpy()
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


def test_prefixes_with_names_of_their_own_are_asked_for(tmp_path):
    """Two of a type: the names do not say which is called first."""
    module = torch.nn.ModuleDict({"b": torch.nn.Linear(3, 3), "a": torch.nn.Linear(3, 3)})
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"set the prefix of its weights.*'a', 'b'"):
        streamrnn.load_model(tmp_path / "w.safetensors", layers=[{"type": "Linear"}] * 2)


SUGGESTED = {
    "a sequential of many": lambda nn: nn.Sequential(*(nn.Linear(4, 4) for _ in range(12))),
    "a module alone": lambda nn: nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2),
    "names out of order": lambda nn: nn.ModuleDict(
        {"z": nn.Embedding(9, 3), "y": nn.GRU(3, 5), "x": nn.LayerNorm(5), "w": nn.Linear(5, 2)}
    ),
    "without biases": lambda nn: nn.ModuleDict(
        {"a": nn.Linear(3, 2, bias=False), "b": nn.Embedding(7, 3), "c": nn.RNN(2, 3)}
    ),
    "a cell": lambda nn: nn.ModuleDict({"cell": nn.LSTMCell(3, 4), "norm": nn.BatchNorm1d(4)}),
}


@pytest.mark.parametrize("name", SUGGESTED)
def test_the_tables_that_convert_prints_load(name, tmp_path, capsys):
    """As they are, and each array has its layer; a comment says what is guessed."""
    path = tmp_path / "w.safetensors"
    save_file(SUGGESTED[name](torch.nn).state_dict(), path)
    error = run_command(capsys, "convert", path, tmp_path / "m.safetensors")[2]
    printed, _ = error.split("more: streamrnn guide")
    start = printed.find("# The order is")
    text = printed[start if start >= 0 else printed.index("[[model.layers]]\n") :]
    tables = tomllib.loads(text)["model"]["layers"]
    model = streamrnn.load_model(path, layers=tables, strict=True)
    assert len(model.layers) >= len(tables)
    if name == "names out of order":
        assert "# The order is guessed from the shapes" in printed
        assert [table["weights"] for table in tables] == ["z", "y", "x", "w"]


def test_bfloat16_is_refused_by_name(tmp_path):
    """NumPy has no such type."""
    save_file({"a.weight": torch.ones(2, 2, dtype=torch.bfloat16)}, tmp_path / "w.safetensors")
    with pytest.raises(UnsupportedError, match=r"a.weight is stored as BF16"):
        streamrnn.load_model(
            tmp_path / "w.safetensors", layers=[{"type": "Linear", "weights": "a"}]
        )


class Scorer(torch.nn.Module):
    """A recurrent layer with Linear behind it, its state inside or outside."""

    def __init__(self, kind, outside, **options):
        super().__init__()
        cls, more = KINDS[kind]
        self.rnn = cls(3, 4, batch_first=True, **options, **more)
        self.out = torch.nn.Linear(8 if options.get("bidirectional") else 4, 2)
        self.outside = outside

    def forward(self, x, *states):
        given = () if not self.outside else (states[0] if len(states) == 1 else states,)
        y, after = self.rnn(x, *given)
        y = torch.softmax(torch.relu(self.out(y)), -1)
        return (y, *(after if isinstance(after, tuple) else (after,))) if self.outside else y


EXPORTS = {
    "lstm": ("LSTM", False, {}),
    "lstm-both": ("LSTM", False, {"bidirectional": True, "num_layers": 2}),
    "lstm-states": ("LSTM", True, {"num_layers": 2}),
    "gru-states": ("GRU", True, {}),
    "rnn": ("RNN-relu", False, {}),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "dynamo"),
    [
        (name, dynamo)
        for name in EXPORTS
        for dynamo in (False, True)
        if not (dynamo and name == "rnn")
    ],
)
def test_exports_to_onnx(name, dynamo, tmp_path):
    """Both exporters; forward ones run on streams too, cut anywhere.

    The dynamo exporter writes torch.nn.RNN as a loop over a sequence of tensors, no RNN node.
    """
    pytest.importorskip("onnx")
    kind, outside, options = EXPORTS[name]
    torch.manual_seed(3)
    module = Scorer(kind, outside, **options).eval()
    levels = options.get("num_layers", 1)
    count = (2 if kind == "LSTM" else 1) * outside
    states = tuple(torch.rand(levels, 2, 4) for _ in range(count))
    args = (torch.randn(2, 5, 3), *states)
    names = ["x", *("hc"[: len(states)])]
    outputs = ["y", *(f"{n}_next" for n in names[1:])]
    path = tmp_path / "m.onnx"
    auto = torch.export.Dim.AUTO
    if dynamo:
        pytest.importorskip("onnxscript")
        shapes = {"x": {0: auto, 1: auto}}
        if states:
            shapes["states"] = tuple({1: auto} for _ in states)
        more = {"dynamo": True, "dynamic_shapes": shapes, "external_data": False}
    else:
        axes = {"x": {0: "batch", 1: "time"}, **{n: {1: "batch"} for n in names[1:]}}
        more = {"dynamo": False, "dynamic_axes": axes}
    torch.onnx.export(module, args, path, input_names=names, output_names=outputs, **more)
    model = streamrnn.load_model(path)
    with torch.no_grad():
        expected = module(*args)
    expected = expected if outside else (expected,)
    for ours, theirs in zip(model(*(a.numpy() for a in args)).values(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
    if options.get("bidirectional"):
        with pytest.raises(ModelMismatchError, match=r"LSTM.* reads the sequence backwards"):
            StepRunner(model)
        return
    stream = StepRunner(model)
    assert stream.outputs == [("y", 2)]
    carried = stream.initial_state(2)
    x = args[0].numpy()
    parts = [stream.run([x[:, a:b]], None, carried)[0] for a, b in ((0, 1), (1, 5))]
    with torch.no_grad():
        fresh = module(args[0], *(torch.zeros_like(s) for s in states))
    fresh = fresh[0] if outside else fresh
    np.testing.assert_allclose(np.concatenate(parts, 1), fresh.numpy(), atol=1e-5)
