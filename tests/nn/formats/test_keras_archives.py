"""Archives put together here: vocabularies, classes of one's own, masks, states."""

import io
import json
import zipfile

import numpy as np
import pyarrow as pa
import pytest

h5py = pytest.importorskip("h5py", reason="needs the keras extra")

import streamrnn  # noqa: E402
from streamrnn import layers  # noqa: E402
from streamrnn.errors import ConfigError, ModelFileError, UnsupportedError  # noqa: E402
from streamrnn.nn.formats.keras.config import translate  # noqa: E402
from streamrnn.nn.formats.keras.write import save_keras  # noqa: E402


def entry(kind, *, registered=None, **config):
    return {"module": "keras.layers", "class_name": kind, "config": config,
            "registered_name": registered}  # fmt: skip


def sequential(*members):
    return entry("Sequential", name="s", layers=list(members))


def archive(path, config, arrays, assets=None):
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file.create_group("layers")
        for name, array in arrays.items():
            file[f"layers/{name}"] = array
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("metadata.json", json.dumps({"keras_version": "3.8.0"}))
        target.writestr("config.json", json.dumps(config))
        target.writestr("model.weights.h5", weights.getvalue())
        for name, text in (assets or {}).items():
            target.writestr(f"assets/{name}", text)
    return path


def random(*shape):
    return np.random.default_rng(0).normal(0, 0.5, shape).astype(np.float32)


GRU = {"gru/cell/vars/0": random(3, 6), "gru/cell/vars/1": random(2, 6),
       "gru/cell/vars/2": random(2, 6)}  # fmt: skip
TOKENS = sequential(
    entry("InputLayer", name="event", batch_shape=[None, None], dtype="string"),
    entry("StringLookup", name="lookup", vocabulary=None, max_tokens=None, num_oov_indices=1,
          mask_token=None, oov_token="[UNK]", idf_weights=None, invert=False, encoding="utf-8",
          output_mode="int", pad_to_max_tokens=False, sparse=False, dtype="string"),
    entry("Embedding", name="embedding", input_dim=3, output_dim=3, mask_zero=False),
    entry("GRU", name="gru", units=2, return_sequences=True),
)  # fmt: skip


@pytest.fixture
def tokens(tmp_path):
    arrays = {"embedding/vars/0": random(3, 3), **GRU}
    vocabulary = {"layers/string_lookup/vocabulary.txt": "takeoff\nlanding"}
    return archive(tmp_path / "tokens.keras", TOKENS, arrays, vocabulary)


def test_a_vocabulary_among_the_assets(tokens):
    """An adapted StringLookup keeps its vocabulary as a text file."""
    model = streamrnn.load_model(tokens)
    (lookup,) = (one for one in model.layers if isinstance(one, layers.StringLookup))
    assert lookup.vocabulary == ["takeoff", "landing"]
    model.save(tokens.with_suffix(".safetensors"))
    again = streamrnn.load_model(tokens.with_suffix(".safetensors"))
    x = np.array([["landing", "takeoff", "?"]])
    np.testing.assert_array_equal(again(x), model(x))


def test_a_vocabulary_that_is_missing(tmp_path):
    """Named, with the place where it should be."""
    path = archive(tmp_path / "m.keras", TOKENS, {}, {"other.txt": "x"})
    with pytest.raises(ModelFileError, match=r"'lookup' has no vocabulary.*string_lookup/vocab"):
        streamrnn.load_model(path)


# As Keras 3.15 saves it, with TensorFlow, which lookups need.
LOOKUP = {"max_tokens": None, "num_oov_indices": 1, "mask_token": None, "invert": False,
          "sparse": False, "pad_to_max_tokens": False, "idf_weights": None, "vocabulary": None,
          "vocabulary_size": 3, "oov_method": "floormod", "salt": None}  # fmt: skip
STRINGS = {**LOOKUP, "oov_token": "[UNK]", "encoding": "utf-8"}
INTEGERS = {**LOOKUP, "oov_token": -1, "vocabulary_dtype": "int64"}
PADDED = {"max_tokens": 6, "pad_to_max_tokens": True}
LEARNED = np.array([0.5, 0.3, 0.7, 0, 0, 0], np.float32)
"""Weights of the token for unknown tokens, of a and b, and of numbers without a token."""


