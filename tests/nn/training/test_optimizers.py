"""Optimizers against their formulas in plain Python floats."""

import math
from typing import Any

import numpy as np
import pytest

from streamrnn import Input, Sequential, layers, optimizers
from streamrnn.errors import ArgumentError
from streamrnn.nn.training.optimizer import WeightUpdate

RNG = np.random.default_rng(2)
WEIGHTS = [RNG.normal(size=s).astype(np.float32) for s in ((3, 4), (5,))]
STEPS = [[RNG.normal(size=w.shape).astype(np.float32) for w in WEIGHTS] for _ in range(20)]


def sgd(w: float, gradients: list[float], rate: float, momentum: float, nesterov: bool) -> float:
    v = 0.0
    for g in gradients:
        v = momentum * v - rate * g
        w += momentum * v - rate * g if nesterov else v
    return w


def adam(w: float, gradients: list[float], rate: float, decay: float = 0.0) -> float:
    m = v = 0.0
    for t, g in enumerate(gradients, 1):
        w -= w * decay * rate
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= rate * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-7)
    return w


def rmsprop(
    w: float, gradients: list[float], rate: float, momentum: float = 0.0, centered: bool = False
) -> float:
    square = mean = m = 0.0
    for g in gradients:
        square, mean = 0.9 * square + 0.1 * g * g, 0.9 * mean + 0.1 * g
        spread = square - mean**2 if centered else square
        m = momentum * m + rate * g / math.sqrt(spread + 1e-7)
        w -= m
    return w


def amsgrad(w: float, gradients: list[float], rate: float) -> float:
    m = v = top = 0.0
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.9 * v + 0.1 * g * g
        top = max(top, v)
        w -= rate * (m / (1 - 0.9**t)) / (math.sqrt(top / (1 - 0.9**t)) + 1e-7)
    return w


def nadam(w: float, gradients: list[float], rate: float) -> float:
    m = v = 0.0
    momenta = [0.9 * (1 - 0.5 * 0.96**t) for t in range(1, len(gradients) + 2)]
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        now, following = math.prod(momenta[:t]), math.prod(momenta[: t + 1])
        mean = momenta[t] * m / (1 - following) + (1 - momenta[t - 1]) * g / (1 - now)
        w -= rate * mean / (math.sqrt(v / (1 - 0.999**t)) + 1e-7)
    return w


def adamax(w: float, gradients: list[float], rate: float) -> float:
    m = norm = 0.0
    for t, g in enumerate(gradients, 1):
        m, norm = 0.9 * m + 0.1 * g, max(0.999 * norm, abs(g))
        w -= rate * m / (1 - 0.9**t) / (norm + 1e-7)
    return w


def adagrad(w: float, gradients: list[float], rate: float, decay: float = 0.0) -> float:
    square = 0.1
    for g in gradients:
        square += g * g
        w = w - w * decay * rate - rate * g / math.sqrt(square + 1e-7)
    return w


def adadelta(w: float, gradients: list[float], rate: float) -> float:
    square = steps = 0.0
    for g in gradients:
        square = 0.95 * square + 0.05 * g * g
        step = math.sqrt(steps + 1e-7) * g / math.sqrt(square + 1e-7)
        steps = 0.95 * steps + 0.05 * step * step
        w -= rate * step
    return w


