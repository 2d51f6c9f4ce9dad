"""Several outputs: what each adds to the loss, how it is named, and what is refused."""

from typing import Any

import numpy as np
import pytest
from nn.layers.kinds import assert_same
from nn.training.trained import weighted

from streamrnn import Input, Model, layers, losses, metrics, optimizers
from streamrnn.errors import ArgumentError, ShapeError, UnsupportedError

RNG = np.random.default_rng(6)
X = RNG.normal(size=(6, 4, 3)).astype(np.float32)
A = RNG.normal(size=(6, 4, 1)).astype(np.float32)
B = RNG.normal(size=(6, 2)).astype(np.float32)
LENGTHS = np.array([4, 2, 3, 1, 4, 2])
MAE = metrics.MeanAbsoluteError()


def two(**options: Any) -> Model:
    """Steps, and the last state of the same layer."""
    x = Input((None, 3))
    steps, last = layers.GRU(5, return_sequences=True, return_state=True, name="gru")(x)
    outputs = [layers.Dense(1, name="steps")(steps), layers.Dense(2, name="last")(last)]
    return weighted(Model(x, outputs, **options))


def one(number: int) -> Model:
    """The same model with one of its outputs."""
    model = two()
    return Model(model.inputs, model.outputs[number])


def test_the_gradient_is_the_weighted_sum_of_those_of_each_output() -> None:
    model = two()
    model.compile("sgd", ["mse", "mae"], loss_weights=[0.5, 3.0])
    found = model.gradients(X, [A, B], lengths=LENGTHS)
    wanted = {name: np.zeros_like(w) for name, w in model.named_weights().items()}
    for number, (loss, y, factor) in enumerate([("mse", A, 0.5), ("mae", B, 3.0)]):
        single = one(number)
        single.compile("sgd", loss)
        for name, gradient in single.gradients(X, y, lengths=LENGTHS).items():
            wanted[name] += np.float32(factor) * gradient
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, wanted[name], rtol=2e-5, atol=1e-6, err_msg=name)


