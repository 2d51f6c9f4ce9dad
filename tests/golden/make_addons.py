"""Make addons.npz and addons.json: what TensorFlow Addons says to its LSTM cells.

    pip install 'tensorflow-cpu==2.15.*' 'tensorflow-addons==0.23.*'      # Python 3.9 to 3.11
    python tests/golden/make_addons.py

For each name: name:w0, … weights in the order of get_weights() (multiples of 1/64, all random),
name:y0 the outputs, name:y1 and name:y2 the states h and c. input:x and input:mask are shared.
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

HERE = Path(__file__).parent
RNG = np.random.default_rng(0)
UNITS = 5
CELLS = {
    "peephole": tfa.rnn.PeepholeLSTMCell(UNITS),
    "peephole_relu": tfa.rnn.PeepholeLSTMCell(
        UNITS, activation="relu", recurrent_activation="hard_sigmoid", use_bias=False
    ),
    "layer_norm": tfa.rnn.LayerNormLSTMCell(UNITS),
    "layer_norm_epsilon": tfa.rnn.LayerNormLSTMCell(UNITS, norm_epsilon=0.1, use_bias=False),
}


def normal(*shape: int) -> np.ndarray:
    return (np.round(RNG.normal(size=shape) * 0.7 * 64) / 64).astype(np.float32)


def main() -> None:
    kept = {"input:x": normal(3, 6, 2), "input:mask": RNG.random((3, 6)) < 0.7}
    for name, cell in CELLS.items():
        layer = tf.keras.layers.RNN(cell, return_sequences=True, return_state=True)
        layer.build((None, None, 2))
        layer.set_weights([normal(*weight.shape) for weight in layer.weights])
        results = layer(kept["input:x"], mask=tf.constant(kept["input:mask"]))
        for key, arrays in (("w", layer.get_weights()), ("y", results)):
            kept |= {f"{name}:{key}{i}": np.asarray(array) for i, array in enumerate(arrays)}
    np.savez_compressed(HERE / "addons.npz", **kept)
    versions = {package: version(package) for package in ("tensorflow-addons", "keras")}
    (HERE / "addons.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main()
