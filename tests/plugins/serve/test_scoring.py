"""Requests in a session, and in its log, without a server."""

from pathlib import Path
from typing import Any

import logs
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.errors import SinkError
from streamrnn.plugins.serve.log import Log
from streamrnn.plugins.serve.scoring import Asked, Scoring

ROWS = [{"id": "x", "t": "2024-05-01", "a": 1.0, "b": 2}]


def answered(pipeline: Pipeline) -> list[Any]:
    """The answers to the request 7 of a producer."""
    with pipeline.session() as session:
        return Scoring(session, pipeline.config).answers([Asked(ROWS, "p", 7)])


def test_a_request_that_no_segment_has_is_new_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment begins with what producers were told before, and not with what they are next."""
    logs.small_model().save(tmp_path / "m.safetensors")
    logs.write(logs.random_log(20), tmp_path / "in/0.parquet")
    config = logs.config(str(tmp_path / "in"), str(tmp_path / "m.safetensors"), f"{tmp_path}/out")
    pipeline = Pipeline.from_dict(config)
    append = Log.append

    def torn(self: Log, rows: Any, note: str, first: Any) -> None:
        append(self, rows.slice(0, 0), "{}", first)
        self.sync()
        raise SinkError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Log, "append", torn)
        with pytest.raises(SinkError, match="full"):
            answered(pipeline)
    ((row,),) = answered(pipeline)
    assert row["id"] == "x"
    assert len(pq.read_table(tmp_path / "out")) == 1
