"""Make schedules.json: the learning rates of Keras's schedules.

    pip install 'keras>=3.8,<3.16' jax
    KERAS_BACKEND=jax python tests/golden/make_schedules.py

Keras computes them in float32.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

from keras.optimizers import schedules

HERE = Path(__file__).parent
STEPS = [0, 1, 2, 9, 10, 11, 19, 20, 21, 29, 30, 31, 50, 69, 71, 99, 100, 101, 250, 1000]
CASES = [
    ("ExponentialDecay", {"decay_steps": 20, "decay_rate": 0.9}),
    ("ExponentialDecay", {"decay_steps": 10, "decay_rate": 0.5, "staircase": True}),
    ("ExponentialDecay", {"decay_steps": 100, "decay_rate": 1.01}),
    ("PolynomialDecay", {"decay_steps": 100}),
    ("PolynomialDecay", {"decay_steps": 30, "end_learning_rate": 0.01, "power": 0.5}),
    ("PolynomialDecay", {"decay_steps": 20, "power": 2.0, "cycle": True}),
    ("InverseTimeDecay", {"decay_steps": 20, "decay_rate": 0.5}),
    ("InverseTimeDecay", {"decay_steps": 10, "decay_rate": 2.0, "staircase": True}),
    ("CosineDecay", {"decay_steps": 100}),
    ("CosineDecay", {"decay_steps": 70, "alpha": 0.1}),
    ("CosineDecay", {"decay_steps": 80, "warmup_target": 0.3, "warmup_steps": 20}),
    ("CosineDecay", {"decay_steps": 80, "alpha": 0.2, "warmup_target": 0.01, "warmup_steps": 10}),
    ("CosineDecayRestarts", {"first_decay_steps": 10}),
    ("CosineDecayRestarts", {"first_decay_steps": 25, "t_mul": 1.0, "m_mul": 0.8}),
    ("CosineDecayRestarts", {"first_decay_steps": 9, "t_mul": 1.5, "m_mul": 0.7, "alpha": 0.1}),
]


def rates_of(name: str, config: dict) -> list[float]:
    schedule = getattr(schedules, name)(**config)
    return [float(schedule(step)) for step in STEPS]


def cases() -> list[tuple[str, dict]]:
    made = [(name, {"initial_learning_rate": 0.1, **config}) for name, config in CASES]
    piecewise = {"boundaries": [10, 30, 100], "values": [1.0, 0.5, 0.1, 0.01]}
    return [*made, ("PiecewiseConstantDecay", piecewise)]


if __name__ == "__main__":
    found = [
        {"name": name, "config": config, "rates": rates_of(name, config)}
        for name, config in cases()
    ]
    text = json.dumps({"keras": version("keras"), "steps": STEPS, "cases": found}, indent=1)
    (HERE / "schedules.json").write_text(text + "\n")
