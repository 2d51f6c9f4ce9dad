"""Graphs made by hand, on streams and in pipelines. They need onnx, no runtime."""

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("onnx", reason="needs the onnx extra")

from onnx import TensorProto, helper, numpy_helper
from plugins.onnx import onnx_graphs

import streamrnn
from streamrnn import Pipeline
from streamrnn.errors import ModelFileError, ModelMismatchError, ShapeError, UnsupportedError
from streamrnn.models import SequenceRunner, StepRunner


def saved(made, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def x(*shape):
    return np.random.default_rng(2).normal(0, 1, shape).astype(np.float32)


def test_ids_beside_features_in_a_pipeline(tmp_path):
    """[model] inputs says which column goes where; time comes first in this graph."""
    path = saved(onnx_graphs.ids_beside_features(), tmp_path)
    pipeline = Pipeline.from_dict(
        {
            "source": {"key": "k", "features": ["a", "b", "c", "token"]},
            "model": {"path": str(path), "inputs": {"x": ["a", "b", "c"], "ids": "token"}},
        }
    )
    features, ids = x(6, 3), np.array([0, 5, 2, 2, 1, 4])
    columns = dict(zip("abc", features.T, strict=True))
    table = pa.table({"k": ["p"] * 6, **columns, "token": ids})
    parts = [pa.table(pipeline.process(table.slice(i, 2))) for i in (0, 2, 4)]
    made = pa.concat_tables(parts)
    model = streamrnn.load_model(path)
    expected = model({"x": features[:, None], "ids": ids[:, None]})["out"][:, 0]
    ours = np.stack([made[f"out_{u}"].to_numpy() for u in range(4)], axis=1)
    np.testing.assert_array_equal(ours, expected)


def test_state_by_name_in_a_pipeline(tmp_path):
    """A graph of one step, its state in [model] state."""
    path = saved(onnx_graphs.one_step(), tmp_path)
    pipeline = Pipeline.from_dict(
        {
            "source": {"key": "k", "features": ["a", "b", "c"]},
            "model": {"path": str(path), "state": {"h": "hn", "c": "cn"}},
        }
    )
    features = x(5, 3)
    table = pa.table({"k": ["p"] * 5, **dict(zip("abc", features.T, strict=True))})
    made = pa.concat_tables(
        [pa.table(pipeline.process(part)) for part in (table.slice(0, 1), table.slice(1))]
    )
    h = c = np.zeros((1, 1, 4), np.float32)
    model = streamrnn.load_model(path)
    for t in range(5):
        y, h, c = model(features[t : t + 1], h, c).values()
        ours = [made[f"y_{u}"][t].as_py() for u in range(4)]
        np.testing.assert_array_equal(np.float32(ours), y[0])


def test_whole_sequences(tmp_path):
    """Each row's value is that of its own end, also where the graph reads backwards."""
    for made in (
        onnx_graphs.as_tf2onnx_writes_it("GRU", sequences=False),
        onnx_graphs.recurrent("LSTM", direction="bidirectional"),
    ):
        model = streamrnn.load_model(saved(made, tmp_path))
        rows = x(3, 5, 3)
        lengths = np.array([2, 5, 2])
        first = SequenceRunner(model).run([rows], lengths)[0]
        for b, length in enumerate(lengths):
            alone = SequenceRunner(model).run([rows[b : b + 1, :length]])[0][0]
            np.testing.assert_array_equal(first[b][: len(alone)], alone)


def test_backwards_graphs_do_not_run_on_streams(tmp_path):
    """By node name, with the kinds of window that work."""
    path = saved(onnx_graphs.recurrent("GRU", direction="reverse"), tmp_path)
    with pytest.raises(
        ModelMismatchError, match=r"node 'rnn' \(GRU\) reads the sequence backwards"
    ):
        StepRunner(streamrnn.load_model(path))


def changed(node, **attributes):
    made = onnx_graphs.as_tf2onnx_writes_it()
    for name, value in attributes.items():
        for attribute in list(made.graph.node[node].attribute):
            if attribute.name == name:
                made.graph.node[node].attribute.remove(attribute)
        made.graph.node[node].attribute.append(helper.make_attribute(name, value))
    return made


@pytest.mark.parametrize(
    "graph",
    [
        onnx_graphs.as_tf2onnx_writes_it(),
        onnx_graphs.as_tf2onnx_writes_it(sequences=False),
        onnx_graphs.one_step(),
        onnx_graphs.ids_and_scores(),
    ],
    ids=["sequences", "last", "one step", "reshape"],
)
def test_no_rows_and_no_steps_give_none(graph, tmp_path):
    """Outputs of the right shape, as from layers, whatever nodes say to arrays without values."""
    stream = StepRunner(streamrnn.load_model(saved(graph, tmp_path)))
    (_, features, dtype) = stream.model.input_specs[0]
    for rows, steps in ((0, 5), (3, 0), (0, 0)):
        states = {name: x(*state.shape) for name, state in stream.initial_state(rows).items()}
        before = {name: state.copy() for name, state in states.items()}
        given = np.zeros((rows, steps, *features[1:]), dtype)
        made = stream.run([given], None, states)
        assert [y.shape for y in made] == [(rows, steps, units) for _, units in stream.outputs]
        assert all((states[name] == before[name]).all() for name in states)
    whole = SequenceRunner(stream.model)
    made = whole.run([np.zeros((0, 5, *features[1:]), dtype)])
    shapes = [
        (0, 5, n) if sequence else (0, n)
        for (_, n), sequence in zip(whole.outputs, whole.sequences, strict=True)
    ]
    assert [y.shape for y in made] == shapes


def test_steps_that_see_each_other(tmp_path):
    """A softmax over time is found by trying, and the node named."""
    path = saved(changed(6, axis=1), tmp_path)
    model = streamrnn.load_model(path)
    assert model(x(2, 3, 3))["out"].shape == (2, 3, 2)
    with pytest.raises(ModelMismatchError, match=r"how the sequence is cut.*\(Softmax\)"):
        StepRunner(model)


def test_rows_that_see_each_other(tmp_path):
    """So is one over the batch."""
    with pytest.raises(ModelMismatchError, match="a row depends on the other rows"):
        StepRunner(streamrnn.load_model(saved(changed(6, axis=0), tmp_path)))


def test_an_export_of_fixed_size(tmp_path):
    """Callable as it is; on streams the message says how to export it."""
    made = onnx_graphs.as_tf2onnx_writes_it()
    made.graph.initializer.append(numpy_helper.from_array(np.array([1, 5, 4]), "fixed"))
    made.graph.node[3].op_type = "Reshape"
    del made.graph.node[3].attribute[:]
    made.graph.node[3].input.append("fixed")
    model = streamrnn.load_model(saved(made, tmp_path))
    assert model(x(1, 5, 3))["out"].shape == (1, 5, 2)
    with pytest.raises(ShapeError, match=r"\(Reshape\) cannot take inputs of shapes"):
        model(x(1, 4, 3))
    with pytest.raises(ModelMismatchError, match="Export it with dynamic axes"):
        StepRunner(model)


def test_calls_that_do_not_fit(tmp_path):
    """Names, numbers, shapes."""
    model = streamrnn.load_model(saved(onnx_graphs.one_step(), tmp_path))
    with pytest.raises(ShapeError, match=r"inputs must be 3 \(x, h, c\), received 1"):
        model(x(2, 3))
    with pytest.raises(ShapeError, match="expected the inputs x, h, c, received x"):
        model({"x": x(2, 3)})
    state = np.zeros((1, 2, 4), np.float32)
    with pytest.raises(ShapeError, match=r"expected X of 3 axes and 3 features"):
        model(x(2, 5), state, state)
    with pytest.raises(ShapeError, match=r"input 'x': the number of axes must be 2,"):
        model(x(2, 1, 3), state, state)


def test_states_that_nothing_carries_on(tmp_path):
    """The message names the input and what to write."""
    made = onnx_graphs.one_step()
    del made.graph.output[1:]
    model = streamrnn.load_model(saved(made, tmp_path))
    with pytest.raises(ModelMismatchError, match=r"'c' .*state = \{ c = "):
        StepRunner(model)


@pytest.mark.parametrize(
    ("dims", "nodes", "said"),
    [
        (
            ["batch", 1, 1, 3],
            [("Squeeze", ["s", "axes"], "past"), ("Identity", ["s"], "next")],
            r"two or three axes",
        ),
        (
            ["batch", 3],
            [("Identity", ["s"], "past"), ("Slice", ["x", "zero", "one", "one"], "next")],
            r"cannot be run on streams",
        ),
    ],
)
def test_states_of_other_shapes(dims, nodes, said, tmp_path):
    """One of too many axes, and one that would be spread over the old state in silence."""
    made = onnx_graphs.model(
        [*[helper.make_node(kind, names, [out]) for kind, names, out in nodes],
         helper.make_node("Add", ["x", "past"], ["y"])],
        {"x": (TensorProto.FLOAT, ["batch", 3]), "s": (TensorProto.FLOAT, dims)},
        ["y", "next"],
        {"axes": np.array([1, 2]), "zero": np.array([0]), "one": np.array([1])},
    )  # fmt: skip
    model = streamrnn.load_model(saved(made, tmp_path), state={"s": "next"})
    with pytest.raises(ModelMismatchError, match=said):
        StepRunner(model)


def test_summary_and_native_form(tmp_path, capsys):
    """A graph prints as one layer, and its native form needs no onnx."""
    model = streamrnn.load_model(saved(onnx_graphs.ids_and_scores(), tmp_path))
    model.summary()
    assert "graph (OnnxGraph)" in capsys.readouterr().out
    model.save(tmp_path / "m.safetensors")
    again = streamrnn.load_model(tmp_path / "m.safetensors")
    ids = np.array([[1, 2, 3]])
    np.testing.assert_array_equal(again(ids)["out"], model(ids)["out"])
    assert StepRunner(again).state_spec == StepRunner(model).state_spec == {"graph/rnn/h": 4}
    begin = StepRunner(again).initial_state(2)["graph/rnn/h"]
    assert np.abs(begin).min() > 0
    np.testing.assert_array_equal(begin[0], begin[1])


@pytest.mark.parametrize("module", ["h5py", "onnx"])
def test_extras_are_named(module, tmp_path, monkeypatch):
    """Without h5py or onnx the message says what to install."""
    monkeypatch.setitem(__import__("sys").modules, module, None)
    path = tmp_path / ("m.onnx" if module == "onnx" else "m.h5")
    path.write_bytes(b"x")
    extra = {"h5py": "keras", "onnx": "onnx"}[module]
    with pytest.raises(UnsupportedError, match=rf"pip install 'streamrnn\[{extra}\]'"):
        streamrnn.load_model(path)


@pytest.mark.parametrize("name", ["input", "output"])
def test_the_symbols_of_a_graph_that_was_not_used_yet(name, tmp_path):
    model = streamrnn.load_model(saved(onnx_graphs.one_step(), tmp_path))
    (symbol,) = getattr(model, f"{name}s")
    other = streamrnn.load_model(saved(onnx_graphs.one_step(), tmp_path))
    assert getattr(other, name).shape == symbol.shape


@pytest.mark.parametrize(
    ("bias", "said"),
    [
        (np.zeros((1, 8), np.float32), r"'B' has shape \(1, 8\), .* expected \(1, 32\), float32"),
        (np.zeros((1, 32), np.int64), r"'B' has shape \(1, 32\), dtype int64, .*, float32"),
    ],
)
def test_biases_that_do_not_fit(bias, said, tmp_path):
    dims = {"X": (TensorProto.FLOAT, ["time", "batch", 3])}
    node = helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y"], hidden_size=4)
    constants = onnx_graphs.weights("LSTM", 1, 3, 4) | {"B": bias}
    made = onnx_graphs.model([node], dims, ["Y"], constants)
    with pytest.raises(ModelFileError, match=said):
        streamrnn.load_model(saved(made, tmp_path))


def test_each_node_has_its_own_weights_whatever_the_names(tmp_path):
    """Names may end in "#2", or differ in slashes only."""
    names, constants, nodes = ["a#2", "a", "/a"], {}, []
    for i, name in enumerate(names):
        weights = onnx_graphs.weights("RNN", 1, 3, 4, seed=i)
        constants |= {f"{key}{i}": array for key, array in weights.items()}
        nodes.append(
            helper.make_node("RNN", ["x", f"W{i}", f"R{i}", f"B{i}"], [f"y{i}"], name=name)
        )
    dims = {"x": (TensorProto.FLOAT, ["time", "batch", 3])}
    path = saved(onnx_graphs.model(nodes, dims, ["y0", "y1", "y2"], constants), tmp_path)
    made = streamrnn.load_model(path)(x(5, 2, 3)).values()
    for name, y in zip(names, made, strict=True):
        alone = streamrnn.load_model(path, node=name)(x(5, 2, 3).transpose(1, 0, 2))
        np.testing.assert_array_equal(y[:, 0].transpose(1, 0, 2), alone)


@pytest.mark.parametrize("sequences", ["", "Y_b"])
def test_an_initial_state_that_is_the_input_of_another_node_is_data(sequences, tmp_path):
    """Also if only the last state of the other node is an output."""
    nodes = [
        helper.make_node("RNN", ["x", "W", "R", "", "", "v"], ["y"], name="a", hidden_size=3),
        helper.make_node("RNN", ["v", "W", "R"], [sequences, "z"], name="b", hidden_size=3),
    ]
    made = onnx_graphs.model(
        nodes,
        {"x": (TensorProto.FLOAT, ["t", "b", 3]), "v": (TensorProto.FLOAT, [1, "b", 3])},
        ["y", "z"],
        onnx_graphs.weights("RNN", 1, 3, 3),
    )
    model = streamrnn.load_model(saved(made, tmp_path))
    assert [name for name, *_ in model.input_specs] == ["x", "v"]


def test_lengths_are_no_feature(tmp_path):
    """An input that is sequence_lens only gets the lengths of the rows; 0 keeps the state."""
    made = onnx_graphs.recurrent("LSTM", lengths=True, initial=True)
    model = streamrnn.load_model(saved(made, tmp_path))
    assert model.input_specs == [("X", (None, 3), "float32")]
    stream = StepRunner(model)
    assert stream.outputs == [("Y", 4)]
    rows, lengths = x(3, 5, 3), np.array([5, 2, 0])
    states = stream.initial_state(3)
    y = stream.run([rows], lengths, states)[0]
    zeros = np.zeros((1, 3, 4), np.float32)
    call = {"X": np.array(rows.transpose(1, 0, 2)), "lens": lengths, "h": zeros, "c": zeros}
    whole = model(call)
    np.testing.assert_array_equal(whole["Y"][:2, 0, 1], y[1, :2])
    assert not whole["Y"][2:, 0, 1].any()
    np.testing.assert_array_equal(whole["Y_h"][0], states["graph/h"])
    kept = model({**call, "lens": np.zeros(3, np.int64), "h": zeros + 1})
    np.testing.assert_array_equal(kept["Y_h"], zeros + 1)


@pytest.mark.parametrize(("steps", "fixed"), [(24, 24), (1, None), ("time", None), (None, None)])
def test_the_steps_that_a_graph_declares(tmp_path, steps, fixed):
    """Time comes first; a graph that takes its state has windows that continue one another."""
    dims = {"X": (TensorProto.FLOAT, [steps, 1, 3])}
    node = helper.make_node("GRU", ["X", "W", "R"], ["Y", "Yh"], hidden_size=4)
    constants = {n: w for n, w in onnx_graphs.weights("GRU", 1, 3, 4).items() if n != "B"}
    made = streamrnn.load_model(saved(onnx_graphs.model([node], dims, ["Y"], constants), tmp_path))
    assert made.declared_steps == fixed
    made.save(tmp_path / "m.safetensors")
    assert streamrnn.load_model(tmp_path / "m.safetensors").declared_steps == fixed
    node = helper.make_node("GRU", ["X", "W", "R", "", "", "h"], ["Y", "hn"], hidden_size=4)
    dims["h"] = (TensorProto.FLOAT, [1, 1, 4])
    made = saved(onnx_graphs.model([node], dims, ["Y", "hn"], constants), tmp_path)
    assert streamrnn.load_model(made).declared_steps is None
