"""Operators on symbols and the functions of streamrnn.ops."""

from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import assert_same

from streamrnn import Input, Model, layers, ops
from streamrnn.errors import ArgumentError, ModelMismatchError, ShapeError
from streamrnn.models import StepRunner

RNG = np.random.default_rng(6)
X = RNG.normal(size=(3, 5, 4)).astype(np.float32)


def test_an_operator_is_a_layer_of_the_graph() -> None:
    """Its name is the one that Keras gives it; arrays on either side are constants."""
    x = Input((None, 4))
    scale = np.array([1, 2, 3, 4], np.float32)
    made = [x + 1, scale * x, x / scale, 1 - x, x[:, -1]]
    assert [symbol.layer.name.split("_")[0] for symbol in made] == [
        "add", "multiply", "true", "subtract", "get",
    ]  # fmt: skip
    assert [symbol.shape for symbol in made] == [(None, None, 4)] * 4 + [(None, 4)]
    expected = [X + 1, scale * X, X / scale, 1 - X, X[:, -1]]
    assert_same(Model(x, made)(X), expected)


def test_functions_of_arrays_return_arrays() -> None:
    masked = layers.Masking()(np.where(X[..., :1] > 0, X, 0).astype(np.float32))
    for found in (ops.mean(X, axis=1), ops.exp(masked), ops.add(1, [2.0, 3.0])):
        assert type(found) is np.ndarray
        assert found.dtype == np.float32
    assert ops.sum(X).shape == ()
    assert ops.greater(X, 0).dtype == np.bool_


@pytest.mark.parametrize("axis", [(1, 2), (1, 3), [-1, 1], (-1, -3), [2], ()])
def test_several_new_axes_are_where_numpy_puts_them(axis: Any) -> None:
    x = Input((5, 4))
    assert_same(Model(x, ops.expand_dims(x, axis))(X), np.expand_dims(X, axis))
    assert_same(ops.expand_dims(X, axis), np.expand_dims(X, axis))


def test_new_axes_of_features_run_on_streams() -> None:
    x = Input((None, 4))
    h = ops.expand_dims(layers.GRU(3, return_sequences=True)(x), (2, 4))
    model = Model(x, layers.Dense(2)(ops.squeeze(h, (2, 4))))
    stream = StepRunner(model)
    assert_same(stream.run([X], None, stream.initial_state(3)), [model(X)])


def test_the_largest_and_smallest_value_include_an_initial_one() -> None:
    x = Input((5, 4))
    model = Model(x, [ops.max(x, axis=1, initial=0.5), ops.min(x, axis=1, initial=-0.5)])
    expected = [X.max(1, initial=0.5), X.min(1, initial=-0.5)]
    assert_same(model(X), expected)
    assert_same(Model.from_config(model.get_config())(X), expected)
    assert ops.max(X[:0], initial=-1) == -1
    assert "initial" not in ops.max(x, axis=1).layer.arguments  # as in files of earlier versions


def test_sums_do_not_depend_on_the_rows_beside_them() -> None:
    """Added in float64 in one order: the same bits in any batch and chunk."""
    large = (RNG.normal(size=(6, 300, 7)) * 1e3).astype(np.float32)
    for axis in (1, 2):
        whole = ops.mean(large, axis=axis)
        assert_same(
            np.concatenate([ops.mean(large[i : i + 1], axis=axis) for i in range(6)]), whole
        )
        np.testing.assert_array_equal(whole, large.mean(axis=axis, dtype=np.float64).astype("f"))


def test_a_logarithm_is_near_that_of_float64() -> None:
    values = np.exp(RNG.uniform(-100, 88, 5003)).astype(np.float32)
    special = np.array([0, -0.0, -1, np.inf, -np.inf, np.nan, 1, 1e-45, 1e-38], np.float32)
    with np.errstate(all="ignore"):
        expected = np.log(special.astype(np.float64))
    np.testing.assert_allclose(
        ops.log(values), np.log(values.astype(np.float64)), rtol=3e-7, atol=1e-7
    )
    np.testing.assert_allclose(ops.log(special), expected, rtol=1e-6)
    assert_same(ops.log(values[:5]), ops.log(values)[:5])


def after_gru(tail: Any, *, every: bool = True) -> Model:
    x = Input((None, 4))
    return Model(x, tail(layers.GRU(3, return_sequences=every)(x)))


