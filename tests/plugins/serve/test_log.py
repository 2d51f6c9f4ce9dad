"""The log of accepted rows: whatever a crash leaves of it, whole record batches are read."""

import io
import re
from pathlib import Path

import logs
import pyarrow as pa
import pytest
from starlette.exceptions import HTTPException

from streamrnn.base.storage import LocalFiles
from streamrnn.errors import SinkError
from streamrnn.plugins.serve.log import Log, logged_batches
from streamrnn.plugins.serve.producers import Producers, note_of

ROWS = logs.random_log(40, nulls=0.3).combine_chunks().to_batches()[0]


def written(folder: Path, *sizes: int) -> tuple[str, bytes]:
    """A segment with record batches of these sizes, as it was before it was closed."""
    log = Log(str(folder))
    first = 0
    for number, size in enumerate(sizes):
        log.append(ROWS.slice(first, size), f"note {number}", lambda: "begin")
        first += size
    log.sync()
    (path,) = folder.glob("*.open")
    content = path.read_bytes()
    log.close()
    return path.name, content


def test_a_segment_torn_at_any_byte_has_its_whole_batches(tmp_path: Path) -> None:
    """Of the last record batch, at every byte; a byte that changed ends the segment, too."""
    sizes = (5, 1, 7)
    name, whole = written(tmp_path / "log", *sizes)
    ends = [len(written(tmp_path / f"{n}", *sizes[:n])[1]) for n in (1, 2, 3)]
    for length in range(len(whole)):
        if ends[0] < length < ends[1] and length % 7:
            continue
        folder = tmp_path / "torn" / str(length)
        folder.mkdir(parents=True)
        (folder / name).write_bytes(whole[:length])
        segments = Log(str(folder)).segments
        kept = sum(length >= end for end in ends)
        found = [batch for path in segments for batch, _ in logged_batches(path) if len(batch)]
        assert [len(batch) for batch in found] == list(sizes[:kept]), length
        if segments:
            with pa.OSFile(segments[0]) as file:
                table = pa.ipc.open_stream(file).read_all()
            assert table == pa.Table.from_batches([ROWS]).slice(0, sum(sizes[:kept]))
    for place in range(ends[1] + 8, len(whole), 11):
        folder = tmp_path / "changed" / str(place)
        folder.mkdir(parents=True)
        changed = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
        (folder / name).write_bytes(changed)
        (segment,) = Log(str(folder)).segments
        found = [len(batch) for batch, _ in logged_batches(segment)]
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
            (path,) = Log(str(folder)).segments
        except SinkError as error:
            stopped += f"{name}: expected a record batch at byte" in str(error)
            assert segment.read_bytes() == changed
        else:
            assert sum(len(rows) for rows, _ in logged_batches(path)) == 13, place  # padding
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


def test_segments_are_numbered_and_begin_with_a_note(tmp_path: Path) -> None:
    log = Log(str(tmp_path))
    for number in range(12):
        log.append(ROWS.slice(number, 1), f"{number}", lambda: "begin")
        log.close()
    assert [list(logged_batches(path))[1][1] for path in log.segments] == [
        str(number) for number in range(12)
    ]
    assert log.take_closed() == log.segments
    assert log.take_closed() == []
    log.append(ROWS.select(["id"]).slice(0, 2), "other", lambda: "begin")
    log.append(ROWS.slice(0, 2), "columns", lambda: "begin")
    assert len(log.take_closed()) == 2
    log.remove(log.older(2**40))
    assert len(log.segments) == 1


def test_after_an_error_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk has of a segment is not known: not even its end may be written."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    log = Log(str(tmp_path))
    log.append(ROWS, "", lambda: "begin")
    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles.disk, "sync", full)
        with pytest.raises(SinkError, match="No space left"):
            log.sync()
    for call in (log.sync, log.close, log.take_closed):
        with pytest.raises(SinkError, match="No space left"):
            call()


def test_the_longest_silent_of_many_producers_is_forgotten() -> None:
    answer = ROWS.slice(0, 1)
    producers = Producers()
    for number in range(10_000):
        producers.remember(note_of({f"p{number}": (0, answer)}))
    producers.remember(note_of({"p0": (1, answer), "new": (5, answer)}))
    again = Producers()
    again.remember(producers.note())
    for known in (producers, again):
        assert known.answer("p1", 7, answer.schema) is None  # forgotten: any number is new
        assert known.answer("p0", 1, answer.schema) == answer
        assert known.answer("new", 6, answer.schema) is None
        refusal = known.answer("p0", 4, answer.schema)
        assert isinstance(refusal, HTTPException)
        assert refusal.status_code == 409
        assert re.search("'p0': expected sequence 1 .* or 2, received 4", refusal.detail)
    assert producers.forgotten == 1