def lookup(tmp_path, kind, arrays, assets, **config):
    """A .keras file whose only layer is a lookup."""
    dtype = "string" if kind == "StringLookup" else "int64"
    stack = sequential(
        entry("InputLayer", name="x", batch_shape=[None, 3], dtype=dtype),
        entry(kind, name="it", **(STRINGS if kind == "StringLookup" else INTEGERS) | config),
    )
    return archive(tmp_path / "m.keras", stack, arrays, assets)


@pytest.mark.parametrize("output_mode", ["one_hot", "multi_hot", "count", "tf_idf"])
@pytest.mark.parametrize("kind", ["StringLookup", "IntegerLookup"])
@pytest.mark.parametrize("learned", [False, True])
def test_vectors_of_a_lookup(tmp_path, kind, output_mode, learned):
    """pad_to_max_tokens and idf_weights: in the config, or learned and in assets and weights."""
    group = "string_lookup" if kind == "StringLookup" else "integer_lookup"
    words = ["a", "b"] if kind == "StringLookup" else [10, 20]
    weighted = output_mode == "tf_idf"
    arrays = {f"{group}/vars/idf_weights": LEARNED} if weighted else {}
    if learned:
        unknown = "[UNK]" if kind == "StringLookup" else "-1"
        text = "\n".join([unknown, *map(str, words)])
        config, assets = {}, {f"layers/{group}/vocabulary.txt": text}
    else:
        config, assets = {"vocabulary": words}, {}
        config |= {"idf_weights": [0.3, 0.7]} if weighted else {}
    path = lookup(tmp_path, kind, arrays, assets, **config, **PADDED, output_mode=output_mode)
    x = np.array([["a", "b", "a"], ["b", "?", "a"]])
    x = x if kind == "StringLookup" else np.array([[10, 20, 10], [20, 7, 10]])
    counts = np.array([[0, 2, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]], np.float32)
    expected = {
        "one_hot": np.eye(6, dtype=np.float32)[[[1, 2, 1], [2, 0, 1]]],
        "multi_hot": np.minimum(counts, 1),
        "count": counts,
        "tf_idf": counts * LEARNED,
    }
    model = streamrnn.load_model(path)
    np.testing.assert_array_equal(model(x), expected[output_mode])
    save_keras(model, tmp_path / "again.keras")
    np.testing.assert_array_equal(
        streamrnn.load_model(tmp_path / "again.keras")(x), expected[output_mode]
    )
    if weighted:
        with zipfile.ZipFile(tmp_path / "again.keras") as file:
            weights = h5py.File(io.BytesIO(file.read("model.weights.h5")))
        np.testing.assert_array_equal(weights[f"layers/{group}/vars/idf_weights"], LEARNED)


def test_a_string_column_is_a_feature(tokens):
    """Strings go from a table into an Embedding model, state carried between batches."""
    pytest.importorskip("streamrnn.jobs", reason="needs pipelines")
    pipeline = streamrnn.Pipeline.from_dict(
        {"source": {"key": "plane", "features": ["event"]}, "model": {"path": str(tokens)}}
    )
    events = ["takeoff", "landing", "takeoff", "?", "landing"]
    planes = ["a", "a", "b", "a", "b"]
    table = pa.table({"plane": planes, "event": events})
    parts = [pipeline.process(table.slice(0, 2)), pipeline.process(table.slice(2))]
    made = pa.concat_tables([pa.table(part) for part in parts])
    model = streamrnn.load_model(tokens)
    rows = [i for i, plane in enumerate(planes) if plane == "a"]
    expected = model(np.array([[events[i] for i in rows]]))[0]
    ours = np.stack([made.column(f"gru_{u}").to_numpy() for u in range(2)], axis=1)
    np.testing.assert_array_equal(ours[rows], expected)


class Leaky(layers.Cell):
    """h' = 0.5 h + x K"""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.add_weight("kernel", (input_shape[-1], self.units))

    def call(self, inputs, states, training=False):
        h = 0.5 * states[0] + inputs @ self.named_weights()["kernel"]
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_classes_of_ones_own(tmp_path):
    """Refused by name, until they are registered; no code of the file is run."""
    cell = entry("LeakyCell", registered="mine>LeakyCell", name="cell", units=2)
    config = sequential(
        entry("InputLayer", name="x", batch_shape=[None, None, 3], dtype="float32"),
        entry("RNN", name="rnn", cell=cell, return_sequences=True),
    )
    path = archive(tmp_path / "m.keras", config, {"rnn/cell/vars/0": random(3, 2)})
    with pytest.raises(UnsupportedError, match=r"layer 'cell' \(LeakyCell\).*register_layer"):
        streamrnn.load_model(path)
    streamrnn.register_layer("mine>LeakyCell", Leaky)
    model = streamrnn.load_model(path)
    x = random(1, 3, 3)
    h, steps = np.zeros(2, np.float32), []
    for t in range(3):
        h = np.float32(0.5) * h + x[0, t] @ random(3, 2)
        steps.append(h)
    np.testing.assert_allclose(model(x)[0], steps, atol=1e-6)


