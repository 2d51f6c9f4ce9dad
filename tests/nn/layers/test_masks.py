"""Where masks come from, how far they go, and what is refused. (Their rule: test_recurrent.)"""

from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import assert_same, built

from streamrnn import Input, Model, Sequential, layers
from streamrnn.errors import DTypeError, ShapeError

RNG = np.random.default_rng(2)
X = RNG.normal(size=(2, 5, 4)).astype(np.float32)
GAPS = np.array([[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]], np.bool_)


def test_masking_masks_steps_of_one_value_and_zeroes_them() -> None:
    """A step is masked only if all its features have the value."""
    layer = layers.Masking(mask_value=-1)
    x = np.array([[[-1, -1], [-1, 2], [0, 0]]], np.float32)
    np.testing.assert_array_equal(layer(x), [[[0, 0], [-1, 2], [0, 0]]])
    np.testing.assert_array_equal(layer.compute_mask(x), [[False, True, True]])
    np.testing.assert_array_equal(
        layer.compute_mask(x, np.array([[True, False, True]])), [[False, False, True]]
    )


def test_masking_in_a_model_equals_an_explicit_mask() -> None:
    """Through layers that work step by step, and through recurrent layers, to the last."""
    first = built("lstm", 3, 4, 1, return_sequences=True)
    second = built("gru", 3, 3, 2, return_sequences=True)
    between = [layers.Dense(3), layers.Dropout(0.5), layers.ReLU(), layers.LayerNormalization()]
    model = Sequential([layers.Input((None, 4)), layers.Masking(), first, *between, second])
    y = first(X, mask=GAPS)
    for layer in between:
        y = layer(y)
    padded = np.where(GAPS[..., None], X, 0).astype(np.float32)
    assert_same(model(padded), second(y, mask=GAPS))
    unmasked = Sequential([layers.Input((None, 4)), first, *between, second])
    assert_same(unmasked(X, mask=GAPS), second(y, mask=GAPS))
    assert (model(padded) != unmasked(padded)).any()


def test_embedding_masks_zeros_where_it_is_asked_to() -> None:
    """mask_zero=True: id 0 is padding, whatever its row of the table holds."""
    ids = np.array([[3, 1, 0], [2, 0, 4]])
    lstm = built("lstm", 3, 2)
    table = RNG.normal(size=(5, 2)).astype(np.float32)
    for mask_zero in (True, False):
        embedding = layers.Embedding(5, 2, mask_zero=mask_zero)
        model = Sequential([embedding, lstm])
        embedding.set_weights([table])
        assert_same(model(ids), lstm(table[ids], mask=(ids != 0) if mask_zero else None))


