"""compile, fit, evaluate, train_on_batch: what they do, return and refuse."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import assert_same, layer_at
from nn.training.trained import weighted

import streamrnn
from streamrnn import Input, Model, Sequential, callbacks, layers, losses, optimizers
from streamrnn.errors import ArgumentError, ConfigError, ShapeError, UnsupportedError

RNG = np.random.default_rng(13)
X = RNG.normal(size=(20, 4)).astype(np.float32)
TRUE = np.array([[1.0], [-2.0], [0.5], [3.0]])
Y = X @ TRUE + 0.25


def linear() -> Sequential:
    return weighted(Sequential([Input((4,)), layers.Dense(1, name="dense")]))


def recurrent(**options: Any) -> Sequential:
    return weighted(Sequential([Input((None, 4)), layers.GRU(5, **options), layers.Dense(1)]))


def test_least_squares_is_found() -> None:
    """The known optimum of a linear model."""
    model = linear()
    model.compile(optimizers.Adam(0.1), "mse")
    history = model.fit(X, Y, epochs=300, verbose=0, batch_size=20)
    np.testing.assert_allclose(model.weights[0], TRUE, atol=1e-3)
    np.testing.assert_allclose(model.weights[1], [0.25], atol=1e-3)
    assert history.epoch == list(range(300))
    assert history.history["loss"][-1] < 1e-5


def test_a_delayed_copy_is_learned() -> None:
    """What only the state can know: the input of two steps before."""
    x = RNG.normal(size=(64, 12, 1)).astype(np.float32)
    y = np.concatenate([np.zeros((64, 2, 1)), x[:, :-2]], axis=1)
    model = weighted(
        Sequential([Input((None, 1)), layers.LSTM(16, return_sequences=True), layers.Dense(1)])
    )
    model.compile(optimizers.Adam(0.01, global_clipnorm=1.0), "mse")
    history = model.fit(x, y, epochs=60, batch_size=16, verbose=0)
    assert history.history["loss"][-1] < 0.05 * history.history["loss"][0]


def test_training_scores_with_the_new_weights() -> None:
    """Weights packed for scoring are those of the last update."""
    model = recurrent()
    x = RNG.normal(size=(6, 5, 4)).astype(np.float32)
    model(x)
    model.compile("sgd", "mse")
    model.train_on_batch(x, np.zeros((6, 1)))
    copied = recurrent()
    copied.set_weights(model.get_weights())
    assert_same(model(x), copied(x))


def test_frozen_weights_stay() -> None:
    """A frozen layer, before and behind trained ones; its gradient passes through."""
    model = weighted(
        Sequential(
            [
                Input((None, 4)),
                layers.Dense(3, trainable=False),
                layers.LSTM(4, return_sequences=True),
                layers.GRU(4),
                layers.Dense(1),
            ]
        )
    )
    model.layers[2].trainable = False
    model.compile("adam", "mse")
    before, x = model.get_weights(), RNG.normal(size=(6, 5, 4))
    names = list(model.named_weights())
    assert set(model.gradients(x, np.ones((6, 1)))) == {
        name for name, w in zip(names, model.weights, strict=True)
        if any(w is t for t in model.trainable_weights)
    }  # fmt: skip
    model.train_on_batch(x, np.ones((6, 1)))
    moved = [bool((a != b).any()) for a, b in zip(before, model.get_weights(), strict=True)]
    assert moved == [False] * 2 + [True] * 3 + [False] * 3 + [True] * 2
    assert len(model.non_trainable_weights) == 5


def test_sample_weights_and_lengths() -> None:
    """A row of weight 0, and steps past a length, are as if they were not there."""
    model = recurrent(return_sequences=True)
    model.compile("sgd", "mse")
    x, y = RNG.normal(size=(3, 5, 4)), RNG.normal(size=(3, 5, 1))
    weight, lengths = np.array([1.5, 0, 1.5]), np.array([5, 3, 5])
    found = model.gradients(x, y, weight)
    plain = model.gradients(x[[0, 2]], y[[0, 2]])
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, plain[name], rtol=1e-4, atol=1e-7)
    cut = model.gradients(x[1:2], y[1:2], lengths=lengths[1:2])
    short = model.gradients(x[1:2, :3], y[1:2, :3])
    for name, gradient in cut.items():
        np.testing.assert_allclose(gradient, short[name], rtol=1e-4, atol=1e-7)


def test_validation_changes_no_weight() -> None:
    """Other rows of validation give the same weights, and the split takes the last rows."""
    found = []
    for value in (0.0, 100.0):
        model, y = linear(), Y.copy()
        y[16:] += value
        model.compile("sgd", "mse", metrics=["mae"])
        history = model.fit(X, y, epochs=3, validation_split=0.2, verbose=0)
        found.append((model.get_weights(), history.history))
    assert_same(found[0][0], found[1][0])
    one, other = (history for _, history in found)
    assert one["loss"] == other["loss"]
    assert one["val_loss"] != other["val_loss"]
    assert set(one) == {"loss", "mae", "val_loss", "val_mae"}


def test_a_seed_orders_rows() -> None:
    """Each epoch has its own order; the same seed has the same; every row is used once."""
    found = []
    for seed, shuffle in ((0, True), (0, True), (1, True), (0, False)):
        model = linear()
        model.compile("sgd", "mse", seed=seed)
        model.fit(X, Y, epochs=2, batch_size=3, verbose=0, shuffle=shuffle)
        found.append(model.get_weights()[0].tobytes())
    assert found[0] == found[1]
    assert len(set(found)) == 3


def test_what_the_calls_return(capsys: pytest.CaptureFixture[str]) -> None:
    model = linear()
    model.compile("sgd", "mse")
    assert isinstance(model.evaluate(X, Y), float)
    assert isinstance(model.train_on_batch(X, Y), float)
    model.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mse"])
    before = model.test_on_batch(X, Y, return_dict=True)
    assert list(before) == ["loss", "mae", "mse"]
    assert before["loss"] == pytest.approx(before["mse"])
    assert model.train_on_batch(X, Y) == list(before.values())
    assert len(model.evaluate(X, Y, batch_size=7)) == 3
    assert capsys.readouterr().out == ""
    model.fit(X, Y, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" - ")[0] for line in lines] == ["Epoch 1/2", "Epoch 2/2"]
    assert isinstance(model.optimizer, optimizers.SGD)
    assert isinstance(model.loss, losses.MeanSquaredError)
    assert [metric.name for metric in model.metrics] == ["mae", "mse"]


def test_early_stopping_restores_the_best_weights() -> None:
    """At a learning rate that diverges, the first epochs are the best."""
    model = linear()
    model.compile(optimizers.SGD(0.9), "mse")
    stop = callbacks.EarlyStopping("loss", patience=3, restore_best_weights=True)
    history = model.fit(X, Y, epochs=50, verbose=0, callbacks=stop, shuffle=False)
    assert len(history.epoch) == stop.best_epoch + 4 < 50
    again = linear()
    again.compile(optimizers.SGD(0.9), "mse")
    again.fit(X, Y, epochs=stop.best_epoch + 1, verbose=0, shuffle=False)
    assert_same(model.get_weights(), again.get_weights())


def test_a_sequential_without_an_input_is_built_by_fit() -> None:
    model = Sequential([layers.LSTM(3), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    assert set(model.fit(X[:, None], Y, verbose=0).history) == {"loss", "mae"}


def test_models_inside_models_and_several_inputs() -> None:
    """A nested model, called twice: its gradients add up."""
    inner = weighted(Sequential([Input((None, 4)), layers.GRU(3)]))
    one, other = Input((None, 4)), Input((None, 4))
    model = Model([one, other], layers.Dense(1)(layers.Subtract()([inner(one), inner(other)])))
    model.compile("sgd", "mse")
    x = RNG.normal(size=(5, 6, 4))
    same = model.gradients([x, x], np.ones((5, 1)))
    assert max(np.abs(same[name]).max() for name in same if "gru" in name) < 1e-6
    differ = model.gradients([x, -x], np.ones((5, 1)))
    assert all(np.abs(gradient).max() > 0 for gradient in differ.values())


def test_gradients_of_merged_steps_that_are_masked() -> None:
    """A masked step is the factor 1, and where both are masked the product is 0."""
    x = RNG.normal(size=(2, 3, 4, 2)).astype(np.float32)
    x[0, 0, 1] = x[0, 1, 2:] = x[1, 1, 3] = x[1, 2] = 0
    inputs = [Input((4, 2)), Input((4, 2))]
    read = [layers.Dense(2)(layers.Masking()(symbol)) for symbol in inputs]
    model = weighted(Model(inputs, layers.Multiply()(read)))
    model.compile("sgd", losses.MeanSquaredError(reduction="sum"))
    found = model.gradients(list(x), np.ones((3, 4, 2)))
    weights = [w.astype(np.float64) for w in model.get_weights()]
    masks = (x != 0).any(-1, keepdims=True)

    def loss() -> float:
        products = [x[i] @ weights[2 * i] + weights[2 * i + 1] for i in range(2)]
        y = np.where(masks[0], products[0], 1) * np.where(masks[1], products[1], 1)
        return float((((y - 1) ** 2) * masks.any(0)).sum() / 2)

    for weight, gradient in zip(weights, found.values(), strict=True):
        for place in np.ndindex(weight.shape):
            before = weight[place]
            weight[place] = before + 1e-6
            above = loss()
            weight[place] = before - 1e-6
            assert gradient[place] == pytest.approx((above - loss()) / 2e-6, rel=1e-4, abs=1e-4)
            weight[place] = before


def test_a_copy_is_not_compiled() -> None:
    """Nor a model from a pickle: tapes and kernels do not travel."""
    model = linear()
    model.compile("sgd", "mse")
    model.train_on_batch(X, Y)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same(other.get_weights(), model.get_weights())
        with pytest.raises(ConfigError, match=r"call compile\(optimizer, loss\) before fit"):
            other.fit(X, Y)


def test_a_stateful_fit() -> None:
    """States are reset before each epoch, and validation does not touch them."""
    x, y = RNG.normal(size=(6, 3, 4)), RNG.normal(size=(6, 1))
    found = []
    for validation in (None, (x[:3], y[:3])):
        model = recurrent(stateful=True)
        model.compile("sgd", "mse")
        options: dict[str, Any] = {"batch_size": 3, "shuffle": False, "verbose": 0}
        model.fit(x, y, epochs=2, validation_data=validation, **options)
        found.append([*model.get_weights(), *layer_at(model).states])
    assert_same(*found)
    one = recurrent(stateful=True)
    one.compile("sgd", "mse")
    for _ in range(2):
        one.reset_states()
        one.train_on_batch(x[:3], y[:3])
        one.train_on_batch(x[3:], y[3:])
    assert_same(found[0], [*one.get_weights(), *layer_at(one).states])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.compile("muon", "mse"), "optimizer 'muon' is not supported"),
        (lambda m: m.compile("sgd"), "expected a loss"),
        (lambda m: m.compile("sgd", "mse", loss_weights=[1, 2]), "loss_weights must be a number"),
        (lambda m: m.fit(X), "expected y, the truth"),
        (lambda m: m.fit(X, Y, class_weight=[1, 2]), "class_weight must be a dictionary"),
        (
            lambda m: m.fit(X, Y, class_weight={0: 1}, sample_weight=Y[:, 0]),
            "class_weight and sample_weight cannot both be given",
        ),
        (
            lambda m: m.fit(X, Y, steps_per_epoch=0),
            "steps_per_epoch must be a whole number, 1 or more, received 0",
        ),
        (
            lambda m: m.fit(X, Y, steps_per_epoch=3),
            "steps_per_epoch must be at most 1, the number of batches, received 3",
        ),
        (lambda m: m.fit(X, Y, validation_freq=0), "validation_freq must be a whole number, 1 or"),
        (lambda m: m.fit(3, Y), "y cannot be given with batches"),
        (lambda m: m.fit(3), "expected arrays, a table, or an iterable of batches"),
        (
            lambda m: m.fit(X, Y, callbacks=[object()]),
            "expected a Callback, or a list of them, received object",
        ),
        (
            lambda m: m.fit(X, Y, batch_size=0),
            "batch_size must be a whole number, 1 or more, received 0",
        ),
        (lambda m: m.fit(X, Y, validation_split=1.5), "validation_split must be above 0"),
        (lambda m: m.fit(X, Y, validation_data=X), "validation_data must be"),
        (
            lambda m: m.fit(X, Y, callbacks=callbacks.EarlyStopping(), verbose=0),
            "monitor='val_loss' is not reported",
        ),
        (lambda m: m.evaluate(X, Y, steps=2), "steps must be at most 1, the number of batches"),
        (lambda m: callbacks.EarlyStopping(mode="up"), "mode must be"),
    ],
)
def test_arguments_that_are_refused(call: Any, message: str) -> None:
    model = linear()
    model.compile("sgd", "mse")
    with pytest.raises(ArgumentError, match=message):
        call(model)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.fit(X, Y[:3]), "expected 20 rows of y, as in x, received shape"),
        (lambda m: m.fit(X, Y, sample_weight=[1.0]), "expected 20 rows of sample_weight"),
        (lambda m: m.fit(X[:0], Y[:0]), "expected at least one row"),
        (lambda m: m.fit(X, Y, validation_split=0.99), "leaves nothing to train on, or"),
        (lambda m: m.train_on_batch(X[:, :2], Y), "expected shape"),
    ],
)
def test_shapes_that_are_refused(call: Any, message: str) -> None:
    model = linear()
    model.compile("sgd", "mse")
    with pytest.raises(ShapeError, match=message):
        call(model)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: layers.GRU(3, activation="gelu"), "activation 'gelu' inside a recurrent layer"),
        (lambda: layers.LSTM(3, kernel_regularizer="l3"), "kernel_regularizer='l3' is not"),
        (lambda: layers.LSTM(3, activity_regularizer="l2"), "activity_regularizer='l2' is not"),
        (lambda: layers.RNN(layers.LSTMCell(3, bias_constraint="c")), "bias_constraint='c' is"),
        (
            lambda: layers.TimeDistributed(layers.BatchNormalization()),
            "variance of each step alone",
        ),
    ],
)
def test_layers_that_are_refused(layer: Any, message: str) -> None:
    """When the model is compiled, by name."""
    model = Sequential([Input((5, 4)), layer()])
    with pytest.raises(UnsupportedError, match=message):
        model.compile("sgd", "mse")


def test_what_is_refused_may_be_frozen() -> None:
    """In front of what is trained it runs as in scoring."""
    model = Sequential(
        [
            Input((5, 4)),
            layers.Conv1D(3, 2, padding="causal", trainable=False),
            layers.BatchNormalization(trainable=False),
            layers.GRU(3),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    assert model.train_on_batch(X.reshape(4, 5, 4), Y[:4]) > 0


def test_what_a_graph_may_not_have() -> None:
    x = Input((None, 4))
    y, h = layers.GRU(3, return_state=True)(x)
    with pytest.raises(UnsupportedError, match="training with training= in the model's"):
        Model(x, layers.GRU(3)(x, training=False)).compile("sgd", "mse")
    with pytest.raises(UnsupportedError, match=r"outputs are of one layer: gru\S*, gru"):
        Model(x, [y, h]).compile("sgd", "mse")


def test_stateful_models_refuse_what_would_mix_rows() -> None:
    model = recurrent(stateful=True)
    model.compile("sgd", "mse")
    with pytest.raises(ArgumentError, match="stateful model needs shuffle=False"):
        model.fit(X[:, None], Y)
    with pytest.raises(ShapeError, match="20 rows cannot be split into batches of batch_size=3"):
        model.fit(X[:, None], Y, shuffle=False, batch_size=3)


def test_modules_have_the_names_of_keras() -> None:
    for name in ("losses", "optimizers", "metrics", "callbacks"):
        assert getattr(streamrnn, name).__name__ == f"streamrnn.{name}"
