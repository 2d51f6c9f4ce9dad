"""Layouts of Keras 1, 2, CuDNN and 2.12 to 2.14. The files are synthetic: see old_keras.py."""

import numpy as np
import pytest
from selection import slow

pytest.importorskip("h5py", reason="needs the keras extra")

from nn.formats import old_keras
from nn.layers.kinds import layer_at

import streamrnn
from streamrnn import Input, Model, Sequential, layers
from streamrnn.errors import UnsupportedError
from streamrnn.nn.formats.keras.config import translate


def filled(model, seed=0):
    """The model with random weights."""
    random = np.random.default_rng(seed)
    model.set_weights([random.normal(0, 0.5, w.shape) for w in model.weights])
    return model


def x(*shape):
    return np.random.default_rng(9).normal(0, 2, shape).astype(np.float32)


def entry(kind, **config):
    return {"class_name": kind, "config": config}


@slow
def test_keras_1(tmp_path):
    """One array a gate in Keras 1's order, its argument names, hard_sigmoid of slope 0.2. Slow:
    cells that are compiled for hard_sigmoid."""
    model = filled(
        Sequential(
            [
                Input((None, 3)),
                layers.LSTM(4, recurrent_activation="hard_sigmoid_02", return_sequences=True),
                layers.GRU(3, recurrent_activation="hard_sigmoid_02", reset_after=False),
                layers.Dense(2, activation="softmax"),
            ]
        )
    )
    lstm, gru, dense = model.layers
    arrays = {
        "lstm_1": old_keras.keras1(lstm.get_weights(), (0, 2, 1, 3)),
        "gru_1": old_keras.keras1(gru.get_weights(), (0, 1, 2)),
        "dropout_1": [],
        "dense_1": dense.get_weights(),
    }
    common = {"inner_activation": "hard_sigmoid", "inner_init": "orthogonal", "dropout_U": 0.1}
    config = [
        entry("LSTM", name="lstm_1", output_dim=4, batch_input_shape=[None, None, 3],
              return_sequences=True, consume_less="cpu", forget_bias_init="one", input_dim=3,
              W_regularizer=None, activation="tanh", init="glorot_uniform", **common),
        entry("GRU", name="gru_1", output_dim=3, activation="tanh", **common),
        entry("Dropout", name="dropout_1", p=0.5),
        entry("Dense", name="dense_1", output_dim=2, activation="softmax", bias=True,
              W_constraint=None, input_dim=None),
    ]  # fmt: skip
    old_keras.legacy(tmp_path / "m.h5", arrays, "1.2.2", entry("Sequential") | {"config": config})
    loaded = streamrnn.load_model(tmp_path / "m.h5")
    np.testing.assert_array_equal(loaded(x(2, 5, 3)), model(x(2, 5, 3)))


def test_keras_1_has_an_input_dtype():
    """The dtype of an Input, and of no result of another layer."""
    shape = {"batch_input_shape": [None, 3], "input_dtype": "int32", "name": "it"}
    for given, dtype in ((entry("InputLayer", **shape), "int32"),
                         (entry("Embedding", input_dim=9, output_dim=2, **shape), None),
                         (entry("Dense", output_dim=2, **shape), None)):  # fmt: skip
        assert translate(given, "1.2.2")["config"].get("dtype") == dtype
        assert layers.deserialize(translate(given, "1.2.2")).name == "it"


def seq2seq(**options):
    source, target = Input((None,), name="source"), Input((None, 3), name="target")
    _, h, c = layers.LSTM(4, return_state=True, name="encoder", **options)(
        layers.Embedding(7, 5, name="embed")(source)
    )
    y = layers.LSTM(4, return_sequences=True, name="decoder", **options)(
        target, initial_state=[h, c]
    )
    return filled(Model([source, target], layers.Dense(2, name="out")(y)))