def test_the_gradient_is_that_of_differences() -> None:
    """Central differences of the loss, at some entries of each weight."""
    model = two()
    model.compile("sgd", ["mse", "mse"], loss_weights={"steps": 2.0, "last": 0.25})
    for name, gradient in model.gradients(X, [A, B]).items():
        weight = model.named_weights()[name]
        for at in range(0, weight.size, max(weight.size // 3, 1)):
            place, losses_ = np.unravel_index(at, weight.shape), []
            for step in (0.01, -0.01):
                moved = [w.copy() for w in model.get_weights()]
                number = list(model.named_weights()).index(name)
                moved[number][place] += np.float32(step)
                before = model.get_weights()
                model.set_weights(moved)
                losses_.append(model.test_on_batch(X, [A, B])[0])
                model.set_weights(before)
            slope = (losses_[0] - losses_[1]) / 0.02
            assert gradient[place] == pytest.approx(slope, rel=2e-2, abs=2e-3), name


@pytest.mark.parametrize("given", [["mse", None], {"steps": "mse", "last": None}])
@pytest.mark.parametrize("y", [[A, None], [A], {"steps": A}])
def test_an_output_without_a_loss_adds_nothing(given: Any, y: Any) -> None:
    model, single = two(), one(0)
    model.compile(optimizers.SGD(0.1), given)
    single.compile(optimizers.SGD(0.1), "mse")
    head = model.get_layer("last").get_weights()
    assert model.train_on_batch(X, y) == single.train_on_batch(X, A)
    assert_same(model.get_weights()[:4], single.get_weights()[:4])
    assert_same(model.get_layer("last").get_weights(), head)


def test_names_and_order_of_reports() -> None:
    model = two()
    model.compile("sgd", "mse", metrics={"last": ["mae", "mse"]}, loss_weights=[1, 2])
    logs = model.test_on_batch(X, {"last": B, "steps": A}, return_dict=True)
    assert list(logs) == ["loss", "steps_loss", "last_loss", "last_mae", "last_mse"]
    assert logs["loss"] == pytest.approx(logs["steps_loss"] + 2 * logs["last_loss"])
    assert logs["last_mse"] == pytest.approx(logs["last_loss"])
    names = ("loss", "steps_loss", "last_loss", "last_mae", "last_mse")
    assert model.test_on_batch(X, [A, B]) == [logs[name] for name in names]
    assert [metric.name for metric in model.metrics] == ["mae", "mse"]
    assert [loss.name for loss in model.loss] == ["mean_squared_error"] * 2


def test_sample_weights_of_each_output() -> None:
    model = two()
    model.compile("sgd", ["mse", "mse"], weighted_metrics=[["mae"], None])
    none, half = np.zeros((6, 4), np.float32), np.full(6, 0.5, np.float32)
    plain = model.test_on_batch(X, [A, B], return_dict=True)
    for weight in ([none, half], {"steps": none, "last": half}):
        logs = model.test_on_batch(X, [A, B], sample_weight=weight, return_dict=True)
        assert logs["steps_loss"] == logs["steps_mae"] == 0
        assert logs["last_loss"] == pytest.approx(plain["last_loss"] / 2)
    both = model.test_on_batch(X, [A, B], sample_weight=half, return_dict=True)
    assert both["loss"] == pytest.approx(plain["loss"] / 2)
    last = model.test_on_batch(X, [A, B], sample_weight=[None, half], return_dict=True)
    assert last["steps_loss"] == plain["steps_loss"]


def test_a_model_with_two_outputs_inside_another() -> None:
    x = Input((None, 3))
    steps, last = two(name="inner")(x)
    model = Model(x, [layers.Dense(1, name="a")(steps), last])
    model.compile("sgd", "mse")
    before = model.get_weights()
    logs = model.train_on_batch(X, [A, B], return_dict=True)
    assert list(logs) == ["loss", "a_loss", "inner_loss"]
    assert not any((b == w).all() for b, w in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.compile("sgd", ["mse"]), ArgumentError, "many losses as outputs, 2 "),
        (lambda m: m.compile("sgd", [None, None]), ArgumentError, "expected a loss, as in"),
        (
            lambda m: m.compile("sgd", {"steps": "mse"}),
            ArgumentError,
            "loss: expected the outputs steps, last, received steps; an output may have the value",
        ),
        (
            lambda m: m.compile("sgd", {"steps": "mse", "list": "mse"}),
            ArgumentError,
            "received steps, list; did you mean 'last'",
        ),
        (lambda m: m.compile("sgd", "mse", loss_weights=[1.0]), ArgumentError, "loss_weights must"),
        (lambda m: m.compile("sgd", "mse", metrics=["mae"]), ArgumentError, "metrics of a model"),
        (
            lambda m: m.compile("sgd", "mse", metrics=[[MAE], [MAE]]),
            ArgumentError,
            "the metric 'mean_absolute_error' is given twice",
        ),
        (lambda m: m.train_on_batch(X, A), ArgumentError, "a list or dictionary of 2 arrays, one"),
        (lambda m: m.train_on_batch(X, [A]), ArgumentError, "received 1 arrays"),
        (lambda m: m.train_on_batch(X, [A, None]), ArgumentError, "y for the output 'last'"),
        (lambda m: m.train_on_batch(X, [A, B[:2]]), ShapeError, "expected 6 rows of y"),
        (
            lambda m: m.train_on_batch(X, [A, B], sample_weight=[B[:, 0]]),
            ShapeError,
            "sample_weight as an array for all outputs, or one for each of steps, last",
        ),
        (
            lambda m: m.train_on_batch(X, [A, B], class_weight={0: 1}),
            ArgumentError,
            "class_weight needs a model with one output",
        ),
    ],
)
def test_what_is_refused(call: Any, error: Any, message: str) -> None:
    model = two()
    model.compile("sgd", losses.MeanSquaredError())
    with pytest.raises(error, match=message):
        call(model)


def test_outputs_that_cannot_be_told_apart_are_refused() -> None:
    x = Input((None, 3))
    model = Model(x, layers.GRU(2, return_state=True, name="gru")(x))
    with pytest.raises(UnsupportedError, match="outputs are of one layer: gru, gru"):
        model.compile("sgd", "mse")


def test_the_plan_of_a_pipeline_has_one_output() -> None:
    from streamrnn.nn.training.passes import plan_of

    with pytest.raises(UnsupportedError, match="several outputs is not supported here"):
        plan_of(two(), one_output=True)
