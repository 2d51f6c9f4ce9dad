"""Graphs that Keras's own exporter wrote (files/make_keras_onnx.py) give what Keras computes."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs the onnx extra")

import streamrnn
from streamrnn.errors import ModelMismatchError
from streamrnn.models import SequenceRunner, StepRunner

FILES = Path(__file__).parents[2] / "nn" / "formats" / "files"
RECORDED = np.load(FILES / "keras_onnx.npz")


@pytest.mark.parametrize("name", ["keras_tf2onnx", "keras_tf2onnx_whole", "keras_torch"])
def test_the_graph_gives_what_keras_computes(name: str) -> None:
    model = streamrnn.load_model(FILES / f"{name}.onnx")
    (made,) = model(RECORDED[f"{name}/x"]).values()
    np.testing.assert_allclose(made, RECORDED[f"{name}/y"], atol=1e-5)


def test_an_embedding_from_tf2onnx_runs_on_streams() -> None:
    """Its negative ids are wrapped by Less, Not, Mul and Add."""
    stream = StepRunner(streamrnn.load_model(FILES / "keras_tf2onnx.onnx"))
    ids, states = RECORDED["keras_tf2onnx/x"], stream.initial_state(2)
    parts = [stream.run([ids[:, a:b]], None, states)[0] for a, b in ((0, 1), (1, 6))]
    np.testing.assert_allclose(
        np.concatenate(parts, axis=1), RECORDED["keras_tf2onnx/y"], atol=1e-6
    )


def test_convolution_and_pooling_run_on_whole_sequences_only() -> None:
    """Each row up to its own end; on streams the reason is named."""
    model = streamrnn.load_model(FILES / "keras_tf2onnx_whole.onnx")
    with pytest.raises(ModelMismatchError, match="reads the sequence backwards"):
        StepRunner(model)
    rows, lengths = RECORDED["keras_tf2onnx_whole/x"], np.array([17, 9])
    made = SequenceRunner(model).run([rows], lengths)[0]
    (short,) = model(rows[1:, :9]).values()
    np.testing.assert_allclose(made[0], RECORDED["keras_tf2onnx_whole/y"][0], atol=1e-5)
    np.testing.assert_array_equal(made[1], short[0])