def seq2seq_config():
    lstm = {
        "units": 4, "activation": "tanh", "recurrent_activation": "hard_sigmoid", "use_bias": True,
        "unit_forget_bias": True, "time_major": False, "implementation": 2, "dtype": "float32",
        "kernel_initializer": entry("VarianceScaling", scale=1.0, mode="fan_avg",
                                    distribution="uniform", seed=None),
        "kernel_regularizer": None, "stateful": False, "unroll": False, "dropout": 0.0,
    }  # fmt: skip
    source, target = ["source", 0, 0, {}], ["target", 0, 0, {}]

    def node(kind, name, inbound, **config):
        return {**entry(kind, name=name, **config), "name": name, "inbound_nodes": inbound}

    return entry(
        "Model",
        name="model_1",
        layers=[
            node("InputLayer", "source", [], batch_input_shape=[None, None], dtype="float32",
                 sparse=False, ragged=False),
            node("Embedding", "embed", [[source]], input_dim=7, output_dim=5, input_length=None,
                 mask_zero=False, embeddings_initializer="uniform"),
            node("InputLayer", "target", [], batch_input_shape=[None, None, 3], dtype="float32"),
            node("LSTM", "encoder", [[["embed", 0, 0, {}]]], return_state=True,
                 return_sequences=False, **lstm),
            node("LSTM", "decoder",
                 [[target, ["encoder", 0, 1, {}], ["encoder", 0, 2, {}]]],
                 return_sequences=True, return_state=False, **lstm),
            node("Dense", "out", [[["decoder", 0, 0, {}]]], units=2, activation="linear",
                 use_bias=True),
        ],
        input_layers=[["source", 0, 0], ["target", 0, 0]],
        output_layers=[["out", 0, 0]],
    )  # fmt: skip


def seq2seq_inputs():
    return [np.array([[1, 2, 6], [3, 0, 4]]), x(2, 4, 3)]


@slow
def test_keras_2_functional(tmp_path):
    """Old nodes: an RNN's further inputs are its initial state. Layers by order, not by name.

    Slow: the hard sigmoid of Keras 2, compiled for itself.
    """
    model = seq2seq(recurrent_activation="hard_sigmoid_02")
    arrays = {layer.name: layer.get_weights() for layer in model.layers}
    renamed = {f"{name}_7": arrays[name] for name in ("embed", "encoder", "decoder", "out")}
    old_keras.legacy(tmp_path / "m.h5", renamed, "2.2.4-tf", seq2seq_config())
    loaded = streamrnn.load_model(tmp_path / "m.h5")
    np.testing.assert_array_equal(loaded(seq2seq_inputs()), model(seq2seq_inputs()))


@slow
def test_hard_sigmoid_means_what_it_meant_to_the_writer(tmp_path):
    """The same string in both configs: slope 0.2 before Keras 3, 1/6 since. Slow: cells that are
    compiled for hard_sigmoid."""
    config = entry("Sequential", name="s", layers=[
        entry("LSTM", name="lstm", units=3, batch_input_shape=[None, None, 2],
              recurrent_activation="hard_sigmoid")])  # fmt: skip
    model = filled(Sequential([Input((None, 2)), layers.LSTM(3)]))
    made = {}
    for version in ("2.3.1", "3.5.0"):
        path = tmp_path / f"{version}.h5"
        old_keras.legacy(path, {"lstm": model.get_weights()}, version, config)
        made[version] = streamrnn.load_model(path)
    cells = [layer_at(m).cell.recurrent_activation for m in made.values()]
    assert cells == ["hard_sigmoid_02", "hard_sigmoid"]
    outputs = [m(x(1, 6, 2)) for m in made.values()]
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3)])
@pytest.mark.parametrize("both", [False, True])
def test_cudnn(kind, gates, both, tmp_path):
    """CuDNN layers: only the bias tells, and all three arrays are laid out differently."""
    layer = getattr(layers, kind)(4)
    model = Sequential([Input((None, 3)), layers.Bidirectional(layer) if both else layer])
    filled(model)
    weights = model.get_weights()
    stored = [a for i in range(0, len(weights), 3) for a in old_keras.cudnn(weights[i:i + 3], gates)]  # fmt: skip  # noqa: E501
    inner = entry(f"CuDNN{kind}", name="rnn", units=4, return_sequences=False, stateful=False)
    outer = entry("Bidirectional", name="both", layer=inner, merge_mode="concat")
    outermost = outer if both else inner
    outermost["config"]["batch_input_shape"] = [None, None, 3]
    config = entry("Sequential", name="s", layers=[outermost])
    old_keras.legacy(tmp_path / "m.h5", {"rnn": stored}, "2.2.4", config)
    loaded = streamrnn.load_model(tmp_path / "m.h5")
    np.testing.assert_allclose(loaded(x(2, 5, 3)), model(x(2, 5, 3)), atol=1e-6)
    # The plain layer's config takes CuDNN's weights too, as Keras itself allowed.
    if not both:
        plain = Sequential([Input((None, 3)), getattr(layers, kind)(4)])
        plain.load_weights(tmp_path / "m.h5")
        np.testing.assert_array_equal(plain(x(2, 5, 3)), loaded(x(2, 5, 3)))


