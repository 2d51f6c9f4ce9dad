"""Graphs give what ONNX Runtime computes, and on streams whatever the cuts the same bits."""

import itertools

import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime", reason="needs the oracles extra")
pytest.importorskip("onnx", reason="needs the onnx extra")

from plugins.onnx import onnx_graphs  # noqa: E402

import streamrnn  # noqa: E402
from streamrnn.models import StepRunner  # noqa: E402

SIZES = {"batch": 3, "a": 6, "b": 3, "time": 6}


def feeds_for(made, seed=5, layout=0):
    random = np.random.default_rng(seed)
    sizes = SIZES if not layout else {**SIZES, "a": 3, "b": 6}
    feeds = {}
    for value in made.graph.input:
        dims = value.type.tensor_type.shape.dim
        shape = [d.dim_value or sizes[d.dim_param] for d in dims]
        if value.name == "lens":
            feeds[value.name] = np.array([6, 1, 4], np.int32)
        elif value.type.tensor_type.elem_type == 7:
            feeds[value.name] = random.integers(0, 7, shape)
        else:
            feeds[value.name] = random.normal(0, 1, shape).astype(np.float32)
    return feeds


def assert_same(made, tmp_path, layout=0):
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    feeds = feeds_for(made, layout=layout)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    model = streamrnn.load_model(path)
    for ours, theirs in zip(model(feeds).values(), session.run(None, feeds), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    return model, feeds


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    ("direction", "lengths", "initial"),
    list(itertools.product(("forward", "reverse", "bidirectional"), (False, True), (False, True))),
)
def test_recurrent_nodes(op, direction, lengths, initial, tmp_path):
    """Directions, sequence_lens, initial states. (ONNX Runtime knows layout 0 only.)"""
    made = onnx_graphs.recurrent(
        op, direction=direction, lengths=lengths, initial=initial, bias=not initial or lengths
    )
    assert_same(made, tmp_path)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_gru_both_ways(after, direction, tmp_path):
    """The reset gate before and after the product."""
    made = onnx_graphs.recurrent(
        "GRU", direction=direction, linear_before_reset=after, lengths=True
    )
    assert_same(made, tmp_path)


@pytest.mark.parametrize(
    ("op", "names", "alpha", "beta"),
    [
        ("LSTM", ["HardSigmoid", "Relu", "Relu"], [], []),
        ("LSTM", ["HardSigmoid", "Tanh", "Tanh"], [0.3], [0.4]),
        ("LSTM", ["Sigmoid", "ScaledTanh", "ScaledTanh"], [1.5, 1.5], [0.5, 0.5]),
        ("GRU", ["Sigmoid", "Softsign"], [], []),
        ("GRU", ["Sigmoid", "LeakyRelu"], [0.3], []),
        ("GRU", ["HardSigmoid", "Elu"], [0.25, 0.7], [0.5]),
        ("RNN", ["Affine"], [0.4], [0.1]),
        ("RNN", ["ThresholdedRelu"], [0.2], []),
        ("RNN", ["Softplus"], [], []),
    ],
)
def test_activations(op, names, alpha, beta, tmp_path):
    """Listed activations, with and without numbers."""
    numbers = {"activation_alpha": alpha} if alpha else {}
    numbers |= {"activation_beta": beta} if beta else {}
    made = onnx_graphs.recurrent(op, activations=names, **numbers)
    assert_same(made, tmp_path)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Elu", {"alpha": 0.7}),
        ("LeakyRelu", {"alpha": 0.3}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
        ("ThresholdedRelu", {"alpha": 0.5}),
        ("ThresholdedRelu", {}),
        ("Selu", {"alpha": 1.5, "gamma": 0.7}),
    ],
)
def test_an_activation_with_numbers_as_a_node(op, attributes, tmp_path):
    """Not of a recurrent node, but on its own."""
    node = onnx_graphs.helper.make_node(op, ["X"], ["Y"], **attributes)
    inputs = {"X": (onnx_graphs.TensorProto.FLOAT, ["batch", 3])}
    assert_same(onnx_graphs.model([node], inputs, ["Y"], {}), tmp_path)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"clip": 0.6},
        {"input_forget": 1},
        {"activations": ["HardSigmoid", "Softsign", "Relu"], "clip": 1.5},
        {"peepholes": False, "input_forget": 1, "clip": 0.4},
        {"peepholes": False, "activations": ["Sigmoid", "Tanh", "Softsign"]},
    ],
    ids=str,
)
def test_lstm_beyond_keras(attributes, direction, tmp_path):
    """Peepholes, clip, input_forget, another activation of c than of the candidate."""
    both = attributes.get("activations", ["Sigmoid", "Tanh", "Tanh"])
    twice = 2 if direction == "bidirectional" else 1
    made = onnx_graphs.recurrent(
        "LSTM",
        direction=direction,
        lengths=True,
        initial=True,
        **{"peepholes": True, **attributes, "activations": both * twice},
    )
    assert_same(made, tmp_path)


