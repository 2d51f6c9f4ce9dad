"""The disk says no: a clear error, exit code 1, and the next run is right."""

import errno
import os
import time

import pytest
from selection import first_quick
from stream.checkpoints.disks import HastyDisk, TracingDisk
from stream.checkpoints.small_run import expected, outcome, run

from streamrnn.base.storage.local import LocalFiles
from streamrnn.errors import SinkError
from streamrnn.stream.checkpoints import records

STEPS = 2


class RefusingDisk(TracingDisk):
    """Every system call from the n-th one on fails, as on a disk that is full or broken."""

    def __init__(self, root, number, code):
        super().__init__(root, self.refuse)
        self.left = number
        self.code = code
        self.count = 0

    def refuse(self, point):
        if point.startswith("before"):
            self.count += 1
            if self.count > self.left:
                raise OSError(self.code, os.strerror(self.code))


@pytest.fixture(autouse=True)
def no_time_for_syncs(monkeypatch):
    """And two parts are enough for a segment."""
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())
    monkeypatch.setattr(records, "TAIL", 1)


def run_on(disk, path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "disk", disk)
        run(path, steps=STEPS)


@pytest.mark.parametrize("code", first_quick([errno.ENOSPC, errno.EIO]))
def test_any_call_that_fails_ends_the_run_with_one_error(tmp_path, monkeypatch, code):
    """Slow: another error."""
    counting = RefusingDisk(str(tmp_path / "out"), 10**9, code)
    run_on(counting, tmp_path / "out", monkeypatch)
    for number in range(counting.count):
        path = tmp_path / str(number) / "out"
        path.parent.mkdir()
        with pytest.raises(SinkError, match=os.strerror(code)) as caught:
            run_on(RefusingDisk(str(path), number, code), path, monkeypatch)
        assert str(path) in str(caught.value)
        assert "rerun the same command" in str(caught.value)
        assert caught.value.exit_code == 1
        run(path, steps=STEPS)
        assert outcome(path) == expected(STEPS)


def test_a_full_disk_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(SinkError, match="Free some space and rerun the same command"):
        run_on(RefusingDisk(str(tmp_path), 8, errno.ENOSPC), tmp_path / "out", monkeypatch)


@pytest.mark.parametrize("what", ["sync", "sync_folder", "rename"])
def test_a_call_that_fails_once_is_not_tried_again(tmp_path, monkeypatch, what):
    """After a failed fsync the pages may be gone: a second one that succeeds says nothing."""
    calls = []

    class Disk(HastyDisk):
        pass

    def fail_once(self, *arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Disk, what, fail_once)
    with pytest.raises(SinkError, match="Input/output error"):
        run_on(Disk(), tmp_path / "out", monkeypatch)
    assert len(calls) == 1
    run(tmp_path / "out", steps=STEPS)
    assert outcome(tmp_path / "out") == expected(STEPS)


def test_short_and_interrupted_writes_lose_nothing(tmp_path, monkeypatch):
    class StutteringDisk(HastyDisk):
        calls = 0

        def write(self, descriptor, view):
            self.calls += 1
            if self.calls % 3 == 0:
                raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
            return super().write(descriptor, view[: self.calls % 7 + 1])

    disk = StutteringDisk()
    run_on(disk, tmp_path / "out", monkeypatch)
    assert disk.calls > 1000
    assert outcome(tmp_path / "out") == expected(STEPS)


def test_a_slow_disk_is_only_slow(tmp_path, monkeypatch):
    class SlowDisk(HastyDisk):
        def sync(self, descriptor):
            time.sleep(0.01)

    run_on(SlowDisk(), tmp_path / "out", monkeypatch)
    assert outcome(tmp_path / "out") == expected(STEPS)


def test_a_path_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="Set a path below a directory"):
        run(tmp_path / "file" / "out")


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SinkError, match="Set a path below a directory"):
        run(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_cannot_be_written_says_so(tmp_path, monkeypatch, code):
    with pytest.raises(
        SinkError, match=r"cannot make the directory .*out: .*(Set a writable path|Allow)"
    ):
        run_on(RefusingDisk(str(tmp_path), 0, code), tmp_path / "out", monkeypatch)
