"""The log of accepted rows: whatever a crash leaves of it, whole record batches are read."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import logs
import orjson
import pyarrow as pa
import pytest
from starlette.exceptions import HTTPException

from streamrnn.base.storage import LocalFiles
from streamrnn.errors import SinkError
from streamrnn.plugins.serve import log as log_module
from streamrnn.plugins.serve.log import Log, Producers

ROWS = logs.random_log(40, nulls=0.3).combine_chunks().to_batches()[0]


def written(folder: Path, *sizes: int) -> tuple[str, bytes]:
    """A segment with record batches of these sizes, as it was before it was closed."""
    log = Log(str(folder))
    first = 0
    for number, size in enumerate(sizes):
        log.append(ROWS.slice(first, size), {f"p{number}": (number, ROWS.slice(0, 1))})
        first += size
    log.sync()
    (path,) = folder.glob("*.open")
    content = path.read_bytes()
    log.close()
    return path.name, content


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 13])
def test_a_segment_torn_at_any_byte_has_its_whole_batches(tmp_path: Path, step: int) -> None:
    """A byte that changed ends the segment, too.

    Slow: torn at every byte, not only near the ends of batches and at each thirteenth.
    """
    sizes = (5, 1, 7)
    name, whole = written(tmp_path / "log", *sizes)
    ends = [len(written(tmp_path / f"{n}", *sizes[:n])[1]) for n in (1, 2, 3)]
    for length in range(len(whole)):
        if length % step and all(abs(length - end) > 9 for end in ends):
            continue
        folder = tmp_path / "torn" / str(length)
        folder.mkdir(parents=True)
        (folder / name).write_bytes(whole[:length])
        torn = Log(str(folder))
        segments = torn.segments
        kept = sum(length >= end for end in ends)
        found = [batch for path in segments for batch in torn.read(path) if len(batch)]
        assert [len(batch) for batch in found] == list(sizes[:kept]), length
        if segments:
            with pa.OSFile(segments[0]) as file:
                table = pa.ipc.open_stream(file).read_all()
            assert table == pa.Table.from_batches([ROWS]).slice(0, sum(sizes[:kept]))
    for place in range(ends[1] + 8, len(whole), 11 * step):
        folder = tmp_path / "changed" / str(place)
        folder.mkdir(parents=True)
        changed = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        (folder / name).write_bytes(changed)
        torn = Log(str(folder))
        found = [len(batch) for path in torn.segments for batch in torn.read(path)]
        assert found[:3] == [0, 5, 1], place


def test_an_open_segment_that_no_crash_explains_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows that were answered follow a changed byte, or are there once the disk reads again."""
    name, whole = written(tmp_path / "log", 5, 1, 7)
    end = len(written(tmp_path / "1", 5, 1)[1])
    folder = tmp_path / "changed"
    folder.mkdir()
    segment = folder / name
    stopped = 0
    for place in range(0, end, 7):
        changed = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        segment.write_bytes(changed)
        try:
            torn = Log(str(folder))
        except SinkError as error:
            stopped += f"{name}: expected a record batch at byte" in str(error)
            assert segment.read_bytes() == changed
        else:
            (path,) = torn.segments
            assert sum(map(len, torn.read(path))) == 13, place  # padding
    assert stopped > end / 14

    class Failing(io.BytesIO):
        def readinto(self, _: object) -> int:
            raise OSError(5, "Input/output error")

        read = readinto  # type: ignore[assignment]

    for each in folder.iterdir():
        each.unlink()
    segment.write_bytes(whole)
    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "open", lambda *_: pa.PythonFile(Failing(whole), "r"))
        with pytest.raises(SinkError, match=f"cannot read .*{name}: Input/output error"):
            Log(str(folder))
    segment.write_bytes(whole[:-3])
    with caplog.at_level("WARNING"):
        Log(str(folder))
    (record,) = caplog.records
    assert re.search(r"arrows.open: cut off \d+ torn bytes", record.getMessage())


def test_segments_are_numbered_and_begin_with_all_producers(tmp_path: Path) -> None:
    log = Log(str(tmp_path))
    for number in range(12):
        log.append(ROWS.slice(number, 1), {f"p{number}": (number, ROWS.slice(0, 1))})
        log.close()
    assert [next(iter(read(log, path))) for path in log.segments] == [
        [], *([f"p{n}" for n in range(number)] for number in range(1, 12))
    ]  # fmt: skip
    assert log.take_closed() == log.segments
    assert log.take_closed() == []
    log.append(ROWS.select(["id"]).slice(0, 2), {})
    log.append(ROWS.slice(0, 2), {})
    assert len(log.take_closed()) == 2
    log.remove(log.older(2**40))
    assert len(log.segments) == 1


def read(log: Log, path: str) -> Iterator[list[str]]:
    """The producers that are remembered after each record batch of a segment."""
    log.producers = Producers()
    for _ in log.read(path):
        yield list(orjson.loads(log.producers.note()))


def remember(log: Log, **answers: tuple[int, pa.RecordBatch]) -> None:
    log.append(ROWS.slice(0, 0), answers)


def test_the_longest_silent_of_many_producers_is_forgotten(tmp_path: Path) -> None:
    answer = ROWS.slice(0, 1)
    log = Log(str(tmp_path))
    log.append(ROWS.slice(0, 0), {f"p{number}": (0, answer) for number in range(10_000)})
    remember(log, p0=(1, answer), new=(5, answer))
    again = Producers()
    again.remember(log.producers.note())
    for known in (log.producers, again):
        assert known.answer("p1", 7, answer.schema) is None  # forgotten: any number is new
        assert known.answer("p0", 1, answer.schema) == answer
        assert known.answer("new", 6, answer.schema) is None
        refusal = known.answer("p0", 4, answer.schema)
        assert isinstance(refusal, HTTPException)
        assert refusal.status_code == 409
        assert re.search("'p0': expected sequence 1 .* or 2, received 4", refusal.detail)
    assert log.producers.forgotten == 1


def test_answers_of_too_many_bytes_are_dropped_and_their_numbers_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else producers with large answers could fill the memory, and the beginning of a segment."""
    monkeypatch.setattr(log_module, "_ANSWERS", 12_000)
    log = Log(str(tmp_path))
    for number in range(20):
        remember(log, **{f"p{number}": (3, ROWS)})
    again = Producers()
    again.remember(log.producers.note())
    for known in (log.producers, again):
        assert len(known.note()) < 16_000
        assert known.answer("p19", 3, ROWS.schema) == ROWS
        refusal = known.answer("p0", 3, ROWS.schema)  # and not scored again
        assert isinstance(refusal, HTTPException)
        assert "rows were accepted, but the answer is not kept" in refusal.detail
        assert known.answer("p0", 4, ROWS.schema) is None
    log.append(ROWS.slice(0, 0), {"large": (0, pa.concat_batches([ROWS] * 20))})
    assert isinstance(log.producers.answer("large", 0, ROWS.schema), pa.RecordBatch)
    remember(log, large=(1, ROWS))
    assert isinstance(log.producers.answer("large", 1, ROWS.schema), pa.RecordBatch)
