"""Dense, Conv1D, Embedding and normalisation: against the oracle, row by row, cut anywhere."""

import pickle
from typing import Any

import naive
import numpy as np
import pytest

from streamrnn.nn.kernels import (
    conv1d,
    dense,
    normalization,
    one_thread,
    set_threads,
    threads,
)
from streamrnn.nn.kernels.integers import rounded

RNG = np.random.default_rng(11)


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def weights(precision: str, *shape: int) -> Any:
    kernel = random(*shape)
    return kernel if precision == "float32" else rounded(kernel, precision, factors=True)


@pytest.mark.parametrize("units", [1, 2, 5, 40, 64, 70])
@pytest.mark.parametrize(("rows", "features"), [(9, 6), (1, 16), (37, 35), (130, 18), (3, 259)])
def test_dense_agrees_with_the_oracle(rows: int, features: int, units: int) -> None:
    x, kernel, bias = random(rows, features), random(features, units), random(units)
    y = np.empty((rows, units), np.float32)
    dense.run(dense.pack(kernel, bias), x, y)
    np.testing.assert_allclose(y, np.array(naive.dense(x, kernel, bias)), rtol=1e-5, atol=5e-6)
    dense.run(dense.pack(kernel), x, y, activation="softmax")
    wanted = np.array(naive.dense(x, kernel, None, "softmax"))
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "int16", "int8"])
@pytest.mark.parametrize(("features", "units"), [(6, 5), (6, 1), (21, 2), (64, 1), (40, 4)])
def test_a_row_of_dense_does_not_see_the_others(
    features: int, units: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In any company, at any place among the rows, on any thread."""
    x = random(205, features)
    packed = dense.pack(weights(precision, features, units), random(units))
    with one_thread():
        alone = np.empty((205, units), np.float32)
        for i in range(205):
            dense.run(packed, x[i : i + 1], alone[i : i + 1])
    monkeypatch.setattr(threads, "MIN_PRODUCTS", 0)
    try:
        for count in (1, 3):
            set_threads(count)
            y = np.empty((205, units), np.float32)
            dense.run(packed, x, y)
            np.testing.assert_array_equal(y, alone)
    finally:
        set_threads(0)
    dense.run(packed, x[:0], y[:0])


@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (3, 1), (2, 4)])
def test_conv1d_agrees_with_the_oracle_cut_anywhere(taps: int, dilation: int) -> None:
    """The state is what has passed, so a cut changes no bit."""
    x, kernel, bias = random(3, 13, 4), random(taps, 4, 6), random(6)
    packed = conv1d.pack(kernel, bias, dilation=dilation)
    past = random(3, (taps - 1) * dilation, 4)
    whole, end = np.empty((3, 13, 6), np.float32), past.copy()
    conv1d.run(packed, x, None, None, end, whole)
    wanted = naive.conv1d_causal(x, kernel, bias, dilation, past_BCF=past)
    np.testing.assert_allclose(whole, np.array(wanted), rtol=1e-5, atol=5e-6)
    for cut in range(14):
        y, state = np.empty_like(whole), past.copy()
        for part in (slice(0, cut), slice(cut, 13)):
            out = np.empty((3, len(range(13)[part]), 6), np.float32)
            conv1d.run(packed, x[:, part].copy(), None, None, state, out)
            y[:, part] = out
        np.testing.assert_array_equal(y, whole)
        np.testing.assert_array_equal(state, end)


@pytest.mark.parametrize("precision", ["float32", "int16", "int8"])
def test_absent_steps_are_not_in_the_past_of_a_convolution(precision: str) -> None:
    """Neither those past a length nor masked ones; nothing is written for them."""
    x, packed = random(4, 9, 2), conv1d.pack(weights(precision, 3, 2, 5))
    lengths, mask = np.array([9, 0, 4, 7]), RNG.random((4, 9)) < 0.6
    past = random(4, 2, 2)
    y, state = np.full((4, 9, 5), -7, np.float32), past.copy()
    conv1d.run(packed, x, lengths, mask, state, y)
    for b, length in enumerate(lengths):
        live = np.flatnonzero(mask[b, :length])
        out, alone = np.empty((1, live.size, 5), np.float32), past[b : b + 1].copy()
        conv1d.run(packed, x[b : b + 1, live], None, None, alone, out)
        np.testing.assert_array_equal(y[b, live], out[0])
        np.testing.assert_array_equal(state[b], alone[0])
        assert (np.delete(y[b], live, axis=0) == -7).all()


@pytest.mark.parametrize("precision", ["float32", "int16"])
def test_packed_rows_can_be_pickled(precision: str) -> None:
    x = random(1, 4, 3)
    for packed, module in (
        (dense.pack(weights(precision, 3, 5)), dense),
        (conv1d.pack(weights(precision, 1, 3, 5)), conv1d),
    ):
        y, z = np.empty((2, 1, 4, 5), np.float32)
        for out, one in ((y, packed), (z, pickle.loads(pickle.dumps(packed)))):
            if module is dense:
                dense.run(one, x[0], out[0])
            else:
                conv1d.run(one, x, None, None, np.zeros((1, 0, 3), np.float32), out)
        np.testing.assert_array_equal(y, z)


def test_embedding_takes_rows() -> None:
    table, ids = random(7, 3), np.array([6, 0, 3, 3])
    y = np.empty((4, 3), np.float32)
    dense.embed(table, ids, y)
    np.testing.assert_array_equal(y, table[ids])


@pytest.mark.parametrize("size", [1, 16, 37])
def test_threads_take_the_rows_of_an_embedding(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MIN_PRODUCTS", 0)
    table, ids = random(50, size)[:, ::-1], RNG.integers(0, 50, 60)[::2]
    y = np.full((30, size), np.nan, np.float32)
    set_threads(3)
    try:
        dense.embed(table, ids, y)
    finally:
        set_threads(0)
    np.testing.assert_array_equal(y, table[ids])


def test_layer_norm_agrees_with_the_oracle() -> None:
    x, gamma, beta = random(5, 11), random(11), random(11)
    y = normalization.layer_norm(x, gamma, beta, 1e-3)
    wanted = np.array(naive.layer_normalization(x, gamma, beta))
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("units", [2, 20])
def test_dense_without_features_gives_the_bias(units: int) -> None:
    bias, y = random(units), np.full((3, units), -7, np.float32)
    dense.run(dense.pack(np.zeros((0, units), np.float32), bias), np.zeros((3, 0), np.float32), y)
    np.testing.assert_array_equal(y, np.tile(bias, (3, 1)))