def test_archive_of_2_13(tmp_path):
    """The root of 2.12 to 2.14, counters that skip numbers, and old nodes in an archive."""
    model = seq2seq(recurrent_activation="hard_sigmoid_02")
    arrays = {"embedding_2/vars/0": model.get_layer("embed").get_weights()[0]}
    for group, name in (("lstm_1", "encoder"), ("lstm_4", "decoder")):
        weights = model.get_layer(name).get_weights()
        arrays |= {f"{group}/cell/vars/{i}": w for i, w in enumerate(weights)}
    arrays |= {f"dense/vars/{i}": w for i, w in enumerate(model.get_layer("out").get_weights())}
    config = seq2seq_config() | {"class_name": "Functional"}
    old_keras.checkpoint_archive(tmp_path / "m.keras", config, arrays, "2.13.1")
    loaded = streamrnn.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(seq2seq_inputs()), model(seq2seq_inputs()))


def test_split_attributes(tmp_path):
    """Long lists of names are stored in parts: layer_names0, layer_names1, …"""
    import h5py

    model = filled(Sequential([Input((None, 3)), layers.LSTM(4), layers.Dense(2)]))
    arrays = {layer.name: layer.get_weights() for layer in model.layers}
    old_keras.legacy(tmp_path / "w.h5", arrays, "2.4.0")
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        for i, name in enumerate(names):
            file.attrs[f"layer_names{i}"] = [name]
    blank = Sequential([Input((None, 3)), layers.LSTM(4), layers.Dense(2)])
    blank.load_weights(tmp_path / "w.h5")
    np.testing.assert_array_equal(blank(x(2, 5, 3)), model(x(2, 5, 3)))


def test_lambda_is_refused_by_name(tmp_path):
    """Code from a file is never run."""
    config = entry("Sequential", name="s", layers=[
        entry("Lambda", name="twice", function=["4wEAAA==", None, None])])  # fmt: skip
    old_keras.legacy(tmp_path / "m.h5", {}, "2.3.0", config)
    with pytest.raises(UnsupportedError, match=r"m\.h5: layer 'twice' \(Lambda\): .*Python code"):
        streamrnn.load_model(tmp_path / "m.h5")


@pytest.mark.parametrize("after", [False, True])
def test_gru_that_does_not_say_reset_after(after, tmp_path):
    """Its bias tells: one row or two."""
    model = filled(Sequential([Input((None, 2)), layers.GRU(3, reset_after=after)]))
    config = entry("Sequential", name="s", layers=[
        entry("GRU", name="gru", units=3, batch_input_shape=[None, None, 2],
              recurrent_activation="sigmoid")])  # fmt: skip
    old_keras.legacy(tmp_path / "m.h5", {"gru": model.get_weights()}, "2.1.0", config)
    loaded = streamrnn.load_model(tmp_path / "m.h5")
    np.testing.assert_array_equal(loaded(x(2, 5, 2)), model(x(2, 5, 2)))