@pytest.mark.parametrize(("op", "after"), [("GRU", 0), ("GRU", 1), ("RNN", 0)])
def test_clip(op, after, tmp_path):
    """Of what every activation is given."""
    options = {"linear_before_reset": after} if op == "GRU" else {}
    assert_same(onnx_graphs.recurrent(op, initial=True, clip=0.3, **options), tmp_path)


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_layout_1_is_layout_0_transposed(op, tmp_path):
    """ONNX Runtime refuses layout 1, so our two layouts are compared."""
    models = []
    for layout in (0, 1):
        path = tmp_path / f"{layout}.onnx"
        made = onnx_graphs.recurrent(op, layout=layout, initial=True, direction="bidirectional")
        path.write_bytes(made.SerializeToString())
        models.append((streamrnn.load_model(path), made))
    feeds = feeds_for(models[1][1], layout=1)
    first = {name: x.transpose(1, 0, 2) for name, x in feeds.items()}
    y, *states = models[0][0](first).values()
    y1, *states1 = models[1][0](feeds).values()
    np.testing.assert_array_equal(y.transpose(2, 0, 1, 3), y1)
    for state, state1 in zip(states, states1, strict=True):
        np.testing.assert_array_equal(state.transpose(1, 0, 2), state1)


GRAPHS = {
    "tf2onnx": onnx_graphs.as_tf2onnx_writes_it,
    "tf2onnx-last": lambda: onnx_graphs.as_tf2onnx_writes_it("GRU", sequences=False),
    "one-step": onnx_graphs.one_step,
    "ids": onnx_graphs.ids_and_scores,
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs(name, tmp_path):
    """The glue of exporters."""
    assert_same(GRAPHS[name](), tmp_path)


@pytest.mark.parametrize("name", ["tf2onnx", "tf2onnx-last", "ids"])
def test_streams(name, tmp_path):
    """As if the stream ended at each step, whatever the cuts; rows of length 0 keep their state."""
    model, feeds = assert_same(GRAPHS[name](), tmp_path)
    (x,) = feeds.values()
    stream = StepRunner(model)
    states = stream.initial_state(len(x))
    head = stream.run([x[:, :2]], None, states)[0]
    kept = {key: value.copy() for key, value in states.items()}
    stream.run([x[:, 2:]], np.zeros(len(x), np.int64), states)
    assert all(np.array_equal(kept[key], states[key]) for key in kept)
    tail = stream.run([x[:, 2:]], None, states)[0]
    joined = np.concatenate([head, tail], axis=1)
    for t in range(x.shape[1]):
        (prefix,) = model(x[:, : t + 1]).values()
        prefix = prefix[:, -1] if prefix.ndim == 3 else prefix
        np.testing.assert_array_equal(joined[:, t], prefix)


def test_a_one_step_graph_on_streams(tmp_path):
    """Its states go in and out, and the steps are ours to count."""
    model, _ = assert_same(onnx_graphs.one_step(), tmp_path)
    x = np.random.default_rng(0).normal(0, 1, (2, 4, 3)).astype(np.float32)
    stream = StepRunner(model)
    assert stream.state_spec == {"graph/h": 4, "graph/c": 4}
    states = stream.initial_state(2)
    y = stream.run([x], np.array([4, 2]), states)[0]
    h = c = np.zeros((1, 2, 4), np.float32)
    for t in range(4):
        step, h, c = model(x[:, t], h, c).values()
        np.testing.assert_array_equal(y[0, t], step[0])
        if t == 1:
            np.testing.assert_array_equal(states["graph/h"][1], h[0, 1])
    np.testing.assert_array_equal(states["graph/c"][0], c[0, 0])
