"""[source] sort = "file": the rows of each file in the order of their time, however written.

The output is that of files that were sorted before, bit for bit.
"""

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jobs.engines.in_process import TasksHere
from jobs.engines.same import rejects, rows, state
from selection import first_quick, slow

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, ConfigError, DataError, LateRowError
from streamrnn.jobs.engines import opening

pytestmark = pytest.mark.usefixtures("model_dir")

LOG = logs.random_log(400, streams=7, nulls=0.1, resets=0.05)
FILES = 3


def _config(path: str = "in", out: str = "out", **tables: Any) -> dict[str, Any]:
    usual = {"nulls": "previous", "reset": "new", "max_rejects": 400}
    source = {**usual, **tables.pop("source", {})}
    return logs.config(path, "m.safetensors", out, source=source, **tables)


def _sorted(table: pa.Table) -> pa.Table:
    """By time; rows of one time, of which streams have some, keep their order."""
    ticks = [(t is None, t) for t in table["t"].cast(pa.int64()).to_pylist()]
    return table.take(sorted(range(len(table)), key=ticks.__getitem__))


def _disordered(seed: int = 3) -> list[pa.Table]:
    """Files of three sorted chunks in any order, as deltalake writes a table that has them."""
    found, rng = [], np.random.default_rng(seed)
    for part in range(FILES):
        file = LOG.slice(part * 134, 134)
        chunk = rng.integers(0, 3, len(file))
        found.append(file.take(np.argsort(chunk, kind="stable")))
    return found


def _write(files: list[pa.Table], folder: str, kind: str = "parquet") -> None:
    Path(folder).mkdir(exist_ok=True)
    for number, file in enumerate(files):
        path = f"{folder}/{number}.{kind}"
        if kind == "parquet":
            pq.write_table(file, path, row_group_size=50)
        elif kind == "arrow":
            with pa.ipc.new_file(path, file.schema) as writer:
                writer.write_table(file, max_chunksize=37)
        elif kind == "csv":
            pacsv.write_csv(file, path)
        else:
            lines = file.to_pandas().to_json(orient="records", lines=True, date_format="iso")
            Path(path).write_text(lines)


@pytest.mark.parametrize("kind", first_quick(["parquet", "arrow", "csv"]))
def test_rows_of_any_order_are_read_as_sorted_ones(kind: str) -> None:
    """Several runs, of which each adds a file; commits within files. Slow: other formats."""
    files = _disordered()
    _write(files, "in", kind)
    _write([_sorted(file) for file in files], "sorted", kind)
    Pipeline.from_dict(_config(f"sorted/*.{kind}", "right")).run()
    source = {"sort": "file", "batch_rows": 29}
    for end in range(FILES):
        path = f"in/[0-{end}].{kind}"
        config = _config(path, source=source, checkpoint={"every": 1})
        assert Pipeline.from_dict(config).run().files_read == 1
    assert pq.read_table("out") == pq.read_table("right")
    assert state("out") == state("right")


@slow
@settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # smaller cases would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 99),
    shards=st.integers(0, 4),
    batch_rows=st.sampled_from([3, 31, 1000]),
    stops=st.lists(st.integers(1, 100), max_size=3),
)
def test_a_run_is_stopped_anywhere_and_goes_on_with_the_next_row(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    shards: int,
    batch_rows: int,
    stops: list[int],
) -> None:
    """In the middle of a file, in shards too: the same rows, rejects and states.

    Slow: runs that are stopped.
    """
    monkeypatch.chdir(tmp_path_factory.mktemp("cut"))
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(seed))
    logs.small_model().save("m.safetensors")
    files = _disordered(seed)
    _write(files, "in")
    _write([_sorted(file) for file in files], "sorted")
    policy = {"repeated": "reject", "max_rejects": 400}
    Pipeline.from_dict(_config("sorted", "right", source=policy)).run()
    tables: dict[str, Any] = {"checkpoint": {"every": 1}}
    if shards:
        tables["engine"] = {"type": "ray", "shards": shards, "epoch_rows": 100}
    config = _config(source={**policy, "sort": "file", "batch_rows": batch_rows}, **tables)
    for limit in stops:
        _stopped_after(config, limit)
    Pipeline.from_dict(config).run()
    assert rows("out") == rows("right")
    assert state("out") == state("right")
    found, expected = rejects("out"), rejects("right")
    assert (found is None) == (expected is None)
    assert found is None or found == expected


class _Stop:
    """An event that is set once so many batches have asked for it."""

    def __init__(self, left: int) -> None:
        self.left = left

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def _stopped_after(config: dict[str, Any], limit: int) -> None:
    Pipeline.from_dict(config).run(stop=_Stop(limit))  # type: ignore[arg-type]


def test_a_late_row_says_that_sorting_its_file_cures_it() -> None:
    """20 swapped rows make those that follow late; a file by name alone would not tell."""
    log = _sorted(LOG)
    swapped = pa.concat_tables([log.slice(100, 1), log.slice(0, 100), log.slice(101)])
    for batch_rows in (1000, 29):
        _write([swapped], "in")
        with pytest.raises(LateRowError) as caught:
            Pipeline.from_dict(_config(source={"batch_rows": batch_rows})).run()
        message = str(caught.value)
        assert "set by in/0.parquet: row 0 (from 0)" in message or batch_rows == 29
        assert '[source] sort = "file"' in message
    assert "One row with a time too far ahead makes the next rows of its stream late" in message
    Pipeline.from_dict(_config(source={"sort": "file"})).run()


@pytest.mark.parametrize("first", ["path", "init"])
def test_sorting_is_not_proposed_where_it_does_not_help(first: str) -> None:
    """The last time comes from another file, or from a state table."""
    log = _sorted(LOG)
    if first == "path":
        _write([log.slice(200), log.slice(0, 200)], "in")
        config = _config()
    else:
        _write([log.slice(200)], "before")
        Pipeline.from_dict(_config("before", "old", state={"save": "s.arrow"})).run()
        _write([log.slice(0, 200)], "in")
        config = _config(state={"init": "s.arrow"})
    with pytest.raises(LateRowError) as caught:
        Pipeline.from_dict(config).run()
    assert "sort =" not in str(caught.value)


def test_rows_are_counted_in_the_order_of_time() -> None:
    """Which a message says, as a file has them in another one; a null time comes last."""
    table = {"id": ["s"] * 3, "t": [3, None, 1], "a": [0.0] * 3, "b": [0.5] * 3}
    _write([pa.table(table)], "in")
    config = logs.config("in", "m.safetensors", "out", source={"sort": "file"})
    with pytest.raises(DataError, match=r"row 2 \(from 0, in the order of time\).*time is null"):
        Pipeline.from_dict(config).run()


def test_sorting_is_fixed_and_needs_files_with_a_time() -> None:
    _write([_sorted(LOG)], "in")
    Pipeline.from_dict(_config()).run()
    with pytest.raises(CheckpointError, match=r'source\.sort: was "none", is now "file"'):
        Pipeline.from_dict(_config(source={"sort": "file"})).run()
    config = _config("-", source={"sort": "file"})
    with pytest.raises(ConfigError, match=r"sort.*write them to files"):
        Pipeline.from_dict(config)
    config = _config(source={"sort": "file"})
    del config["source"]["time"]
    with pytest.raises(ConfigError, match=r"sort.*needs source\.time"):
        Pipeline.from_dict(config)
