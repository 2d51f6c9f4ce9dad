"""Rows whose quantiles cross are counted and said; [output] sort puts their quantiles in order."""

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run_command

from streamrnn import Pipeline, Sequential, layers
from streamrnn.errors import ConfigError

LEVELS = [0.1, 0.5, 0.9]
NAMES = ["low", "middle", "high"]
PIPELINE = """
[source]
path = "in"
key = "id"
time = "t"
features = ["a", "b"]
[model]
path = "m.safetensors"
[output]
names = ["low", "middle", "high"]
[sink]
path = "out"
[target]
column = "a"
rows = 1
[train]
loss = { quantile = [0.1, 0.5, 0.9] }
"""


@pytest.fixture(autouse=True)
def base(workdir: Path) -> Path:
    """A model whose three outputs cross in some rows."""
    rnn = layers.GRU(4, return_sequences=True, name="rnn")
    model = Sequential([layers.Input((None, 2)), rnn, layers.Dense(3, name="score")])
    rng = np.random.default_rng(11)
    model.set_weights([rng.normal(0, 1, w.shape).astype(np.float32) for w in model.get_weights()])
    weights = model.get_weights()
    weights[-1] = np.array([-0.4, 0, 0.4], np.float32)
    model.set_weights(weights)
    model.save("m.safetensors")
    logs.write(logs.random_log(500, streams=5, resets=0.02), Path("in/0.parquet"))
    return workdir


def config(out: str = "out", **tables: dict[str, Any]) -> dict[str, Any]:
    output = {"names": NAMES, **tables.pop("output", {})}
    train = {"loss": {"quantile": LEVELS}}
    data = logs.config("in", "m.safetensors", out, output=output, **tables)
    return {**data, "train": train, "target": {"column": "a", "rows": 1}}


def values(out: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    table = pq.read_table(out)
    return np.stack([table[name].to_numpy() for name in NAMES], axis=1)


def crossed(rows: np.ndarray[Any, np.dtype[np.float32]]) -> int:
    return sum(not row[0] <= row[1] <= row[2] for row in rows.tolist() if None not in row)


@pytest.mark.parametrize(
    "tables",
    [
        {},
        {"output": {"warmup": 3}},
        {"output": {"emit": "last", "last_of": 4}},
        {"window": {"kind": "independent", "steps": 6}},
        {"window": {"kind": "whole"}},
    ],
    ids=["every", "warmup", "last", "independent", "whole"],
)
def test_crossing_rows_are_counted_and_sorted(tables: dict[str, Any]) -> None:
    """Sorted rows are the sorted values of the others, bit for bit; both runs count the same."""
    plain = Pipeline.from_dict(config("plain", **tables)).run()
    rows = values("plain")
    assert plain.crossed == crossed(rows[~np.isnan(rows).any(axis=1)]) > 5
    tables = {**tables, "output": {**tables.get("output", {}), "sort": True}}
    ordered = Pipeline.from_dict(config("sorted", **tables)).run()
    assert ordered.crossed == plain.crossed
    assert values("sorted").tobytes() == np.sort(rows, axis=1).tobytes()


def test_final_rows_are_sorted() -> None:
    Pipeline.from_dict(config("plain", output={"emit": "final"})).run()
    Pipeline.from_dict(config("sorted", output={"emit": "final", "sort": True})).run()
    assert values("sorted").tobytes() == np.sort(values("plain"), axis=1).tobytes()


@pytest.mark.parametrize("size", [1, 7, 100])
def test_sorted_rows_do_not_depend_on_cuts_or_on_who_calls(size: int) -> None:
    """A run in small batches, and `process` with answers, give the rows and counts of one run."""
    whole = Pipeline.from_dict(config(output={"sort": True})).run()
    data = config("cut", output={"sort": True}, source={"batch_rows": size})
    assert Pipeline.from_dict(data).run().crossed == whole.crossed
    assert values("cut").tobytes() == values("out").tobytes()
    pipeline = Pipeline.from_dict(config("none", output={"sort": True}))
    log = pq.read_table("in/0.parquet")
    parts = [log.slice(first, size) for first in range(0, len(log), size)]
    answers = pa.concat_tables(
        pa.Table.from_batches([pipeline.process(part, align=True)])
        if isinstance(part, pa.RecordBatch)
        else pa.table(pipeline.process(part, align=True))
        for part in parts
    )
    scored = np.stack([answers[name].to_numpy() for name in NAMES], axis=1)
    assert scored.tobytes() == values("out").tobytes()
    assert pipeline.counts.crossed == whole.crossed


def test_run_evaluate_and_report_say_that_quantiles_cross(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The advice works for later rows of the same output."""
    Path("p.toml").write_text(PIPELINE)
    number = Pipeline.from_toml("p.toml").run().crossed
    code, out, _ = run_command(capsys, "run", "p.toml", "--full-refresh")
    assert (code, f"{number} rows with quantiles that cross, see [output] sort" in out) == (0, True)
    found = Pipeline.from_toml("p.toml").evaluate()
    assert 0 < found.crossed <= crossed(values("out")) == number
    (note,) = found.notes
    assert f"quantiles cross in {found.crossed} rows compared; [output] sort = true" in note
    errors = Pipeline.from_toml("p.toml").report().as_dict()
    assert f"Quantiles cross in {found.crossed} rows." in str(errors)
    logs.write(logs.random_log(300, seed=8, streams=9).slice(100), Path("in/1.parquet"))
    code, _, err = run_command(
        capsys, "run", "p.toml", "--set", "output.sort=true", "--set", "source.late=apply"
    )
    assert (code, err) == (0, "")
    later = values("out")[500:]
    assert (len(later), crossed(later)) == (200, 0)


def test_sort_needs_quantiles() -> None:
    data = config(output={"sort": True}) | {"train": {}}
    with pytest.raises(
        ConfigError, match=r"\[output\] sort: the model returns 3 values per row, and 0"
    ):
        Pipeline.from_dict(data).run()