@pytest.mark.parametrize(
    ("layer", "passed_on"),
    [
        (layers.Normalization(mean=0.5, variance=2.0), True),
        (layers.Rescaling(2.0, offset=1.0), True),
        (layers.Conv1D(4, 1, padding="causal"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_layers_that_pass_a_mask_on_and_where_it_ends(layer: Any, passed_on: bool) -> None:
    """As in Keras 3, which warns where a mask ends: the layer behind sees all steps."""
    lstm = built("lstm", 3, 4)
    model = Sequential([layers.Input((None, 4)), layers.Masking(), layer, lstm])
    padded = np.where(GAPS[..., None], X, 0).astype(np.float32)
    assert_same(model(padded), lstm(layer(padded), mask=GAPS if passed_on else None))


def test_masks_of_merged_inputs() -> None:
    """Add and Concatenate leave out a step that all inputs leave out; none if one has no mask."""
    for merge in (layers.Add(), layers.Concatenate()):
        inputs = [layers.Input((None, 4)) for _ in range(2)]
        lstm = layers.LSTM(3, return_sequences=True)
        both = Model(inputs, lstm(merge([layers.Masking()(x) for x in inputs])))
        one = Model(inputs, lstm(merge([layers.Masking()(inputs[0]), inputs[1]])))
        other = GAPS[::-1]
        a, b = (np.where(m[..., None], X, 0).astype(np.float32) for m in (GAPS, other))
        assert_same(both([a, b]), lstm(merge([a, b]), mask=GAPS | other))
        assert_same(one([a, b]), lstm(merge([a, b])))


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_a_mask_symbol_is_an_input_like_another(dtype: str) -> None:
    """mask= on symbols, where a model computes or receives its mask."""
    x, mask = layers.Input((None, 4)), layers.Input((None,), name="mask", dtype=dtype)
    lstm = built("lstm", 3, 4, return_sequences=True)
    model = Model([x, mask], lstm(x, mask=mask))
    assert_same(model([X, GAPS]), lstm(X, mask=GAPS))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mask": GAPS.astype(int)}, DTypeError, "mask must be bool, received int64"),
        ({"mask": GAPS[:, :4]}, ShapeError, r"mask must have shape \(2, 5\), received \(2, 4\)"),
        ({"mask": GAPS[:1]}, ShapeError, r"mask must have shape \(2, 5\), received \(1, 5\)"),
        ({"lengths": [5, 6]}, ShapeError, "lengths must lie in 0…5, received 5…6"),
        ({"lengths": [-1, 5]}, ShapeError, "lengths must lie in 0…5, received -1…5"),
        ({"lengths": [5]}, ShapeError, "one length per row, 2 in all"),
        ({"lengths": [5.0, 2.0]}, DTypeError, "lengths must be whole numbers"),
    ],
)
def test_wrong_masks_and_lengths(arguments: Any, error: type[Exception], message: str) -> None:
    """On layers and on models, with the name of whichever was called."""
    lstm = built("lstm", 3, 4, name="lstm")
    model = Sequential([layers.Input((None, 4)), lstm], name="model")
    for called in (lstm, model):
        with pytest.raises(error, match=message) as caught:
            called(X, **arguments)
        assert called.name in str(caught.value)


def test_an_rms_normalization_ends_a_mask() -> None:
    """As in Keras, whose other normalizations pass it on."""
    x = np.random.default_rng(0).normal(size=(3, 8, 4)).astype(np.float32)
    x[:, 5:], x[1, 2:] = 0, 0
    inputs, gru, norm = Input((8, 4)), layers.GRU(3), layers.RMSNormalization()
    masked = Model(inputs, gru(norm(layers.Masking()(inputs))))
    np.testing.assert_array_equal(masked(x), Model(inputs, gru(norm(inputs)))(x))


WORDS = np.array([[[1, 2, 0], [3, 0, 0], [0, 0, 0]], [[2, 0, 1], [0, 0, 0], [4, 4, 4]]])


def sentences(inner: layers.Layer, *after: layers.Layer) -> Sequential:
    """A layer over the words of each of three sentences, of three words or fewer."""
    words = layers.Embedding(5, 2, mask_zero=True)
    return Sequential([Input((3, 3), dtype="int64"), words, layers.TimeDistributed(inner), *after])


def test_a_layer_inside_time_distributed_gets_the_mask_of_each_step() -> None:
    """As in Keras; and a step is masked for the next layer if all of it was."""
    inner, outer = layers.GRU(3), layers.LSTM(2, return_sequences=True)
    model = sentences(inner, outer)
    y = model.layers[0](WORDS)
    each = np.stack([inner(y[:, i], mask=WORDS[:, i] != 0) for i in range(3)], axis=1)
    assert_same(model(WORDS), outer(each, mask=(WORDS != 0).any(axis=2)))


def test_a_mask_of_words_passes_layers_that_keep_the_words() -> None:
    inner, last = layers.GRU(3, return_sequences=True), layers.LSTM(2)
    model = sentences(layers.TimeDistributed(layers.Dense(2)))
    np.testing.assert_array_equal(model(WORDS)._keras_mask, WORDS != 0)
    model = sentences(inner, layers.TimeDistributed(last))
    y = model.layers[0](WORDS)
    each = [last(inner(y[:, i], mask=WORDS[:, i] != 0)) for i in range(3)]
    assert_same(model(WORDS), np.stack(each, axis=1))
