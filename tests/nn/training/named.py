"""Every loss, optimizer and metric on a few numbers, and the hash of all results."""

import hashlib

import numpy as np

from streamrnn import losses, metrics, optimizers, regularizers
from streamrnn.nn.training.losses import loss_of, names_of_losses
from streamrnn.nn.training.metrics import metric_of
from streamrnn.nn.training.optimizer import WeightUpdate

ROWS, UNITS = 7, 5


def results() -> dict[str, bytes]:
    """By name, from 35 numbers: they fill no vector."""
    rng = np.random.default_rng(8)
    p = rng.random((ROWS, UNITS)).astype(np.float32)
    t = np.eye(UNITS, dtype=np.float32)[rng.integers(0, UNITS, ROWS)]
    weight = rng.random(ROWS).astype(np.float32)
    found = {}
    for name in sorted(names_of_losses()):
        loss = loss_of(name)
        if isinstance(loss, losses.Quantile | losses.SparseCategoricalCrossentropy):
            continue  # of other shapes; their kernels are those of others
        moments = isinstance(loss, losses.GaussianNLL)
        y, q = (t[:, :2], p[:, :4].copy()) if moments else (t, p)
        value, slope = loss.with_slope(loss.truth(y, q), q, weight, None)
        found[f"loss {name}"] = np.float64(value).tobytes() + slope.tobytes()
    for name in optimizers.__all__:
        kind = getattr(optimizers, name)
        if not isinstance(kind, type) or kind is optimizers.Optimizer:
            continue
        optimizer, w = kind(0.01, weight_decay=0.1), p.copy()
        for sign in (1, -1, 2):
            optimizer.change([WeightUpdate("w", w, sign * (t - p))])
        found[f"optimizer {name}"] = w.tobytes()
    for metric in (metrics.AUC(), metrics.AUC(curve="PR"), metrics.R2Score(), metrics.F1Score()):
        metric.update_state(t, p, weight)
        found[f"metric {len(found)}"] = np.asarray(metric.result()).tobytes()
    crps = metric_of("crps", losses.GaussianNLL(), 4)
    crps.update_state(t[:, :2], p[:, :4].copy(), weight)
    found["metric crps"] = np.asarray(crps.result()).tobytes()
    penalty = regularizers.L1L2(0.1, 0.3)
    found["penalty"] = np.float64(penalty(p)).tobytes() + penalty.slope(p - t).tobytes()
    return found


def digest() -> str:
    """A hash of all results."""
    return hashlib.sha256(b"".join(results().values())).hexdigest()


if __name__ == "__main__":
    print(digest())
