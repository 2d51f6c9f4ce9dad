"""Metrics against plain Python, in any cut of batches, with weights and masks."""

import math
from typing import Any

import numpy as np
import pytest

from streamrnn import losses, metrics
from streamrnn.errors import ArgumentError

RNG = np.random.default_rng(21)
N = 400
P = RNG.random((N, 1)).astype(np.float32)
BITS = (RNG.random((N, 1)) < P).astype(np.float32)
WEIGHT = RNG.integers(0, 4, N).astype(np.float32) / 4
P3, Y3 = RNG.normal(size=(N, 3)).astype(np.float32), RNG.normal(size=(N, 3)).astype(np.float32)
ONE_HOT = np.eye(3, dtype=np.float32)[RNG.integers(0, 3, N)]


def updated(metric: Any, y: np.ndarray, p: np.ndarray, weight: Any, cuts: list[int]) -> Any:
    for begin, end in zip([0, *cuts], [*cuts, N], strict=True):
        metric.update_state(y[begin:end], p[begin:end], weight[begin:end])
    return metric


def rank_auc() -> float:
    """The share of pairs in the right order, by weights: the exact area under ROC."""
    right = total = 0.0
    for a, b, w in zip(P[:, 0].tolist(), BITS[:, 0].tolist(), WEIGHT.tolist(), strict=True):
        for c, d, v in zip(P[:, 0].tolist(), BITS[:, 0].tolist(), WEIGHT.tolist(), strict=True):
            if b > d:
                total += w * v
                right += w * v * (1.0 if a > c else 0.5 if a == c else 0.0)
    return right / total


def counts(threshold: float) -> tuple[float, float, float]:
    """True positives, false positives, false negatives."""
    tp = fp = fn = 0.0
    for p, y, w in zip(P[:, 0].tolist(), BITS[:, 0].tolist(), WEIGHT.tolist(), strict=True):
        said = p > threshold
        tp, fp, fn = tp + w * said * y, fp + w * said * (1 - y), fn + w * (not said) * y
    return tp, fp, fn


def r2(column: int) -> float:
    y, p, w = Y3[:, column].astype(float), P3[:, column].astype(float), WEIGHT.astype(float)
    mean = (y * w).sum() / w.sum()
    return float(1 - ((y - p) ** 2 * w).sum() / ((y - mean) ** 2 * w).sum())


def test_an_area_is_the_share_of_pairs_in_order() -> None:
    """Up to what lies between two thresholds; equal to it with all predictions as thresholds."""
    found = updated(metrics.AUC(), BITS, P, WEIGHT, [100]).result()
    assert found == pytest.approx(rank_auc(), abs=2e-3)
    assert 0.7 < found < 0.9
    exact = metrics.AUC(thresholds=sorted(set(P[:, 0].tolist())))
    assert updated(exact, BITS, P, WEIGHT, []).result() == pytest.approx(rank_auc(), rel=1e-12)


def test_precision_and_recall() -> None:
    for threshold in (0.3, 0.5):
        tp, fp, fn = counts(threshold)
        precision = updated(metrics.Precision(threshold), BITS, P, WEIGHT, [7]).result()
        recall = updated(metrics.Recall(threshold), BITS, P, WEIGHT, [7]).result()
        assert (precision, recall) == (tp / (tp + fp), tp / (tp + fn))
    several = updated(metrics.Recall([0.5, 0.3]), BITS, P, WEIGHT, [7]).result()
    assert several.tolist() == [counts(t)[0] / sum(counts(t)[::2]) for t in (0.5, 0.3)]


def test_a_prediction_at_the_threshold_is_not_above_it() -> None:
    precision, area = metrics.Precision(), metrics.AUC(thresholds=[0.5])
    for metric in (precision, area):
        metric.update_state([[1.0], [0.0], [1.0]], [[0.75], [0.5], [0.5]])
    assert precision.result() == 1.0
    assert area.answers().tp.tolist() == [2, 1, 0]
    assert area.answers().fp.tolist() == [1, 0, 0]


def test_r2_and_roots() -> None:
    found = updated(metrics.R2Score(), Y3, P3, WEIGHT, [50, 51]).result()
    assert found == pytest.approx(sum(map(r2, range(3))) / 3, rel=1e-9)
    columns = updated(metrics.R2Score(None), Y3, P3, WEIGHT, []).result()
    np.testing.assert_allclose(columns, [r2(c) for c in range(3)], rtol=1e-9)
    root = updated(metrics.RootMeanSquaredError(), Y3, P3, WEIGHT, []).result()
    w = WEIGHT.astype(float)
    square = (((Y3.astype(float) - P3) ** 2).mean(1) * w).sum() / w.sum()
    assert root == pytest.approx(math.sqrt(square), rel=1e-6)


