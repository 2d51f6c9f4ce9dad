"""Staged rows, their division and their windows, against plain Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs.fitting import fits

from streamrnn.jobs.fitting.division import (
    CARRIED,
    FRESH,
    Division,
    DivisionRule,
    TrainingWindow,
    divide,
)
from streamrnn.jobs.fitting.learner import Learner
from streamrnn.jobs.fitting.request import FitSource
from streamrnn.jobs.fitting.staging import Reader, Staged, stage
from streamrnn.nn.training import losses, optimizers
from streamrnn.stream.config import Config
from streamrnn.stream.scoring import LoadedPipeline, Scorer, starting_table
from streamrnn.stream.windows import Placement


def opened(folder: Path, **tables: Any) -> tuple[FitSource, Reader, Staged]:
    """The staged rows of a log in a folder."""
    logs.small_model().save(folder / "model.safetensors")
    data = fits.config(folder, **tables)
    del data["model"]["layers"]
    loaded = LoadedPipeline(Config.parse(data))
    fit = FitSource(loaded)
    table = starting_table(fit.bound, None, "")
    reader = Reader(Scorer(fit.bound, table), fit.target)
    (folder / "rows").mkdir(exist_ok=True)
    return fit, reader, stage(reader, fit.batches(), folder / "rows")


def divided(staged: Staged, fit: FitSource, **rule: Any) -> Division:
    keys = {"since": None, "share": None, "burn_in": 0, "pieces": 1, "lanes": 3, "steps": 5}
    return divide(staged, DivisionRule(**{**keys, **rule}), fit.target)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 100),
    rows=st.integers(1, 120),
    batch_rows=st.integers(1, 150),
    resets=st.sampled_from([0.0, 0.1]),
    nulls=st.sampled_from([0.0, 0.2]),
    ahead=st.integers(0, 3),
)
def test_each_step_has_its_row_and_its_label(
    seed: int,
    rows: int,
    batch_rows: int,
    resets: float,
    nulls: float,
    ahead: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("staged")
    table = logs.random_log(rows, 4, seed, nulls=nulls, resets=resets)
    logs.write(table, folder / "in" / "a.parquet", 17)
    source = {"reset": "new", "nulls": "skip", "batch_rows": batch_rows}
    source = {**fits.config(folder)["source"], **source}
    target = {"column": ["b", "a"], "rows": ahead}
    _, _, staged = opened(folder, source=source, target=target)

    a, b, new = (table[name].to_pylist() for name in ("a", "b", "new"))
    wanted: list[tuple[str, list[int]]] = []  # the steps of each sequence
    order = list(dict.fromkeys(table["id"].to_pylist()))
    used = [i for i in range(rows) if a[i] is not None and b[i] is not None]
    order = sorted(
        order, key=lambda key: next((i for i in used if table["id"][i].as_py() == key), rows)
    )
    label: dict[int, list[Any]] = {}
    for key in order:
        own = [i for i in range(rows) if table["id"][i].as_py() == key]
        runs: list[list[int]] = [[]]
        for i in own:
            if new[i] and runs[-1]:
                runs.append([])
            runs[-1].append(i)
        for run in runs:
            for number, i in enumerate(run):
                later = run[number + ahead] if number + ahead < len(run) else None
                label[i] = [None, None] if later is None else [b[later], a[later]]
            steps = [i for i in run if i in used]
            if steps:
                wanted.append((key, steps))
    found = [
        (staged.keys[0][stream].as_py(), staged.row[begin : begin + length].tolist())
        for begin, length, stream in zip(
            staged.start_Q, staged.length_Q, staged.stream_Q, strict=True
        )
    ]
    assert found == wanted
    assert staged.fresh_Q.all()
    for step, row in enumerate(staged.row.tolist()):
        assert staged.inputs[0][step].tolist() == [np.float32(a[row]), np.float32(b[row])]
        values = [np.nan if v is None else np.float32(v) for v in [*label[row], b[row], a[row]]]
        np.testing.assert_array_equal(staged.labels[step, :4], np.array(values, np.float32))
        assert staged.labels[step, 4] == (None not in label[row])


def test_pieces_burn_in_and_carry(tmp_path: Path) -> None:
    """Each piece but the first starts fresh, in the middle of its stream, and has a burn-in."""
    logs.write(fits.log(), tmp_path / "in" / "a.parquet")
    fit, _, staged = opened(tmp_path)
    whole = divided(staged, fit, pieces=1)
    assert whole.training.steps == staged.steps
    before = np.array(staged.weight)
    parts = divided(staged, fit, pieces=3, burn_in=4)
    assert parts.training.steps == staged.steps
    assert (parts.training.origin == FRESH).all()
    ends = parts.training.begin + parts.training.length
    assert sorted(ends)[:-1] == sorted(parts.training.begin)[1:]
    starts = np.zeros(staged.steps, bool)
    for begin, length in zip(parts.training.begin, parts.training.length, strict=True):
        starts[begin : begin + min(4, length)] = True
    np.testing.assert_array_equal(staged.weight, np.where(starts, 0, before))


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_streams_of_the_validation_depend_on_their_keys_alone(share: float, tmp_path: Path) -> None:
    table = logs.random_log(3000, 400, 1)
    logs.write(table, tmp_path / "one" / "in" / "a.parquet")
    logs.write(table.slice(1500), tmp_path / "two" / "in" / "a.parquet")
    held = []
    for name in ("one", "two"):
        fit, _, staged = opened(tmp_path / name)
        parts = divided(staged, fit, share=share)
        keys = set(staged.keys[0].take(pa.array(parts.validation.stream)).to_pylist())
        assert not keys & set(staged.keys[0].take(pa.array(parts.training.stream)).to_pylist())
        held.append((keys, set(staged.keys[0].to_pylist())))
    (one, _), (two, all_two) = held
    assert two == one & all_two
    assert abs(len(one) / len(held[0][1]) - share) < 0.08


def test_validation_by_time_begins_at_its_time_and_carries(tmp_path: Path) -> None:
    logs.write(fits.log(), tmp_path / "in" / "a.parquet")
    fit, _, staged = opened(tmp_path)
    since = int(np.sort(staged.time)[staged.steps // 2])
    parts = divided(staged, fit, since=since, pieces=0)
    for begin, length, origin in zip(
        parts.validation.begin, parts.validation.length, parts.validation.origin, strict=True
    ):
        assert (staged.time[begin : begin + length] >= since).all()
        if origin == CARRIED:
            assert staged.time[begin - 1] < since
    for begin, length in zip(parts.training.begin, parts.training.length, strict=True):
        assert (staged.time[begin : begin + length] < since).all()
    # The last pieces of streams that go on: their states are kept, each once.
    carried = parts.validation.stream[parts.validation.origin == CARRIED]
    assert sorted(carried) == sorted(parts.training.stream[parts.training.last])


def test_a_window_of_lanes_is_its_lanes_one_by_one(tmp_path: Path) -> None:
    """Outputs and states are the same bits, and gradients of lanes add up."""
    logs.write(fits.log(), tmp_path / "in" / "a.parquet")
    fit, _, staged = opened(tmp_path)
    pieces = divided(staged, fit).training
    model = fit.bound.loaded.model
    optimizer = optimizers.SGD(1.0)
    learner = Learner(model, losses.MeanSquaredError("sum"), optimizer, [], None, 0)
    begin, length = pieces.begin[:4], np.minimum(pieces.length[:4], np.array([9, 4, 7, 9]))

    def gradient(chosen: list[int]) -> tuple[list[Any], Any, Any]:
        placement = Placement(
            np.array(chosen), begin[chosen], length[chosen], np.ones(len(chosen), bool)
        )
        states = learner.runner.initial_state(len(chosen))
        before = model.get_weights()
        learner.train(TrainingWindow(staged, placement), states)
        moved = [b - a for a, b in zip(model.get_weights(), before, strict=True)]
        model.set_weights(before)
        return moved, states["rnn/h"], learner.output

    together, states, outputs = gradient([0, 1, 2, 3])
    total = [np.zeros_like(weight, np.float64) for weight in together]
    for lane in range(4):
        alone, state, output = gradient([lane])
        np.testing.assert_array_equal(state[0], states[lane])
        np.testing.assert_array_equal(output[0], outputs[lane, : length[lane]])
        for sums, part in zip(total, alone, strict=True):
            sums += part
    for one, sums in zip(together, total, strict=True):
        np.testing.assert_allclose(one, sums, rtol=1e-3, atol=2e-4)


def test_a_row_is_found_again(tmp_path: Path) -> None:
    for number in range(3):
        logs.write(fits.log(40), tmp_path / "in" / f"{number}.parquet")
    source = {**fits.config(tmp_path)["source"], "batch_rows": 7, "late": "apply"}
    fit, reader, _ = opened(tmp_path, source=source)
    assert reader.place(fit.batches(), 85).endswith("2.parquet: row 5 (from 0)")
