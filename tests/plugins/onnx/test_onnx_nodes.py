"""The onnx package's own node tests for LSTM, GRU and RNN: each passes."""

import importlib

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the onnx extra")

import streamrnn  # noqa: E402


def cases():
    base = "onnx.backend.test.case.node"
    with np.errstate(invalid="ignore"):  # OpenBLAS, for what stands beside a small matrix
        for name in ("lstm", "gru", "rnn"):
            importlib.import_module(f"{base}.{name}")
    found = importlib.import_module(base)._NodeTestCases
    wanted = ("test_lstm", "test_gru", "test_rnn", "test_simple_rnn")
    return {case.name: case for case in found if case.name.startswith(wanted)}


CASES = cases()


def test_there_are_cases():
    """They are made by importing modules, which a release may move."""
    assert len(CASES) >= 12


@pytest.mark.parametrize("name", sorted(CASES))
def test_node(name, tmp_path):
    """Called by input name and in order, in the graph's own layout."""
    case = CASES[name]
    path = tmp_path / "m.onnx"
    path.write_bytes(case.model.SerializeToString())
    model = streamrnn.load_model(path)
    for inputs, outputs in case.data_sets:
        names = [value.name for value in case.model.graph.input]
        made = model(dict(zip(names, inputs, strict=True)))
        in_order = model(*inputs)
        assert list(made) == [value.name for value in case.model.graph.output]
        for ours, again, theirs in zip(made.values(), in_order.values(), outputs, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=case.rtol, atol=1e-6)
            np.testing.assert_array_equal(ours, again)
