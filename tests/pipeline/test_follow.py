"""--follow: files are taken when they are complete, and the run ends with a commit."""

import os
import threading
import time
from pathlib import Path

import logs
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.errors import ConfigError
from streamrnn.pipeline import Summary, read_states


def _wait(path: Path, rows: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        done = sum(pq.read_metadata(p).num_rows for p in path.glob("*.parquet"))
        if done == rows:
            return
        time.sleep(0.05)
    raise AssertionError(f"{done} rows after 20 s, expected {rows}")


def test_files_come_in_one_by_one_and_torn_ones_wait(tmp_path: Path) -> None:
    """Half a file in place is left alone until its footer is there; a rename is taken at once."""
    table = logs.random_log(300, streams=9)
    logs.small_model().save(tmp_path / "m.safetensors")
    (tmp_path / "in").mkdir()
    model = str(tmp_path / "m.safetensors")
    config = logs.config(str(tmp_path / "in"), model, str(tmp_path / "out"))
    stop, found, lines = threading.Event(), [], []

    def follow() -> None:
        found.append(
            Pipeline.from_dict(config).run(
                follow=True,
                poll=0.05,
                stop=stop,
                progress=lambda p: lines.append(p.message) if p.message else None,
            )
        )

    thread = threading.Thread(target=follow)
    thread.start()
    logs.write(table.slice(0, 100), tmp_path / "new.parquet")
    os.rename(tmp_path / "new.parquet", tmp_path / "in" / "1.parquet")
    _wait(tmp_path / "out", 100)
    whole = Path(logs.write(table.slice(100, 100), tmp_path / "2.parquet")).read_bytes()
    (tmp_path / "in" / "2.parquet").write_bytes(whole[:-20])
    logs.write(table.slice(200), tmp_path / "in" / "3.parquet")
    time.sleep(0.4)
    assert sum(pq.read_metadata(p).num_rows for p in (tmp_path / "out").glob("*.parquet")) == 200
    stop.set()
    thread.join(20)
    summary: Summary = found[0]
    assert not summary.interrupted
    assert (summary.rows, summary.files) == (200, 2)
    assert "100 new rows" in lines[0]
    assert "behind the newest file" in lines[0]


def test_following_gives_the_same_bits_as_one_run(tmp_path: Path) -> None:
    table = logs.random_log(300, streams=9)
    logs.small_model().save(tmp_path / "m.safetensors")
    model = str(tmp_path / "m.safetensors")
    for output in ({"emit": "every"}, {"emit": "final"}):
        name = output["emit"]
        one = logs.config(str(tmp_path / f"{name}-in"), model, str(tmp_path / name), output=output)
        stop = threading.Event()
        (tmp_path / f"{name}-in").mkdir()
        thread = threading.Thread(
            target=lambda config=one, stop=stop: Pipeline.from_dict(config).run(  # type: ignore[misc]
                follow=True, poll=0.05, stop=stop
            )
        )
        thread.start()
        for i in range(3):
            source = tmp_path / f"{name}-in" / f"{i}.parquet"
            logs.write(table.slice(100 * i, 100), tmp_path / f"{i}.parquet")
            os.rename(tmp_path / f"{i}.parquet", source)
            time.sleep(0.3)
        stop.set()
        thread.join(20)
        logs.write(table, tmp_path / f"{name}-whole.parquet")
        two = logs.config(
            str(tmp_path / f"{name}-whole.parquet"),
            model,
            str(tmp_path / f"{name}2"),
            output=output,
        )
        Pipeline.from_dict(two).run()
        got = pq.read_table(tmp_path / name).combine_chunks()
        assert got.num_rows == (300 if name == "every" else 9)
        assert got == pq.read_table(tmp_path / f"{name}2").combine_chunks()
        assert read_states(str(tmp_path / name)) == read_states(str(tmp_path / f"{name}2"))


def test_what_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    logs.small_model().save(tmp_path / "m.safetensors")
    (tmp_path / "in").mkdir()
    model = str(tmp_path / "m.safetensors")
    whole = logs.config(
        str(tmp_path / "in"), model, str(tmp_path / "out"), window={"kind": "whole"}
    )
    with pytest.raises(ConfigError, match="whole"):
        Pipeline.from_dict(whole).run(follow=True)
    pipe = logs.config("-", model, str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="stdin"):
        Pipeline.from_dict(pipe).run(follow=True)
