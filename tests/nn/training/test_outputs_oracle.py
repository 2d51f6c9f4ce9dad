"""Models with several outputs beside Keras: logs by name, lists, weights after some updates."""

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import keras
from nn.training.test_keras_oracle import pair

import streamrnn

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(4)
X = RNG.normal(size=(12, 5, 4)).astype(np.float32)
A = RNG.normal(size=(12, 5, 1)).astype(np.float32)
B = RNG.integers(0, 3, (12, 1))
C = RNG.normal(size=(12, 2)).astype(np.float32)
W = [RNG.random((12, 5)), RNG.random(12), RNG.random(12)]
W = [w.astype(np.float32) for w in W]
NAMES = ("out_a", "out_b", "out_c")


def three(of: Any, structure: Any = list) -> Any:
    """Steps, classes, and two numbers."""
    x = of.Input((None, 4))
    steps = of.layers.GRU(6, return_sequences=True, name="steps")(x)
    last = of.layers.LSTM(5, name="last")(steps)
    outputs = [
        of.layers.Dense(1, name="out_a")(steps),
        of.layers.Dense(3, activation="softmax", name="out_b")(last),
        of.layers.Dense(2, name="out_c")(last),
    ]
    if structure is dict:
        return of.Model(x, dict(zip(("a", "b", "c"), outputs, strict=True)))
    return of.Model(x, outputs)


def named(*values: Any) -> dict[str, Any]:
    return dict(zip(NAMES, values, strict=True))


LOSSES = ["mse", "sparse_categorical_crossentropy", "mae"]
CASES: dict[str, dict[str, Any]] = {
    "lists": {"loss": LOSSES, "metrics": [["mae"], ["accuracy"], ["mse", "mae"]]},
    "names": {
        "loss": named(*LOSSES),
        "loss_weights": named(1.0, 0.25, 2.0),
        "metrics": {"out_b": "accuracy", "out_a": ["mae", "mse"]},
        "weighted_metrics": {"out_c": ["mae"], "out_a": ["mae"]},
    },
    "without": {"loss": ["mse", None, "mae"], "metrics": [["mae"], None, ["mse"]]},
    "one": {"loss": [None, None, "mse"]},
    "rows": {
        "loss": [None, "sparse_categorical_crossentropy", "mae"],
        "weighted_metrics": [None, ["accuracy"], ["mae"]],
    },
}
# Keras fails with sample weights by name, and with one weight a row for an output with steps.
WITH: list[tuple[str, Any]] = [
    ("lists", None),
    ("lists", W),
    ("names", None),
    ("without", None),
    ("one", W[1]),
    ("rows", W[2]),
]


@pytest.mark.parametrize(("case", "sample"), WITH, ids=[f"{c}-{type(w).__name__}" for c, w in WITH])
def test_updates_and_logs(case: str, sample: Any) -> None:
    """fit, evaluate as dictionary and list, train_on_batch and test_on_batch."""
    data: Any = named(A, B, C) if case == "names" else [A, B, C]
    theirs, ours = pair(three)
    found = []
    for model, of in ((theirs, keras), (ours, streamrnn)):
        model.compile(of.optimizers.Adam(0.01), **CASES[case])
        options: dict[str, Any] = {"sample_weight": sample}
        fit = model.fit(
            X,
            data,
            epochs=2,
            batch_size=4,
            shuffle=False,
            verbose=0,
            **options,
            validation_data=(X[:4], cut(data)),
        )
        batch = {"sample_weight": None if sample is None else cut(sample)}
        quiet = {"verbose": 0, "batch_size": 4} | options
        found.append(
            {
                "fit": fit.history,
                "dict": model.evaluate(X, data, return_dict=True, **quiet),
                "list": model.evaluate(X, data, **quiet),
                "train": model.train_on_batch(X[:4], cut(data), return_dict=True, **batch),
                "trained": model.train_on_batch(X[:4], cut(data), **batch),
                "test": model.test_on_batch(X[:4], cut(data), return_dict=True, **batch),
            }
        )
    for name, wanted in found[0].items():
        got = found[1][name]
        if isinstance(wanted, dict):
            assert got.keys() == wanted.keys()
            for key, value in wanted.items():
                np.testing.assert_allclose(got[key], value, rtol=2e-5, err_msg=f"{name} {key}")
        else:
            np.testing.assert_allclose(got, np.array(wanted, np.float64), rtol=2e-5, err_msg=name)
    for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-4)


def cut(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: y[:4] for name, y in data.items()}
    return [y[:4] for y in data] if isinstance(data, list) else data[:4]


def test_outputs_as_a_dictionary_have_its_keys() -> None:
    theirs, ours = pair(lambda of: three(of, dict))
    y = {"a": A, "b": B, "c": C}
    found = []
    for model, of in ((theirs, keras), (ours, streamrnn)):
        model.compile(of.optimizers.SGD(0.1), dict(zip("abc", LOSSES, strict=True)))
        found.append(model.train_on_batch(X, y, return_dict=True))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(float(value), rel=1e-5)


def test_metrics_of_one_output_with_equal_names() -> None:
    """Keras renames the weighted one."""
    found = []
    for model in pair(lambda of: of.Sequential([of.Input((4,)), of.layers.Dense(2)])):
        model.compile("sgd", "mse", metrics=["mae", "mae"], weighted_metrics=["mae"])
        found.append(model.test_on_batch(X[:, 0], C, sample_weight=W[1], return_dict=True))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(float(value), rel=1e-5)
