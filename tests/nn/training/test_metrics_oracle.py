"""Metrics beside Keras: random data, sample weights, several batches."""

import os
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")

import keras

from streamrnn import metrics

pytestmark = pytest.mark.filterwarnings("ignore")

RNG = np.random.default_rng(31)
N = 96
SHARES = RNG.random((N, 4)).astype(np.float32)
SHARES /= SHARES.sum(1, keepdims=True)
ONE_HOT = np.eye(4, dtype=np.float32)[RNG.integers(0, 4, N)]
IDS = ONE_HOT.argmax(1)
X, Y = RNG.normal(size=(N, 4)).astype(np.float32), RNG.normal(size=(N, 4)).astype(np.float32)
P = RNG.random((N, 1)).astype(np.float32)
BITS = (RNG.random((N, 1)) < P).astype(np.float32)
WEIGHT = RNG.random(N).astype(np.float32)

CASES: list[tuple[str, dict[str, Any], np.ndarray, np.ndarray]] = [
    ("MeanSquaredError", {}, Y, X),
    ("RootMeanSquaredError", {}, Y, X),
    ("MeanAbsoluteError", {}, Y, X),
    ("MeanAbsolutePercentageError", {}, Y, X),
    ("MeanSquaredLogarithmicError", {}, Y, X),
    ("LogCoshError", {}, Y, X),
    ("CosineSimilarity", {}, Y, X),
    ("Poisson", {}, BITS, P),
    ("KLDivergence", {}, ONE_HOT, SHARES),
    ("Hinge", {}, BITS, P),
    ("SquaredHinge", {}, BITS, P),
    ("CategoricalHinge", {}, ONE_HOT, SHARES),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, BITS, P),
    ("CategoricalCrossentropy", {}, ONE_HOT, SHARES),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, IDS, X),
    ("BinaryAccuracy", {}, BITS, P),
    ("CategoricalAccuracy", {}, ONE_HOT, SHARES),
    ("SparseCategoricalAccuracy", {}, IDS, SHARES),
    ("TopKCategoricalAccuracy", {"k": 2}, ONE_HOT, SHARES),
    ("SparseTopKCategoricalAccuracy", {"k": 3}, IDS, SHARES),
    ("AUC", {}, BITS, P),
    ("AUC", {"curve": "PR"}, BITS, P),
    ("AUC", {"curve": "PR", "summation_method": "minoring"}, BITS, P),
    ("AUC", {"num_thresholds": 10, "summation_method": "majoring"}, BITS, P),
    ("AUC", {"thresholds": [0.2, 0.7, 0.75]}, ONE_HOT, SHARES),
    ("AUC", {"from_logits": True}, BITS, X[:, :1]),
    ("Precision", {}, BITS, P),
    ("Precision", {"thresholds": [0.7, 0.2]}, BITS, P),
    ("Precision", {"top_k": 2}, ONE_HOT, SHARES),
    ("Recall", {"class_id": 2, "thresholds": 0.3}, ONE_HOT, SHARES),
    ("Recall", {"top_k": 1, "class_id": 1}, ONE_HOT, SHARES),
    ("R2Score", {}, Y, Y + X / 3),
    ("R2Score", {"class_aggregation": "variance_weighted_average", "num_regressors": 2}, Y, X),
    ("R2Score", {"class_aggregation": None}, Y, X),
    ("F1Score", {}, ONE_HOT, SHARES),
    ("F1Score", {"average": "micro"}, ONE_HOT, SHARES),
    ("F1Score", {"average": "weighted", "threshold": 0.3}, ONE_HOT, SHARES),
    ("FBetaScore", {"average": "macro", "beta": 2.0}, ONE_HOT, SHARES),
]


@pytest.mark.parametrize(
    ("name", "options", "y", "p"), CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)]
)
def test_a_metric_is_that_of_keras(
    name: str, options: dict[str, Any], y: np.ndarray, p: np.ndarray
) -> None:
    theirs, ours = getattr(keras.metrics, name)(**options), getattr(metrics, name)(**options)
    for begin, end in ((0, 50), (50, 51), (51, N)):
        for metric in (theirs, ours):
            metric.update_state(y[begin:end], p[begin:end], WEIGHT[begin:end])
    assert ours.name == theirs.name.rstrip("_0123456789") or ours.name == theirs.name
    assert ours.direction == (theirs._direction or "down")
    np.testing.assert_allclose(ours.result(), theirs.result(), rtol=2e-6, atol=1e-6)


NAMES = sorted({name for name, *_ in CASES})


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_those_of_keras(name: str) -> None:
    """In their order; None here means the name that Keras writes."""
    from nn.training.test_keras_oracle import OWN_DEFAULTS, arguments

    found, wanted = arguments(getattr(metrics, name)), arguments(getattr(keras.metrics, name))
    assert list(found) == list(wanted)
    for argument, default in wanted.items():
        if argument not in OWN_DEFAULTS:
            assert found[argument] == default
