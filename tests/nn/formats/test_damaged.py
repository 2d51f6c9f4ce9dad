"""Damaged and hostile files: an error of ours that names the file, and nothing else.

A change that only hits a number may give a model with other finite numbers. For a longer search:
STREAMRNN_FUZZ=4000 pytest tests/nn/formats/test_damaged.py (changes a file; 400 by default).

Slow: all of it; each format has its own tests of what is invalid.
"""

import json
import os
import random
import resource
import signal
import tracemalloc
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from selection import slow

import streamrnn
from streamrnn.errors import ModelFileError, StreamRNNError, UnsupportedError

pytestmark = slow

FILES = Path(__file__).parent / "files"
TORCH = [{"type": "Embedding", "weights": "emb"}, {"type": "LSTM", "weights": "dec"}]
KINDS = {
    "masked_features.keras": None,
    "shared_and_nested.keras": None,
    "encoder_and_decoder.h5": None,
    "stacked_cells.weights.h5": [{"type": "RNN", "cell": {"type": "LSTMCell", "units": 2},
                                  "weights": "layers/rnn_1"}],
    "torch.safetensors": TORCH,
    "native.safetensors": None,
    "graph.safetensors": None,
    "torch_old.onnx": None,
    "ids.onnx": None,
    "config.json in masked_ids.keras": None,
    "model.weights.h5 in masked_ids.keras": None,
}  # fmt: skip
MOST = 20 << 20
"""Bytes that reading a file made to hurt may take at once, all Python objects and arrays of it."""
TRIES = int(os.environ.get("STREAMRNN_FUZZ", "400"))


def original(name, tmp_path_factory):
    if " in " in name:
        pytest.importorskip("h5py")
        member, _, archive = name.partition(" in ")
        with zipfile.ZipFile(FILES / archive) as file:
            return file.read(member)
    if name not in ("native.safetensors", "graph.safetensors"):
        pytest.importorskip("onnx" if name.endswith(".onnx") else "h5py")
        return (FILES / name).read_bytes()
    path = tmp_path_factory.mktemp("native") / name
    if name == "graph.safetensors":
        pytest.importorskip("onnx")
        model = streamrnn.load_model(FILES / "ids.onnx")
    else:
        model = streamrnn.load_model(FILES / "torch.safetensors", layers=TORCH[:1])
    model.save(path)
    return path.read_bytes()


def write(path, name, damaged):
    """The damaged bytes; where they are a member, in an archive that is whole (zips have CRCs)."""
    if " in " not in name:
        path.write_bytes(damaged)
        return
    member, _, archive = name.partition(" in ")
    with zipfile.ZipFile(FILES / archive) as old, zipfile.ZipFile(path, "w") as new:
        for other in old.namelist():
            new.writestr(other, damaged if other == member else old.read(other))


class HangsError(BaseException):
    """Nothing on the way takes it for the error of a damaged file."""


@contextmanager
def no_hang():
    """Ends what takes a minute of this process's own time, where some milliseconds are usual."""

    def end(*_):
        raise HangsError

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, 60)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def load(path, layers):
    """The model's weights, or None if the file was refused as it should be."""
    try:
        with no_hang():
            model = streamrnn.load_model(path, layers=layers)
    except StreamRNNError as error:
        assert str(error).startswith(str(path))  # noqa: PT017 (both ways out are right)
        return None
    return model.weights


def changes(data, seed):
    """(what was done, damaged bytes): cut off, bits flipped, bytes replaced or moved."""
    rng = random.Random(seed)
    for i in range(TRIES):
        made = bytearray(data)
        at = rng.randrange(len(data))
        if i % 5 == 0:
            yield f"cut at {at}", bytes(made[:at])
        elif i % 5 == 1:
            end = at + rng.randrange(1, 40)
            made[at:end] = rng.randbytes(len(made[at:end]))
            yield f"noise at {at}", bytes(made)
        elif i % 5 == 2:
            del made[at : at + rng.randrange(1, 9)]
            yield f"hole at {at}", bytes(made)
        else:
            # Where structure is dense: near the beginning, or anywhere.
            at = rng.randrange(min(len(data), 3000)) if i % 2 else at
            made[at] ^= 1 << rng.randrange(8)
            yield f"bit at {at}", bytes(made)


@pytest.mark.parametrize("name", KINDS)
def test_damage(name, tmp_path, tmp_path_factory):
    """No traceback, no hang, no other file, whatever the damage."""
    data = original(name, tmp_path_factory)
    path = tmp_path / name.rpartition(" ")[2]
    refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for what, damaged in changes(data, seed=name):
        write(path, name, damaged)
        try:
            weights = load(path, KINDS[name])
        except BaseException as error:
            raise AssertionError(f"{name}, {what}: {error!r}") from error
        if weights is None:
            refused += 1
        else:
            assert all(np.isfinite(w).all() for w in weights), what
    assert refused > TRIES / 5
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500 << 10, f"{grown >> 10} MB more"


