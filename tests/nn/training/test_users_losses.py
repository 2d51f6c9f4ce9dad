"""Losses and metrics of a user: classes and functions of arrays, as Keras takes them."""

import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import pytest
from selection import slow

from streamrnn import Input, Model, Sequential, callbacks, layers, losses, metrics
from streamrnn.errors import ArgumentError, ShapeError, UnsupportedError

RNG = np.random.default_rng(6)
X = RNG.normal(size=(12, 5, 3)).astype(np.float32)
ROWS, STEPS = RNG.normal(size=(12, 2)), RNG.normal(size=(12, 5, 2))
MASKED = X * (RNG.random((12, 5, 1)) < 0.7)


class Power(losses.Loss):
    """|p - t| ** 1.5, the mean over units: smooth, and no loss of the package."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return (np.abs(y_pred - y_true) ** 1.5).mean(axis=-1)

    def gradient(self, y_true: Any, y_pred: Any) -> Any:
        error = y_pred - y_true
        return 1.5 * np.sign(error) * np.abs(error) ** 0.5 / y_pred.shape[-1]


class Elements(Power):
    """Without the mean: a value of each element."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return np.abs(y_pred - y_true) ** 1.5

    def gradient(self, y_true: Any, y_pred: Any) -> Any:
        return super().gradient(y_true, y_pred) * y_pred.shape[-1]


class Rows(losses.Loss):
    """Power, compiled: of one row."""

    @staticmethod
    def step(y_true: Any, y_pred: Any) -> Any:
        total = 0.0
        for u in range(y_pred.size):
            total += abs(y_pred[u] - y_true[u]) ** 1.5
        return total / y_pred.size

    @staticmethod
    def gradient(y_true: Any, y_pred: Any) -> Any:
        error = y_pred - y_true
        return 1.5 * np.sign(error) * np.sqrt(np.abs(error)) / y_pred.size


def squared(y_true: Any, y_pred: Any) -> Any:
    assert y_true.shape == y_pred.shape
    return ((y_pred - y_true) ** 2).mean(axis=-1)


def _slope(y_true: Any, y_pred: Any) -> Any:
    return 2 * (y_pred - y_true) / y_pred.shape[-1]


squared.gradient = _slope  # type: ignore[attr-defined]


def network(loss: Any, *, every: bool = False, masking: bool = False, **options: Any) -> Sequential:
    model = Sequential(
        [
            Input((5, 3)),
            *([layers.Masking()] if masking else []),
            layers.GRU(3, return_sequences=every),
            layers.Dense(2),
        ]
    )
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape) * 0.6 for w in model.weights])
    model.compile("sgd", loss, **options)
    return model


