"""Figures of an evaluation by their definitions, number by number. It imports nothing of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Pair(NamedTuple):
    """One compared row: scores, label, its own value, weight, and the value a season before."""

    scores: Sequence[float]
    label: float
    now: float | None = None
    weight: float = 1.0
    seasonal: float | None = None


def share_better(model: float, baseline: float) -> float | None:
    """By what share the model's error is smaller; None beside a baseline without error."""
    if model == baseline:
        return 0.0
    return 1 - model / baseline if baseline else None


def baselines(pairs: Sequence[Pair]) -> dict[str, list[tuple[Pair, float]]]:
    """Name of each baseline -> the pairs that it can judge, with its forecasts."""
    forecasts = {
        "persistence": [pair.now for pair in pairs],
        "seasonal": [pair.seasonal for pair in pairs],
    }
    return {
        name: [(p, v) for p, v in zip(pairs, values, strict=True) if v is not None]
        for name, values in forecasts.items()
    }


def mean(pairs: Sequence[Pair], values: Sequence[float]) -> float:
    """The weighted mean of one value per pair."""
    total = math.fsum(pair.weight for pair in pairs)
    return math.fsum(p.weight * v for p, v in zip(pairs, values, strict=True)) / total


def distances(
    pairs: Sequence[Pair], unit: int = 0, constant: float | None = None
) -> dict[str, float | None]:
    """MAE and RMSE of one output, of the baselines over their rows, and of a constant.

    The constant is by default the mean label.
    """
    error = [pair.scores[unit] - pair.label for pair in pairs]
    middle = mean(pairs, [pair.label for pair in pairs]) if constant is None else constant
    found: dict[str, float | None] = {
        "mae": mean(pairs, [abs(e) for e in error]),
        "rmse": root(pairs, error),
        "rmse_mean": root(pairs, [pair.label - middle for pair in pairs]),
    }
    if constant is not None or all(p.now is None and p.seasonal is None for p in pairs):
        away = root(pairs, [pair.label - middle for pair in pairs])
        found["better_mean"] = share_better(root(pairs, error), away)
    for name, judged in baselines(pairs).items():
        if judged:
            found[f"rows_{name}"] = len(judged)
            rows = [pair for pair, _ in judged]
            missed = [value - pair.label for pair, value in judged]
            model = [pair.scores[unit] - pair.label for pair in rows]
            found[f"mae_{name}"] = mean(rows, [abs(e) for e in missed])
            found[f"mae_where_{name}"] = mean(rows, [abs(e) for e in model])
            found[f"rmse_{name}"] = root(rows, missed)
            found[f"rmse_where_{name}"] = root(rows, model)
            found[f"better_{name}"] = share_better(root(rows, model), root(rows, missed))
    return found


def root(pairs: Sequence[Pair], errors: Sequence[float]) -> float:
    """The root of the mean square."""
    return math.sqrt(mean(pairs, [e * e for e in errors]))


def answers(pairs: Sequence[Pair], right: Sequence[bool]) -> dict[str, float | None]:
    """Accuracies of the baselines over their rows, and the model's there."""
    found: dict[str, float | None] = {}
    of_model = dict(zip(map(id, pairs), right, strict=True))
    for name, judged in baselines(pairs).items():
        if judged:
            found[f"rows_{name}"] = len(judged)
            rows = [pair for pair, _ in judged]
            baseline = mean(rows, [float(value == pair.label) for pair, value in judged])
            model = mean(rows, [float(of_model[id(pair)]) for pair in rows])
            found[f"accuracy_{name}"] = baseline
            found[f"accuracy_where_{name}"] = model
            found[f"better_{name}"] = share_better(1 - model, 1 - baseline)
    return found


def pinball(pairs: Sequence[Pair], unit: int, q: float) -> float:
    """The pinball loss of the output for quantile q."""
    losses = []
    for pair in pairs:
        below = pair.label - pair.scores[unit]
        losses.append(q * below if below >= 0 else (q - 1) * below)
    return mean(pairs, losses)


def pinballs(pairs: Sequence[Pair], q: float) -> dict[str, float | None]:
    """The pinball losses of the first output, and of the baselines over their rows."""
    found: dict[str, float | None] = {"pinball": pinball(pairs, 0, q)}
    for name, judged in baselines(pairs).items():
        if judged:
            model = pinball([pair for pair, _ in judged], 0, q)
            still = [Pair([value], pair.label, weight=pair.weight) for pair, value in judged]
            found[f"pinball_{name}"] = pinball(still, 0, q)
            found[f"pinball_where_{name}"] = model
            found[f"better_{name}"] = share_better(model, pinball(still, 0, q))
    return found