@pytest.mark.parametrize("every", [True, False])
def test_a_model_with_operators_runs_on_streams(every: bool) -> None:
    """Each row as if its stream ended there; the operations count features from the end."""
    model = after_gru(
        lambda h: ops.softmax(h, axis=-1)[..., 1:] * 2 + ops.mean(h, axis=-1, keepdims=True) ** 2,
        every=every,
    )
    (found,) = StepRunner(model).run_once([X], np.full(3, 5))
    for steps in range(1, 6):
        said = model(X[:, :steps])
        assert_same(found[:, steps - 1], said[:, -1] if every else said)


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (lambda h: ops.mean(h, axis=1), "mean combines the steps|other axes"),
        (lambda h: ops.softmax(h, axis=1), "softmax combines the steps of the time axis"),
        (lambda h: h[:, -1], "get_item"),
        (lambda h: h[:, ::-1], "get_item takes some steps"),
        (lambda h: h[..., 0], "other axes"),
        (lambda h: ops.flip(h, axis=1), "flip combines the steps"),
        (lambda h: h + np.ones((5, 1)), "add has an operand with a number for each step"),
        (lambda h: ops.reshape(h, (-1, 5, 3)), "reshape may move the time axis"),
        (lambda h: ops.squeeze(ops.expand_dims(h, (1, 4)), (1, 4)), "expand_dims moves the time"),
    ],
)
def test_what_mixes_the_steps_is_refused_on_streams_by_name(tail: Any, reason: str) -> None:
    x = Input((5, 4))
    model = Model(x, tail(layers.GRU(3, return_sequences=True)(x)))
    assert np.isfinite(model(X)).all()
    with pytest.raises(ModelMismatchError, match=f"(?s)Operation.*{reason}"):
        StepRunner(model)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda x: ops.mean(x), ArgumentError, "axis=None includes the batch"),
        (lambda x: ops.mean(x, axis=0), ArgumentError, "axis=0 is the batch"),
        (lambda x: ops.maximum(*[x]), TypeError, r"^maximum\(\) missing 1 required"),
        (lambda x: ops.sum(x, axis=3), ArgumentError, "axis=3 is out of range for 3 axes"),
        (lambda x: x[0], ArgumentError, "the first index must keep all rows"),
        (lambda x: x[:, :, :, 0], ArgumentError, "4 indices do not fit 3 axes"),
        (lambda x: x[:, [1, 2]], ArgumentError, "an integer, a slice, None or ..."),
        (lambda x: x[:, :, 9], ShapeError, "do not fit.*out of bounds"),
        (lambda x: x + np.ones(7), ShapeError, "do not fit.*broadcast"),
        (lambda x: x**0.3, ArgumentError, "the exponent must be a whole number from -64 to 64"),
        (lambda x: x**np.inf, ArgumentError, "the exponent must be a finite number, received inf"),
        (lambda x: x + "1", ArgumentError, "could not convert|must be a symbol or numbers"),
        (lambda x: x + object(), ArgumentError, "must be a symbol or numbers"),
        (lambda x: x @ x, ShapeError, r"do not fit: matmul needs \(batch, …, n\)"),
        (lambda x: x[:, 0] @ x, ShapeError, "do not fit: matmul needs"),
        (lambda x: x @ x[:, 0], ShapeError, "do not fit: matmul needs"),
        (lambda x: x @ np.ones((3, 2)), ShapeError, "do not fit: matmul needs"),
        (lambda x: list(x), TypeError, "no values to iterate over"),
        (lambda x: layers.Operation("adds")(x), ArgumentError, "did you mean 'add'"),
        (lambda x: layers.Operation("add", ["input", "input"])(x), ShapeError, "2 tensors"),
        (lambda x: ops.expand_dims(x, (0, 2)), ArgumentError, "axis=0 is the batch"),
        (lambda x: ops.expand_dims(x, (1, 5)), ArgumentError, "axis=5 is out of range for 5 axes"),
        (lambda x: ops.expand_dims(x, (2, 2)), ShapeError, "do not fit: repeated axis"),
        (lambda x: ops.max(x, axis=1, initial="0"), ArgumentError, "initial must be a number"),
        (lambda x: ops.min(X, initial=[0.0, 1.0]), ArgumentError, "initial must be a number"),
        (lambda x: ops.cast(x, "complex64"), ArgumentError, "float32, int32, int64 or bool"),
        (lambda x: ops.pad(x, [[1, 1]]), ArgumentError, "pad, tile: the first axis is the batch"),
        (lambda x: ops.tile(x, [2, 1, 1]), ArgumentError, "pad, tile: the first axis is the batch"),
        (lambda x: ops.split(x, 3, axis=-1), ArgumentError, r"axis -1 .* has no 3 equal parts"),
        (lambda x: ops.split(x, 2, axis=1), ArgumentError, r"axis 1 .* has no 2 equal parts"),
        (lambda x: ops.take(x, 4, axis=-1), ShapeError, "do not fit.*out of bounds"),
        (lambda x: ops.normalize(x, order=1), ArgumentError, "normalize: order must be 2"),
        (lambda x: ops.roll(x, 1), ArgumentError, "axis=None includes the batch"),
    ],
)
def test_a_wrong_operation_is_refused(use: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        use(Input((None, 4)))


@pytest.mark.parametrize(
    "key", [7, -24, slice(7, None), slice(-9, -7), slice(None, -8), slice(None, None, 2), slice(5)]
)
def test_the_size_of_a_slice_of_unknown_length_is_unknown(key: Any) -> None:
    """A Dense behind it would read weights of steps that are not there."""
    x, rows = Input((None, 3)), np.random.default_rng(5).random((2, 30, 3), np.float32)
    y = x[:, key]
    assert y.shape == ((None, 3) if isinstance(key, int) else (None, None, 3))
    assert_same(Model(x, y)(rows), rows[:, key])
    if isinstance(key, slice):
        with pytest.raises(ShapeError, match="last axis must be known"):
            layers.Dense(2)(layers.Flatten()(y))


@pytest.mark.parametrize(
    "join",
    [
        lambda x: x * x[:, 1:],
        lambda x: ops.concatenate([x, x[:, 1:]], axis=-1),
        lambda x: layers.Add()([x, x[:, 1:]]),
        lambda x: layers.Maximum()([x, layers.Masking()(x), x[:, 2:]]),
        lambda x: layers.Concatenate()([x, x[:, 1:]]),
        lambda x: x[:, 5],
    ],
)
def test_arrays_that_do_not_fit_are_refused(join: Any) -> None:
    """Their numbers of steps are unknown until the call."""
    x = Input((None, 4))
    with pytest.raises(ShapeError, match=r"(?s)layer '.*\(3, 5, 4\)"):
        Model(x, join(x))(X)


def test_a_mask_does_not_pass_an_operation() -> None:
    """As in Keras: what follows sees all steps."""
    x = Input((5, 4))
    model = Model(x, layers.GRU(3)(layers.Masking()(x) * 2.0))
    plain = Model(x, model.layers[-1](x * 2.0))
    given = np.where(X[..., :1] > 0, X, 0).astype(np.float32)
    assert_same(model(given), plain(given))


def test_sequences_of_several_lengths_are_summed_within_their_own() -> None:
    """A model that sums over time is given rows of one length at a time."""
    model = after_gru(lambda h: ops.sum(h, axis=1))
    assert not model.layers[-1].ragged
    assert after_gru(lambda h: h * 2).layers[-1].ragged


@pytest.mark.parametrize(
    "after",
    [
        lambda: layers.Conv1D(2, 2),
        lambda: layers.GRU(3),
        lambda: layers.LSTM(3, return_sequences=True),
        lambda: layers.Dense(2),
        lambda: layers.Bidirectional(layers.SimpleRNN(2)),
    ],
)
@pytest.mark.parametrize(
    "key", [(slice(None), slice(None), slice(1, 3)), (slice(None), slice(None, None, 2))]
)
def test_a_layer_reads_a_slice_as_its_values(after: Any, key: Any) -> None:
    """Not the memory beside them: a slice is a view."""
    x = np.random.default_rng(2).normal(size=(3, 8, 4)).astype(np.float32)
    inputs = Input((8, 4))
    layer = after()
    model = Model(inputs, layer(inputs[key]))
    np.testing.assert_array_equal(model(x), layer(np.ascontiguousarray(x[key])))


def test_the_sum_of_booleans_is_refused() -> None:
    """Keras takes it for logical_or, NumPy counts."""
    x = Input((3,))
    with pytest.raises(ArgumentError, match="add: the sum of two booleans is logical_or in Keras"):
        Model(x, (x > 0) + (x < 1))(np.zeros((2, 3), np.float32))
