"""Make layers.npz and layers.json: what Keras says to the cases of cases.py.

    pip install 'keras>=3.8,<3.16' jax
    KERAS_BACKEND=jax python tests/golden/make_layers.py

Cases share their inputs: input:sequence, input:ids, input:padded, and input:mask, input:s0,
input:s1 (initial states) for those that are called with them. A case has weights name:w0,
name:w1, … in the order of get_weights(), and results name:y0, name:y1, … in the order of the
flattened result. Weights are random (all of them, so that no bias is 0 and a swapped gate shows;
multiples of 1/64, to be small as a file), unless the case keeps what its initialisers made.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from cases import CASES, UNITS, VOCABULARY, Case, build

HERE = Path(__file__).parent
ROWS, STEPS, FEATURES = 4, 6, 3
# a leading and an inner gap; no gap; nothing at all; alternating, the last step masked
MASK = np.array([[0, 1, 1, 0, 1, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0]])


class Library:
    """keras.layers, with the initialisers among them."""

    def __getattr__(self, name: str) -> object:
        return getattr(keras.layers, name, None) or getattr(keras.initializers, name)


def make_inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    x = rng.normal(size=(ROWS, STEPS, FEATURES)).astype(np.float32)
    states = rng.normal(size=(2, ROWS, UNITS)).astype(np.float32)
    return {
        "sequence": x,
        "padded": x * MASK[..., None].astype(np.float32),
        "ids": (rng.integers(1, VOCABULARY, (ROWS, STEPS)) * MASK).astype(np.int32),
        "mask": MASK.astype(bool),
        "s0": states[0],
        "s1": states[1],
    }


def randomize(layer: keras.Layer, rng: np.random.Generator) -> None:
    """Normal weights; variances must be positive."""
    arrays = []
    for weight in layer.weights:
        array = np.round(rng.normal(size=weight.shape) * 0.7 * 64) / 64
        arrays.append(np.abs(array) + 0.125 if "variance" in weight.path else array)
    layer.set_weights(arrays)
    for part in [layer, *getattr(layer, "layers", [])]:
        if isinstance(part, keras.layers.Normalization):
            part.finalize_state()  # set_weights alone leaves the old mean and variance in use


def record(case: Case, inputs: dict, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The weights and results of a case."""
    layers = [build(Library(), spec) for spec in case.layers]
    layer = layers[0] if len(layers) == 1 else keras.Sequential(layers)
    x = inputs[case.inputs]
    layer.build(x.shape)
    if not case.initial:
        randomize(layer, rng)
    call = {}
    if case.mask:
        call["mask"] = inputs["mask"]
    if case.initial_state:
        call["initial_state"] = [inputs["s0"], inputs["s1"]][: 2 if "LSTM" in case.layers[0] else 1]
    results = keras.tree.flatten(layer(x, **call))
    arrays = {f"w{i}": weight for i, weight in enumerate(layer.get_weights())}
    return arrays | {f"y{i}": np.asarray(result) for i, result in enumerate(results)}


def main() -> None:
    inputs = make_inputs(np.random.default_rng(0))
    arrays = {f"input:{name}": array for name, array in inputs.items()}
    for number, case in enumerate(CASES):
        recorded = record(case, inputs, np.random.default_rng(number))
        arrays |= {f"{case.name}:{name}": array for name, array in recorded.items()}
    np.savez_compressed(HERE / "layers.npz", **arrays)
    versions = {name: version(name) for name in ("keras", "jax", "numpy")}
    made = {"made_by": "make_layers.py", "backend": keras.backend.backend(), **versions}
    (HERE / "layers.json").write_text(json.dumps(made, indent=1) + "\n")
    size = (HERE / "layers.npz").stat().st_size
    print(f"{len(CASES)} cases, {len(arrays)} arrays, {size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
