"""Cut anywhere, same bits: outputs and state tables are equal with ==, not approximately."""

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nn.layers.kinds import MinimalRNNCell, MixesRows
from selection import first_quick

import streamrnn
from streamrnn import Input, Pipeline, Sequential, layers
from streamrnn.outputs import read_states

ROOT = Path(__file__).parents[3]
WEATHER = pq.read_table(ROOT / "data" / "weather.parquet").slice(0, 3000)
CUTS: list[dict[str, dict[str, Any]]] = [
    {"source": {"batch_rows": 7}, "window": {"lanes": 1, "steps": 1}},
    {"source": {"batch_rows": 1}},
    {"source": {"batch_rows": 1000}, "window": {"lanes": 3, "steps": 5}},
    {"source": {"batch_rows": 10**6}, "window": {"lanes": 64, "steps": 128}},
    {"window": {"lanes": 2, "steps": 5}, "model": {"threads": 1}},
    {"checkpoint": {"every": 1}, "source": {"batch_rows": 501}, "model": {"threads": 2}},
]


def _config(name: str, base: Path, path: str, **more: dict[str, Any]) -> dict[str, Any]:
    """The weather pipeline, or one over a log of many streams with everything that can happen."""
    if name == "weather":
        data = Pipeline.from_toml(
            ROOT / "pipelines" / "weather.toml",
            [f'source.path="{path}"', f'model.path="{ROOT}/pipelines/weather/model.safetensors"'],
        ).config.model_dump(exclude_unset=True)
        data["sink"] = {"path": str(base)}
    else:
        policy = {"nulls": "previous", "reset": "new", "max_gap": "2h", "late": "drop"}
        policy["repeated"] = "skip"
        data = logs.config(path, str(base.parent / "m.safetensors"), str(base), source=policy)
    for table, keys in more.items():
        data[table] = {**data.get(table, {}), **keys}
    return data


def _log(name: str) -> pa.Table:
    if name == "weather":
        return WEATHER
    return logs.random_log(3000, streams=150, nulls=0.1, resets=0.02, jitter=3)


def _run(config: dict[str, Any]) -> tuple[pa.Table, pa.Table]:
    Pipeline.from_dict(config).run()
    out = config["sink"]["path"]
    return pq.read_table(out).combine_chunks(), read_states(out).combine_chunks()


def _save_model(name: str, path: Path) -> None:
    """An LSTM, or cells that are layers in NumPy, whose products depend on the batch."""
    if name == "layers":
        for cell in (MinimalRNNCell, MixesRows):
            streamrnn.register_layer(cell.__name__, cell)
        stack = layers.RNN([MinimalRNNCell(64), MixesRows(70)], name="rnn")
        model = Sequential([Input((None, 2)), stack, layers.Dense(1, name="score")])
        rng = np.random.default_rng(11)
        model.set_weights([rng.normal(0, 0.1, w.shape) for w in model.get_weights()])
    else:
        model = logs.small_model("LSTM", units=19)
    model.save(path)


@pytest.fixture(scope="module", params=["weather", "streams", "layers"])
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, pa.Table, pa.Table]:
    """A run in one piece: name, folder, output, state."""
    base = tmp_path_factory.mktemp(request.param)
    _save_model(request.param, base / "m.safetensors")
    source = logs.write(_log(request.param), base / "whole.parquet", row_group=100_000)
    output, state = _run(_config(request.param, base / "whole", source))
    assert output.num_rows > 2500
    return request.param, base, output, state


@pytest.mark.parametrize("cut", first_quick(range(len(CUTS))))
def test_how_work_is_cut_changes_no_bit(
    whole: tuple[str, Path, pa.Table, pa.Table], cut: int
) -> None:
    """Slow: more ways to cut."""
    name, base, output, state = whole
    source = logs.write(_log(name), base / f"cut{cut}.parquet", row_group=(17, 999, 250)[cut % 3])
    got = _run(_config(name, base / f"cut{cut}", source, **CUTS[cut]))
    assert got[0] == output
    assert got[1] == state


@pytest.mark.parametrize("first", [1, 1234, 2999])
def test_two_runs_with_the_state_handed_over(
    whole: tuple[str, Path, pa.Table, pa.Table], first: int
) -> None:
    """The second run knows nothing of the first but its exported table."""
    name, base, output, state = whole
    table, at = _log(name), base / f"first{first}"
    head = logs.write(table.slice(0, first), at / "head.parquet")
    tail = logs.write(table.slice(first), at / "tail.parquet")
    saved = str(at / f"state.{'arrow' if first == 1 else 'parquet'}")
    if name != "weather":
        _save_model(name, at / "m.safetensors")
    one, _ = _run(_config(name, at / "one", head, state={"save": saved}))
    two, end = _run(_config(name, at / "two", tail, state={"init": saved}))
    assert pa.concat_tables([one, two]).combine_chunks() == output
    assert end == state


def test_interleaving_changes_no_bit(whole: tuple[str, Path, pa.Table, pa.Table]) -> None:
    """The same streams one after another, instead of side by side."""
    name, base, output, state = whole
    key = "origin" if name == "weather" else "id"
    table = _log(name)
    order = np.argsort(table.column(key).to_numpy(), kind="stable")
    source = logs.write(table.take(order), base / "sorted.parquet")
    got, end = _run(_config(name, base / "sorted", source))
    by_key = np.argsort(output.column(key).to_numpy(), kind="stable")
    assert got == output.take(by_key).combine_chunks()
    assert end.sort_by(key) == state.sort_by(key)


def test_process_in_pieces_is_run_in_one(whole: tuple[str, Path, pa.Table, pa.Table]) -> None:
    """An ETL job that feeds whatever pieces it has."""
    name, base, output, state = whole
    config = _config(name, base / "none", "unused")
    config["source"].pop("path")
    config.pop("sink")
    pipeline = Pipeline.from_dict(config)
    table, pieces, at = _log(name), [], 0
    for rows in (0, 1, 2, 700, 10, 10**6):
        pieces.append(pipeline.process(table.slice(at, rows).combine_chunks()))
        at += rows
    assert pa.concat_tables(pieces).combine_chunks() == output
    assert pa.table(pipeline.state).combine_chunks() == state
