"""`convert` to ONNX: the file in our own loader, what is refused, and what a command says."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import run_command

import streamrnn
from streamrnn import layers
from streamrnn.errors import SinkError, UnsupportedError
from streamrnn.models import Model, Sequential, StepRunner
from streamrnn.plugins.onnx.export import graph_of, save_onnx

FEATURES = 3


def model_of(*parts: layers.Layer) -> Sequential:
    return Sequential([layers.Input((None, FEATURES)), *parts])


def two_layers() -> Sequential:
    return model_of(
        layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0]),
        layers.LSTM(4, return_sequences=True, name="lstm"),
        layers.GRU(5, name="gru"),
        layers.BatchNormalization(),
        layers.Dense(2, "sigmoid", name="p"),
    )


def test_our_loader_runs_the_file_on_streams(tmp_path: Path) -> None:
    """It finds the states itself; the outputs are those of the model, step by step."""
    pytest.importorskip("onnx", reason="needs the onnx extra")
    model = two_layers()
    save_onnx(model, tmp_path / "m.onnx")
    ours, theirs = StepRunner(streamrnn.load_model(tmp_path / "m.onnx")), StepRunner(model)
    assert ours.state_spec == {"graph/lstm/h": 4, "graph/lstm/c": 4, "graph/gru/h": 5}
    assert ours.outputs == theirs.outputs == [("p", 2)]
    x = np.random.default_rng(0).normal(0, 1, (2, 6, FEATURES)).astype(np.float32)
    carried = [(runner, runner.initial_state(2)) for runner in (ours, theirs)]
    for window in (x[:, :4], x[:, 4:]):
        a, b = (runner.run([window], None, states)[0] for runner, states in carried)
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    for name, state in carried[1][1].items():
        np.testing.assert_allclose(carried[0][1][f"graph/{name}"], state, rtol=1e-6, atol=1e-6)


def test_equal_models_are_equal_bytes(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the onnx extra")
    model = two_layers()
    for name in ("a.onnx", "b.onnx"):
        save_onnx(model, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_inputs_and_outputs_have_the_names_of_the_model() -> None:
    graph = graph_of(two_layers())
    assert [(v.name, v.dims) for v in graph.inputs[1:]] == [
        ("lstm/h", (1, None, 4)),
        ("lstm/c", (1, None, 4)),
        ("gru/h", (1, None, 5)),
    ]
    outputs = ["p", "lstm/h_out", "lstm/c_out", "gru/h_out"]
    assert [v.name for v in graph.outputs] == outputs


class Custom(layers.Dense):
    """A subclass may compute anything."""


def with_state() -> Model:
    x, h = layers.Input((None, FEATURES)), layers.Input((4,))
    return Model([x, h], layers.GRU(4, name="it")(x, initial_state=h))


def with_mask() -> Model:
    x, m = layers.Input((None, FEATURES)), layers.Input((None,), dtype="bool")
    return Model([x, m], layers.GRU(4, name="it")(x, mask=m))


def in_training() -> Model:
    x = layers.Input((None, FEATURES))
    return Model(x, layers.Dropout(0.5, name="it")(x, training=True))


def of_ids(layer: layers.Layer) -> Model:
    ids = layers.Input((None,), dtype="int64")
    return Model(ids, layer(ids))


def of_strings() -> Model:
    words = layers.Input((None,), dtype="string", name="it")
    return Model(words, layers.StringLookup(vocabulary=["a"])(words))


REFUSED: dict[str, tuple[Callable[[], Model], str]] = {
    "go_backwards": (
        lambda: model_of(layers.LSTM(4, go_backwards=True, name="it")),
        "it reads each window from its end",
    ),
    "Bidirectional": (
        lambda: model_of(layers.Bidirectional(layers.LSTM(4), name="it")),
        "its second direction reads each window from its end",
    ),
    "Masking": (lambda: model_of(layers.Masking(name="it")), "it masks steps, and"),
    "mask_zero": (
        lambda: of_ids(layers.Embedding(4, 2, mask_zero=True, name="it")),
        "it masks steps, and",
    ),
    "a mask of a call": (with_mask, "called with a mask"),
    "initial_state": (with_state, "the model computes its initial_state"),
    "training": (in_training, "a graph draws no random numbers"),
    "strings": (of_strings, "it reads strings. Give the model the ids"),
    "an activation": (
        lambda: model_of(layers.LSTM(4, "gelu", name="it")),
        "no recurrent node of ONNX has the activation 'gelu'; supported: linear, tanh",
    ),
    "a cell": (
        lambda: model_of(layers.RNN(layers.LayerNormLSTMCell(4), name="it")),
        r"no node for .*\(LayerNormLSTMCell\); it has nodes for LSTMCell, PeepholeLSTMCell",
    ),
    "stacked cells": (
        lambda: model_of(layers.RNN([layers.GRUCell(4), layers.GRUCell(4)], name="it")),
        r"no node for .*\(StackedRNNCells\)",
    ),
    "a custom layer": (lambda: model_of(Custom(4, name="it")), "can be written are Activation"),
    "a convolution": (
        lambda: model_of(layers.Conv1D(2, 2, padding="causal", name="it")),
        "or write the model as .safetensors",
    ),
    **{
        f"axis 1 of {kind.__name__}": (
            lambda kind=kind: Sequential([layers.Input((4, 3)), kind(axis=1, name="it")]),
            "axes other than the last",
        )
        for kind in (layers.LayerNormalization, layers.BatchNormalization, layers.Softmax)
    },
    "a threshold": (lambda: model_of(layers.ReLU(threshold=1.0, name="it")), "threshold=0, and"),
    "a layer inside": (
        lambda: model_of(layers.TimeDistributed(layers.Flatten(), name="it")),
        r"the layer inside is .*\(Flatten\); supported: Activation, ",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_onnx_does_not_have_is_refused_by_name(what: str) -> None:
    """Never written wrong: the message names the layer, and says why or what to do."""
    make, expected = REFUSED[what]
    with pytest.raises(UnsupportedError, match=rf"'it'.* cannot be written as ONNX: .*{expected}"):
        graph_of(make())


def test_an_onnx_file_is_not_written_again(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="needs the onnx extra")
    save_onnx(two_layers(), tmp_path / "m.onnx")
    with pytest.raises(UnsupportedError, match="is already an ONNX graph: copy its file"):
        save_onnx(streamrnn.load_model(tmp_path / "m.onnx"), tmp_path / "n.onnx")


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    expected = r"m\.onnx: writing this file needs onnx: pip install 'streamrnn\[onnx\]'"
    with pytest.raises(UnsupportedError, match=expected):
        save_onnx(two_layers(), tmp_path / "m.onnx")
    assert not [*tmp_path.iterdir()]


def test_weights_that_no_file_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="needs the onnx extra")
    monkeypatch.setattr("streamrnn.plugins.onnx.load._MAX_BYTES", 100)
    with pytest.raises(UnsupportedError, match=r"m\.onnx: the weights take [\d,]+ bytes; an ONNX"):
        save_onnx(two_layers(), tmp_path / "m.onnx")


def test_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="does not exist; create it first"):
        save_onnx(two_layers(), tmp_path / "none" / "m.onnx")
    with pytest.raises(UnsupportedError, match="not to a URI"):
        save_onnx(two_layers(), "s3://bucket/m.onnx")
    with pytest.raises(UnsupportedError, match=r"expected the suffix \.onnx \(an ONNX graph\)"):
        save_onnx(two_layers(), tmp_path / "m.bin")


def test_the_command_shows_the_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx", reason="needs the onnx extra")
    source, target = tmp_path / "m.safetensors", tmp_path / "m.onnx"
    two_layers().save(source)
    code, out, err = run_command(capsys, "convert", source, target)
    assert (code, err) == (0, "")
    assert out.splitlines()[-4:] == [
        "state: input lstm/h, next value lstm/h_out",
        "state: input lstm/c, next value lstm/c_out",
        "state: input gru/h, next value gru/h_out",
        f"wrote {target}",
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.onnx", "m.safetensors"]


def test_a_refused_command_keeps_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "m.safetensors", tmp_path / "m.onnx"
    model_of(layers.LSTM(4, go_backwards=True, name="it")).save(source)
    target.write_text("kept")
    code, out, err = run_command(capsys, "convert", source, target)
    assert (code != 0, out) == (True, "")
    assert err.startswith("error: layer 'it' (LSTM) cannot be written as ONNX: ")
    assert target.read_text() == "kept"


def test_the_help_names_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_command(capsys, "convert", "--help")
    assert code == 0
    assert ".keras or .onnx" in " ".join(out.split())
