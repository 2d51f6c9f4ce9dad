"""The golden values are what their script makes: some of them made again."""

import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from golden.cases import CASES, Case, inputs_of, results_of, weights_of

os.environ.setdefault("KERAS_BACKEND", "jax")
pytest.importorskip("keras", reason="needs the oracles extra")


# Keras itself trips this one under numpy 2.4.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("number", "case"), [*enumerate(CASES)][::9], ids=[case.name for case in CASES[::9]]
)
def test_golden_values_can_be_made_again(
    number: int, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "golden"))
    script = import_module("make_layers")
    inputs = script.make_inputs(np.random.default_rng(0))
    np.testing.assert_array_equal(inputs[case.inputs], inputs_of(case)[0])
    made = script.record(case, inputs, np.random.default_rng(number))
    kept = [*weights_of(case), *results_of(case)]
    assert len(made) == len(kept)
    for ours, golden in zip(made.values(), kept, strict=True):
        np.testing.assert_allclose(ours, golden, rtol=1e-6, atol=1e-6)
