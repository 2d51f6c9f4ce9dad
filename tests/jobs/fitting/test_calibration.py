"""Quantiles that `[output] calibrate` shifts, against a sorted list."""

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs.fitting import fits
from selection import slow

from streamrnn import Pipeline, layers, load_model
from streamrnn.errors import ConfigError
from streamrnn.jobs.fitting.baseline import Calibration
from streamrnn.pipeline import FitSummary

QUANTILES = [0.1, 0.5, 0.9]
SINCE, UNTIL = 1500, 2500
LAYERS = [{"type": "Normalization"}, {"type": "Dense", "units": 3}]


def log(garbage: bool = False) -> pa.Table:
    """Labels x of which the noise grows with row SINCE; garbage in those from UNTIL on."""
    table = fits.log(4000)
    rng = np.random.default_rng(8)
    noise = rng.normal(size=4000) * np.where(np.arange(4000) < SINCE, 0.2, 2.0)
    x = np.nan_to_num(table["a"].to_numpy()) + noise
    if garbage:
        x[UNTIL:] = 1e6
    return table.append_column("x", pa.array(x))


def time_of(row: int) -> str:
    return str(log()["t"][row].as_py().isoformat())


def config(folder: Path, *, calibrate: bool, **tables: dict[str, Any]) -> dict[str, Any]:
    data = fits.config(folder, **tables)
    train = {
        **data["train"],
        "epochs": 3,
        "burn_in": 0,
        "metrics": [],
        "loss": {"quantile": QUANTILES},
        "validation": {"since": time_of(SINCE)},
        "until": time_of(UNTIL),
        **tables.get("train", {}),
    }
    output = {"names": ["low", "middle", "high"], "calibrate": calibrate}
    model = {**data["model"], "layers": tables.get("model", {}).get("layers", LAYERS)}
    own = {"train": train, "output": output, "model": model, "target": {"column": "x"}}
    return {**data, **own, "source": {**data["source"], "features": ["a"], "nulls": 0}}


def fit(folder: Path, *, calibrate: bool = True, **tables: Any) -> FitSummary:
    if not (folder / "in").exists():
        logs.write(log(), folder / "in/a.parquet", row_group=200)
    options = tables.pop("options", {})
    return Pipeline.from_dict(config(folder, calibrate=calibrate, **tables)).fit(**options)


def scores(folder: Path, *, calibrate: bool) -> Any:
    """The outputs, in the order of the log."""
    Pipeline.from_dict(config(folder, calibrate=calibrate)).run()
    streams: dict[str, list[list[float]]] = {}
    for row in pq.read_table(folder / "out").to_pylist():
        streams.setdefault(row["id"], []).append([row[n] for n in ("low", "middle", "high")])
    return np.array([streams[key].pop(0) for key in log()["id"].to_pylist()])


def number_of(q: float, count: int) -> int:
    """Which label, from the lowest on, is the bound: (n + 1) q, rounded away from the median."""
    place = round((count + 1) * q, 9)
    return math.floor(place) if q < 0.5 else math.ceil(place)


def test_shifts_are_those_of_a_sorted_list_and_all_else_is_as_without(tmp_path: Path) -> None:
    """Weights, epochs and outputs; later labels are covered as the validation's are."""
    plain = fit(tmp_path / "plain", calibrate=False)
    shifted = fit(tmp_path / "shifted")
    one, two = (load_model(tmp_path / name / "model.safetensors") for name in ("plain", "shifted"))
    assert [layer.name for layer in two.layers] == [*(la.name for la in one.layers), "calibration"]
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert plain.shifts == []
    before = scores(tmp_path / "plain", calibrate=False)
    label, times = np.array(log()["x"].to_pylist()), log()["t"].to_numpy()
    judged = (times >= times[SINCE]) & (times < times[UNTIL])
    assert judged.sum() == shifted.validation_rows > 900
    for unit, (q, shift) in enumerate(zip(QUANTILES, shifted.shifts, strict=True)):
        above = sorted((label - before[:, unit])[judged].tolist())
        assert shift == pytest.approx(above[number_of(q, len(above)) - 1], abs=1e-5)
    after = scores(tmp_path / "shifted", calibrate=True)
    np.testing.assert_allclose(after, before + shifted.shifts, atol=1e-5)
    later, rows = slice(UNTIL, None), len(label) - UNTIL
    for unit, q in enumerate(QUANTILES):
        covered = float((label[later] <= after[later, unit]).mean())
        assert abs(covered - q) < 4 * math.sqrt(q * (1 - q) / rows)
    assert (label[later] <= before[later, 2]).mean() < 0.8  # what says 90 %


def test_labels_after_the_validation_change_no_byte(tmp_path: Path) -> None:
    logs.write(log(garbage=True), tmp_path / "other/in/a.parquet", row_group=200)
    files = []
    for name in ("one", "other"):
        fit(tmp_path / name)
        files.append((tmp_path / name / "model.safetensors").read_bytes())
    assert files[0] == files[1]


