"""Rows of a time that their stream already had: exports that overlap, clients that send again.

The output without them is that of the log in which they are not, bit for bit.
"""

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs.engines.in_process import TasksHere
from jobs.engines.same import rejects, rows, state
from selection import first_quick

from streamrnn import Pipeline
from streamrnn.cli.run import in_words
from streamrnn.errors import CheckpointError, ConfigError, DataError
from streamrnn.jobs.engines import opening

pytestmark = pytest.mark.usefixtures("model_dir")

LOG = logs.random_log(600, streams=9, nulls=0.1, resets=0.05)


def _config(path: str = "in", out: str = "out", **tables: Any) -> dict[str, Any]:
    source = {"nulls": "previous", "reset": "new", "max_rejects": 600, **tables.pop("source", {})}
    return logs.config(path, "m.safetensors", out, source=source, **tables)


def _unique(log: pa.Table = LOG) -> pa.Table:
    """The first row of each stream and time: what no policy leaves out."""
    pairs = list(zip(log["id"].to_pylist(), log["t"].to_pylist(), strict=True))
    return log.take([i for i, pair in enumerate(pairs) if pair not in pairs[:i]])


def _overlapping() -> pa.Table:
    """Exports of 100 rows; each repeats the last row of every stream so far, reset or not."""
    log, pieces = _unique(), []
    for begin in range(0, len(log), 100):
        last = {name: i for i, name in enumerate(log["id"].slice(0, begin).to_pylist())}
        pieces.append(
            pa.concat_tables([log.take(pa.array(last.values(), pa.int64())), log.slice(begin, 100)])
        )
        logs.write(pieces[-1], Path(f"in/{begin // 100}.parquet"), row_group=40)
    return pa.concat_tables(pieces)


@pytest.mark.parametrize("policy", ["score", "skip", "reject"])
def test_exports_that_overlap_by_a_row(policy: str) -> None:
    """A row is in two files: it is scored once, or counted and named, across runs too."""
    two = {"id": ["s", "s"], "a": [1.0, 2.0], "b": [0.5, 1.0], "t": [1, 2]}
    logs.write(pa.table(two), Path("in/1.parquet"))
    logs.write(pa.table({**two, "t": [2, 3]}), Path("in/2.parquet"))
    config = logs.config("in", "m.safetensors", "out", source={"repeated": policy})
    summary = Pipeline.from_dict(config).run()
    score = policy == "score"
    assert (summary.rows, summary.rows_out, summary.repeated) == (4, 3 + score, 1)
    assert summary.rejected == (policy == "reject")
    assert "note     1 row with a time that the stream already had" in in_words(summary)
    place = "in/2.parquet: row 0 (from 0): stream id='s': t 2 repeats the last time of this stream"
    assert summary.first_repeated == f"{place}, set by in/1.parquet: row 1 (from 0)"
    assert f"note     the first repeated row is {summary.first_repeated}" in in_words(summary)
    logs.write(pa.table({**two, "t": [3, 4]}), Path("in/3.parquet"))
    summary = Pipeline.from_dict(config).run()
    assert (summary.rows_out, summary.repeated) == (1 + score, 1)
    assert "in/3.parquet: row 0" in str(summary.first_repeated)
    assert str(summary.first_repeated).endswith("set by an earlier batch or run")
    assert pq.read_table("out")["t"].to_pylist() == ([1, 2, 2, 3, 3, 4] if score else [1, 2, 3, 4])
    if policy == "reject":
        found = pq.read_table("out.rejects")
        assert found["reason"].to_pylist() == 2 * ["repeated: the stream had a row of this time"]
        assert found["row"].to_pylist() == [0, 0]


def test_an_error_names_both_rows_and_the_ways_out() -> None:
    _overlapping()
    with pytest.raises(DataError) as caught:
        Pipeline.from_dict(_config(source={"repeated": "error", "batch_rows": 64})).run()
    message = str(caught.value)
    assert message.startswith("in/1.parquet: row 0 (from 0): stream id='")
    assert "repeats the last time of this stream, set by" in message
    assert "Repeated rows in this record batch: " in message
    assert '"score", "skip" or "reject"' in message


@pytest.mark.parametrize(
    ("policy", "shards"), first_quick([("reject", 3), ("skip", 0), ("skip", 3), ("reject", 0)], 2)
)
def test_without_repeated_rows_the_output_is_that_of_the_log_without_them(
    policy: str, shards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and states, in shards too, over several runs; both sides name the same first row.

    Slow: each policy with and without shards.
    """
    monkeypatch.setattr(opening, "load_plugin", lambda *_: lambda *_: TasksHere(5))
    log = _overlapping()
    logs.write(_unique(), Path("one/file.parquet"))
    Pipeline.from_dict(_config("one", "right")).run()
    engine = {"type": "ray", "shards": shards, "epoch_rows": 90} if shards else {}
    source = {"repeated": policy, "batch_rows": 37}
    counted, first = 0, []
    for path in ("in/[0-1].parquet", "in/[0-3].parquet", "in"):
        summary = Pipeline.from_dict(_config(path, source=source, engine=engine)).run()
        counted += summary.repeated
        first.append(str(summary.first_repeated).partition(": row")[0])
    assert counted == len(log) - len(_unique()) > 30
    assert first == ["in/1.parquet", "in/2.parquet", "in/4.parquet"]
    assert rows("out") == rows("right")
    assert state("out") == state("right")
    if policy == "reject":
        assert len(rejects("out")) == counted


def test_process_skips_what_is_sent_again() -> None:
    """A client that sends its last rows again, in a call of its own."""
    log = _unique()
    config = _config()
    right = Pipeline.from_dict(config)
    expected = right.process(log)
    pipeline = Pipeline.from_dict(_config(source={"repeated": "skip"}))
    got = [pipeline.process(log.slice(0, 300)), pipeline.process(log.slice(299, 1))]
    got.append(pipeline.process(pa.concat_tables([log.slice(299, 301), log.slice(599)])))
    assert pa.concat_tables(got).combine_chunks() == expected.combine_chunks()
    assert pipeline.counts.repeated == len(log.slice(299, 1)) + 1 + len(log.slice(599))
    assert pa.table(pipeline.state) == pa.table(right.state)


@pytest.mark.parametrize("late", ["apply", "drop"])
def test_an_earlier_row_is_late_and_not_repeated(late: str) -> None:
    """A row of a time that its stream had, but that is not the latest one: `late` alone judges."""
    table = {"id": ["s"] * 4, "t": [1, 2, 1, 2], "a": np.zeros(4), "b": np.zeros(4)}
    logs.write(pa.table(table), Path("in/1.parquet"))
    config = logs.config("in", "m.safetensors", "out", source={"late": late, "repeated": "skip"})
    summary = Pipeline.from_dict(config).run()
    assert (summary.repeated, summary.dropped_late) == (1, int(late == "drop"))
    assert pq.read_table("out")["t"].to_pylist() == ([1, 2, 1] if late == "apply" else [1, 2])


def test_the_policy_is_fixed_and_needs_a_time() -> None:
    """An output that is older than the key has its default."""
    logs.write(_unique(), Path("in/0.parquet"))
    Pipeline.from_dict(_config()).run()
    with pytest.raises(CheckpointError, match=r"source\.repeated: was \"score\""):
        Pipeline.from_dict(_config(source={"repeated": "skip"})).run()
    config = _config(source={"repeated": "skip"})
    del config["source"]["time"]
    with pytest.raises(ConfigError, match="without it no row is repeated"):
        Pipeline.from_dict(config)
