"""Weights and losses have the same bits whatever threads and vectors; lanes do not meet."""

from pathlib import Path

import numpy as np
import pytest
from fresh import python
from kernelcases import WIDTHS
from nn.layers.kinds import assert_same
from nn.training import named, trained
from selection import first_quick, slow

from streamrnn import Input, Sequential, layers, optimizers, set_threads
from streamrnn.nn.kernels import team, threads

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def all_threads():
    yield
    set_threads(0)


@slow
def test_bits_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes, rows and columns are divided however little work there is. Slow: gradients on several
    threads."""
    monkeypatch.setattr(threads, "MIN_PRODUCTS", 0)
    monkeypatch.setattr(team, "MOST_BACK_OFF", 0)
    monkeypatch.setattr(team, "_team", team._Team())
    found = []
    for count in (1, 2, 5):
        set_threads(count)
        found.append(trained.digest())
    assert len(set(found)) == 1


@pytest.mark.parametrize("width", WIDTHS)
@slow
def test_bits_do_not_depend_on_the_width_of_vectors(width: str) -> None:
    """In a process that compiles for it; this one uses the vectors of its CPU. Slow: every
    gradient, compiled for each width."""
    assert digest_with(**WIDTHS[width]) == trained.digest()


@pytest.mark.parametrize("width", ["4, checked", "16"])
@slow
def test_bits_of_losses_optimizers_and_metrics_do_not_depend_on_vectors(width: str) -> None:
    """Slow: each is compiled for the width."""
    assert len(named.results()) > 30
    assert digest_with("named", **WIDTHS[width]) == named.digest()


def digest_with(script: str = "trained", **variables: str) -> str:
    """The hash that a process with other environment variables prints."""
    done = python(f"tests/nn/training/{script}.py", **variables)
    return done.stdout.strip()


@pytest.mark.parametrize("cpu", ["Haswell", "Sandybridge", "Prescott"])
@slow
def test_bits_do_not_depend_on_the_kernels_of_blas(cpu: str) -> None:
    """Nor on LAPACK: neither initial weights, in float64, nor trained ones. Slow: a training with
    each kernel of OpenBLAS."""
    assert digest_with(OPENBLAS_CORETYPE=cpu) == trained.digest()


@slow
def test_another_seed_gives_other_bits() -> None:
    """The hash covers dropout and the order of rows.

    Slow: a stack of all cells, compiled for itself.
    """
    model, (x, y, _) = trained.stack(), trained.data()
    found = []
    for seed in (0, 1):
        model.compile("sgd", "sparse_categorical_crossentropy", seed=seed)
        gradients = model.gradients(x, y, training=True)
        found.append(b"".join(g.tobytes() for g in gradients.values()))
    assert found[0] != found[1]


@pytest.mark.parametrize("layer", first_quick([layers.LSTM, layers.GRU, layers.SimpleRNN]))
def test_poison_in_a_lane_moves_no_gradient_of_another(layer: type[layers.Layer]) -> None:
    """Of an Embedding, the rows that only the other lanes read.

    Slow: other layers, each compiled for itself.
    """
    ids = np.arange(40).reshape(5, 8)
    model = trained.weighted(
        Sequential(
            [Input((8,), dtype="int64"), layers.Embedding(40, 6), layer(20), layers.Dense(1)]
        )
    )
    model.compile("sgd", "mse")
    y = np.zeros((5, 1))
    clean = model.gradients(ids, y)[_table(model)]
    weights = model.get_weights()
    weights[0][8 * 2 + 3] = np.nan
    model.set_weights(weights)
    spoilt = model.gradients(ids, y)[_table(model)]
    others = np.arange(40) // 8 != 2
    assert np.isnan(spoilt[16:24]).any()
    assert_same(spoilt[others], clean[others])


def _table(model: Sequential) -> str:
    return next(name for name in model.named_weights() if name.endswith("embeddings"))


@pytest.mark.parametrize("layer", first_quick([layers.LSTM, layers.GRU, layers.SimpleRNN]))
def test_poison_in_a_lane_moves_no_state_of_another(layer: type[layers.Layer]) -> None:
    """As an input, and as the truth, of the batches before.

    Slow: other layers, each compiled for itself.
    """
    x, y = np.random.default_rng(2).normal(size=(2, 5, 8, 3)).astype(np.float32)
    found = []
    for value in (0.0, np.nan):
        model = trained.weighted(
            Sequential([Input((None, 3)), layer(20, stateful=True, return_sequences=True)])
        )
        model.compile(optimizers.SGD(0.0), "mse")
        x[3, 2], y[3, 2] = value, value
        model.gradients(x, y[..., :1].repeat(20, -1))
        model.test_on_batch(x, y[..., :1].repeat(20, -1))
        model.train_on_batch(x, y[..., :1].repeat(20, -1), np.array([1.0, 1, 1, 0, 1]))
        found.append([state.copy() for state in model.layers[0].states])
    for clean, spoilt in zip(*found, strict=True):
        assert np.isnan(spoilt[3]).all()
        assert_same(spoilt[[0, 1, 2, 4]], clean[[0, 1, 2, 4]])


def test_a_masked_step_may_hold_anything() -> None:
    """Neither its input nor its truth changes a bit."""
    model, (x, y, lengths) = trained.stack(), trained.data()
    model.compile("sgd", "mse")
    truth = np.eye(trained.CATEGORIES)[y]
    clean = model.gradients(x, truth, lengths=lengths)
    past = np.arange(x.shape[1]) >= lengths[:, None]
    assert past.any()
    x, truth = x.copy(), truth.copy()
    x[past], truth[past] = np.nan, np.nan
    for name, gradient in model.gradients(x, truth, lengths=lengths).items():
        assert_same(gradient, clean[name])
