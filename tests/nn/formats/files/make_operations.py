"""Make operations.keras, a recurrent model with operations of keras.ops, and its outputs.

    KERAS_BACKEND=jax python tests/nn/formats/files/make_operations.py

Written by Keras 3.15.1.
"""

from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
STEPS, FEATURES = 4, 3


def outputs_of(x: Any, h: Any, ops: Any) -> list[Any]:
    """What attention over time, gates and features made of others look like, in either library."""
    score = ops.softmax(ops.sum(h * h, axis=-1, keepdims=True), axis=1)
    pooled = ops.sum(score * h, axis=1)
    last, before = h[:, -1], h[:, -2]
    gate = ops.sigmoid(last - before)
    mixed = gate * last + (1.0 - gate) * before
    ratio = x[..., 0:1] / (abs(x[..., 1:2]) + 1.0)
    chosen = ops.where(x > 0.0, x**2, -x / 3)
    stacked = ops.max(ops.stack([x, chosen], axis=-1), axis=-1)
    scaled = (x - ops.mean(x, axis=1, keepdims=True)) / (ops.std(x, axis=1, keepdims=True) + 0.01)
    times = x * np.array([1.0, 2.0, 3.0], np.float32)
    clipped = ops.clip(ops.exp(x) - ops.log(ops.square(x) + 1.0), 0.0, 2.0)
    joined = ops.concatenate([ratio, chosen, ops.tanh(times), ops.minimum(x, 0.5)], axis=-1)
    near = ops.cast(ops.logical_and(x > -1.0, x <= 1.0), "float32")
    column = ops.expand_dims(ops.squeeze(x[:, :, 0:1], axis=-1), axis=-1)
    turned = ops.reshape(ops.transpose(x, (0, 2, 1)), (-1, STEPS * FEATURES))
    return [pooled, mixed, stacked, scaled, clipped, joined, near, column, turned, x % 2 // 0.5]


def main() -> None:
    """Make both files."""
    import keras

    keras.utils.set_random_seed(5)
    x = keras.Input((STEPS, FEATURES), name="x")
    h = keras.layers.GRU(4, return_sequences=True, name="gru")(x)
    model = keras.Model(x, outputs_of(x, h, keras.ops))
    model.save(HERE / "operations.keras")
    rows = np.random.default_rng(1).normal(size=(3, STEPS, FEATURES)).astype(np.float32)
    made = [np.asarray(y) for y in model(rows)]
    np.savez(HERE / "operations.npz", x=rows, **{f"y{i}": y for i, y in enumerate(made)})


if __name__ == "__main__":
    main()
