"""Schedules against Keras's figures, and against formulas in plain Python."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamrnn.errors import ArgumentError
from streamrnn.nn.training.optimizer import WeightUpdate
from streamrnn.nn.training.schedules import cosine, real_power
from streamrnn.optimizers import SGD, AdamW, schedules

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "schedules.json").read_text())


@pytest.mark.parametrize("number", range(len(GOLDEN["cases"])))
def test_the_rates_are_those_of_keras(number: int) -> None:
    """tests/golden/make_schedules.py made them."""
    case = GOLDEN["cases"][number]
    schedule = getattr(schedules, case["name"])(**case["config"])
    found = [schedule(step) for step in GOLDEN["steps"]]
    assert found == pytest.approx(case["rates"], rel=2e-6, abs=2e-8)
    again = type(schedule).from_config(schedule.get_config())
    assert [again(step) for step in GOLDEN["steps"]] == found


def test_powers_and_cosines_are_exact_to_the_last_places() -> None:
    """Within some units of the last place of the library's."""
    rng = np.random.default_rng(3)
    for base, exponent in zip(rng.random(300) * 4, rng.normal(size=300) * 5, strict=True):
        assert real_power(base, exponent) == pytest.approx(math.pow(base, exponent), rel=4e-15)
    for done in rng.random(100):
        wanted = (1 + math.cos(math.pi * done)) / 2
        assert cosine(done) == pytest.approx(wanted, rel=1e-14, abs=1e-15)


def test_the_bits_of_a_power_are_fixed() -> None:
    """They may not depend on the machine: a change here is one of every fit that decays."""
    assert [real_power(0.96, 0.37).hex(), real_power(1e-3, 2.5).hex()] == [
        "0x1.f853258070b57p-1",
        "0x1.0fa3389d6eb46p-25",
    ]


def test_an_optimizer_follows_its_schedule() -> None:
    """The rate of an update is that of the updates done before it; weight decay follows, too."""
    schedule = schedules.PiecewiseConstantDecay([0, 1], [1.0, 0.5, 0.25])
    optimizer = AdamW(schedule, weight_decay=0.1, clipvalue=1e-30)
    weight = np.ones(1, np.float32)
    rates = []
    for _ in range(3):
        rates.append(optimizer.learning_rate)
        optimizer.change([WeightUpdate("w", weight, np.zeros(1, np.float32))])
    assert rates == [1.0, 0.5, 0.25]
    assert weight[0] == pytest.approx(0.9 * 0.95 * 0.975, rel=1e-6)
    optimizer.iterations = 0
    assert optimizer.learning_rate == 1.0


class Halving(schedules.LearningRateSchedule):
    def __call__(self, step: int) -> float:
        return 0.5**step


def test_a_schedule_of_your_own() -> None:
    optimizer = SGD(Halving())
    weight = np.zeros(1, np.float32)
    for _ in range(3):
        optimizer.change([WeightUpdate("w", weight, np.ones(1, np.float32))])
    assert weight[0] == -1.75
    optimizer.learning_rate = schedules.InverseTimeDecay(1.0, 1, 1.0)  # type: ignore[assignment]
    assert optimizer.learning_rate == 0.25
    with pytest.raises(ArgumentError, match="is InverseTimeDecay, a schedule, and cannot be set"):
        optimizer.learning_rate = 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.CosineDecay(0.1, 0), "decay_steps must be above 0, received 0"),
        (lambda: schedules.ExponentialDecay(0.1, 1, -1), "decay_rate must be above 0"),
        (lambda: schedules.PiecewiseConstantDecay([1], [1.0]), "1 boundaries and 1 values"),
        (
            lambda: schedules.PiecewiseConstantDecay([2, 1], [1.0] * 3),
            "boundaries must be in ascending order",
        ),
        (lambda: schedules.CosineDecayRestarts(0.1, 5, t_mul=0.5), "t_mul must be 1 or more"),
        (lambda: SGD(schedules.PiecewiseConstantDecay([1], [-1.0, 1.0])).learning_rate, "0 or mo"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()
