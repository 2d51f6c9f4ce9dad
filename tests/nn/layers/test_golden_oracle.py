"""The golden values are what their script makes: some of them made again."""

import json
import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from golden.cases import CASES, Case, inputs_of, results_of, weights_of

os.environ.setdefault("KERAS_BACKEND", "numpy")  # compiles nothing
pytest.importorskip("keras", reason="needs the oracles extra")


# Keras itself trips this one under numpy 2.4.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("number", "case"), [*enumerate(CASES)][::9], ids=[case.name for case in CASES[::9]]
)
def test_golden_values_can_be_made_again(
    number: int, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "golden"))
    script = import_module("make_layers")
    inputs = script.make_inputs(np.random.default_rng(0))
    np.testing.assert_array_equal(inputs[case.inputs], inputs_of(case)[0])
    made = script.record(case, inputs, np.random.default_rng(number))
    kept = [*weights_of(case), *results_of(case)]
    assert len(made) == len(kept)
    for ours, golden in zip(made.values(), kept, strict=True):
        np.testing.assert_allclose(ours, golden, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_golden_schedules_can_be_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[2] / "golden"
    monkeypatch.syspath_prepend(str(folder))
    script = import_module("make_schedules")
    kept = json.loads((folder / "schedules.json").read_text())
    for (name, config), case in list(zip(script.cases(), kept["cases"], strict=True))[::5]:
        assert case["config"] == config
        np.testing.assert_allclose(script.rates_of(name, config), case["rates"], rtol=1e-6)
