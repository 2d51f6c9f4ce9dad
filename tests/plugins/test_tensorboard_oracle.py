"""What TensorBoard reads of our events."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "jax")
pytest.importorskip("keras", reason="needs the oracles extra")
pytest.importorskip("tensorboard", reason="needs the oracles extra")

from nn.training.test_callbacks_oracle import dense, fits
from nn.training.test_keras_oracle import pair
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

import streamrnn

pytestmark = pytest.mark.filterwarnings("ignore")


def test_what_tensorboard_reads(tmp_path: Path) -> None:
    def make(of: Any, number: int) -> list[Any]:
        if number == 0:
            return []
        return [of.callbacks.TensorBoard(tmp_path, update_freq=2, write_steps_per_second=True)]

    _, (model, _, history) = fits(make, epochs=3)
    wanted = {
        "train": {"epoch_loss": "loss", "epoch_mae": "mae"},
        "validation": {"epoch_loss": "val_loss", "epoch_mae": "val_mae"},
    }
    scalars = {}
    for folder in wanted:
        scalars[folder] = tensors(EventAccumulator(str(tmp_path / folder)).Reload())
    for folder, tags in wanted.items():
        for tag, name in tags.items():
            steps, values = scalars[folder][tag]
            assert steps == [0, 1, 2]
            np.testing.assert_allclose(values, history.history[name], rtol=1e-6)
    assert scalars["train"]["epoch_learning_rate"][1] == pytest.approx([0.05] * 3)
    assert scalars["train"]["batch_loss"][0] == [0, 2, 4, 6, 8]
    assert min(scalars["train"]["epoch_steps_per_second"][1]) > 0
    assert scalars["validation"]["evaluation_loss_vs_iterations"][0] == [3, 6, 9]
    assert model.optimizer.iterations == 9


def test_tensorboard_has_a_line_for_each_class(tmp_path: Path) -> None:
    model = pair(dense)[1]
    model.compile("sgd", "mse")
    board = streamrnn.callbacks.TensorBoard(tmp_path)
    board.set_model(model)
    board.on_epoch_end(4, {"f1_score": np.array([0.25, 0.5])})
    board.on_train_end()
    found = tensors(EventAccumulator(str(tmp_path / "train")).Reload())
    assert found["epoch_f1_score_0"] == ([4], [0.25])
    assert found["epoch_f1_score_1"] == ([4], [0.5])


def tensors(events: Any) -> dict[str, tuple[list[int], list[float]]]:
    """Scalars are stored as tensors of one number."""
    return {
        tag: (
            [e.step for e in events.Tensors(tag)],
            [float(make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)],
        )
        for tag in events.Tags()["tensors"]
    }
