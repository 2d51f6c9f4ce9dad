"""Write the weather model, weather/model.safetensors, in the formats of Keras, PyTorch and ONNX.

    pip install 'streamrnn[keras-jax]' torch onnx
    python pipelines/origins/make.py

weather.keras is saved by Keras, state_dict.safetensors holds the state_dict of a torch.nn.Module,
and torch.onnx exports this module as weather.onnx, with the state as input `h` and output `h_next`.
check.npz holds inputs and Keras's outputs for `streamrnn convert … --check`.
"""

import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
import torch
from safetensors.torch import save_file

import streamrnn
from streamrnn.layers import GRU, Dense, Normalization, Rescaling

HERE = Path(__file__).parent
TRAINED = HERE.parent / "weather" / "model.safetensors"


def parts(model: streamrnn.Model) -> tuple[Normalization, GRU, Dense, Rescaling]:
    normalize, gru, dense, scale = model.layers
    assert isinstance(normalize, Normalization)
    assert isinstance(gru, GRU)
    assert isinstance(dense, Dense)
    assert isinstance(scale, Rescaling)
    return normalize, gru, dense, scale


def as_keras(model: streamrnn.Model) -> keras.Model:
    """Return the same layers and weights in Keras."""
    _, gru, dense, scale = parts(model)
    copy = keras.Sequential(
        [
            keras.Input((None, 8)),
            keras.layers.Normalization(name="normalize"),
            keras.layers.GRU(gru.units, return_sequences=True, name="gru"),
            keras.layers.Dense(dense.units, name="dense"),
            keras.layers.Rescaling(scale.scale.item(), scale.offset.item(), name="temp_3h"),
        ]
    )
    copy.set_weights(model.get_weights())
    copy.layers[0].finalize_state()
    return copy


class Forecast(torch.nn.Module):
    """The same in PyTorch: gates r z n, weights transposed, mean and deviation as buffers."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, model: streamrnn.Model) -> None:
        super().__init__()
        normalize, gru, dense, scale = parts(model)
        mean, variance, _ = normalize.get_weights()
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("deviation", torch.tensor(np.sqrt(variance)), persistent=False)
        self.gru = torch.nn.GRU(8, gru.units, batch_first=True)
        self.dense = torch.nn.Linear(gru.units, dense.units)
        self.scale, self.offset = scale.scale.item(), scale.offset.item()
        kernel, recurrent, bias = gru.get_weights()
        weights = {
            "gru.weight_ih_l0": self.reordered(kernel).T,
            "gru.weight_hh_l0": self.reordered(recurrent).T,
            "gru.bias_ih_l0": self.reordered(bias[0]),
            "gru.bias_hh_l0": self.reordered(bias[1]),
            "dense.weight": dense.get_weights()[0].T,
            "dense.bias": dense.get_weights()[1],
        }
        self.load_state_dict({n: torch.tensor(np.array(w)) for n, w in weights.items()})

    @staticmethod
    def reordered(array: np.ndarray) -> np.ndarray:
        """Reorder the gates z r h to r z n on the last axis."""
        update, reset, new = np.split(array, 3, axis=-1)
        return np.concatenate([reset, update, new], axis=-1)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (B, T, 8), (1, B, 24) to (B, T, 1), (1, B, 24)."""
        y, h = self.gru((x - self.mean) / self.deviation, h)
        return self.dense(y) * self.scale + self.offset, h


def main() -> None:
    model = streamrnn.load_model(TRAINED)
    copy = as_keras(model)
    copy.save(HERE / "weather.keras")
    x = np.random.default_rng(0).normal(0, 1, (2, 48, 8)).astype(np.float32)
    mean, variance, _ = model.layers[0].get_weights()
    x = mean + x * np.sqrt(variance)
    np.savez(HERE / "check.npz", x=x, y=np.asarray(copy(x)))
    module = Forecast(model).eval()
    save_file(module.state_dict(), HERE / "state_dict.safetensors")
    torch.onnx.export(
        module,
        (torch.zeros(2, 3, 8), torch.zeros(1, 2, 24)),
        HERE / "weather.onnx",
        input_names=["x", "h"],
        output_names=["temp_3h", "h_next"],
        dynamic_axes={"x": {0: "batch", 1: "time"}, "h": {1: "batch"}},
        dynamo=False,
    )
    print("PyTorch's table of the normalization:")
    print(f"mean = {mean.tolist()}\nvariance = {variance.tolist()}")
    *_, scale = parts(model)
    print(f"scale = {scale.scale.item()}\noffset = {scale.offset.item()}")


if __name__ == "__main__":
    main()
