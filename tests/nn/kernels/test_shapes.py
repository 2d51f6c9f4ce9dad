"""Any shape, any lengths, any mask: against the oracle, by hypothesis.

`.ci/run` runs this file again with every load and store checked.
"""

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernelcases import FLOATS, INTEGERS, Case
from selection import slow

from streamrnn.nn.kernels import conv1d, dense
from streamrnn.nn.kernels.integers import rounded


@pytest.mark.parametrize("kinds", [FLOATS, pytest.param(INTEGERS, marks=slow)])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    data=st.data(),
    lanes=st.integers(1, 13),
    steps=st.integers(1, 9),
    features=st.integers(1, 19),
    units=st.sampled_from([12, 13, 15]),  # one way of packing, which the contracts compile
    seed=st.integers(0, 999),
    ragged=st.booleans(),
    masked=st.booleans(),
)
def test_any_shape(kinds, data, lanes, steps, features, units, seed, ragged, masked) -> None:
    """Slow: cells of integers, whose sums quick tests compare with exact ones."""
    kind = data.draw(st.sampled_from(sorted(kinds)))
    rng = np.random.default_rng(seed)
    case = Case(kind, features, units)
    x, start = case.window(lanes, steps, seed), case.start(lanes, seed)
    lengths = rng.integers(0, steps + 1, lanes) if ragged else None
    mask = rng.random((lanes, steps)) < 0.7 if masked else None
    y, states = case.run(x, start, lengths=lengths, mask=mask)
    expected, after = case.expected(x, start, lengths_B=lengths, mask_BT=mask)
    for b in range(lanes):
        length = steps if lengths is None else lengths[b]
        np.testing.assert_allclose(y[b, :length], expected[b, :length], rtol=0, atol=case.kind.atol)
        assert (y[b, length:] == -7).all()
    for state, wanted in zip(states, after, strict=True):
        np.testing.assert_allclose(state, wanted, rtol=1e-5, atol=case.kind.atol)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    precision=st.sampled_from(["int16", "int8"]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 60), st.integers(1, 19)),
    units=st.sampled_from([33, 36, 37]),
    taps=st.integers(1, 3),
    dilation=st.integers(1, 2),
    seed=st.integers(0, 999),
)
def test_any_shape_of_rows_of_integers(precision, shape, units, taps, dilation, seed) -> None:
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((taps, shape[2], units)).astype(np.float32)
    bias, x = (rng.standard_normal(s).astype(np.float32) for s in (units, shape))
    near = {"int16": 2e-3, "int8": 0.5}[precision]
    weights, y = rounded(kernel, precision, factors=True), np.empty((*shape[:2], units), np.float32)
    past = np.zeros((shape[0], (taps - 1) * dilation, shape[2]), np.float32)
    conv1d.run(conv1d.pack(weights, bias, dilation=dilation), x, None, None, past, y)
    wanted = np.array(naive.conv1d_causal(x, kernel, bias, dilation))
    np.testing.assert_allclose(y, wanted, rtol=0, atol=near)
    rows, flat = x.reshape(-1, shape[2]), y.reshape(-1, units)
    dense.run(dense.pack(rounded(kernel[0], precision, factors=True), bias), rows, flat)
    wanted = np.array(naive.dense(rows, kernel[0], bias))
    np.testing.assert_allclose(flat, wanted, rtol=0, atol=near)
