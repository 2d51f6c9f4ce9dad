"""Typical mistakes in classes of one's own: what their messages say."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from streamrnn import Input, Model, Sequential, callbacks, layers, losses, metrics, optimizers
from streamrnn.errors import StreamRNNError

X = np.random.default_rng(3).normal(size=(4, 5, 3)).astype(np.float32)


def trained(
    loss: Any = "mse", optimizer: Any = "sgd", metric: Any = None, calls: Any = None
) -> Any:
    model = Sequential([Input((5, 3)), layers.Dense(1)])
    model.compile(optimizer, loss, metrics=metric)
    return model.fit(X, X[..., :1], callbacks=calls, verbose=0)


class BareLayer(layers.Layer):
    def __init__(self) -> None:
        self.rate = 2

    def call(self, x: Any) -> Any:
        return x * self.rate


class BareModel(Model):
    def __init__(self) -> None:
        self.inner = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.inner(x)


class BareLoss(losses.Loss):
    def __init__(self) -> None:
        self.rate = 2

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return np.abs(y_true - y_pred) * self.rate

    def gradient(self, y_true: Any, y_pred: Any) -> Any:
        return np.sign(y_pred - y_true) * self.rate


class BareMetric(metrics.Metric):
    def __init__(self) -> None:
        self.total = self.add_weight(name="total")


class Nothing(losses.Loss):
    """Its call has no return."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        _ = y_true - y_pred

    def gradient(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred


class Several(metrics.Metric):
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Keep nothing."""

    def result(self) -> Any:
        return {"low": 1.0, "high": 2.0}


class Text(optimizers.schedules.LearningRateSchedule):
    def __call__(self, step: int) -> Any:
        return "fast"


class Two(layers.Layer):
    def call(self, x: Any, y: Any) -> Any:
        return x + y


class Penalized(layers.Layer):
    def call(self, x: Any) -> Any:
        self.add_loss(np.sum(x))  # type: ignore[attr-defined]
        return x


NO_CONSTRUCTOR = r"its __init__ must call super\(\).__init__\(\) before it uses self"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: BareLayer()(X), f"BareLayer: {NO_CONSTRUCTOR}"),
        (lambda: BareModel()(X), f"BareModel: {NO_CONSTRUCTOR}"),
        (lambda: trained(BareLoss()), f"BareLoss: {NO_CONSTRUCTOR}"),
        (BareMetric, f"BareMetric: {NO_CONSTRUCTOR}"),
        (lambda: trained(Nothing()), "'nothing.*expected an array of numbers, received object"),
        (lambda: trained(metric=[Several()]), "result must return a number.*received {'low': 1"),
        (
            lambda: trained(optimizer=optimizers.SGD(Text())),
            "SGD: the schedule Text must return a number, received 'fast' for update 0",
        ),
        (lambda: trained(calls=[callbacks.History]), r"received the class History; call it.*\(\)"),
        (lambda: Sequential().add(layers.GRU), "received the class GRU; call it"),
        (lambda: Two()(X, X), "takes no initial_state; pass several inputs as a list"),
    ],
)
def test_what_a_message_says(wrong: Callable[[], object], message: str) -> None:
    """It names the class and what to change; a loss that returned None was NaN."""
    with pytest.raises(StreamRNNError, match=message):
        wrong()


def test_a_layer_adds_no_loss() -> None:
    with pytest.raises(AttributeError, match="'add_loss': a loss depends on outputs alone"):
        Penalized()(X)


def test_a_model_with_a_call_is_made_from_arguments() -> None:
    """As in Keras."""

    class Scaled(Model):
        def __init__(self, rate: float, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.rate = rate

        def call(self, x: Any) -> Any:
            return x * self.rate

    assert (Scaled.from_config({"rate": 2.0, "name": "twice"})(X) == 2 * X).all()