def lion(w: float, gradients: list[float], rate: float, decay: float = 0.0) -> float:
    m = 0.0
    for g in gradients:
        w = w - w * decay * rate - rate * math.copysign(1, 0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
    return w


CASES: dict[str, tuple[Any, Any]] = {
    "sgd": (lambda: optimizers.SGD(), lambda w, g: sgd(w, g, 0.01, 0.0, False)),
    "momentum": (lambda: optimizers.SGD(0.1, 0.9), lambda w, g: sgd(w, g, 0.1, 0.9, False)),
    "nesterov": (
        lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        lambda w, g: sgd(w, g, 0.1, 0.9, True),
    ),
    "rmsprop": (lambda: optimizers.RMSprop(), lambda w, g: rmsprop(w, g, 0.001)),
    "rmsprop centered": (
        lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
        lambda w, g: rmsprop(w, g, 0.01, 0.5, True),
    ),
    "adam": (lambda: optimizers.Adam(), lambda w, g: adam(w, g, 0.001)),
    "adamw": (lambda: optimizers.AdamW(0.01), lambda w, g: adam(w, g, 0.01, 0.004)),
    "amsgrad": (
        lambda: optimizers.Adam(0.01, beta_2=0.9, amsgrad=True),
        lambda w, g: amsgrad(w, g, 0.01),
    ),
    "nadam": (lambda: optimizers.Nadam(0.01), lambda w, g: nadam(w, g, 0.01)),
    "adamax": (lambda: optimizers.Adamax(0.01), lambda w, g: adamax(w, g, 0.01)),
    "adagrad": (
        lambda: optimizers.Adagrad(0.1, weight_decay=0.1),
        lambda w, g: adagrad(w, g, 0.1, 0.1),
    ),
    "adadelta": (lambda: optimizers.Adadelta(1.0), lambda w, g: adadelta(w, g, 1.0)),
    "lion": (lambda: optimizers.Lion(0.01, weight_decay=0.1), lambda w, g: lion(w, g, 0.01, 0.1)),
}


def updated(optimizer: optimizers.Optimizer, steps: Any = STEPS) -> list[np.ndarray]:
    """Copies of WEIGHTS after all steps; read-only as a layer's are."""
    weights = [w.copy() for w in WEIGHTS]
    for weight in weights:
        weight.flags.writeable = False
    for gradients in steps:
        changes = zip(map(str, range(len(weights))), weights, gradients, strict=True)
        optimizer.change([WeightUpdate(*change) for change in changes])
    return weights


@pytest.mark.parametrize("name", CASES)
def test_twenty_updates(name: str) -> None:
    make, formula = CASES[name]
    optimizer = make()
    for number, weight in enumerate(updated(optimizer)):
        for place in np.ndindex(weight.shape):
            gradients = [float(step[number][place]) for step in STEPS]
            wanted = formula(float(WEIGHTS[number][place]), gradients)
            assert weight[place] == pytest.approx(wanted, abs=2e-6)
    assert optimizer.iterations == 20


def norm(*arrays: np.ndarray) -> float:
    return math.sqrt(sum(float(v) ** 2 for a in arrays for v in a.reshape(-1)))


def test_clips() -> None:
    """By value, by the norm of each gradient, and by that of all."""
    gradients = STEPS[0]
    for options, limits in (
        ({"clipvalue": 0.3}, [np.clip(g, -0.3, 0.3) for g in gradients]),
        ({"clipnorm": 0.5}, [g * min(1, 0.5 / norm(g)) for g in gradients]),
        ({"global_clipnorm": 0.5}, [g * min(1, 0.5 / norm(*gradients)) for g in gradients]),
        ({"clipnorm": 100.0}, gradients),
        ({"global_clipnorm": 100.0}, gradients),
    ):
        weights = updated(optimizers.SGD(1.0, **options), [gradients])
        for weight, before, limited in zip(weights, WEIGHTS, limits, strict=True):
            np.testing.assert_allclose(before - weight, limited, rtol=1e-5, atol=1e-6)


def test_the_learning_rate_may_change_between_updates() -> None:
    optimizer = optimizers.SGD(0.5)
    one = updated(optimizer, STEPS[:1])
    optimizer.learning_rate = 0.25
    other = updated(optimizer, STEPS[:1])
    for a, b, before in zip(one, other, WEIGHTS, strict=True):
        np.testing.assert_allclose(before - a, 2 * (before - b), rtol=1e-4, atol=1e-6)


def test_nadam_resumes_with_the_same_bits() -> None:
    """`iterations` and `kept` are all that it needs."""
    whole, begun, resumed = (optimizers.Nadam(0.01) for _ in range(3))
    updated(whole)
    updated(begun, STEPS[:9])
    resumed.iterations, resumed.kept = begun.iterations, begun.kept
    updated(resumed, STEPS[9:])
    for name, arrays in whole.kept.items():
        for a, b in zip(arrays, resumed.kept[name], strict=True):
            np.testing.assert_array_equal(a, b)
    assert whole._product == resumed._product


def unknown() -> Any:
    return {"rate": 1}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.Lion(beta_1=0), "Lion: beta_1 must lie in .0, 1., received 0"),
        (lambda: optimizers.Adagrad(initial_accumulator_value=-1), "value must be 0 or more"),
        (lambda: optimizers.Adam(use_ema=True), "Adam: use_ema=True is not supported"),
        (lambda: optimizers.SGD(clipnorm=1, clipvalue=1), "only one of clipnorm, clipvalue"),
        (lambda: optimizers.SGD(clipnorm=-1), "clips must be above 0"),
        (lambda: optimizers.SGD(momentum=2), "momentum must lie in 0…1, received 2"),
        (lambda: optimizers.SGD(**unknown()), r"argument 'rate' \(known here: learning_rate, mom"),
        (lambda: optimizers.SGD(object()), "must be a number or a schedule"),
        (lambda: optimizers.optimizer_of("muon"), "'muon' is not supported; supported: adadelta"),
        (lambda: optimizers.optimizer_of("adm"), "did you mean 'adam'"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_an_optimizer_updates_the_weights_of_one_model() -> None:
    """Its moments mean nothing to others, and would be read past their end for larger ones."""
    x, y = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2))
    adam = optimizers.Adam()
    first, same = (
        Sequential([Input((3,)), layers.Dense(2, name="out")], name=name) for name in "ab"
    )
    for _ in range(2):  # compiled again, it goes on
        first.compile(adam, "mse")
        first.fit(x, y, verbose=0)
    with pytest.raises(ArgumentError, match=r"Adam: .* 2 updates of other weights.*make an optim"):
        same.compile(adam, "mse")
    one, other = Sequential.from_config(first.get_config()), same
    rmsprop = optimizers.RMSprop()
    for model in (one, other):  # both are compiled before the first update
        model.compile(rmsprop, "mse")
    one.fit(x, y, verbose=0)
    with pytest.raises(ArgumentError, match=r"RMSprop: .* 1 update of other weights"):
        other.fit(x, y, verbose=0)
    one.fit(x, y, verbose=0)
    first.pop()
    first.add(layers.Dense(9, name="out"))
    first.compile(adam, "mse")
    before = first.get_weights()
    with pytest.raises(ArgumentError, match="updates of other weights"):
        first.fit(x, np.zeros((4, 9)), verbose=0)
    for now, then in zip(first.get_weights(), before, strict=True):
        assert (now == then).all()
    assert adam.iterations == 2
