"""Make training.json: what Keras says to calls with training=True, and the weights after them.

    pip install 'keras>=3.8,<3.16' jax
    KERAS_BACKEND=jax python tests/golden/make_training.py

A case has its layers as in cases.py (their repr), the input, a mask or null, whether the layers are
frozen, the weights before the call, the result, and the weights after it.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from cases import Spec, build

HERE = Path(__file__).parent
PLAIN: Spec = ("BatchNormalization", {"momentum": 0.75, "epsilon": 0.01})
BARE: Spec = ("BatchNormalization", {"center": False, "scale": False})
DENSE: Spec = ("Dense", {"units": 2})
CASES: dict[str, tuple[list[Spec], dict[str, bool]]] = {
    "plain": ([PLAIN], {}),
    "bare": ([BARE], {}),
    "mask": ([PLAIN], {"mask": True}),
    "nothing present": ([PLAIN], {"mask": True, "empty": True}),
    "by step": ([("BatchNormalization", {"axis": 1})], {}),
    "frozen": ([PLAIN], {"frozen": True}),
    "in a model": ([("Masking", {}), PLAIN, ("GRU", {"units": 2}), BARE], {}),
    "frozen in a model": ([DENSE, PLAIN], {"frozen": True}),
    "step by step": ([("TimeDistributed", {"layer": PLAIN})], {}),
    "step by step, masked": ([("Masking", {}), ("TimeDistributed", {"layer": BARE})], {}),
    "both ways": (
        [("Bidirectional", {"layer": ("LSTM", {"units": 2, "return_sequences": True})}), PLAIN],
        {},
    ),
}


def main() -> None:
    kept: dict[str, Any] = {
        "made_by": "make_training.py",
        "backend": keras.backend.backend(),
        **{name: version(name) for name in ("keras", "jax", "numpy")},
    }
    for name, (specs, options) in CASES.items():
        rng = np.random.default_rng(len(kept))
        x = np.round(rng.normal(size=(3, 4, 2)) * 64) / 64
        x[1, 2:] = 0
        mask = None
        if options.get("mask"):
            mask = np.zeros((3, 4), bool) if options.get("empty") else rng.random((3, 4)) < 0.6
        layers = [build(keras.layers, spec) for spec in specs]
        layer = layers[0] if len(layers) == 1 else keras.Sequential(layers)
        layer.build(x.shape)
        weights = [np.round(rng.random(w.shape) * 64) / 64 + 0.125 for w in layer.get_weights()]
        layer.set_weights(weights)
        layer.trainable = not options.get("frozen", False)
        given = {} if mask is None else {"mask": mask}
        y = layer(x.astype("float32"), training=True, **given)
        kept[name] = {
            "layers": repr(specs),
            "frozen": not layer.trainable,
            "x": x.tolist(),
            "mask": None if mask is None else mask.tolist(),
            "weights": [w.tolist() for w in weights],
            "y": np.asarray(y).tolist(),
            "after": [w.tolist() for w in layer.get_weights()],
        }
    (HERE / "training.json").write_text(json.dumps(kept, indent=None) + "\n")


if __name__ == "__main__":
    main()
