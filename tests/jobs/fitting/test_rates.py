"""The test of learning rates, `fit(find_rate=True)`."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs.fitting import fits

from streamrnn import Input, Pipeline, Sequential, layers
from streamrnn.jobs.fitting.fit_loop import FitLoop, TriedRate, good_rate

ROWS, STEPS = 24, 4
START = datetime(2024, 3, 1, tzinfo=UTC)


def config(folder: Path, x: list[float], y: list[float], **train: Any) -> dict[str, Any]:
    """A stream, trained `STEPS` rows at a time: y = w x, from w = 0.5."""
    times = [START + timedelta(hours=n) for n in range(len(x))]
    (folder / "in").mkdir(parents=True)
    table = pa.table({"id": ["s"] * len(x), "t": times, "x": x, "y": y})
    pq.write_table(table, folder / "in/a.parquet")
    model = Sequential([Input((None, 1)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.float32([[0.5]])])
    model.save(folder / "start.safetensors")
    return {
        "source": {"path": str(folder / "in"), "key": "id", "time": "t", "features": ["x"]},
        "window": {"lanes": 1, "steps": STEPS},
        "model": {"path": str(folder / "model.safetensors")},
        "target": {"column": "y"},
        "train": {
            "init": str(folder / "start.safetensors"),
            "optimizer": "sgd",
            "scale_target": False,
            "schedule": "cosine",
            **train,
        },
    }


def series() -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(2)
    x = rng.normal(0, 3, ROWS).astype(np.float32).astype(float)
    return x.tolist(), (2 * x + rng.normal(size=ROWS)).astype(np.float32).astype(float).tolist()


def by_hand(x: list[float], y: list[float]) -> list[tuple[float, float]]:
    """Rate and running mean of the losses at each update, in plain Python."""
    weight, total, tried = 0.5, 0.0, []
    for n in range(200):
        rate = 1e-6 * 1e6 ** (n / 199)
        begin = n * STEPS % ROWS
        pairs = list(zip(x[begin : begin + STEPS], y[begin : begin + STEPS], strict=True))
        loss = sum((weight * a - b) ** 2 for a, b in pairs) / STEPS
        weight -= rate * sum(2 * (weight * a - b) * a for a, b in pairs) / STEPS
        total = 0.9 * total + 0.1 * loss
        tried.append((rate, total / (1 - 0.9 ** (n + 1))))
        if tried[-1][1] > 4 * min(loss for _, loss in tried):
            break
    return tried


def test_rates_and_losses_are_those_of_plain_python(tmp_path: Path) -> None:
    """Whatever schedule and seeds are set; nothing is written."""
    x, y = series()
    data = config(tmp_path, x, y, seeds=3, keep="all")
    before = sorted(tmp_path.rglob("*"))
    summary = Pipeline.from_dict(data).fit(find_rate=True)
    expected = by_hand(x, y)
    assert 50 < len(expected) < 200
    assert len(summary.rates) == len(expected) == summary.updates
    for (rate, loss), (wanted, there) in zip(summary.rates, expected, strict=True):
        assert (rate, loss) == (pytest.approx(wanted, rel=1e-9), pytest.approx(there, rel=1e-3))
    lowest = min(expected, key=lambda item: item[1])
    assert summary.good_rate == pytest.approx(lowest[0] / 10, rel=1e-9)
    assert sorted(tmp_path.rglob("*")) == before
    assert not summary.committed


def test_rows_of_the_validation_and_threads_do_not_matter(tmp_path: Path) -> None:
    x, y = series()
    since = (START + timedelta(hours=16)).isoformat()
    found = []
    for name, garbage in (("one", 1.0), ("two", 1e6)):
        late = [value * garbage for value in y[16:]]
        data = config(tmp_path / name, x, [*y[:16], *late], validation={"since": since})
        data["model"]["threads"] = 1 if name == "one" else 2
        found.append(Pipeline.from_dict(data).fit(find_rate=True).rates)
    assert found[0] == found[1]
    assert len(found[0]) > 50


@pytest.mark.parametrize("loss", ["poisson", "cosine_similarity"])
def test_a_loss_may_be_negative_from_the_first_update(loss: str, tmp_path: Path) -> None:
    x, y = series()
    positive = [abs(value) + 0.1 for value in x], [abs(value) + 1 for value in y]
    summary = Pipeline.from_dict(config(tmp_path, *positive, loss=loss)).fit(find_rate=True)
    assert min(rate.loss for rate in summary.rates) < 0
    assert len(summary.rates) == 200 or loss == "poisson"
    assert len(summary.rates) > 50


def test_an_interrupted_test_proposes_no_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = series()
    stop, train_at = threading.Event(), FitLoop.train_at

    def stopped(loop: FitLoop, rates: Sequence[float]) -> Iterator[Any]:
        for number, judged in enumerate(train_at(loop, rates)):
            if number == 30:
                stop.set()
            yield judged

    monkeypatch.setattr(FitLoop, "train_at", stopped)
    summary = Pipeline.from_dict(config(tmp_path, x, y)).fit(find_rate=True, stop=stop)
    assert summary.interrupted
    assert len(summary.rates) == 31
    assert summary.good_rate is None


def test_it_ends_where_the_loss_is_not_finite_and_none_may_be_good(tmp_path: Path) -> None:
    x, y = series()
    data = config(tmp_path, [value * 1e10 for value in x], y)
    summary = Pipeline.from_dict(data).fit(find_rate=True)
    assert 0 < len(summary.rates) < 10
    assert summary.good_rate is None
    assert good_rate([]) is None
    assert good_rate([TriedRate(0.1, 1.0), TriedRate(1.0, 1.0)]) is None


def test_the_rate_it_proposes_is_better_than_one_that_is_too_low(tmp_path: Path) -> None:
    good = fits.fit(tmp_path / "find", find_rate=True).good_rate
    assert good is not None
    losses = []
    for name, rate in (("good", good), ("low", good / 100)):
        optimizer = {"name": "adam", "learning_rate": rate}
        tables = {"train": {**fits.config(tmp_path)["train"], "optimizer": optimizer}}
        losses.append(fits.fit(tmp_path / name, tables).history[-1]["loss"])
    assert losses[0] < losses[1]