CASES: list[dict[str, Any]] = [
    {"y": ROWS},
    {"y": ROWS, "sample_weight": RNG.random(12)},
    {"y": STEPS, "every": True},
    {"y": STEPS, "every": True, "sample_weight": RNG.random((12, 5))},
    {"y": STEPS, "every": True, "masking": True},
    {"y": STEPS, "every": True, "masking": True, "sample_weight": RNG.random(12)},
    {"y": STEPS, "every": True, "lengths": RNG.integers(1, 6, 12)},
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
@pytest.mark.parametrize("kind", [Power, Elements, Rows])
def test_gradients_are_finite_differences_of_the_loss(
    kind: Any, reduction: str, case: dict[str, Any]
) -> None:
    """By every weight, with weights of samples, masks, lengths and both reductions."""
    data = {key: case[key] for key in ("y", "sample_weight", "lengths") if key in case}
    model = network(
        kind(reduction), every=case.get("every", False), masking=case.get("masking", False)
    )
    gradients = model.gradients(MASKED, **data)
    rng = np.random.default_rng(2)
    for name, weight in zip(model.named_weights(), model.weights, strict=True):
        along = rng.normal(size=weight.shape).astype(np.float32)
        values = []
        for step in (0.01, -0.01):
            weight.assign_add(step * along)
            values.append(model.test_on_batch(MASKED, **data))
            weight.assign_sub(step * along)
        slope = (values[0] - values[1]) / 0.02
        assert abs((gradients[name] * along).sum() - slope) < 0.01 * abs(slope) + 2e-3, name


@pytest.mark.parametrize("case", CASES)
def test_a_function_trains_as_the_loss_of_the_package(case: dict[str, Any]) -> None:
    """The same weights, losses and metrics within rounding, and the name of the function."""
    data = {key: case[key] for key in ("y", "sample_weight", "lengths") if key in case}
    options = {"every": case.get("every", False), "masking": case.get("masking", False)}
    mine = network(squared, metrics=[squared], **options)
    theirs = network("mse", metrics=["mse"], **options)
    runs = [m.fit(MASKED, **data, epochs=3, verbose=0).history for m in (mine, theirs)]
    assert list(runs[0]) == ["loss", "squared"]
    np.testing.assert_allclose(list(runs[0].values()), list(runs[1].values()), rtol=1e-5)
    for one, other in zip(mine.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


class Seen(metrics.Metric):
    """The weighted sum of predictions, and the shapes that it was given."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name)
        self.total = self.add_weight(name="total", initializer="zeros")
        self.shapes: set[Any] = set()

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        weight = np.ones(y_pred.shape[:-1]) if sample_weight is None else sample_weight
        self.shapes.add((y_true.shape, y_true.dtype.name, y_pred.shape, weight.shape))
        self.total.assign_add((y_pred.mean(axis=-1) * weight).sum())

    def result(self) -> Any:
        return self.total


def test_y_has_the_rank_of_the_predictions() -> None:
    """A function of a loss gets the arrays that Keras passes: an axis is added, or taken away."""
    seen: list[Any] = []

    class Plain(losses.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            seen.append((y_true.shape, y_true.dtype.name, y_pred.shape))
            return (y_true - y_pred)[..., 0] ** 2

    def plain(y_true: Any, y_pred: Any) -> Any:
        seen.append((y_true.shape, y_pred.shape))
        return (y_true - y_pred) ** 2

    metric = Seen()
    one = Sequential([Input((5, 3)), layers.GRU(1)])
    steps = Sequential([Input((5, 3)), layers.GRU(1, return_sequences=True)])
    for model, y in ((one, np.arange(12)), (steps, STEPS[..., 0])):
        for loss in (Plain(), plain):
            model.compile("sgd", loss, metrics=[metric])
            model.evaluate(X, y, batch_size=12)
    assert seen == [
        ((12, 1), "float32", (12, 1)),
        ((12, 1), (12, 1)),
        ((12, 5, 1), "float32", (12, 5, 1)),
        ((12, 5), (12, 5)),
    ]
    assert metric.shapes == {
        ((12, 1), "int64", (12, 1), (12,)),
        ((12, 5, 1), "float32", (12, 5, 1), (12, 5)),
    }


class Squared(losses.Loss):
    """The loss of the documentation."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ((y_pred - y_true) ** 2).mean(axis=-1)

    def gradient(self, y_true: Any, y_pred: Any) -> Any:
        return _slope(y_true, y_pred)


class Errors(metrics.Metric):
    """The sum of squared errors."""

    def __init__(self) -> None:
        super().__init__("errors")
        self.total = self.add_weight(name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.total.assign_add(((y_pred - y_true) ** 2).mean(axis=-1).sum())

    def result(self) -> Any:
        return self.total


def _squared_errors(y_true: Any, y_pred: Any) -> Any:
    return ((y_pred - y_true) ** 2).mean(axis=-1)


@pytest.mark.parametrize("every", [False, True])
def test_y_without_the_last_axis_is_not_broadcast_over_the_samples(every: bool) -> None:
    """Perfect predictions have no loss and no error; others those of y with the axis."""
    model = Sequential([Input((5, 3)), layers.GRU(1, return_sequences=every)])
    model.compile("sgd", Squared(), metrics=[Errors(), _squared_errors])
    perfect = model.predict(X)
    assert model.evaluate(X, perfect[..., 0]) == [0, 0, 0]
    wrong = perfect + RNG.normal(size=perfect.shape)
    assert model.evaluate(X, wrong[..., 0]) == model.evaluate(X, wrong)
    assert Squared()(perfect[..., 0], perfect) == 0
    assert Squared()(perfect, perfect[..., 0]) == 0
    gradients = [model.gradients(X, y) for y in (wrong[..., 0], wrong)]
    for name, gradient in gradients[0].items():
        np.testing.assert_array_equal(gradient, gradients[1][name])


def test_a_loss_and_a_metric_of_the_package_are_changed_by_derived_classes() -> None:
    """The call of such a loss was not run, and such a metric failed in fit."""

    class Absolute(losses.MeanSquaredError):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return np.abs(y_pred - y_true).mean(axis=-1)

        def gradient(self, y_true: Any, y_pred: Any) -> Any:
            return np.sign(y_pred - y_true) / y_pred.shape[-1]

    class Doubled(metrics.MeanSquaredError):
        def update_state(  # type: ignore[override]
            self, y_true: Any, y_pred: Any, sample_weight: Any = None
        ) -> None:
            super().update_state(2 * y_true, 2 * y_pred, sample_weight)

    options: Any = {"every": True, "masking": True, "metrics": ["mse", Doubled("four")]}
    one, other = network(Absolute(), **options), network("mae", **options)
    logs = one.evaluate(MASKED, STEPS, return_dict=True)
    assert logs == pytest.approx(other.evaluate(MASKED, STEPS, return_dict=True))
    assert logs["four"] == pytest.approx(4 * logs["mse"])
    for a, b in zip(*(m.gradients(MASKED, STEPS).values() for m in (one, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_a_metric_of_a_user_is_reset_saved_weighted_and_named() -> None:
    model = network(Power(), every=True, masking=True, metrics=[Seen("seen"), squared])
    history = model.fit(MASKED, STEPS, epochs=2, verbose=0, validation_data=(MASKED, STEPS))
    names = ["loss", "seen", "squared", "val_loss", "val_seen", "val_squared"]
    assert list(history.history) == names
    assert all(type(value) is float for value in model.evaluate(MASKED, STEPS))
    present = (MASKED != 0).any(axis=-1)
    expected = (model.predict(MASKED).mean(axis=-1) * present).sum()
    report = model.evaluate(MASKED, STEPS, return_dict=True, batch_size=5)
    np.testing.assert_allclose(report["seen"], expected, rtol=1e-4)
    again = model.evaluate(MASKED, STEPS, return_dict=True)
    assert [again[name] for name in names[1:3]] == pytest.approx([report[n] for n in names[1:3]])
    names = [metric.name for metric in (Seen(), Seen())]
    assert [name.partition("_")[0] for name in names] == ["seen", "seen"]
    assert len(set(names)) == 2
    weighted = network(Power(), weighted_metrics=[Seen("seen")])
    weight = RNG.random(12)
    found = weighted.evaluate(X, ROWS, sample_weight=weight, return_dict=True)["seen"]
    mean = weighted.predict(X).mean(axis=-1)
    np.testing.assert_allclose(found, (mean * weight).sum(), rtol=1e-4)


def test_several_outputs_have_losses_of_users() -> None:
    x = Input((5, 3))
    hidden = layers.GRU(3)(x)
    model = Model(x, [layers.Dense(2, name="a")(hidden), layers.Dense(2, name="b")(hidden)])
    model.compile("sgd", {"a": Power(), "b": squared}, metrics={"b": [squared]})
    stop = callbacks.EarlyStopping("b_squared", mode="min", patience=1)
    history = model.fit(X, [ROWS, ROWS], epochs=2, verbose=0, callbacks=[stop]).history
    assert list(history) == ["loss", "a_loss", "b_loss", "b_squared"]


class Untrained(losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return np.abs(y_pred - y_true).mean(axis=-1)


def untrained(y_true: Any, y_pred: Any) -> Any:
    return np.abs(y_pred - y_true).mean(axis=-1)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (Untrained(name="mine"), r"loss 'mine' has no gradient.* Give its class a method gradient"),
        (untrained, "loss 'untrained' has no gradient.* Set the attribute `gradient` of the fun"),
    ],
)
def test_a_loss_without_a_gradient_is_refused_before_the_first_step(loss: Any, said: str) -> None:
    """And evaluates."""
    model = network(loss)
    before = model.get_weights()
    calls: list[Callable[[], Any]] = [
        lambda: model.fit(X, ROWS, verbose=0),
        lambda: model.train_on_batch(X, ROWS),
        lambda: model.gradients(X, ROWS),
    ]
    for call in calls:
        with pytest.raises(UnsupportedError, match=said):
            call()
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    reference = network("mae").evaluate(X, ROWS)
    np.testing.assert_allclose(model.evaluate(X, ROWS), reference, rtol=1e-5)


def test_arrays_of_the_wrong_shape_are_refused_by_name() -> None:
    class Short(Power):
        def gradient(self, y_true: Any, y_pred: Any) -> Any:
            return super().gradient(y_true, y_pred)[..., :1]

    with pytest.raises(ShapeError, match=r"gradient must return .* \(12, 2\), received \(12, 1\)"):
        network(Short(name="short")).train_on_batch(X, ROWS)
    spread = network(lambda t, p: t[:, 0] - p[:, :1])  # (12,) and (12, 1): broadcast
    with pytest.raises(ShapeError, match=r"received values of shape \(12, 12\)"):
        spread.evaluate(X, ROWS)
    whole = network(lambda t, p: np.mean((t - p) ** 2))
    assert whole.evaluate(X, ROWS) > 0
    with pytest.raises(ShapeError, match="a value is needed for each sample or step"):
        whole.evaluate(X, ROWS, sample_weight=np.ones(12))


def test_a_wrong_gradient_is_refused_before_the_first_step() -> None:
    """With the entry; a loss that cannot be compared, whose values are NaN, is trained with."""

    class Doubled(Power):
        def gradient(self, y_true: Any, y_pred: Any) -> Any:
            slope = super().gradient(y_true, y_pred)
            slope[0, 1] *= 2
            return slope

    model = network(Doubled(name="mine"))
    before = model.get_weights()
    said = r"loss 'mine': its gradient is not the derivative .* of y_pred at \[0, 1\]: expected"
    with pytest.raises(ArgumentError, match=said):
        model.fit(X, ROWS, verbose=0)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    network(Power()).train_on_batch(X, np.full_like(ROWS, np.nan))


class Pinball(losses.Loss):
    """The loss of the quantile 0.9: at its kink, the slope is that of the lower side."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return np.maximum(0.9 * (y_true - y_pred), 0.1 * (y_pred - y_true)).mean(axis=-1)

    def gradient(self, y_true: Any, y_pred: Any) -> Any:
        return np.where(y_true > y_pred, -0.9, 0.1) / y_pred.shape[-1]


@pytest.mark.parametrize(("loss", "beside"), [(Pinball, 0), (Pinball, 5e-6), (Power, 1e-6)])
def test_a_right_gradient_at_a_kink_or_beside_it_is_accepted(loss: Any, beside: float) -> None:
    """There the differences of both sides are far from each other, and from their mean."""
    model = network(loss())
    truth = ROWS.copy()
    truth[0, 0] = np.float64(model.predict(X, verbose=0)[0, 0]) + beside
    model.fit(X, truth, batch_size=len(X), shuffle=False, verbose=0)


def test_what_a_compiled_loss_does_not_define_is_nan_in_any_row() -> None:
    """Python's log raises an error, the compiled one does not."""

    class OfPython(losses.Loss):
        @staticmethod
        def step(y_true: Any, y_pred: Any) -> Any:
            return math.log(y_pred[0])

    for pred in ([[-1.0], [1.0]], [[1.0], [-1.0]]):
        assert np.isnan(OfPython()(np.zeros((2, 1)), np.array(pred)))


@slow
def test_a_compiled_loss_is_checked_and_refused_as_others_are() -> None:
    """A wrong gradient, an index beyond the row, and what Numba cannot compile.

    Slow: losses, each compiled for itself.
    """

    class Doubled(Rows):
        @staticmethod
        def gradient(y_true: Any, y_pred: Any) -> Any:
            slope = 1.5 * np.sign(y_pred - y_true) * np.sqrt(np.abs(y_pred - y_true)) / y_pred.size
            slope[1] *= 2
            return slope

    class Beyond(Rows):
        @staticmethod
        def step(y_true: Any, y_pred: Any) -> Any:
            return y_pred[2] ** 2

    class Foreign(Rows):
        @staticmethod
        def step(y_true: Any, y_pred: Any) -> Any:
            return float(str(y_pred[0]))

    class OfData(Rows):
        @staticmethod
        def step(y_true: Any, y_pred: Any) -> Any:
            return y_pred[int(9 * (y_true[0] != ROWS[0, 0]))]

    class Method(Rows):
        def step(self, y_true: Any, y_pred: Any) -> Any:  # type: ignore[override]
            return y_pred[0]

    for kind, error, said in (
        (Doubled, ArgumentError, r"its gradient is not the derivative .* of y_pred at \[\d, 1\]"),
        (Beyond, ArgumentError, r"Beyond\.step: it uses an index beyond a row of y or y_pred"),
        (OfData, ArgumentError, r"OfData\.step: it uses an index beyond a row of y or y_pred"),
        (Method, ArgumentError, r"so step must be a @staticmethod of \(y_true, y_pred\)"),
        (Foreign, ArgumentError, r"Foreign\.step: Numba cannot compile it\. Correct it, or write"),
    ):
        model = network(kind())
        before = model.get_weights()
        with pytest.raises(error, match=said):
            model.fit(X, ROWS, verbose=0)
        assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_optimizer_applies_gradients(optimizer: str) -> None:
    """As train_on_batch does; by name, in order, in pairs."""
    ways: list[Callable[[Any, Any], None]] = [
        lambda model, found: model.optimizer.apply(found),
        lambda model, found: model.optimizer.apply([*found.values()]),
        lambda model, found: model.optimizer.apply([*found.values()], model.trainable_weights),
        lambda model, found: model.optimizer.apply_gradients(
            zip(found.values(), model.trainable_variables, strict=True)
        ),
    ]
    trained = network("mse")
    trained.compile(optimizer, "mse")
    for _ in range(3):
        trained.train_on_batch(X, ROWS)
    for way in ways:
        model = network("mse")
        model.compile(optimizer, "mse")
        model.predict(X)  # packs the weights
        for _ in range(3):
            way(model, model.gradients(X, ROWS))
        assert model.optimizer.iterations == 3
        for one, other in zip(model.get_weights(), trained.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(model.predict(X), trained.predict(X))


def test_gradients_that_cannot_be_applied_are_refused() -> None:
    model = network("mse")
    found, before = model.gradients(X, ROWS), model.get_weights()
    name = next(iter(found))
    for grads, error, said in (
        ({"other": found[name]}, ArgumentError, "trains no weight 'other', only "),
        ([found[name]], ArgumentError, "expected 5 gradients, one for each weight, received 1"),
        ({**found, name: np.ones(7)}, ShapeError, r"has shape .*, but its gradient has \(7,\)"),
    ):
        with pytest.raises(error, match=said):
            model.optimizer.apply(grads)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    model.optimizer.apply(dict.fromkeys(found) | {name: found[name]})
    changed = [bool((a != b).any()) for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [True, False, False, False, False]
    from streamrnn.optimizers import SGD

    with pytest.raises(ArgumentError, match="no model is compiled with this optimizer"):
        SGD().apply(found)


def test_a_compiled_loss_has_a_label_for_each_row() -> None:
    """Its loop would read beyond them."""
    for labels in (np.zeros((1, 1, 2)), np.zeros((16, 2)), np.zeros(2)):
        with pytest.raises(ShapeError, match=r"step: expected a row of y for each row of y_pred"):
            Rows()(labels, np.ones((8, 5, 2)))


def test_a_loss_with_a_call_may_have_a_step_for_another_purpose() -> None:
    class Own(losses.Loss):
        step = 1000

        def call(self, y_true: Any, y_pred: Any) -> Any:
            return np.abs(y_true - y_pred).mean(axis=-1)

    assert Own()(np.zeros((2, 3)), np.ones((2, 3))) == 1


def test_a_loss_may_have_other_bases() -> None:
    """Their __init_subclass__ is called, as for any class."""
    number = TypeVar("number")

    class Scaled(Power, Generic[number]):
        pass

    assert Scaled[int]().name.startswith("scaled")