CASES: dict[str, tuple[Any, np.ndarray, np.ndarray]] = {
    "auc": (metrics.AUC, BITS, P),
    "precision": (metrics.Precision, BITS, P),
    "recall of two": (lambda: metrics.Recall(top_k=2, class_id=1), ONE_HOT, P3),
    "r2": (metrics.R2Score, Y3, P3),
    "f1": (lambda: metrics.F1Score("macro"), ONE_HOT, P3),
}


@pytest.mark.parametrize("name", CASES)
def test_no_cut_changes_a_bit_and_sums_resume(name: str) -> None:
    """Also with samples that a mask or the weight 0 leaves out, whatever they hold."""
    make, y, p = CASES[name]
    whole = updated(make(), y, p, WEIGHT, [])
    assert updated(make(), y, p, WEIGHT, [1, 2, 99, 300]).sums == whole.sums
    begun = make()
    begun.update_state(y[:150], p[:150], WEIGHT[:150])
    resumed = make()
    resumed.sums = begun.sums
    resumed.update_state(y[150:], p[150:], WEIGHT[150:])
    assert resumed.sums == whole.sums
    assert resumed.result() == whole.result()
    mask, gaps = RNG.random((N // 4, 4)) < 0.5, p.copy()
    gaps[~mask.reshape(-1)] = np.nan
    masked, chosen = make(), make()
    masked.update_state(y.reshape(-1, 4, y.shape[1]), gaps.reshape(-1, 4, y.shape[1]), mask=mask)
    chosen.update_state(y[mask.reshape(-1)], p[mask.reshape(-1)])
    assert masked.sums == chosen.sums
    masked.reset_state()
    assert masked.result() == 0


def test_a_prediction_that_is_no_number_gives_none() -> None:
    for metric in (metrics.AUC(), metrics.Precision(), metrics.Recall(), metrics.AUC(curve="PR")):
        metric.update_state([[1.0], [0.0], [1.0]], [[0.7], [0.2], [math.nan]])
        assert math.isnan(metric.result())
    top = metrics.SparseTopKCategoricalAccuracy(k=2)
    top.update_state([0], [[math.nan, 0.5, 0.2]])
    assert top.result() == 0


def test_top_k() -> None:
    p = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.4, 0.4, 0.2]], np.float32)
    sparse, dense = metrics.SparseTopKCategoricalAccuracy(2), metrics.TopKCategoricalAccuracy(1)
    sparse.update_state([0, 1, 1], p)
    dense.update_state(np.eye(3)[[2, 0, 2]], p)
    assert (sparse.result(), dense.result()) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_names() -> None:
    mse, sparse = losses.loss_of("mse"), losses.loss_of("sparse_categorical_crossentropy")
    for name, kind in (
        ("auc", metrics.AUC),
        ("AUC", metrics.AUC),
        ("RootMeanSquaredError", metrics.RootMeanSquaredError),
        ("r2_score", metrics.R2Score),
        ("log_cosh_error", metrics.LogCoshError),
        ("MAPE", metrics.MeanAbsolutePercentageError),
        ("crossentropy", metrics.BinaryCrossentropy),
    ):
        found = metrics.metric_of(name, mse, 1)
        assert isinstance(found, kind)
        assert found.name == name
    assert isinstance(metrics.metric_of("ce", sparse, 3), metrics.SparseCategoricalCrossentropy)
    mean = metrics.metric_of("huber", mse, 1)
    mean.update_state(Y3, P3)
    assert mean.result() == pytest.approx(losses.Huber()(Y3, P3), rel=1e-6)
    assert {m.direction for m in (metrics.AUC(), metrics.CosineSimilarity())} == {"up"}
    assert {m.direction for m in (mean, metrics.RootMeanSquaredError())} == {"down"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.AUC(multi_label=True), "multi_label=True is not supported"),
        (lambda: metrics.AUC(curve="PRGAIN"), "curve must be one of ROC, PR, received 'PRGAIN'"),
        (lambda: metrics.AUC(num_thresholds=1), "num_thresholds must be 2 or more"),
        (lambda: metrics.Precision(thresholds=[0.5, 2]), "expected thresholds in 0…1"),
        (lambda: metrics.F1Score("all"), "average must be one of None, micro"),
        (lambda: metrics.R2Score("mean"), "class_aggregation must be one of"),
        (lambda: metrics.SparseTopKCategoricalAccuracy(from_sorted_ids=True), "is not supported"),
        (
            lambda: metrics.Precision(class_id=3).update_state(ONE_HOT, P3),
            "class_id must lie in 0…2, received 3",
        ),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()
