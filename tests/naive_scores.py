"""Figures of an evaluation by their definitions, in plain Python. It imports nothing of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Pair(NamedTuple):
    """One compared row: its scores, its label, its own value, its weight."""

    scores: Sequence[float]
    label: float
    now: float | None = None
    weight: float = 1.0


def mean(pairs: Sequence[Pair], values: Sequence[float]) -> float:
    """The weighted mean of one value per pair."""
    total = math.fsum(pair.weight for pair in pairs)
    return math.fsum(p.weight * v for p, v in zip(pairs, values, strict=True)) / total


def distances(pairs: Sequence[Pair], unit: int = 0) -> dict[str, float]:
    """MAE and RMSE of one output, of persistence, and of the mean label."""
    error = [pair.scores[unit] - pair.label for pair in pairs]
    middle = mean(pairs, [pair.label for pair in pairs])
    found = {
        "mae": mean(pairs, [abs(e) for e in error]),
        "rmse": math.sqrt(mean(pairs, [e * e for e in error])),
        "rmse_mean": math.sqrt(mean(pairs, [(pair.label - middle) ** 2 for pair in pairs])),
    }
    if all(pair.now is not None for pair in pairs):
        still = [(pair.now or 0.0) - pair.label for pair in pairs]
        found["mae_persistence"] = mean(pairs, [abs(e) for e in still])
        found["rmse_persistence"] = math.sqrt(mean(pairs, [e * e for e in still]))
    return found


def pinball(pairs: Sequence[Pair], unit: int, q: float) -> float:
    """The pinball loss of the output for quantile q."""
    losses = []
    for pair in pairs:
        below = pair.label - pair.scores[unit]
        losses.append(q * below if below >= 0 else (q - 1) * below)
    return mean(pairs, losses)


def _log(p: float) -> float:
    return math.log(min(max(p, 1e-7), 1 - 1e-7))


def probabilities(pairs: Sequence[Pair]) -> dict[str, float]:
    """Log-loss, accuracy and AUC of one probability, and those of the base rate."""
    rate = mean(pairs, [pair.label for pair in pairs])
    chosen = [p.scores[0] if p.label == 1 else 1 - p.scores[0] for p in pairs]
    found = {
        "base_rate": rate,
        "log_loss": -mean(pairs, [_log(p) for p in chosen]),
        "log_loss_base_rate": -sum(r * _log(r) for r in (rate, 1 - rate) if r),
        "accuracy": mean(pairs, [float((p.scores[0] >= 0.5) == (p.label == 1)) for p in pairs]),
        "accuracy_base_rate": max(rate, 1 - rate),
    }
    if all(pair.now is not None for pair in pairs):
        found["accuracy_persistence"] = mean(pairs, [float(p.now == p.label) for p in pairs])
    area = auc(pairs)
    return found if area is None else {**found, "auc": area}


def auc(pairs: Sequence[Pair]) -> float | None:
    """The share of pairs of a positive and a negative row that are in order; ties count half."""
    won = total = 0.0
    for a in pairs:
        for b in pairs:
            if a.label == 1 and b.label == 0:
                total += a.weight * b.weight
                won += a.weight * b.weight * _order(a.scores[0], b.scores[0])
    return won / total if total else None


def _order(a: float, b: float) -> float:
    return 0.5 if a == b else float(a > b)


def classes(pairs: Sequence[Pair]) -> dict[str, float]:
    """Log-loss and accuracy of one probability per class, and those of the base rates."""
    count = len(pairs[0].scores)
    rates = [mean(pairs, [float(p.label == c) for p in pairs]) for c in range(count)]
    best = [max(range(count), key=lambda c: p.scores[c]) for p in pairs]
    return {
        "log_loss": -mean(pairs, [_log(p.scores[int(p.label)]) for p in pairs]),
        "log_loss_base_rate": -sum(r * _log(r) for r in rates if r),
        "accuracy": mean(pairs, [float(b == p.label) for b, p in zip(best, pairs, strict=True)]),
        "accuracy_base_rate": max(rates),
    }
