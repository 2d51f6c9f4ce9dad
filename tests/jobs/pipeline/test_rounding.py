"""What float32 rounds in a step is small, also where a recurrence widens it from step to step."""

from pathlib import Path

import logs
import numpy as np
import pytest

from streamrnn import Pipeline, Sequential, layers

UNITS = 17
ULP = 2.0**-24  # of float32, in [0.5, 1)
TANH = 5.12  # ulp: the error of `simd.functions.tanh`


@pytest.mark.parametrize("seed", [0, 36, 44])
def test_outputs_are_as_far_from_float64_as_the_recurrence_carries_what_steps_round(
    tmp_path: Path, seed: int
) -> None:
    """Weights of deviation 0.4 give 17 units eigenvalues above 1, and these outputs are more than
    1e-5 from float64. Each step, from the state before it, is within the bound of its sums and of
    tanh; all of them are within these bounds, carried on by the derivatives of a float64 run."""
    rng = np.random.default_rng(seed)
    model = Sequential([layers.Input((None, 2)), layers.SimpleRNN(UNITS, return_sequences=True)])
    weights = [rng.normal(0, 0.4, w.shape).astype(np.float32) for w in model.get_weights()]
    model.set_weights(weights)
    model.save(tmp_path / "m.safetensors")
    log = logs.random_log(900, streams=3)
    source = logs.write(log, tmp_path / "in.parquet")
    pipeline = Pipeline.from_dict(logs.config(source, str(tmp_path / "m.safetensors"), None))
    outputs = np.transpose(pipeline.process(log).columns[2:]).astype(np.float64)
    features = np.transpose([log["a"], log["b"]]).astype(np.float32).astype(np.float64)
    kernel, recurrent, bias = (weight.astype(np.float64) for weight in weights)
    farthest = 0.0
    for key in log["id"].unique():
        of_stream = np.array([other == key for other in log["id"]])
        state, exact = np.zeros(UNITS), np.zeros(UNITS)
        bounds, derivatives = np.zeros((0, UNITS)), np.zeros((0, UNITS, UNITS))
        for x, y in zip(features[of_stream], outputs[of_stream], strict=True):
            sums = x @ kernel + state @ recurrent + bias
            terms = np.abs(x) @ np.abs(kernel) + np.abs(state) @ np.abs(recurrent) + np.abs(bias)
            rounded = (x.size + UNITS + 1) * ULP * terms
            steepest = 1 / np.cosh(np.maximum(np.abs(sums) - rounded, 0)) ** 2
            bound = rounded * steepest + TANH * ULP
            assert (np.abs(y - np.tanh(sums)) <= bound).all()
            exact = np.tanh(x @ kernel + exact @ recurrent + bias)
            derivatives = np.concatenate(
                [derivatives @ (recurrent * (1 - exact**2)), np.eye(UNITS)[None]]
            )
            bounds = np.vstack([bounds, bound])
            carried = np.einsum("ti,tij->j", bounds, np.abs(derivatives))
            assert (np.abs(y - exact) <= carried).all()
            farthest = max(farthest, np.abs(y - exact).max())
            state = y
    assert farthest > 1e-5