@pytest.mark.parametrize("kind", ["Functional", "Model", "Sequential"])
@pytest.mark.parametrize("first", [1, 0])
def test_calls_of_a_nested_model_are_counted_from_1(kind, first, tmp_path):
    """As a layer's input and as an output; early stacks without an Input were counted from 0."""
    i, j, x_ = (Input((None, 3), name=name) for name in ("i", "j", "x"))
    inner = Model(x_, layers.SimpleRNN(2, name="rnn")(x_), name="inner")
    model = filled(Model([i, j], [inner(i), layers.Dense(1, name="out")(inner(j))]))

    def node(kind, name, inbound, **config):
        return {**entry(kind, name=name, **config), "name": name, "inbound_nodes": inbound}

    shape = {"batch_input_shape": [None, None, 3], "dtype": "float32"}
    rnn = node("SimpleRNN", "rnn", [[["x", 0, 0, {}]]], units=2, **shape)
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [["rnn", 0, 0]]}
    within = {"layers": [node("InputLayer", "x", [], **shape), rnn], **ends}
    calls = [[["i", 0, 0, {}]], [["j", 0, 0, {}]]]
    config = entry(
        "Functional",
        name="siamese",
        layers=[
            node("InputLayer", "i", [], **shape),
            node("InputLayer", "j", [], **shape),
            node(kind, "inner", calls, **({"layers": [rnn]} if kind == "Sequential" else within)),
            node("Dense", "out", [[["inner", first + 1, 0, {}]]], units=1),
        ],
        input_layers=[["i", 0, 0], ["j", 0, 0]],
        output_layers=[["inner", first, 0], ["out", 0, 0]],
    )
    arrays = {name: model.get_layer(name).get_weights() for name in ("inner", "out")}
    old_keras.legacy(tmp_path / "m.h5", arrays, "2.9.0", config)
    loaded, given = streamrnn.load_model(tmp_path / "m.h5"), [x(2, 5, 3), x(2, 4, 3)]
    for ours, wanted in zip(loaded(given), model(given), strict=True):
        np.testing.assert_array_equal(ours, wanted)


def test_attention_of_keras_2(tmp_path):
    """causal=True was an argument of the layer, and MultiHeadAttention kept its inputs' shapes."""

    def of(class_name, calls, **config):
        name = config["name"]
        return {"class_name": class_name, "name": name, "config": config, "inbound_nodes": calls}

    heads = {"num_heads": 2, "key_dim": 3, "query_shape": [None, 6, 4], "key_shape": None}
    stored = [
        of("InputLayer", [], name="x", batch_input_shape=[None, 6, 4]),
        of(
            "Attention",
            [[["x", 0, 0, {}], ["x", 0, 0, {}]]],
            name="attention",
            use_scale=False,
            causal=True,
            dropout=0.0,
        ),
        of(
            "MultiHeadAttention",
            [[["attention", 0, 0, {"value": ["x", 0, 0], "use_causal_mask": True}]]],
            name="heads",
            value_shape=[None, 6, 4],
            **heads,
        ),
    ]
    config = {"name": "m", "layers": stored}
    config |= {"input_layers": [["x", 0, 0]], "output_layers": [["heads", 0, 0]]}
    x = Input((6, 4))
    made = layers.MultiHeadAttention(2, 3)
    y = layers.Attention()([x, x], use_causal_mask=True)
    model = Model(x, made(y, x, use_causal_mask=True))
    whole = {"class_name": "Functional", "config": config}
    old_keras.legacy(tmp_path / "m.h5", {"heads": made.get_weights()}, "2.8.0", whole)
    array = np.random.default_rng(1).normal(size=(2, 6, 4)).astype(np.float32)
    np.testing.assert_array_equal(streamrnn.load_model(tmp_path / "m.h5")(array), model(array))