def test_stateful_is_kept_with_the_batch_of_the_first_call(tmp_path):
    """The file's batch size is not."""
    config = sequential(
        entry("InputLayer", name="x", batch_shape=[32, 7, 3], dtype="float32"),
        entry("GRU", name="gru", units=2, stateful=True),
    )
    config["config"]["layers"][0]["config"]["batch_shape"] = [32, None, 3]
    model = streamrnn.load_model(archive(tmp_path / "m.keras", config, GRU))
    x = random(2, 4, 3)
    model(x[:, :1])
    carried = model(x[:, 1:])
    model.reset_state()
    np.testing.assert_array_equal(model(x), carried)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("Einsum", r"layer 'a' \(Einsum\): the operation Einsum \(keras.ops\) is not supported"),
        ("Add", r"layer 'a' \(Add\): expected one call in Keras 3's form, received 0 calls"),
    ],
)
def test_operations_that_cannot_be_computed_are_refused(kind, match, tmp_path):
    operation = {"module": "keras.src.ops.numpy", "class_name": kind, "config": {"name": "a"},
                 "registered_name": kind, "name": "a", "inbound_nodes": []}  # fmt: skip
    places = {"input_layers": [["x", 0, 0]], "output_layers": [["a", 0, 0]]}
    config = {"class_name": "Functional", "config": {"layers": [operation], **places}}
    with pytest.raises(UnsupportedError, match=match):
        streamrnn.load_model(archive(tmp_path / "m.keras", config, {}))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"gru/cell/vars/2": None}, r"missing from the file: gru/cell/bias \(2, 6\)"),
        ({"gru/cell/vars/3": random(2)}, "arrays that no layer uses: layers/gru/cell/vars/3"),
        ({"dense/vars/0": random(2)}, "arrays that no layer uses: layers/dense/vars/0"),
        ({"gru/cell/vars/0": random(4, 6)}, r"has shape \(4, 6\), but gru/cell/kernel needs"),
        ({"gru/seed_generator/vars/0": np.zeros(2)}, None),
        ({"gru_1/cell/vars/0": random(3, 6)}, "has 2 layers of class gru, but the model has 1"),
    ],
)
def test_every_array_is_used_once(change, match, tmp_path):
    """Missing, left over, of another shape; the state of random generators is no weight."""
    config = sequential(
        entry("InputLayer", name="x", batch_shape=[None, None, 3], dtype="float32"),
        entry("GRU", name="gru", units=2),
    )
    arrays = {k: v for k, v in {**GRU, **change}.items() if v is not None}
    path = archive(tmp_path / "m.keras", config, arrays)
    if match is None:
        streamrnn.load_model(path)
        return
    with pytest.raises(ModelFileError, match=match):
        streamrnn.load_model(path)


def test_options_that_do_not_belong(tokens):
    """layers, node and state are for other kinds of files."""
    with pytest.raises(ConfigError, match=r"layers are for weights without an architecture"):
        streamrnn.load_model(tokens, layers=[{"type": "GRU"}])
    with pytest.raises(ConfigError, match="node is for ONNX graphs"):
        streamrnn.load_model(tokens, node="gru")


@pytest.mark.parametrize("kind", ["GRU", "RNN", "Bidirectional"])
def test_constants_of_a_recurrent_layer_are_refused(kind):
    """Keras 2 writes how many of a call's inputs are constants: not initial states."""
    gru = {"class_name": "GRU", "config": {"name": "gru", "units": 2}}
    config = {
        "GRU": {"units": 2},
        "RNN": {"cell": {"class_name": "GRUCell", "config": {"units": 2}}},
        "Bidirectional": {"layer": gru},
    }[kind]

    def made(number):
        named = {"name": "it", **config, "num_constants": number}
        return layers.deserialize(translate({"class_name": kind, "config": named}, "2.4.0"))

    assert [made(number).name for number in (None, 0)] == ["it", "it"]
    with pytest.raises(UnsupportedError, match=r"'it' .*num_constants=1 is refused: pass const"):
        made(1)
