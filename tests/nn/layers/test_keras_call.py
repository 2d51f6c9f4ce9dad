"""Layers written for Keras, with `call` in place of `apply`, and other names of classes."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streamrnn import Input, Model, Sequential, layers, register_layer
from streamrnn.errors import ConfigError, DTypeError, ShapeError, StreamRNNError, UnsupportedError
from streamrnn.models import StepRunner

X = np.random.default_rng(4).normal(size=(2, 5, 3)).astype(np.float32)


class Linear(layers.Layer):
    """As in Keras's guide to custom layers."""

    def __init__(self, units: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Any) -> None:
        self.w = self.add_weight(
            shape=(input_shape[-1], self.units), initializer="random_normal", trainable=True
        )

    def call(self, inputs: Any) -> Any:
        return inputs @ self.w


class Noisy(layers.Layer):
    """It has the arguments that Keras passes."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        shown = inputs if mask is None else inputs * mask[..., None]
        return shown + 1 if training else shown


class Stacked(layers.Layer):
    """Two layers inside, and no compute_output_shape."""

    stepwise = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = layers.Dense(6, activation="tanh")
        self.second = layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        return self.second(self.first(inputs))


class Turned(layers.Layer):
    def call(self, inputs: Any) -> Any:
        return np.zeros((1,) * inputs.shape[1])


def test_a_call_that_would_not_be_run_is_refused() -> None:
    """A Dropout with a call of its own dropped nothing, without a word."""

    def call(self: Any, inputs: Any, training: bool | None = None) -> Any:
        raise NotImplementedError

    class Always(layers.Dropout):
        def apply(self, inputs: Any, context: Any) -> Any:
            return super().apply(inputs, replace(context, training=True))

    for base in (layers.Dropout, layers.LSTM, layers.GRUCell):
        message = f"Own: {base.__name__} does not run the `call` of a subclass: override apply"
        with pytest.raises(ConfigError, match=re.escape(message)):
            type("Own", (base,), {"call": call})
    assert (Always(0.5)(X) == 0).any()


def test_a_call_is_what_a_layer_computes() -> None:
    layer = Linear(7)
    np.testing.assert_allclose(layer(X), X @ np.asarray(layer.w), rtol=1e-6)
    assert layer(X).dtype == np.float32
    assert [w.name for w in layer.weights] == ["variable"]


def test_mask_and_training_are_passed_if_the_call_has_them() -> None:
    mask = np.array([[True] * 5, [True] * 3 + [False] * 2])
    np.testing.assert_array_equal(Noisy()(X, mask=mask, training=True), X * mask[..., None] + 1)
    np.testing.assert_array_equal(Noisy()(X), X)


def test_the_shape_on_symbols_is_that_on_arrays() -> None:
    x = Input((None, 3))
    assert Linear(7)(x).shape == (None, None, 7)
    assert Stacked()(x).shape == (None, None, 2)
    with pytest.raises(ShapeError, match="implement compute_output_shape"):
        Turned()(x)


def test_the_zeros_that_show_the_shape_raise_no_warning() -> None:
    class Scaled(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs / np.linalg.norm(inputs, axis=-1, keepdims=True)

    assert Scaled()(Input((None, 3))).shape == (None, None, 3)


def test_a_model_of_it_is_saved_and_loaded(tmp_path: Any) -> None:
    import streamrnn

    register_layer("Stacked", Stacked)
    x = Input((None, 3))
    model = Model(x, layers.GRU(4, return_sequences=True)(Stacked()(x)))
    model.save(tmp_path / "m.safetensors")
    again = streamrnn.load_model(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again(X), model(X))


def test_it_is_on_streams_only_if_it_says_so() -> None:
    assert Sequential([Input((None, 3)), Stacked()])(X).shape == (2, 5, 2)
    StepRunner(Sequential([Input((None, 3)), Stacked()]))
    with pytest.raises(StreamRNNError, match="it may need the whole time axis"):
        StepRunner(Sequential([Input((None, 3)), Linear()]))


class Residual(layers.Layer):
    """Changes its input, and the output of a layer that computes nothing outside training."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.drop = layers.Dropout(0.5)

    def call(self, inputs: Any) -> Any:
        inputs *= 2
        dropped = self.drop(inputs)
        dropped += 1
        return inputs + dropped


class Buffered(layers.Layer):
    """Writes each output into the same array."""

    buffer: Any = None

    def call(self, inputs: Any) -> Any:
        if self.buffer is None or self.buffer.shape != inputs.shape:
            self.buffer = np.empty_like(inputs)
        return np.multiply(inputs, 2, out=self.buffer)


def test_a_call_may_change_its_inputs_and_keep_its_output() -> None:
    """In Keras, arrays never change: neither the caller's, nor those of other layers."""
    x, rows, buffered = Input((None, 3)), X.copy(), Buffered()
    model = Model(x, [Residual()(x), layers.Identity()(x), buffered(x), buffered(x * 3)])
    for outputs in (model(rows), model.predict(rows)):
        for output, factor, added in zip(outputs, (4, 1, 2, 6), (1, 0, 0, 0), strict=True):
            np.testing.assert_allclose(output, X * np.float32(factor) + np.float32(added), 1e-6)
    assert (rows == X).all()
    first, second = buffered(X), buffered(X * 3)
    assert not np.shares_memory(first, second)


@pytest.mark.parametrize(
    "layer", [layers.Dropout(0.5), layers.Flatten(), Sequential([layers.Identity()])]
)
def test_the_output_of_a_call_is_an_array_of_its_own(layer: Any) -> None:
    """Even if the layer computes nothing: a caller may change it."""
    assert not np.shares_memory(layer(X), X)


