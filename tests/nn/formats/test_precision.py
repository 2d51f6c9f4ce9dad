"""Models in lower precision: rounded when loaded, stored as integers, and never back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
from selection import slow

from streamrnn import Input, Model, Sequential, layers, load_model
from streamrnn.errors import ConfigError, ModelFileError, UnsupportedError
from streamrnn.nn.formats.convert import convert
from streamrnn.nn.layers.precision import assign_integers, packable_layers, packed_weights

X = np.random.default_rng(1).normal(size=(3, 12, 4)).astype(np.float32)


def model() -> Sequential:
    return Sequential(
        [
            Input((None, 4)),
            layers.Bidirectional(layers.LSTM(5, return_sequences=True), name="both"),
            layers.GRU(6, return_sequences=True, name="gru"),
            layers.Dense(2, name="y"),
        ]
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    model().save(tmp_path / "m.safetensors")
    return tmp_path / "m.safetensors"


def test_rounded_when_loaded_or_converted_it_is_the_same_model(path: Path, tmp_path: Path) -> None:
    full, rounded = load_model(path), load_model(path, precision="int16")
    assert 0 < np.abs(full(X) - rounded(X)).max() < 1e-3
    out = tmp_path / "packed.safetensors"
    convert(path, out, precision="int16")
    packed = load_model(out)
    np.testing.assert_array_equal(packed(X), rounded(X))
    assert packed.fingerprint() == rounded.fingerprint() != full.fingerprint()
    assert load_model(out, precision="int16").fingerprint() == packed.fingerprint()


def test_weights_that_are_set_to_what_they_are_stay_the_same_integers(path: Path) -> None:
    rounded = load_model(path, precision="int16")
    before, y = rounded.fingerprint(), rounded(X)
    rounded.set_weights(rounded.get_weights())
    assert rounded.fingerprint() == before
    weights = rounded.get_weights()
    weights[0] = 2 * weights[0]
    rounded.set_weights(weights)
    assert rounded.fingerprint() != before
    weights[0] = weights[0] / 2
    rounded.set_weights(weights)
    np.testing.assert_allclose(rounded(X), y, atol=1e-3)


def test_a_model_is_not_rounded_in_place(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"is both IN and OUT\. Name another OUT"):
        convert(path, path.parent / "." / path.name, precision="int16")
    assert path.read_bytes() == before
    convert(path, path)


def test_integers_of_two_precisions_in_one_layer_are_refused(path: Path) -> None:
    both = [packed_weights(load_model(path, precision=each)) for each in ("int16", "int8")]
    mixed = both[0] | {name: each for name, each in both[1].items() if "recurrent" in name}
    with pytest.raises(ModelFileError, match="weights in int16 and int8: expected one precision"):
        assign_integers(load_model(path), mixed)


def test_a_packed_file_is_half_the_size(tmp_path: Path) -> None:
    large = Sequential([Input((None, 64)), layers.LSTM(128)])
    large.save(tmp_path / "large.safetensors")
    load_model(tmp_path / "large.safetensors", precision="int16").save(
        tmp_path / "half.safetensors"
    )
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "large")]
    assert sizes[0] < 0.52 * sizes[1]


def test_a_packed_file_cannot_go_back(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "packed.safetensors"
    load_model(path, precision="int16").save(out)
    with pytest.raises(ConfigError, match=r"stored as int16, and cannot become float32"):
        load_model(out, precision="float32")


def test_an_unknown_precision_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="precision must be auto or one of float32, int16"):
        load_model(path, precision="int7")


def test_a_model_without_such_layers_is_refused(tmp_path: Path) -> None:
    dense = Sequential([Input((None, 512)), layers.Dense(2)])
    dense.save(tmp_path / "dense.safetensors")
    with pytest.raises(
        UnsupportedError, match=r"no layer that computes in int16\. Such layers are LSTM"
    ):
        load_model(tmp_path / "dense.safetensors", precision="int16")


def test_cells_that_have_no_integers_stay_as_they_are(tmp_path: Path) -> None:
    """Peepholes, layer normalisation, softmax in a cell."""
    cells = [layers.PeepholeLSTMCell(3), layers.LayerNormLSTMCell(3), layers.GRUCell(3)]
    mixed = Sequential(
        [
            Input((None, 4)),
            layers.RNN(cells, return_sequences=True, name="stack"),
            layers.GRU(3, activation="softmax", name="soft"),
        ]
    )
    mixed.save(tmp_path / "m.safetensors")
    rounded = load_model(tmp_path / "m.safetensors", precision="int16")
    rounded.save(tmp_path / "packed.safetensors")
    with safe_open(tmp_path / "packed.safetensors", framework="numpy") as file:
        tops = json.loads(file.metadata()["integers"])
    assert sorted(tops) == ["stack/cell/2/kernel", "stack/cell/2/recurrent_kernel"]
    np.testing.assert_array_equal(load_model(tmp_path / "packed.safetensors")(X), rounded(X))


def wide() -> Sequential:
    """Dense and Conv1D of sizes where integers pay, and of sizes where they do not."""
    return Sequential(
        [
            Input((None, 32)),
            layers.Conv1D(64, 4, padding="causal", dilation_rate=2, name="conv"),
            layers.Conv1D(128, 1, padding="causal", groups=2, name="shared"),
            layers.GRU(3, return_sequences=True, name="gru"),
            layers.Dense(128, name="few_inputs"),
            layers.TimeDistributed(layers.Dense(64, activation="softmax"), name="each"),
            layers.Dense(63, name="few_units"),
        ]
    )


@slow
def test_dense_and_convolutions_are_packed_where_it_pays(tmp_path: Path) -> None:
    """Slow: sizes that pay, each compiled for itself."""
    exact, x = wide(), np.random.default_rng(3).normal(size=(3, 9, 32)).astype(np.float32)
    exact.save(tmp_path / "m.safetensors")
    rounded = load_model(tmp_path / "m.safetensors", precision="int16")
    assert 0 < np.abs(exact(x) - rounded(x)).max() < 1e-3
    lines: list[str] = []
    rounded.summary(print_fn=lines.append)
    assert "Precision: int16 in conv, gru, each; else float32" in lines
    rounded.save(tmp_path / "packed.safetensors")
    packed = load_model(tmp_path / "packed.safetensors")
    np.testing.assert_array_equal(packed(x), rounded(x))
    assert packed.fingerprint() == rounded.fingerprint()
    with safe_open(tmp_path / "packed.safetensors", framework="numpy") as file:
        assert file.get_tensor("conv/kernel").shape == (4, 32, 64)
        assert file.get_tensor("conv/kernel").dtype == np.int16
        assert file.get_tensor("shared/kernel").dtype == np.float32


def test_a_file_with_fewer_packed_layers_keeps_them(tmp_path: Path) -> None:
    """As one written before Dense could be packed: the same bits, and another fingerprint."""
    before = wide()
    ((_, gru),) = (layer for layer in packable_layers(before) if layer[0] == "gru/cell")
    gru.round_weights("int16")
    before.save(tmp_path / "packed.safetensors")
    again = load_model(tmp_path / "packed.safetensors", precision="int16")
    x = np.random.default_rng(3).normal(size=(3, 9, 32)).astype(np.float32)
    np.testing.assert_array_equal(again(x), before(x))
    assert sorted(packed_weights(again)) == ["gru/cell/kernel", "gru/cell/recurrent_kernel"]
    fingerprint = before.fingerprint()
    for _, layer in packable_layers(before):
        if layer.pays():
            layer.round_weights("int16")
    assert before.fingerprint() != fingerprint == again.fingerprint()


def test_weights_set_later_are_rounded_too(path: Path) -> None:
    rounded = load_model(path, precision="int16")
    fresh = model()
    rounded.set_weights(fresh.get_weights())
    assert 0 < np.abs(rounded(X) - fresh(X)).max() < 1e-3
    again = model()
    rounded.save(path)
    again.load_weights(path)
    np.testing.assert_array_equal(again(X), rounded(X))


def test_the_summary_says_which_layers_are_packed(path: Path) -> None:
    lines: list[str] = []
    load_model(path, precision="int16").summary(print_fn=lines.append)
    assert "Precision: int16 in both, gru; else float32" in lines


def test_it_is_no_graph_of_onnx(path: Path, tmp_path: Path) -> None:
    save_onnx = pytest.importorskip("streamrnn.plugins.onnx.export", reason="a plug-in").save_onnx
    rounded = load_model(path, precision="int16")
    with pytest.raises(UnsupportedError, match="has weights in int16, and would give other values"):
        save_onnx(rounded, tmp_path / "m.onnx")


def edited(path: Path, **changes: np.ndarray | None) -> None:
    """Write the file again with other arrays; None: without."""
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = "gru/cell/kernel"
    for part, array in changes.items():
        key = name if part == "values" else f"{name}.{part}"
        if array is None:
            del arrays[key]
        else:
            arrays[key] = array
    save_file(arrays, path, metadata)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scales": None}, "the file lacks gru/cell/kernel.scales, needed for gru/cell/kernel"),
        ({"scales": np.zeros(18, np.float32)}, r"a scale is below 2\*\*-120 or not finite"),
        ({"scales": np.ones(3, np.float32)}, "values .*, scales .* and exponents"),
        ({"values": np.full((10, 18), 32767, np.int16)}, "a sum of products would exceed 32 bits"),
        ({"values": np.zeros((10, 18), np.int32)}, "they are int32, expected one of int16"),
        ({"exponents": np.full(10, 3, np.int8)}, "an exponent is neither in -24…0 nor -128"),
    ],
)
def test_a_damaged_file_is_refused(
    path: Path, changes: dict[str, np.ndarray | None], message: str
) -> None:
    load_model(path, precision="int16").save(path)
    edited(path, **changes)
    with pytest.raises(ModelFileError, match=message):
        load_model(path)


@pytest.mark.parametrize(
    ("kernel", "recurrent"),
    [({"inputs_last": True}, {}), ({}, {"exponents": np.full(6, -1, np.int8)})],
)
def test_integers_that_a_kernel_would_read_otherwise_are_refused(
    kernel: dict[str, Any], recurrent: dict[str, Any], path: Path
) -> None:
    """The inputs on another axis, or factors of a state, which a kernel does not read."""
    full, names = load_model(path), ("gru/cell/kernel", "gru/cell/recurrent_kernel")
    found = packed_weights(load_model(path, precision="int16"))
    changed = {}
    for name, change in zip(names, (kernel, recurrent), strict=True):
        changed[name] = found[name]._replace(**change)
    with pytest.raises(ModelFileError, match="no layer can use gru/cell/kernel, gru/cell/r"):
        assign_integers(full, changed)


def test_a_graph_keeps_shared_and_nested_layers(tmp_path: Path) -> None:
    inner = Sequential([Input((None, 4)), layers.GRU(4, return_sequences=True)], name="inner")
    x = Input((None, 4))
    y = inner(x)
    shared = layers.GRU(4, return_sequences=True, name="shared")
    whole = Model(x, shared(shared(y)))
    whole.save(tmp_path / "m.safetensors")
    rounded = load_model(tmp_path / "m.safetensors", precision="int16")
    rounded.save(tmp_path / "packed.safetensors")
    np.testing.assert_array_equal(load_model(tmp_path / "packed.safetensors")(X), rounded(X))
