"""A family of Keras models for the round trips, made by name from a seed. Needs keras."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers as k

MODELS: dict[str, Callable[[], Any]] = {}


def model(make: Callable[[], Any]) -> Callable[[], Any]:
    """Register a maker of a model."""
    MODELS[make.__name__] = make
    return make


def trained(name: str, seed: int = 7) -> Any:
    """The model with weights that no initializer makes, biases and statistics included."""
    keras.backend.clear_session()
    made = MODELS[name]()
    random = np.random.default_rng(seed)
    for weight in made.weights:
        if "seed" in weight.path:
            continue
        value = random.normal(0, 0.4, weight.shape)
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value)
    for layer in made.layers:
        if isinstance(layer, k.Normalization):
            layer.finalize_state()  # it computes from copies of its weights
    return made


def inputs(made: Any, rows: int = 3, steps: int = 6, seed: int = 3) -> list[Any]:
    """One array an input: ids below 8 with zeros at the end, or features with masked steps."""
    random = np.random.default_rng(seed)
    arrays = []
    for symbol in made.inputs:
        shape = [rows, *symbol.shape[1:]]
        shape = [steps if n is None else n for n in shape]
        if "int" in str(symbol.dtype):
            x = random.integers(1, 8, shape).astype(np.int32)
            if len(shape) > 1:
                x[0, -2:] = 0
        else:
            x = random.normal(0, 1, shape).astype(np.float32)
            if len(shape) > 2:
                x[1, -1:] = 0
                x[2, 1] = 0
        arrays.append(x)
    return arrays


@model
def plain_lstm() -> Any:
    return keras.Sequential([keras.Input((None, 3)), k.LSTM(4), k.Dense(2)])


@model
def every_cell() -> Any:
    return keras.Sequential(
        [
            keras.Input((None, 3)),
            k.SimpleRNN(5, return_sequences=True, activation="relu"),
            k.GRU(4, return_sequences=True),
            k.GRU(3, return_sequences=True, reset_after=False, recurrent_activation="hard_sigmoid"),
            k.LSTM(4, return_sequences=True, use_bias=False, activation="softsign", dropout=0.2),
            k.TimeDistributed(k.Dense(2, activation="softmax")),
        ]
    )


@model
def scaled_and_normalised() -> Any:
    return keras.Sequential(
        [
            keras.Input((None, 3)),
            k.Normalization(),
            k.Rescaling(0.5, offset=1.0),
            k.GaussianNoise(0.1),
            k.LSTM(4, return_sequences=True, recurrent_dropout=0.1),
            k.LayerNormalization(epsilon=1e-4),
            k.BatchNormalization(),
            k.SpatialDropout1D(0.2),
            k.PReLU(shared_axes=[1]),
            k.LeakyReLU(0.1),
            k.Conv1D(3, 2, padding="causal", activation="elu"),
            k.GRU(2),
            k.Activation("sigmoid"),
        ]
    )


@model
def masked_ids() -> Any:
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = k.Embedding(9, 4, mask_zero=True)(ids)
    x = k.LSTM(3, return_sequences=True)(x)
    x = k.Bidirectional(k.GRU(2, return_sequences=True), merge_mode="sum")(x)
    return keras.Model(ids, k.LSTM(3, name="last")(x))


@model
def masked_features() -> Any:
    x = keras.Input((None, 3), name="x")
    y = k.Masking(0.0)(x)
    y = k.GRU(4, return_sequences=True)(y)
    y = k.ActivityRegularization(0.1)(y)
    return keras.Model([x], [k.Dense(2)(y)])


@model
def encoder_and_decoder() -> Any:
    source = keras.Input((None,), dtype="int32", name="source")
    target = keras.Input((None, 3), name="target")
    _, h, c = k.LSTM(4, return_state=True, name="encoder")(k.Embedding(8, 5)(source))
    y = k.LSTM(4, return_sequences=True, name="decoder")(target, initial_state=[h, c])
    return keras.Model([source, target], [k.Dense(2, name="out")(y), h])


@model
def stacked_cells() -> Any:
    cells = [k.LSTMCell(3), k.GRUCell(4), k.GRUCell(2), k.SimpleRNNCell(3)]
    return keras.Sequential(
        [keras.Input((None, 2)), k.RNN(cells, return_sequences=True), k.RNN(k.LSTMCell(2))]
    )


@model
def shared_and_nested() -> Any:
    inner = keras.Sequential([keras.Input((None, 3)), k.GRU(3, return_sequences=True), k.Dense(3)])
    a, b = keras.Input((None, 3), name="a"), keras.Input((None, 3), name="b")
    shared = k.LSTM(3, return_sequences=True, name="shared")
    deep = keras.Model(a, k.BatchNormalization()(inner(a)), name="deep")
    joined = k.Concatenate()([shared(deep(a)), shared(b), k.Add()([a, b])])
    return keras.Model([a, b], k.LSTM(2, go_backwards=True, return_sequences=True)(joined))


@model
def two_ways() -> Any:
    x = keras.Input((None, 3), name="x")
    y = k.Bidirectional(k.LSTM(3, return_sequences=True), backward_layer=k.GRU(
        3, return_sequences=True, go_backwards=True))(x)  # fmt: skip
    y, fh, fc, bh, bc = k.Bidirectional(k.LSTM(2, return_state=True), merge_mode="mul")(y)
    return keras.Model(x, [y, fh, fc, bh, bc])


@model
def categories() -> Any:
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            k.CategoryEncoding(8, output_mode="one_hot"),
            k.Reshape((-1, 8)),
            k.SimpleRNN(3),
        ]
    )


ACTIVATIONS = ("tanh", "relu")
"""Each of a cell is a compilation: the models above have others, of gates too."""
FORWARD = range(10)
"""Seeds of `generated` whose models read forwards only."""
BOTH_WAYS = range(10, 16)


def generated(seed: int) -> Any:
    """A stack of recurrent layers of random kinds, sizes and options, nested now and then."""
    random = np.random.default_rng(seed)

    def options(kind: str) -> dict[str, Any]:
        made: dict[str, Any] = {
            "units": int(random.integers(1, 7)),
            "activation": str(random.choice(ACTIVATIONS)),
            "use_bias": bool(random.integers(0, 4)),
        }
        if kind == "GRU":
            made["reset_after"] = bool(random.integers(0, 2))
        return made

    def layer() -> Any:
        kind = str(random.choice(["SimpleRNN", "GRU", "LSTM", "RNN"]))
        if kind == "RNN":
            cells = [str(c) for c in random.choice(["SimpleRNN", "GRU", "LSTM"], 2)]
            return k.RNN([getattr(k, f"{c}Cell")(**options(c)) for c in cells],
                         return_sequences=True)  # fmt: skip
        made = getattr(k, kind)(**options(kind), return_sequences=True)
        if seed in BOTH_WAYS and random.integers(0, 2):
            return k.Bidirectional(made, merge_mode=str(random.choice(["concat", "sum", "ave"])))
        return made

    def between() -> Any:
        made = (
            k.Dropout(0.2),
            k.LayerNormalization(),
            k.TimeDistributed(k.Dense(3)),
            k.Activation("relu"),
            k.Conv1D(4, 3, padding="causal", dilation_rate=2),
        )
        return made[random.integers(0, len(made))]

    members = []
    for _ in range(int(random.integers(1, 4))):
        members += [layer(), between()]
    if random.integers(0, 2):
        members = [keras.Sequential([members[0]], name="inner"), *members[1:]]
    return keras.Sequential([keras.Input((None, 3)), *members, k.Dense(2)])


for _seed in (*FORWARD, *BOTH_WAYS):
    MODELS[f"generated-{_seed}"] = lambda seed=_seed: generated(seed)