def bands(pairs: Sequence[Pair]) -> dict[str, float | None]:
    """Of means and deviations; the score is the square of a distribution's error, integrated."""
    within = [float(abs(p.label - p.scores[0]) <= 1.6448536 * p.scores[1]) for p in pairs]
    return distances(pairs) | {
        "spread": mean(pairs, [pair.scores[1] for pair in pairs]),
        "coverage_90": mean(pairs, within),
        "crps": mean(
            pairs, [_ranked(pair.label - pair.scores[0], pair.scores[1]) for pair in pairs]
        ),
    }


def crps_of_quantiles(pairs: Sequence[Pair], levels: Sequence[float]) -> float:
    """Twice the pinball loss of every level from 0 to 1, added up in very many small steps.

    Between two levels it is drawn as a straight line, and it is 0 at 0 and at 1.
    """
    ends = [(0.0, 0.0), (1.0, 0.0)]
    at = sorted([*ends, *((q, pinball(pairs, unit, q)) for unit, q in enumerate(levels))])
    steps, total = 20_000, 0.0
    for step in range(steps):
        level = (step + 0.5) / steps
        (low, left), (high, right) = next(
            (a, b) for a, b in pairwise(at) if a[0] <= level <= b[0] and a != b
        )
        total += 2 * (left + (right - left) * (level - low) / (high - low)) / steps
    return total


FAR = 12.0
GAUSS = np.polynomial.legendre.leggauss(80)
"""Points and weights of a quadrature, on [-1, 1]."""


def _ranked(error: float, deviation: float) -> float:
    if not deviation:
        return abs(error)
    z = abs(error / deviation)
    total = max(z - FAR, 0.0)  # beyond it the distribution is 1
    for low, high, side in ((-FAR, min(z, FAR), 0.0), (min(z, FAR), FAR, 1.0)):
        half = (high - low) / 2
        points = ((low + half * (1 + x), weight) for x, weight in zip(*GAUSS, strict=True))
        total += half * math.fsum(weight * (_below(x) - side) ** 2 for x, weight in points)
    return deviation * total


def _below(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _log(p: float) -> float:
    return math.log(min(max(p, 1e-7), 1 - 1e-7))


def probabilities(pairs: Sequence[Pair]) -> dict[str, float | None]:
    """Log-loss, accuracy and AUC of one probability, and those of the base rate."""
    rate = mean(pairs, [pair.label for pair in pairs])
    chosen = [p.scores[0] if p.label == 1 else 1 - p.scores[0] for p in pairs]
    right = [(p.scores[0] >= 0.5) == (p.label == 1) for p in pairs]
    found: dict[str, float | None] = {
        "base_rate": rate,
        "log_loss": -mean(pairs, [_log(p) for p in chosen]),
        "log_loss_base_rate": -sum(r * _log(r) for r in (rate, 1 - rate) if r),
        "accuracy": mean(pairs, [float(value) for value in right]),
        "accuracy_base_rate": max(rate, 1 - rate),
        **answers(pairs, right),
    }
    ranks = {"auc": auc(pairs), "average_precision": average_precision(pairs)}
    return found | {name: value for name, value in ranks.items() if value is not None}


def auc(pairs: Sequence[Pair]) -> float | None:
    """The share of pairs of a positive and a negative row that are in order; ties count half."""
    won = total = 0.0
    for a in pairs:
        for b in pairs:
            if a.label == 1 and b.label == 0:
                total += a.weight * b.weight
                won += a.weight * b.weight * _order(a.scores[0], b.scores[0])
    return won / total if total else None


def average_precision(pairs: Sequence[Pair]) -> float | None:
    """The mean, over positive rows, of the share of positive rows among those scored as high."""
    total = found = 0.0
    for a in pairs:
        if a.label == 1:
            high = [b for b in pairs if b.scores[0] >= a.scores[0]]
            right = sum(b.weight for b in high if b.label == 1)
            found += a.weight * right / sum(b.weight for b in high)
            total += a.weight
    return found / total if total else None


def _order(a: float, b: float) -> float:
    return 0.5 if a == b else float(a > b)


def classes(pairs: Sequence[Pair]) -> dict[str, float | None]:
    """Log-loss and accuracy of one probability per class, and those of the base rates."""
    count = len(pairs[0].scores)
    rates = [mean(pairs, [float(p.label == c) for p in pairs]) for c in range(count)]
    best = [max(range(count), key=lambda c: p.scores[c]) for p in pairs]
    right = [b == p.label for b, p in zip(best, pairs, strict=True)]
    return {
        "log_loss": -mean(pairs, [_log(p.scores[int(p.label)]) for p in pairs]),
        "log_loss_base_rate": -sum(r * _log(r) for r in rates if r),
        "accuracy": mean(pairs, [float(value) for value in right]),
        "accuracy_base_rate": max(rates),
        **answers(pairs, right),
    }
