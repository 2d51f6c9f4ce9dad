"""[source] nan = "null": a NaN in a feature is a null."""

from pathlib import Path
from typing import Any

import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.errors import CheckpointError, ConfigError, DataError
from streamrnn.outputs import read_states
from streamrnn.stream.config import Config
from streamrnn.stream.scoring.summary import Summary

pytestmark = pytest.mark.usefixtures("model_dir")

LOG = logs.random_log(400, nulls=0.3)
NAN = pa.scalar(float("nan"))


def _run(path: str, out: str = "out", **source: Any) -> Summary:
    return Pipeline.from_dict(logs.config(path, "m.safetensors", out, source=source)).run()


def _log(kind: pa.DataType, share: float) -> tuple[pa.Table, int]:
    """The log with some nulls of both features as NaN instead; how many."""
    table, count = LOG, 0
    for name in ("a", "b"):
        column = LOG[name].cast(kind).combine_chunks()
        nan = pa.array(np.random.default_rng(3).random(len(LOG)) < share)
        nan = pa.compute.and_(nan, column.is_null())
        count += pa.compute.sum(nan).as_py()
        column = pa.compute.if_else(nan, NAN.cast(kind), column)
        table = table.set_column(table.schema.names.index(name), name, column)
    return table, count


@pytest.mark.parametrize("nulls", ["previous", "skip", 0.5])
@pytest.mark.parametrize("kind", [pa.float64(), pa.float32(), pa.float16()], ids=str)
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_nan_is_as_a_null(nulls: Any, kind: pa.DataType, share: float) -> None:
    """Bit for bit, whether all nulls are NaN or some; clipped and out of range as before."""
    features = [{"name": "a", "valid": [-2, 2], "clip": [-1, 1]}, "b"]
    table, count = _log(kind, share)
    Path("nan").mkdir()
    for path, log in (("nan", table), ("null", _log(kind, 0)[0])):
        Path(path).mkdir(exist_ok=True)
        with pa.ipc.new_file(f"{path}/0.arrow", log.schema) as writer:
            writer.write_table(log, max_chunksize=70)
    source = {"nulls": nulls, "features": features, "format": "arrow"}
    found, right = _run("nan", "out", nan="null", **source), _run("null", "right", **source)
    assert (found.nan, right.nan) == (count, 0)
    for name in ("rows_out", "filled", "skipped", "clipped", "out_of_range"):
        assert getattr(found, name) == getattr(right, name), name
    rows = [pq.read_table(next(Path(out).glob("*.parquet"))) for out in ("out", "right")]
    assert rows[0].equals(rows[1])
    assert read_states("out").equals(read_states("right"))


def test_a_feature_has_its_own() -> None:
    table, _ = _log(pa.float64(), 1.0)
    logs.write(table, Path("in/0.parquet"))
    features = [{"name": "a", "nan": "null"}, "b"]
    message = r"column 'b': expected a finite number, received NaN\."
    with pytest.raises(DataError, match=message) as caught:
        _run("in", features=features, nulls="skip")
    assert 'Fix the data, set nan = "null" for the column, or set [source] bad' in str(caught.value)
    features = ["a", {"name": "b", "nan": "error"}]
    with pytest.raises(DataError, match=message):
        _run("in", features=features, nulls="skip", nan="null")
    features = [{"name": "a", "nan": "null"}, {"name": "b", "nan": "null"}]
    assert _run("in", features=features, nulls="skip").nan > 100


def test_advice_is_what_can_help() -> None:
    """`nulls` for a null alone; infinity is no null."""
    logs.write(_log(pa.float64(), 1.0)[0], Path("in/0.parquet"))
    with pytest.raises(DataError, match="value is null or NaN, and nulls") as caught:
        _run("in", nan="null")
    assert "Fix the data, set `nulls` for the column, or set [source] bad" in str(caught.value)
    infinite = pa.array([float("inf")] * len(LOG))
    logs.write(LOG.set_column(2, "a", infinite), Path("in/0.parquet"))
    with pytest.raises(DataError, match="received infinity") as caught:
        _run("in", nan="null", nulls="skip")
    assert "Fix the data or set [source] bad" in str(caught.value)


def test_it_is_fixed_for_an_output() -> None:
    """An output that is older than the key has an error for it."""
    logs.write(LOG, Path("in/0.parquet"))
    _run("in", nulls="skip")
    assert _run("in", nulls="skip", nan="error").nothing_new
    with pytest.raises(CheckpointError, match=r'source\.nan: was "error", is now "null"'):
        _run("in", nulls="skip", nan="null")
    canonical = Config.parse(logs.config("in", "m", "out", source={"nan": "null"})).canonical()
    assert canonical["source.features.a.nan"] == "null"


def test_what_it_may_be() -> None:
    with pytest.raises(
        ConfigError, match='nan: expected "error" or "null", received the string "nul"'
    ):
        _run("in", nan="nul")
    with pytest.raises(
        ConfigError, match=r'features\[0\]\.nan: expected "error" or "null", received'
    ):
        _run("in", features=[{"name": "a", "nan": "skip"}, "b"])
