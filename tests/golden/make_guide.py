"""Make guide.npz and guide.json: what Keras says to what takes more than one call.

    pip install 'keras>=3.8,<3.16' jax
    KERAS_BACKEND=jax python tests/golden/make_guide.py

Statefulness, state passed from an encoder to a decoder, merges of masked inputs, dropout. For each
name: name:w0, … weights in the order of get_weights(), name:x0, … what it is called with, name:y0,
… results. Dropout: name:mx and name:mh are the masks that Keras drew, so that they can be given to
another implementation: (gates, rows, size) for x and for h.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from keras import layers

HERE = Path(__file__).parent
RNG = np.random.default_rng(0)
kept: dict[str, np.ndarray] = {}


def normal(*shape: int) -> np.ndarray:
    """Multiples of 1/64, to be small as a file."""
    return (np.round(RNG.normal(size=shape) * 0.7 * 64) / 64).astype(np.float32)


def randomize(layer: keras.Layer) -> None:
    layer.set_weights([normal(*weight.shape) for weight in layer.weights])


def keep(name: str, layer: keras.Layer | None, inputs: list, results: list) -> None:
    groups = {"w": layer.get_weights() if layer else [], "x": inputs, "y": results}
    for key, arrays in groups.items():
        for i, array in enumerate(arrays):
            kept[f"{name}:{key}{i}"] = np.asarray(array)


def stateful() -> None:
    """Three calls; the third with an initial state of its own; one more after it."""
    for kind in ("LSTM", "GRU", "SimpleRNN"):
        layer = getattr(layers, kind)(4, stateful=True, return_sequences=True)
        layer.build((3, None, 2))
        randomize(layer)
        windows = [normal(3, steps, 2) for steps in (4, 1, 3, 2)]
        states = [normal(3, 4) for _ in range(2 if kind == "LSTM" else 1)]
        results = [layer(windows[0]), layer(windows[1])]
        results += [layer(windows[2], initial_state=states), layer(windows[3])]
        keep(f"stateful/{kind}", layer, [*windows, *states], results)


def encoder_decoder() -> None:
    """The guide's model, small: the encoder's state begins the decoder."""
    source, target = keras.Input((None,)), keras.Input((None,))
    embedded = layers.Embedding(7, 3, mask_zero=True)(source)
    _, h, c = layers.LSTM(4, return_state=True)(embedded)
    y = layers.LSTM(4)(layers.Embedding(6, 2)(target), initial_state=[h, c])
    model = keras.Model([source, target], layers.Dense(2)(y))
    randomize(model)
    ids = [RNG.integers(0, 7, (3, 5)), RNG.integers(0, 6, (3, 4))]
    keep("encoder_decoder", model, ids, [model([i.astype(np.int32) for i in ids])])


def masked_merges() -> None:
    """Two inputs with masks of their own, merged, into a layer that shows the mask."""
    for kind in ("Add", "Subtract", "Average", "Multiply", "Maximum", "Minimum", "Concatenate"):
        inputs = [keras.Input((None, 2)), keras.Input((None, 2))]
        merged = getattr(layers, kind)()([layers.Masking()(x) for x in inputs])
        lstm = layers.LSTM(3, return_sequences=True)
        model = keras.Model(inputs, [merged, lstm(merged)])
        randomize(model)
        x = [normal(2, 6, 2), normal(2, 6, 2)]
        x[0][:, [1, 2]] = 0
        x[1][:, [2, 4]] = 0
        keep(f"merge/{kind}", lstm, x, model(x))


def dropout() -> None:
    """Training calls with the masks that Keras drew for them."""
    x = normal(3, 5, 2)
    for kind, options in [
        ("SimpleRNN", {}),
        ("LSTM", {}),
        ("GRU", {}),
        ("GRU", {"reset_after": False}),
    ]:
        for rates in ({"dropout": 0.5}, {"dropout": 0.5, "recurrent_dropout": 0.25}):
            layer = getattr(layers, kind)(4, return_sequences=True, **options, **rates, seed=1)
            layer.build((3, None, 2))
            randomize(layer)
            drawn: dict[str, list] = {"mx": [], "mh": []}
            cell = layer.cell

            def watch(of: str, method, drawn=drawn):
                def watched(value):
                    made = method(value)
                    flat = made if isinstance(made, list | tuple) else [made]
                    drawn[of] = [] if made is None else [np.asarray(m) for m in flat]
                    return made

                return watched

            cell.get_dropout_mask = watch("mx", cell.get_dropout_mask)
            cell.get_recurrent_dropout_mask = watch("mh", cell.get_recurrent_dropout_mask)
            # Eagerly, so that the masks are numbers and not traced.
            states, outputs = cell.get_initial_state(3), []
            for t in range(5):
                output, states = cell(x[:, t], states, training=True)
                outputs.append(np.asarray(output))
            name = "/".join(["dropout", kind, *options, "both" if len(rates) > 1 else "inputs"])
            keep(name, layer, [x], [np.stack(outputs, axis=1)])
            for key, masks in drawn.items():
                if masks:
                    kept[f"{name}:{key}"] = np.stack(masks)


if __name__ == "__main__":
    stateful()
    encoder_decoder()
    masked_merges()
    dropout()
    np.savez_compressed(HERE / "guide.npz", **kept)
    versions = {name: version(name) for name in ("keras", "jax", "numpy")}
    made = {"made_by": "make_guide.py", "backend": keras.backend.backend(), **versions}
    (HERE / "guide.json").write_text(json.dumps(made, indent=1) + "\n")
    print(f"{len(kept)} arrays")
