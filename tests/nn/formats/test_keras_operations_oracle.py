"""Each function of streamrnn.ops beside keras.ops: on arrays, on symbols, and by way of a file."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import keras

import streamrnn
from streamrnn import ops

X, Z = np.random.default_rng(4).normal(size=(2, 3, 4, 2)).astype(np.float32)
UNARY = [
    "absolute",
    "ceil",
    "exp",
    "floor",
    "hard_sigmoid",
    "logical_not",
    "negative",
    "ones_like",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "softplus",
    "softsign",
    "square",
    "tanh",
    "zeros_like",
    "elu",
    "leaky_relu",
    "gelu",
    "log_softmax",
    "softmax",
]
BINARY = [
    "add",
    "subtract",
    "multiply",
    "true_divide",
    "divide",
    "floor_divide",
    "mod",
    "maximum",
    "minimum",
    "equal",
    "not_equal",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "logical_and",
    "logical_or",
]
CASES: dict[str, Any] = (
    {name: lambda o, x, z, name=name: getattr(o, name)(x) for name in UNARY}
    | {name: lambda o, x, z, name=name: getattr(o, name)(x, z) for name in BINARY}
    | {
        f"{name} over {axis}": lambda o, x, z, name=name, axis=axis: getattr(o, name)(x, axis=axis)
        for name in ("sum", "mean", "var", "std", "max", "min")
        for axis in (1, -1, (1, 2))
    }
    | {
        "all": lambda o, x, z: o.all(x > 0, axis=1),
        "any, kept": lambda o, x, z: o.any(x > 1, axis=2, keepdims=True),
        "cast": lambda o, x, z: o.cast(x * 3, "int32"),
        "clip": lambda o, x, z: o.clip(x, -0.5, 0.5),
        "concatenate": lambda o, x, z: o.concatenate([x, z], axis=1),
        "expand_dims": lambda o, x, z: o.expand_dims(x, 1),
        "expand_dims, several": lambda o, x, z: o.expand_dims(x, (1, 3)),
        "expand_dims, in front": lambda o, x, z: o.expand_dims(x[:, 0], (1, 2)),
        "expand_dims, from the end": lambda o, x, z: o.expand_dims(x, (-1, -3)),
        "flip": lambda o, x, z: o.flip(x, axis=1),
        "gelu, exact": lambda o, x, z: o.gelu(x, approximate=False),
        "keywords": lambda o, x, z: o.multiply(x1=x, x2=2.0),
        "leaky_relu, slope": lambda o, x, z: o.leaky_relu(x, negative_slope=0.3),
        "log": lambda o, x, z: o.log(o.square(x)),
        "max, initial": lambda o, x, z: o.max(x, axis=1, initial=0.5),
        "min, initial": lambda o, x, z: o.min(x, axis=(1, 2), keepdims=True, initial=-0.5),
        "power": lambda o, x, z: o.power(x, 3),
        "repeat": lambda o, x, z: o.repeat(x, 2, axis=1),
        "reshape": lambda o, x, z: o.reshape(x, (-1, 8)),
        "rsqrt": lambda o, x, z: o.rsqrt(o.absolute(x)),
        "softmax over time": lambda o, x, z: o.softmax(x, axis=1),
        "sqrt": lambda o, x, z: o.sqrt(o.absolute(x)),
        "squeeze": lambda o, x, z: o.squeeze(x[:, :, 1:], axis=2),
        "stack": lambda o, x, z: o.stack([x, z], axis=2),
        "argmax": lambda o, x, z: o.argmax(x, axis=1),
        "argmax, kept": lambda o, x, z: o.argmax(x, axis=-1, keepdims=True),
        "cumsum": lambda o, x, z: o.cumsum(x, axis=1),
        "isnan": lambda o, x, z: o.where(o.isnan(o.where(x > 0, x, np.nan)), z, x),
        "log1p": lambda o, x, z: o.log1p(o.square(x) * 1e-4),
        "matmul": lambda o, x, z: o.matmul(x, np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0]])),
        "matmul of vectors": lambda o, x, z: o.matmul(x[:, 1], np.array([[1.0, 2.0], [0.5, -1.0]])),
        "matmul of sequences": lambda o, x, z: o.matmul(x, o.transpose(z, (0, 2, 1))),
        "normalize": lambda o, x, z: o.normalize(x, axis=-1),
        "normalize over both": lambda o, x, z: o.normalize(o.relu(x), axis=(1, 2), epsilon=0.1),
        "one_hot": lambda o, x, z: o.one_hot(o.argmax(x, axis=2), 3),
        "one_hot, in front": lambda o, x, z: o.one_hot(o.argmax(x, axis=2), 3, axis=1),
        "pad": lambda o, x, z: o.pad(x, [[0, 0], [2, 1], [0, 3]], constant_values=0.5),
        "pad, reflected": lambda o, x, z: o.pad(x, [[0, 0], [2, 1], [0, 0]], mode="reflect"),
        "roll": lambda o, x, z: o.roll(x, 1, axis=1),
        "roll, both": lambda o, x, z: o.roll(x, (1, -1), axis=(1, 2)),
        "slices": lambda o, x, z: o.concatenate([x[:, 1:], z[:, :-1], x[:, -1:]], axis=1),
        "split": lambda o, x, z: o.multiply(*o.split(x, 2, axis=-1)),
        "split at indices": lambda o, x, z: o.concatenate(o.split(x, [1, 3], axis=1)[::2], axis=1),
        "take": lambda o, x, z: o.take(x, [1, 0, 1], axis=-1),
        "take one": lambda o, x, z: o.take(x, -1, axis=1),
        "tile": lambda o, x, z: o.tile(x, [1, 2, 3]),
        "tile, shorter": lambda o, x, z: o.tile(x, [2]),
        "transpose": lambda o, x, z: o.transpose(x, (0, 2, 1)),
        "where": lambda o, x, z: o.where(x > z, x, 0.25),
        "operators": lambda o, x, z: 2 - x / (1 + abs(z)) + (-x) ** 2 * 3 + x % 2 - z // 0.5,
        "swapped": lambda o, x, z: 2 / (o.exp(x) + 1) + 7 % (abs(z) + 1),
        "logic": lambda o, x, z: (x > 0) & (z >= 0) | ~(x <= z),
        "last step": lambda o, x, z: x[:, -1],
        "indices": lambda o, x, z: x[:, 1:, None, 0],
        "ellipsis": lambda o, x, z: x[..., ::-1],
    }
)


@pytest.mark.parametrize("name", CASES)
def test_a_function_is_that_of_keras(name: str, tmp_path: Path) -> None:
    """The shape that a symbol states, and values: of arrays, of a graph, of Keras's file."""
    function = CASES[name]
    inputs = [keras.Input((4, 2), name=key) for key in "xz"]
    peer = keras.Model(inputs, function(keras.ops, *inputs))
    expected = np.asarray(peer([X, Z]), np.float32)
    peer.save(tmp_path / "m.keras")
    symbols = [streamrnn.Input((4, 2)) for _ in range(2)]
    model = streamrnn.Model(symbols, function(ops, *symbols))
    assert model.output_shape == (None, *expected.shape[1:])
    arrays = [model([X, Z]), streamrnn.load_model(tmp_path / "m.keras")({"x": X, "z": Z})]
    if name not in ("operators", "swapped", "logic", "last step", "indices", "ellipsis"):
        arrays.append(function(ops, X, Z))
    for found in arrays:
        assert np.shape(found) == expected.shape
        np.testing.assert_allclose(np.asarray(found, np.float32), expected, rtol=2e-6, atol=2e-6)
