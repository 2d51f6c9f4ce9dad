"""Make the graphs that Keras exports, with its outputs, in keras_onnx.npz.

    KERAS_BACKEND=tensorflow python tests/nn/formats/files/make_keras_onnx.py
    KERAS_BACKEND=torch python tests/nn/formats/files/make_keras_onnx.py

Keras 3.15 writes them by tf2onnx, or by PyTorch's exporter, which unrolls the steps: the graph of
PyTorch has a fixed number of them. Needs keras and onnx, and tensorflow and tf2onnx, or torch.
"""

import os
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
from keras import layers

HERE = Path(__file__).parent
RECORDED = HERE / "keras_onnx.npz"
BACKEND = os.environ["KERAS_BACKEND"]


def forward(steps=None):
    ids = layers.Input((steps,), dtype="int32", name="ids")
    y = layers.Embedding(9, 3)(ids)
    y = layers.LSTM(3, return_sequences=True)(y)
    return keras.Model(ids, layers.Dense(2, "softmax")(y))


def whole():
    x = layers.Input((None, 3), name="x")
    y = layers.Conv1D(4, 3, strides=2, padding="same", activation="relu")(x)
    y = layers.BatchNormalization()(y)
    y = layers.MaxPooling1D(2)(y)
    y = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(y)
    y = layers.LayerNormalization()(layers.Dense(4, "hard_sigmoid")(y))
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(y)))


def export(name, model, x, recorded):
    keras.utils.set_random_seed(0)
    drawn = [np.random.default_rng(i).normal(0, 1, w.shape) for i, w in enumerate(model.weights)]
    model.set_weights([np.abs(w) if w.ndim == 1 else w for w in drawn])
    recorded[f"{name}/x"] = x
    recorded[f"{name}/y"] = np.asarray(keras.ops.convert_to_numpy(model(x)))
    path = HERE / f"{name}.onnx"
    model.export(path, format="onnx", verbose=False)
    exported = onnx.load(path)
    for node in exported.graph.node:  # stack traces, with folders of the machine that made them
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    onnx.save(exported, path)


def main():
    recorded = dict(np.load(RECORDED)) if RECORDED.exists() else {}
    random = np.random.default_rng(0)
    ids = random.integers(0, 9, (2, 6)).astype(np.int32)
    if BACKEND == "torch":
        export("keras_torch", forward(6), ids, recorded)
    else:
        export("keras_tf2onnx", forward(), ids, recorded)
        x = random.normal(0, 1, (2, 17, 3)).astype(np.float32)
        export("keras_tf2onnx_whole", whole(), x, recorded)
    np.savez_compressed(RECORDED, **recorded)


if __name__ == "__main__":
    sys.exit(main())
