"""NaN in one row of a batch reaches no other: the operator's model, and the states it scatters."""

import logs
import numpy as np
import pytest

from streamrnn.models import StepRunner


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_nan_in_one_lane_changes_no_bit_of_another(kind: str) -> None:
    stream = StepRunner(logs.small_model(kind, units=19))
    x = np.random.default_rng(7).normal(size=(11, 6, 2)).astype(np.float32)
    lengths = np.array([6, 6, 5, 6, 3, 6, 0, 6, 6, 1, 6])
    clean = stream.initial_state(11)
    (expected,) = stream.run([x], lengths, clean)
    spoilt = stream.initial_state(11)
    poison = x.copy()
    poison[4, 2] = np.nan
    (got,) = stream.run([poison], lengths, spoilt)
    others = np.arange(11) != 4
    live = (np.arange(6) < lengths[:, None]) & others[:, None]
    assert np.isnan(got[4, 2]).all()
    assert (got[live] == expected[live]).all()
    for name, state in spoilt.items():
        assert np.isnan(state[4]).any()
        assert (state[others] == clean[name][others]).all()
