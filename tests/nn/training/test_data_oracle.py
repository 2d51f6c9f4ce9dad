"""Batches, steps and class weights beside Keras: the same logs and weights."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import keras
from nn.training.test_keras_oracle import pair

import streamrnn

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(7)
X = RNG.normal(size=(12, 4)).astype(np.float32)
IDS = RNG.integers(0, 3, 12)
W = RNG.random(12).astype(np.float32)


def classes(of: Any) -> Any:
    return of.Sequential([of.Input((4,)), of.layers.Dense(3, activation="softmax")])


def numbered(weights: bool) -> Any:
    class Numbered(keras.utils.PyDataset):
        """Four batches of three rows."""

        def __len__(self) -> int:
            return 4

        def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:
            cut = slice(3 * number, 3 * number + 3)
            return (X[cut], IDS[cut], W[cut]) if weights else (X[cut], IDS[cut])

    return Numbered()


def generator() -> Iterator[tuple[np.ndarray, ...]]:
    while True:
        for begin in range(0, 12, 4):
            yield X[begin : begin + 4], IDS[begin : begin + 4], W[begin : begin + 4]


VALIDATION = {"validation_data": (X[:5], IDS[:5], W[:5]), "validation_batch_size": 2}
CASES: dict[str, Any] = {
    "class_weight": lambda: ((X, IDS), {"class_weight": {0: 1.0, 1: 20.0}, **VALIDATION}),
    "split": lambda: ((X, IDS), {"class_weight": {2: 3.0}, "validation_split": 0.5}),
    "sample_weight": lambda: ((X, IDS), {"sample_weight": W, "validation_split": 0.25}),
    "steps": lambda: ((X, IDS), {"steps_per_epoch": 2}),
    "validation_steps": lambda: ((X, IDS), {"validation_steps": 2, **VALIDATION}),
    "frequency": lambda: ((X, IDS), {"validation_freq": [2, 3], **VALIDATION}),
    "initial_epoch": lambda: ((X, IDS), {"initial_epoch": 2, **VALIDATION}),
    "numbered": lambda: ((numbered(True),), {"validation_data": numbered(False)}),
    "numbered classes": lambda: ((numbered(False),), {"class_weight": {0: 5.0}}),
    "generator": lambda: ((generator(),), {"steps_per_epoch": 4}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_logs_and_weights(case: str) -> None:
    found = []
    theirs, ours = pair(classes)
    for model, of in ((theirs, keras), (ours, streamrnn)):
        data, options = CASES[case]()
        model.compile(of.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        arrays = {"batch_size": 4} if len(data) > 1 else {}
        found.append(model.fit(*data, epochs=4, shuffle=False, verbose=0, **arrays, **options))
    assert found[0].epoch == found[1].epoch
    assert found[0].history.keys() == found[1].history.keys()
    for name, values in found[0].history.items():
        np.testing.assert_allclose(found[1].history[name], values, rtol=1e-5, err_msg=name)
    for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


def test_class_weights_of_one_batch() -> None:
    """Of whole numbers and one-hot."""
    for loss, y in (
        ("sparse_categorical_crossentropy", IDS[:, None]),
        ("categorical_crossentropy", np.eye(3, dtype=np.float32)[IDS]),
    ):
        theirs, ours = pair(classes)
        found = []
        for model, of in ((theirs, keras), (ours, streamrnn)):
            model.compile(of.optimizers.SGD(0.1), loss)
            found.append(float(model.train_on_batch(X, y, class_weight={1: 20.0})))
        assert found[1] == pytest.approx(found[0], rel=1e-5)
        for a, b in zip(theirs.get_weights(), ours.get_weights(), strict=True):
            np.testing.assert_allclose(b, a, atol=1e-5)


def test_a_data_loader_of_torch() -> None:
    torch = pytest.importorskip("torch", reason="needs the oracles extra")
    dataset = torch.utils.data.TensorDataset(*map(torch.from_numpy, (X, IDS)))
    model, other = pair(classes)[1], pair(classes)[1]
    for one in (model, other):
        one.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(torch.utils.data.DataLoader(dataset, batch_size=5), epochs=2, verbose=0)
    other.fit(X, IDS, batch_size=5, epochs=2, verbose=0, shuffle=False)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
