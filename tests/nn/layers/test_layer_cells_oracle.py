"""Cells of one's own, written for Keras, beside Keras itself."""

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import keras
from keras import ops

import streamrnn
from streamrnn import layers

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(5)
X = RNG.normal(size=(3, 6, 5)).astype(np.float32)
GAPS = np.array([[1, 1, 0, 1, 0, 0], [1, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]], np.bool_)


def cells(library: Any, matmul: Any, concatenate: Any) -> dict[str, Any]:
    """The same classes on either library's Layer: only the import and the operations differ."""

    class MinimalRNNCell(library.Layer):
        """As it stands in Keras's documentation of RNN."""

        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.state_size = units

        def build(self, input_shape):
            self.kernel = self.add_weight(
                shape=(input_shape[-1], self.units), initializer="uniform", name="kernel"
            )
            self.recurrent_kernel = self.add_weight(
                shape=(self.units, self.units), initializer="uniform", name="recurrent_kernel"
            )
            self.built = True

        def call(self, inputs, states):
            prev_output = states[0]
            h = matmul(inputs, self.kernel)
            output = h + matmul(prev_output, self.recurrent_kernel)
            return output, [output]

    class TwoStates(library.Layer):
        """Another output size, states handed on, a start of its own, a layer inside."""

        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self.state_size = [units, units]
            self.output_size = 2 * units
            self.dense = library.Dense(units, activation="tanh")

        def build(self, input_shape):
            self.dense.build((input_shape[0], input_shape[-1] + self.units))
            self.built = True

        def call(self, inputs, states):
            h = self.dense(concatenate([inputs, states[1]], axis=-1))
            return concatenate([h, states[0]], axis=-1), [h, states[0]]

    return {"minimal": MinimalRNNCell, "two": TwoStates}


OURS = cells(layers, np.matmul, np.concatenate)
THEIRS = cells(keras.layers, ops.matmul, ops.concatenate)

LAYERS: dict[str, Any] = {
    "last": lambda k, c: k.RNN(c["minimal"](4)),
    "sequence": lambda k, c: k.RNN(c["minimal"](4), return_sequences=True, return_state=True),
    "backwards": lambda k, c: k.RNN(c["minimal"](4), return_sequences=True, go_backwards=True),
    "zeros": lambda k, c: k.RNN(c["minimal"](4), return_sequences=True, zero_output_for_mask=True),
    "two": lambda k, c: k.RNN(c["two"](3), return_sequences=True, return_state=True),
    "stack": lambda k, c: k.RNN([c["minimal"](4), c["minimal"](3)], return_state=True),
    "mixed": lambda k, c: k.RNN(
        [c["minimal"](4), k.LSTMCell(3), c["two"](2), k.GRUCell(2)], return_state=True
    ),
}


def structure(tree: Any) -> Any:
    """Shapes, nested as the arrays are."""
    return [structure(t) for t in tree] if isinstance(tree, list | tuple) else tuple(tree.shape)


def leaves(tree: Any) -> list[Any]:
    return [leaf for t in tree for leaf in leaves(t)] if isinstance(tree, list | tuple) else [tree]


MASKED = ["last", "sequence", "backwards", "zeros"]


@pytest.mark.parametrize(
    ("name", "masked"), [*((name, False) for name in LAYERS), *((name, True) for name in MASKED)]
)
def test_cells_written_for_keras_give_its_numbers(name: str, masked: bool) -> None:
    """Outputs and states, in Keras's structure. Masked where the output is the first state: for
    others Keras repeats that state, or fails where it has another size."""
    theirs, ours = LAYERS[name](keras.layers, THEIRS), LAYERS[name](layers, OURS)
    call: dict[str, Any] = {"mask": GAPS} if masked else {}
    theirs.build(X.shape)
    ours.build(X.shape)
    weights = [RNG.normal(size=w.shape) * 0.5 for w in theirs.get_weights()]
    assert [w.shape for w in weights] == [w.shape for w in ours.get_weights()]
    for layer in (theirs, ours):
        layer.set_weights(weights)
    mine, other = ours(X, **call), theirs(X, **call)
    assert structure(mine if isinstance(mine, list) else [mine]) == structure(
        list(other) if isinstance(other, list | tuple) else [other]
    )
    for a, b in zip(leaves(mine), leaves(other), strict=True):
        np.testing.assert_allclose(a, np.asarray(b), rtol=1e-5, atol=1e-5)


def test_a_file_of_keras_with_such_a_cell_is_loaded_once_it_is_registered(tmp_path: Any) -> None:
    """Its weights stand where Keras keeps those of cells, alone and in stacks."""
    for cls in OURS.values():
        streamrnn.register_layer(cls.__name__, cls)
    x = keras.Input((None, 5))
    y = keras.layers.RNN([THEIRS["minimal"](4), keras.layers.LSTMCell(3)], return_sequences=True)(x)
    y = keras.layers.RNN(THEIRS["minimal"](4), return_sequences=True)(y)
    y = keras.layers.RNN(THEIRS["two"](2), return_sequences=True)(y)
    model = keras.Model(x, keras.layers.Dense(2)(y))
    model.save(tmp_path / "model.keras")
    ours = streamrnn.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(ours(X), np.asarray(model(X)), rtol=1e-5, atol=1e-5)
