"""Any shape, any lengths, any mask: against the oracle, by hypothesis.

test_modes.py runs this file again with every load and store checked.
"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from kernelcases import KINDS, Case


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    lanes=st.integers(1, 13),
    steps=st.integers(1, 9),
    features=st.integers(1, 19),
    units=st.sampled_from([20, 21, 23]),  # one way of packing: each is a compilation
    seed=st.integers(0, 999),
    ragged=st.booleans(),
    masked=st.booleans(),
)
def test_any_shape(kind, lanes, steps, features, units, seed, ragged, masked) -> None:
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