def test_shuffled_labels_are_covered_as_said_by_a_band_as_wide_as_they_are(tmp_path: Path) -> None:
    """With the label itself as feature the band is narrow: what is judged can be a leak."""
    x = np.random.default_rng(6).permutation(log()["x"].to_numpy())
    widths = []
    for name in ("shuffled", "planted"):
        table = log().set_column(log().column_names.index("x"), "x", pa.array(x))
        if name == "planted":
            table = table.set_column(table.column_names.index("a"), "a", pa.array(x))
        logs.write(table, tmp_path / name / "in/a.parquet", row_group=200)
        fit(tmp_path / name, train={"epochs": 20})
        low, _, high = scores(tmp_path / name, calibrate=True)[UNTIL:].T
        covered = float(((low <= x[UNTIL:]) & (x[UNTIL:] <= high)).mean())
        assert abs(covered - 0.8) < 4 * math.sqrt(0.8 * 0.2 / len(low))
        widths.append(float((high - low).mean()))
    spread = float(np.subtract(*np.quantile(x, [0.9, 0.1])))
    assert widths[0] > 0.9 * spread > 3 * widths[1]


def test_an_interrupted_fit_has_the_same_bytes(tmp_path: Path) -> None:
    """The shifts of the best epoch are committed with it."""
    fit(tmp_path / "whole")
    fits.interrupt(lambda **options: fit(tmp_path / "cut", options=options), 12)
    assert fits.digest(tmp_path / "cut") == fits.digest(tmp_path / "whole")


def test_training_goes_on_from_the_quantiles_that_were_not_shifted(tmp_path: Path) -> None:
    """With --continue and with [train] init; a run compares the layers of the file."""
    first = fit(tmp_path, train={"until": time_of(2000)})
    again = fit(tmp_path, options={"extend": True}, train={"validation": {"since": time_of(2200)}})
    model = load_model(tmp_path / "model.safetensors")
    assert [layer.name for layer in model.layers][-2:] == ["rescaling", "calibration"]
    assert again.shifts != first.shifts
    assert Pipeline.from_dict(config(tmp_path, calibrate=True)).run().rows == 4000
    init = {"train": {"init": str(tmp_path / "model.safetensors")}, "model": {"layers": []}}
    fit(tmp_path / "init", calibrate=False, **init)
    names = [la.name for la in load_model(tmp_path / "init/model.safetensors").layers]
    assert names[-1] == "rescaling"


def test_a_model_that_was_not_calibrated_is_noted(tmp_path: Path) -> None:
    """By a run and by validate, not before the first fit."""
    logs.write(log(), tmp_path / "in/a.parquet", row_group=200)
    pipeline = Pipeline.from_dict(config(tmp_path, calibrate=True))
    note = "[output] calibrate is set, but the model was not calibrated"
    assert not any(note in text for text in pipeline.validate())
    fit(tmp_path, calibrate=False)
    assert any(note in text for text in pipeline.validate())
    assert any(note in text for text in pipeline.run().state_notes)
    fit(tmp_path, options={"full_refresh": True})
    shutil.rmtree(tmp_path / "out")
    pipeline = Pipeline.from_dict(config(tmp_path, calibrate=True))
    assert not any(note in text for text in pipeline.validate())


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"loss": "mse"}, r"\[output\] calibrate: a fit calibrates quantiles on its valid"),
        ({"validation": None}, r"\[output\] calibrate: .* and \[train\] validation"),
        ({"seeds": 2, "keep": "all"}, r"\[output\] calibrate: \[train\] keep = \"all\" returns"),
        (
            {"loss": {"quantile": [0.5, 0.9, 0.9995]}},
            r"the quantiles 0\.5, 0\.9, 0\.9995 need 1999 rows .* received 1000\. Set an earlier",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    train: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path, train=train)


@slow
def test_the_best_of_several_seeds_has_its_own_shifts(tmp_path: Path) -> None:
    """Slow: a fit of several seeds."""
    summary = fit(tmp_path, train={"seeds": 2, "epochs": 1})
    layer = load_model(tmp_path / "model.safetensors").layers[-1]
    assert isinstance(layer, layers.Rescaling)
    assert np.atleast_1d(layer.offset).tolist() == summary.shifts


@settings(max_examples=100, deadline=None)
@given(
    blocks=st.lists(st.lists(st.integers(-50, 50), min_size=1, max_size=20), min_size=1),
    quantiles=st.lists(st.sampled_from([0.2, 0.25, 0.5, 0.7, 0.75]), min_size=1, max_size=3),
    passes=st.integers(1, 2),
)
def test_any_rows_in_any_pieces(
    blocks: list[list[int]], quantiles: list[float], passes: int
) -> None:
    """As many labels are up to the shifted quantile as it says, but for one; also again."""
    label = [float(value) for block in blocks for value in block]
    if len(label) < 4:
        label, blocks = [*label, 1.0, 2.0, 3.0], [*blocks, [1, 2, 3]]
    with tempfile.TemporaryDirectory() as folder:
        found = Calibration(quantiles, len(label), Path(folder) / "above")
        for _ in range(passes):
            found.begin()
            for block in blocks:
                values = np.array(block, np.float32)[:, None]
                found.add(values, np.full((len(block), len(quantiles)), 7, np.float32))
            for q, shift in zip(quantiles, found.shifts(), strict=True):
                assert shift == sorted(label)[number_of(q, len(label)) - 1] - 7
                up_to = sum(value <= 7 + shift for value in label)
                below = sum(value < 7 + shift for value in label)
                assert below < number_of(q, len(label)) <= up_to
