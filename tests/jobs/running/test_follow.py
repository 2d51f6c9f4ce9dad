"""--follow: files are taken when they are complete, and the run ends with a commit.

A run that follows waits for its event `stop` between two looks at the source. Here that event does
something each time instead of waiting, so that nothing depends on how long anything takes.
"""

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamrnn import Pipeline
from streamrnn.errors import ConfigError
from streamrnn.outputs import read_states
from streamrnn.pipeline import Summary

POLL = 1000.0
"""Seconds: a file that was just written is taken if a second look finds it unchanged."""


class Looks(threading.Event):
    """Does the next of `steps` after each look at the source, and stops the run after the last."""

    def __init__(self, steps: Iterable[Callable[[], object]]) -> None:
        super().__init__()
        self._steps = iter(steps)

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout == POLL
        step = next(self._steps, None)
        if step is None:
            self.set()
        else:
            step()
        return self.is_set()


def _follow(config: dict[str, Any], steps: Iterable[Callable[[], object]]) -> Summary:
    return Pipeline.from_dict(config).run(follow=True, poll=POLL, stop=Looks(steps))


def _rows(folder: Path) -> int:
    return sum(pq.read_metadata(part).num_rows for part in folder.glob("*.parquet"))


def _age(path: Path) -> None:
    """As if it had been written before the last look, if not longer ago."""
    old = path.stat().st_mtime - 2 * POLL
    os.utime(path, (old, old))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a model and an empty source."""
    logs.small_model().save(tmp_path / "m.safetensors")
    (tmp_path / "in").mkdir()
    return tmp_path


def _config(base: Path, path: str = "in", out: str = "out", **tables: Any) -> dict[str, Any]:
    return logs.config(str(base / path), str(base / "m.safetensors"), str(base / out), **tables)


def test_files_come_in_one_by_one_and_torn_ones_wait(base: Path) -> None:
    """Half a file in place is left alone until its footer is there; an old one is taken at once."""
    table, out, lines = logs.random_log(300, streams=9), base / "out", []
    seen: list[int] = []

    def put(number: int, rows: pa.Table) -> Path:
        return Path(logs.write(rows, base / "in" / f"{number}.parquet"))

    def first() -> None:
        """Renamed in, and written before."""
        _age(put(1, table.slice(0, 100)))

    def torn() -> None:
        seen.append(_rows(out))
        path = put(2, table.slice(100, 100))
        path.write_bytes(path.read_bytes()[:-20])
        put(3, table.slice(200))

    def look() -> None:
        seen.append(_rows(out))

    looks = Looks([first, torn, look, look, look, look])
    summary = Pipeline.from_dict(_config(base)).run(
        follow=True,
        poll=POLL,
        stop=looks,
        progress=lambda p: lines.append(p.message) if p.message else None,
    )
    # The third look sees two new files for the first time, the fourth that they did not change.
    assert seen == [100, 100, 200, 200, 200]
    assert not summary.interrupted
    assert (summary.rows, summary.files) == (200, 2)
    assert "100 new rows" in lines[0]
    assert "behind the newest file" in lines[0]


def test_a_file_that_grows_is_taken_when_it_has_ended(base: Path) -> None:
    """It has a footer each time, and is another file: as one that is written over."""
    table, seen = logs.random_log(300, streams=9), []
    path = base / "in" / "1.parquet"

    def grow(rows: int) -> Callable[[], None]:
        def step() -> None:
            seen.append(_rows(base / "out"))
            logs.write(table.slice(0, rows), path)

        return step

    def look() -> None:
        seen.append(_rows(base / "out"))

    summary = _follow(_config(base), [*map(grow, (100, 200, 300)), look, look])
    assert seen == [0, 0, 0, 0, 300]
    assert summary.rows == 300


@pytest.mark.parametrize("emit", ["every", "final"])
def test_following_gives_the_same_bits_as_one_run(base: Path, emit: str) -> None:
    table, output = logs.random_log(300, streams=9), {"emit": emit}

    def put(i: int) -> None:
        _age(Path(logs.write(table.slice(100 * i, 100), base / "in" / f"{i}.parquet")))

    _follow(_config(base, output=output), [lambda i=i: put(i) for i in range(3)])  # type: ignore[misc]
    logs.write(table, base / "whole.parquet")
    Pipeline.from_dict(_config(base, "whole.parquet", "one", output=output)).run()
    got = pq.read_table(base / "out").combine_chunks()
    assert got.num_rows == (300 if emit == "every" else 9)
    assert got == pq.read_table(base / "one").combine_chunks()
    assert read_states(str(base / "out")) == read_states(str(base / "one"))


def test_what_cannot_be_followed_is_refused(base: Path) -> None:
    with pytest.raises(ConfigError, match="whole"):
        Pipeline.from_dict(_config(base, window={"kind": "whole"})).run(follow=True)
    pipe = {**_config(base)["source"], "path": "-"}
    with pytest.raises(ConfigError, match="stdin"):
        Pipeline.from_dict(_config(base, source=pipe)).run(follow=True)