# ---- made to hurt


def archive(path, config, weights=b"", *, compress=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compress) as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3.5.0"}))
        file.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        file.writestr("model.weights.h5", weights)


def weights_of(name):
    with zipfile.ZipFile(FILES / name) as file:
        return file.read("model.weights.h5")


def sequential(*layers):
    return {"class_name": "Sequential", "config": {"name": "s", "layers": list(layers)}}


def lstm(**config):
    return {"class_name": "LSTM", "config": {"name": "l", "batch_input_shape": [None, None, 3],
                                             "units": 4, **config}}  # fmt: skip


def refused(path, match, error=ModelFileError):
    """By one error that names it, before much memory is taken for what it claims to hold."""
    tracemalloc.start()
    try:
        with no_hang(), pytest.raises(error, match=match) as caught:
            streamrnn.load_model(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith(str(path))
    assert most < MOST


def test_zip_bombs(tmp_path):
    """A member that unpacks to far more than it takes."""
    pytest.importorskip("h5py")
    path = tmp_path / "m.keras"
    archive(path, sequential(), b"\0" * (300 << 20), compress=zipfile.ZIP_DEFLATED)
    refused(path, r"model\.weights\.h5 would expand to 314,572,800 bytes")
    archive(path, " " * (300 << 20), compress=zipfile.ZIP_DEFLATED)
    refused(path, r"config\.json would expand")


@pytest.mark.parametrize(
    "config",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"class_name": "Sequential", "config": {"layers": [' * 50_000 + "]}}" * 50_000,
        json.dumps({"class_name": "Sequential", "config": {"layers": 3}}),
        json.dumps([1, 2]),
        json.dumps({"class_name": "Functional", "config": {"layers": [], "input_layers": [],
                                                            "output_layers": []}}),
        "null",
        "{",
    ],
    ids=["deep-list", "deep-models", "no-list", "list", "empty", "null", "cut"],
)  # fmt: skip
def test_configs_that_are_none(config, tmp_path):
    """Deep nesting, wrong types, nothing."""
    pytest.importorskip("h5py")
    path = tmp_path / "m.keras"
    archive(path, config, weights_of("masked_features.keras"))
    refused(path, r"m\.keras: ", StreamRNNError)


@pytest.mark.parametrize(
    "layer",
    [
        lstm(units=10**9),
        lstm(units=20_000),
        lstm(batch_input_shape=[None, None, 10**12]),
        lstm(units=-3),
        lstm(units="4"),
        lstm(units=None),
        lstm(activation={"class_name": "function", "config": "os.system"}),
        {"class_name": "Embedding", "config": {"name": "e", "input_dim": 10**6,
                                                "output_dim": 10**6}},
        {"class_name": "RNN", "config": {"cell": {"class_name": "LSTM", "config": {"units": 2}}}},
        {"class_name": "os>system", "config": {"name": "rm"}},
    ],
)  # fmt: skip
def test_absurd_layers(layer, tmp_path):
    """Sizes beyond the file, wrong types, functions from elsewhere."""
    pytest.importorskip("h5py")
    path = tmp_path / "m.keras"
    archive(path, sequential(layer), weights_of("masked_features.keras"))
    refused(path, r"m\.keras: ", StreamRNNError)


def test_a_cycle_of_layers(tmp_path):
    """A graph that waits for itself."""
    pytest.importorskip("h5py")

    def tensor(name):
        history = {"shape": [None, 3], "dtype": "float32", "keras_history": [name, 0, 0]}
        return {"class_name": "__keras_tensor__", "config": history}

    layers = [
        {"class_name": "InputLayer", "name": "x", "inbound_nodes": [],
         "config": {"name": "x", "batch_shape": [None, 3], "dtype": "float32"}},
        *({"class_name": "Add", "name": a, "config": {"name": a},
           "inbound_nodes": [{"args": [[tensor("x"), tensor(b)]], "kwargs": {}}]}
          for a, b in (("a", "b"), ("b", "a"))),
    ]  # fmt: skip
    config = {"class_name": "Functional", "config": {
        "name": "m", "layers": layers, "input_layers": ["x", 0, 0],
        "output_layers": ["a", 0, 0]}}  # fmt: skip
    path = tmp_path / "m.keras"
    archive(path, config, weights_of("masked_features.keras"))
    refused(path, "that call is missing, or itself needs this one")


def hdf5(path, fill):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"l"]
        group = file.create_group("l")
        group.attrs["weight_names"] = [b"k"]
        fill(h5py, file, group)
    return path


def external_link(h5py, file, group):
    group["k"] = h5py.ExternalLink("/etc/passwd", "/k")


def soft_link(h5py, file, group):
    group["k"] = h5py.SoftLink("/elsewhere")


def external_array(h5py, file, group):
    group.create_dataset("k", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def virtual_array(h5py, file, group):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "k", (4,))
    group.create_virtual_dataset("k", layout)


def huge_array(h5py, file, group):
    group.create_dataset("k", (10**6, 10**6), "f4")


def swelling_array(h5py, file, group):
    group.create_dataset("k", (1 << 27,), "f4", compression="gzip", chunks=(1 << 22,))
    group["k"][: 1 << 22] = 0


def loop(h5py, file, group):
    group["again"] = group


def texts(h5py, file, group):
    group["k"] = np.array([b"x", b"y"])


@pytest.mark.parametrize(
    ("fill", "match"),
    [
        (external_link, "l/k is a soft or external link"),
        (soft_link, "l/k is a soft or external link"),
        (external_array, "l/k stores its values in another file"),
        (virtual_array, "l/k stores its values in another file"),
        (huge_array, "l/k declares"),
        (swelling_array, "l/k declares"),
        (loop, "is linked more than once"),
        (texts, "l/k is not numeric"),
    ],
)
def test_hdf5_that_leads_elsewhere(fill, match, tmp_path):
    """Nothing outside is opened, nothing is unpacked beyond measure."""
    path = hdf5(tmp_path / "w.h5", fill)
    with pytest.raises(ModelFileError, match=match):
        streamrnn.load_model(path, layers=[{"type": "Dense", "units": 1}])


def onnx_file(path, change):
    pytest.importorskip("onnx")
    from plugins.onnx import onnx_graphs

    made = onnx_graphs.as_tf2onnx_writes_it()
    change(made)
    path.write_bytes(made.SerializeToString())
    return path


def test_onnx_data_elsewhere(tmp_path):
    """External data is not opened."""

    def change(made):
        tensor = made.graph.initializer[0]
        tensor.data_location = 1
        tensor.external_data.add(key="location", value="/etc/passwd")

    refused(onnx_file(tmp_path / "m.onnx", change), "'W' stores its values in another file",
            UnsupportedError)  # fmt: skip


def test_onnx_huge_arrays(tmp_path):
    """Arrays that a graph would make from a few numbers."""
    pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    def change(made):
        made.graph.initializer.append(numpy_helper.from_array(np.array([10**6, 10**6]), "big"))
        made.graph.node.insert(0, helper.make_node("ConstantOfShape", ["big"], ["zeros"]))

    refused(onnx_file(tmp_path / "m.onnx", change), "would make an array of shape",
            StreamRNNError)  # fmt: skip


def test_onnx_operators_by_name(tmp_path):
    """The first node that cannot be run is named, and its operator; so are attributes."""

    def change(made):
        made.graph.node[-1].op_type = "Hardmax"
        made.graph.node[-1].name = "last"

    refused(onnx_file(tmp_path / "m.onnx", change), r"node 'last' \(Hardmax\): the operator",
            UnsupportedError)  # fmt: skip

    def more(made):
        made.graph.node[-1].attribute.add(name="colour", i=3, type=2)

    refused(onnx_file(tmp_path / "m.onnx", more), r"\(Softmax\): attribute 'colour'",
            UnsupportedError)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [("clip", -3.0, "clip=-3.0"), ("clip", float("inf"), "clip=inf"), ("colour", 1, "'colour'")],
)
def test_onnx_attributes_of_recurrent_nodes(name, value, match, tmp_path):
    """Each attribute is honoured or refused."""
    pytest.importorskip("onnx")
    from onnx import helper

    def change(made):
        made.graph.node[1].attribute.append(helper.make_attribute(name, value))

    refused(onnx_file(tmp_path / "m.onnx", change), rf"node 'rnn' \(LSTM\): .*{match}",
            UnsupportedError)  # fmt: skip


def test_weights_that_are_no_numbers(tmp_path):
    """NaN is an error, with the array's name."""
    from safetensors.numpy import save_file

    weight = np.full((2, 3), np.nan, np.float32)
    save_file({"a.weight": weight}, tmp_path / "w.safetensors")
    with pytest.raises(ModelFileError, match=r"a\.weight contains NaN"):
        streamrnn.load_model(tmp_path / "w.safetensors", layers=[{"type": "Linear", "weights": "a"}])  # fmt: skip  # noqa: E501


def test_native_config_beyond_its_weights(tmp_path):
    """The native format is bounded by what it stores as well."""
    from safetensors.numpy import save_file

    config = sequential(lstm(units=30_000))
    metadata = {"format": "streamrnn", "version": "1", "config": json.dumps(config)}
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "m.safetensors", metadata)
    refused(tmp_path / "m.safetensors", "but the file contains only")