class Within(layers.Layer):
    """Calls another layer on its input, and passes it no mask."""

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.layer = layer

    def call(self, inputs: Any) -> Any:
        return self.layer(inputs)


def test_layers_inside_a_call_take_and_set_masks() -> None:
    """As in Keras, where arrays carry them: the outer layer need not have an argument `mask`."""
    gru, rows = layers.GRU(4), X.copy()
    rows[0, 1] = rows[1, :2] = 0
    expected = gru(layers.Masking()(rows))
    assert (expected[0] != gru(rows)[0]).all()
    x = Input((None, 3))
    for masking, last in ((layers.Masking(), Within(gru)), (Within(layers.Masking()), gru)):
        assert (last(masking(rows)) == expected).all()
        model = Model(x, last(masking(x)))
        assert (model(rows) == expected).all()
    model.compile("sgd", "mse")
    assert model.train_on_batch(rows, expected) == 0


@pytest.mark.parametrize("kind", [dict, list])
def test_masks_in_a_structure_of_outputs_are_kept(kind: type) -> None:
    """A dictionary lost them in a graph; in a list within a list, they came to other outputs."""

    class Structured(layers.Layer):
        def call(self, inputs: Any) -> Any:
            y = layers.Masking()(inputs)
            return {"last": y[:, -1], "all": y} if kind is dict else [[y[:, -1], y[:, 0]], y]

    gru, rows, x = layers.GRU(4), X.copy(), Input((None, 3))
    rows[0, 1] = rows[1, :2] = 0
    expected = gru(layers.Masking()(rows))
    every = "all" if kind is dict else 1
    assert (gru(Structured()(rows)[every]) == expected).all()
    assert (Model(x, gru(Structured()(x)[every]))(rows) == expected).all()


class Marks(layers.Layer):
    """Masks steps by numbers, as some code for Keras does, or in a shape of its own."""

    def __init__(self, steps: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = steps

    def call(self, inputs: Any) -> Any:
        return inputs * 1

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return (inputs[:, : self.steps, 0] > 0).astype(np.float32)


def test_a_mask_that_a_class_computes_is_checked() -> None:
    gru, x = layers.GRU(4), Input((None, 3))
    expected = gru(X, mask=X[..., 0] > 0)
    assert (gru(Marks()(X)) == expected).all()
    assert (Model(x, gru(Marks()(x)))(X) == expected).all()
    for call in (lambda: Marks(3)(X), lambda: Model(x, gru(Marks(3)(x)))(X)):
        with pytest.raises(ShapeError, match=r"marks.*compute_mask.* \(2, 5\) .* \(2, 3\)"):
            call()


class Both(Marks):
    """Has two outputs, and one mask for both, or a list of masks."""

    def __init__(self, masks: int | None = None) -> None:
        super().__init__()
        self.masks = masks

    def call(self, inputs: Any) -> Any:
        return [inputs, inputs * 2]

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        present = super().compute_mask(inputs)
        return present if self.masks is None else [present] * self.masks


@pytest.mark.parametrize("masks", [None, 1, 2])
def test_a_mask_may_be_of_one_output_or_of_all(masks: int | None) -> None:
    gru, x = layers.GRU(4), Input((None, 3))
    expected = gru(X, mask=X[..., 0] > 0)
    assert (gru(Both(masks)(X)[0]) == expected).all()
    assert (Model(x, gru(Both(masks)(x)[0]))(X) == expected).all()
    assert isinstance(Both(masks)(X)[1], layers.MaskedArray) == (masks != 1)
    with pytest.raises(ShapeError, match=r"both.*compute_mask"):
        Both(3)(X)


class Named(layers.Layer):
    """Returns a dictionary."""

    def call(self, inputs: Any) -> Any:
        return {"last": inputs[:, -1], "all": inputs}


def test_a_dictionary_of_outputs_is_one_of_symbols() -> None:
    x = Input((None, 3))
    named = Named()(x)
    model = Model(x, [layers.Dense(2)(named["all"]), named["last"]])
    assert [y.shape for y in model.predict(X)] == [(2, 5, 2), (2, 3)]


@pytest.mark.parametrize(
    ("returned", "received"), [(None, "None"), (X * 1j, "values of type complex64")]
)
def test_a_call_returns_numbers(returned: Any, received: str) -> None:
    """None was a NaN, and complex numbers lost their imaginary part."""

    class Other(layers.Layer):
        def call(self, inputs: Any) -> Any:
            return returned

    for inputs in (X, Input((None, 3))):
        with pytest.raises(DTypeError, match=f"expected numbers from its call.*{received}"):
            Other()(inputs)


def test_it_is_not_trained() -> None:
    with pytest.raises(UnsupportedError, match="Linear"):
        Sequential([Input((None, 3)), Linear()]).compile("sgd", "mse")


def test_a_layer_without_either_says_what_it_lacks() -> None:
    with pytest.raises(NotImplementedError, match=r"`apply\(inputs, context\)`, or Keras's `call"):
        layers.Layer()(X)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("MaxPool1D", "MaxPooling1D"),
        ("AvgPool1D", "AveragePooling1D"),
        ("GlobalMaxPool1D", "GlobalMaxPooling1D"),
        ("GlobalAvgPool1D", "GlobalAveragePooling1D"),
        ("Convolution1D", "Conv1D"),
        ("SeparableConvolution1D", "SeparableConv1D"),
    ],
)
def test_other_names_of_keras(name: str, other: str) -> None:
    assert getattr(layers, name) is getattr(layers, other)
