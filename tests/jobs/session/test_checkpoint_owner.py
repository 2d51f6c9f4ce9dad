"""A checkpoint has one owner: a pipeline replaces no file but the one that it stands on."""

import copy
import errno
import io
import json
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import logs
import pyarrow as pa
import pytest
from fresh import python
from selection import first_quick

from streamrnn import Pipeline
from streamrnn.base.storage.local import Disk
from streamrnn.errors import (
    AlreadyProcessed,
    CheckpointError,
    DataError,
    DTypeError,
    SinkError,
    StateError,
)
from streamrnn.states import write_state_file

LOG = logs.random_log(300)
CONFIG = logs.config("in", "m.safetensors", None)
FIRST, SECOND, THIRD = (LOG.slice(start, 100) for start in (0, 100, 200))


@pytest.fixture(autouse=True)
def folder(model_dir: Path) -> Path:
    """Work in a folder with a model, and a folder for checkpoints."""
    (model_dir / "c").mkdir()
    return model_dir


def _pipeline(rows: pa.Table | None = None, position: int | None = None) -> Pipeline:
    pipeline = Pipeline.from_dict(CONFIG)
    if rows is not None:
        pipeline.process(rows, position)
    return pipeline


def _state(*tables: pa.Table) -> pa.Table:
    pipeline = _pipeline()
    for table in tables:
        pipeline.process(table)
    return pipeline.state.to_arrow()


def _files() -> list[str]:
    return sorted(os.listdir("c"))


def test_of_two_jobs_on_one_checkpoint_one_is_refused_and_its_rerun_is_right() -> None:
    """Days 3 and 4 started at once: the state of neither is lost without a word."""
    _pipeline(FIRST, 1).checkpoint("c/c.arrow")
    third, second = Pipeline.resume("c/c.arrow"), Pipeline.resume("c/c.arrow")
    second.process(SECOND, 2)
    third.process(THIRD, 3)
    second.checkpoint("c/c.arrow")
    content = Path("c/c.arrow").read_bytes()
    with pytest.raises(CheckpointError, match="was replaced in between; nothing was written") as e:
        third.checkpoint("c/c.arrow")
    assert "resume from it with Pipeline.resume" in str(e.value)
    assert (Path("c/c.arrow").read_bytes(), _files()) == (content, ["c.arrow"])
    again = Pipeline.resume("c/c.arrow")  # as the message says
    assert again.position == 2
    again.process(THIRD, 3)
    again.checkpoint("c/c.arrow")
    assert Pipeline.resume("c/c.arrow").state.to_arrow() == _state(FIRST, SECOND, THIRD)


def test_each_way_out_that_the_refusal_names_works() -> None:
    _pipeline(FIRST).checkpoint("c/c.arrow")
    one, other = Pipeline.resume("c/c.arrow"), Pipeline.resume("c/c.arrow")
    one.process(SECOND)
    one.checkpoint("c/c.arrow")
    other.process(THIRD)
    with pytest.raises(CheckpointError, match=r"write to another path, or replace it with overwri"):
        other.checkpoint("c/c.arrow")
    other.checkpoint("c/d.arrow")
    assert Pipeline.resume("c/d.arrow").state.to_arrow() == _state(FIRST, THIRD)
    other.checkpoint("c/c.arrow", overwrite=True)
    assert Pipeline.resume("c/c.arrow").state.to_arrow() == _state(FIRST, THIRD)
    with pytest.raises(CheckpointError):
        one.checkpoint("c/c.arrow")


def test_a_pipeline_that_resumed_nothing_replaces_no_file() -> None:
    """A checkpoint, a state table, or anything else of that name; a new file it writes on."""
    pipeline = _pipeline(FIRST)
    pipeline.checkpoint("c/c.arrow")
    pipeline.process(SECOND)
    pipeline.checkpoint("c/c.arrow")  # the one it wrote last
    other = _pipeline(FIRST)
    other.checkpoint("c/other.arrow")
    for content, advice in ((None, "resume from it"), (b"junk", "To continue, write to another")):
        if content is not None:
            Path("c/c.arrow").write_bytes(content)
        before = Path("c/c.arrow").read_bytes()
        with pytest.raises(CheckpointError, match="neither resumed from nor wrote last") as caught:
            _pipeline(FIRST).checkpoint("c/c.arrow")
        assert advice in str(caught.value)
        with pytest.raises(CheckpointError, match="neither resumed from nor wrote last"):
            other.checkpoint("c/c.arrow")
        assert Path("c/c.arrow").read_bytes() == before
    with pytest.raises(CheckpointError, match="was replaced in between"):
        pipeline.checkpoint("c/c.arrow")
    write_state_file(pipeline.state.to_arrow(), "c/c.arrow")
    with pytest.raises(CheckpointError, match="was replaced in between") as caught:
        pipeline.checkpoint("c/c.arrow")
    assert "Pipeline.resume" not in str(caught.value)  # it is no checkpoint
    pipeline.checkpoint("c/c.arrow", overwrite=True)
    pipeline.checkpoint("c/c.arrow")


def test_one_file_is_the_last_and_another_path_is_another_file() -> None:
    pipeline = _pipeline(FIRST)
    pipeline.checkpoint("c/a.arrow")
    pipeline.checkpoint("c/b.arrow")
    with pytest.raises(CheckpointError, match=r"a\.arrow: there is a file"):
        pipeline.checkpoint("c/a.arrow")
    pipeline.checkpoint("c/b.arrow")
    assert _files() == ["a.arrow", "b.arrow"]


def test_a_checkpoint_that_is_gone_is_not_written_again_unless_that_is_meant() -> None:
    """Who removes it wants to start again; this state would come back."""
    pipeline = _pipeline(FIRST)
    pipeline.checkpoint("c/c.arrow")
    Path("c/c.arrow").unlink()
    with pytest.raises(CheckpointError, match="is gone; nothing was written") as caught:
        pipeline.checkpoint("c/c.arrow")
    assert "write the checkpoint with overwrite=True" in str(caught.value)
    assert _files() == []
    pipeline.checkpoint("c/c.arrow", overwrite=True)
    pipeline.checkpoint("c/c.arrow")


def test_a_path_may_be_spelled_in_many_ways(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links stay links."""
    pipeline = _pipeline(FIRST, 0)
    Path("link").symlink_to("c")
    Path("c/link.arrow").symlink_to("c.arrow")
    spelled = ["c/c.arrow", "./c//c.arrow", "c/../c/c.arrow", f"{folder}/c/c.arrow"]
    spelled += ["link/c.arrow", "c/link.arrow", f"file://{folder}/c/c.arrow"]
    for number, path in enumerate(spelled, 1):
        pipeline.checkpoint(path)
        assert Pipeline.resume("c/c.arrow").position == number - 1
        pipeline.process(SECOND.slice(0, 0), number)
    assert (_files(), Path("c/link.arrow").is_symlink()) == (["c.arrow", "link.arrow"], True)
    resumed = Pipeline.resume("c/link.arrow")
    monkeypatch.chdir("c")
    resumed.process(THIRD, 99)
    resumed.checkpoint("c.arrow")
    with pytest.raises(CheckpointError, match=r"^link\.arrow: the file is not the checkpoint"):
        pipeline.checkpoint("link.arrow")


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_a_checkpoint_is_written_to_and_read_from_memory(suffix: str) -> None:
    """For a database that keeps it with the rows; what file it stands on does not change."""
    pipeline = _pipeline(FIRST, 1)
    pipeline.checkpoint(f"c/c.{suffix}")
    content = io.BytesIO()
    pipeline.checkpoint(content)
    data = content.getvalue()
    if suffix == "arrow":
        assert data == Path("c/c.arrow").read_bytes()
    with Path("c/file").open("wb") as file:
        pipeline.checkpoint(file)
    assert Path("c/file").read_bytes() == data
    pipeline.checkpoint(f"c/c.{suffix}")
    sources: list[Any] = [data, bytearray(data), memoryview(data), io.BytesIO(data)]
    sources += [Path(f"c/c.{suffix}").read_bytes(), io.FileIO("c/file")]
    for source in sources:
        resumed = Pipeline.resume(source)
        assert (resumed.position, resumed.state.to_arrow()) == (1, _state(FIRST))
        with pytest.raises(AlreadyProcessed):
            resumed.process(FIRST, 1)
        with pytest.raises(CheckpointError, match="neither resumed from nor wrote"):
            resumed.checkpoint(f"c/c.{suffix}")
    sources[-1].close()
    for wrong, kind in ((io.StringIO("text"), "StringIO"), (3, "int"), (None, "NoneType")):
        with pytest.raises(DTypeError, match=f"a binary file, received {kind}"):
            Pipeline.resume(wrong)  # type: ignore[arg-type]
    for damaged in (b"", data[:-9], data[:200]):
        with pytest.raises(DataError, match=r"^the checkpoint: not a readable state table"):
            Pipeline.resume(damaged)
    table = io.BytesIO()
    with pa.ipc.new_file(table, FIRST.schema) as writer:
        writer.write_table(FIRST)
    with pytest.raises(StateError, match=r"^the checkpoint: not a checkpoint of a pipeline"):
        Pipeline.resume(table.getvalue())


class Unbuffered(io.RawIOBase):
    """A file that writes at most 1,000 bytes per call, up to `room`."""

    def __init__(self, room: int) -> None:
        self.content, self._room = b"", room

    def write(self, data: Any) -> int:
        new = bytes(data[: min(1000, self._room - len(self.content))])
        self.content += new
        return len(new)


def test_an_unbuffered_file_gets_all_bytes() -> None:
    pipeline = _pipeline(FIRST)
    file = Unbuffered(1 << 20)
    pipeline.checkpoint(file)
    assert Pipeline.resume(file.content).state.to_arrow() == _state(FIRST)
    with pytest.raises(SinkError, match=r"takes no more bytes; [\d,]+ are missing"):
        pipeline.checkpoint(Unbuffered(1500))


def test_a_uri_that_cannot_be_opened_is_refused_with_what_to_write() -> None:
    with pytest.raises(SinkError, match=r"c d\.arrow: cannot write the checkpoint: .*%20"):
        _pipeline(FIRST).checkpoint(f"file://{os.getcwd()}/c d.arrow")


def test_what_is_no_binary_file_is_refused() -> None:
    pipeline = _pipeline(FIRST)
    wrong: list[Any] = [None, io.StringIO()]
    for file in wrong:
        kind = type(file).__name__
        with pytest.raises(DTypeError, match=f"a path or a binary file, received {kind}"):
            pipeline.checkpoint(file)


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda pipeline: pickle.loads(pickle.dumps(pipeline))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_of_a_pipeline_stands_on_the_same_file(
    copied: Callable[[Pipeline], Pipeline],
) -> None:
    """Until one of the two replaces it: then the other one is refused, whichever it is."""
    pipeline = _pipeline(FIRST)
    pipeline.checkpoint("c/c.arrow")
    one, other = pipeline, copied(pipeline)
    for rows in (SECOND, THIRD):
        other.process(rows)
        other.checkpoint("c/c.arrow")
        with pytest.raises(CheckpointError, match="was replaced in between"):
            one.checkpoint("c/c.arrow")
        one, other = copied(other), other


@pytest.mark.parametrize("step", ["sync", "rename", "sync_folder"])
def test_after_a_write_that_failed_the_next_one_succeeds(
    step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the file was replaced before the error, or not."""

    def fail(disk: Disk, *arguments: object) -> None:
        raise OSError(errno.EIO, "failed")

    pipeline = _pipeline(FIRST, 0)
    for number, path in enumerate(["c/c.arrow", "c/c.arrow", "c/new.arrow"], 1):
        pipeline.process(SECOND.slice(0, 0), number)
        with monkeypatch.context() as broken:
            broken.setattr(Disk, step, fail)
            with pytest.raises(SinkError):
                pipeline.checkpoint(path)
        pipeline.checkpoint(path)
        assert Pipeline.resume(path).position == number
    assert _files() == ["c.arrow", "new.arrow"]


@pytest.mark.parametrize("resumed", [False, True])
def test_an_overwrite_that_failed_permits_no_other_one(
    resumed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the other job is there still, and replaced only if that is asked for again."""

    def fail(disk: Disk, *arguments: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    pipeline, refusal = _pipeline(FIRST), "neither resumed from nor wrote last"
    if resumed:
        pipeline.checkpoint("c/c.arrow")
        pipeline, refusal = Pipeline.resume("c/c.arrow"), "was replaced in between"
    _pipeline(SECOND).checkpoint("c/c.arrow", overwrite=True)
    content = Path("c/c.arrow").read_bytes()
    with monkeypatch.context() as full:
        full.setattr(Disk, "sync", fail)
        with pytest.raises(SinkError):
            pipeline.checkpoint("c/c.arrow", overwrite=True)
    with pytest.raises(CheckpointError, match=refusal):
        pipeline.checkpoint("c/c.arrow")
    assert Path("c/c.arrow").read_bytes() == content
    pipeline.checkpoint("c/c.arrow", overwrite=True)
    pipeline.checkpoint("c/c.arrow")


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
def test_a_checkpoint_without_a_checksum_is_known_by_its_bytes(suffix: str) -> None:
    """It is replaced by the job that resumed from it, and by no job that resumed from another."""

    def write(rows: pa.Table) -> None:
        pipeline, content = _pipeline(rows), io.BytesIO()
        pipeline.checkpoint(content)
        table = pa.ipc.open_file(content.getvalue()).read_all()
        metadata = {**table.schema.metadata}
        del metadata[b"streamrnn.checksum"]
        write_state_file(table.replace_schema_metadata(metadata), path)

    path = f"c/c.{suffix}"
    write(FIRST)
    pipeline = Pipeline.resume(path)
    write(SECOND)
    with pytest.raises(CheckpointError, match="was replaced in between"):
        pipeline.checkpoint(path)
    write(FIRST)
    pipeline.checkpoint(path)
    pipeline.checkpoint(path)


def test_checkpoints_of_one_pipeline_are_written_in_the_order_of_their_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slow thread does not put an older state over a newer one; `process` does not wait."""
    writing, go_on = threading.Event(), threading.Event()
    rename = Disk.rename

    def slow(disk: Disk, source: str, target: str) -> None:
        if threading.current_thread() is first:
            writing.set()
            assert go_on.wait(60)
        rename(disk, source, target)

    pipeline = _pipeline(FIRST, 1)
    monkeypatch.setattr(Disk, "rename", slow)
    first = threading.Thread(target=lambda: pipeline.checkpoint("c/c.arrow"))
    first.start()
    assert writing.wait(60)
    pipeline.process(SECOND, 2)
    second = threading.Thread(target=lambda: pipeline.checkpoint("c/c.arrow"))
    second.start()
    second.join(0.2)
    go_on.set()
    first.join()
    second.join()
    assert Pipeline.resume("c/c.arrow").position == 2


def test_what_killed_writers_left_is_removed_and_nothing_else() -> None:
    pipeline = _pipeline(FIRST)
    left = [f"c.arrow.{'0a' * 8}.tmp", ".c.arrow.streamrnn.lock"]
    others = [f"cXarrow.{'0a' * 8}.tmp", "c.arrow.tmp", "c.arrow.lock", f"d.arrow.{'0a' * 8}.tmp"]
    for name in left + others:
        Path("c", name).write_bytes(b"any")
    pipeline.checkpoint("c/c.arrow")
    assert _files() == sorted(["c.arrow", *others])


# Two jobs in processes of their own, and jobs that are killed: forked, as an import takes seconds.
JOBS = """
import json, os, random, signal, sys
import pyarrow as pa
from streamrnn import Pipeline
from streamrnn.errors import CheckpointError
from streamrnn.base.storage import LocalFiles
from streamrnn.base.storage.local import Disk

what, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = random.Random(seed)
rows = pa.ipc.open_file("rows").read_all()
path = "c/c.arrow"

def job(position, before=lambda: None):
    pipeline = Pipeline.resume(path)
    pipeline.process(rows.slice(position, 1), position)
    before()
    try:
        pipeline.checkpoint(path)
    except CheckpointError as error:
        assert "was replaced in between" in str(error)
        os._exit(3)
    os._exit(0)

def start(*arguments):
    child = os.fork()
    if not child:
        try:
            job(*arguments)
        finally:
            os._exit(1)
    return child

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

class Killing(Disk):
    left = 0
    def __getattribute__(self, name):
        if name in ("create", "write", "sync", "rename", "delete", "sync_folder"):
            Killing.left -= 1
            if Killing.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__getattribute__(name)

def kill_at(call):
    Killing.left = call
    LocalFiles.disk = Killing()

report = []
for n in range(count):
    position = Pipeline.resume(path).position + 1
    if what == "two":
        read, write = os.pipe()
        ready, tell = os.pipe()
        children = [start(position, lambda: (os.write(tell, b"r"), os.read(read, 1))) for _ in "ab"]
        for _ in children:
            os.read(ready, 1)  # both have resumed, neither from the other's checkpoint
        os.write(write, b"gg")
        report.append(sorted(map(ended, children)))
        for end in (read, write, ready, tell):
            os.close(end)
    else:
        call = rng.randint(1, 12)
        status = ended(start(position, lambda: kill_at(call)))
        names = sorted(os.listdir("c"))
        report.append([status, names])
        if status == -signal.SIGKILL and rng.random() < 0.7:
            Pipeline.resume(path)  # whole, whatever the moment
            position = Pipeline.resume(path).position + 1
            report.append([ended(start(position)), sorted(os.listdir("c"))])
print(json.dumps(report))
"""


def _jobs(what: str, count: int) -> Any:
    _pipeline(LOG.slice(0, 1), 0).checkpoint("c/c.arrow")
    with pa.ipc.new_file("rows", LOG.schema) as file:
        file.write_table(LOG)
    done = python("-c", JOBS, what, count, 7, cwd=Path.cwd())
    resumed = Pipeline.resume("c/c.arrow")
    assert isinstance(resumed.position, int)
    assert resumed.state.to_arrow() == _state(LOG.slice(0, resumed.position + 1))
    return json.loads(done.stdout)


@pytest.mark.parametrize("pairs", first_quick([2, 25]))
def test_of_two_processes_at_once_exactly_one_wins(pairs: int) -> None:
    """And the state is the winner's: one row more each time, and no row twice. Slow: more pairs."""
    assert _jobs("two", pairs) == [[0, 3]] * pairs
    assert Pipeline.resume("c/c.arrow").position == pairs
    assert _files() == ["c.arrow"]


@pytest.mark.parametrize("jobs", first_quick([6, 60]))
def test_kills_in_a_checkpoint_leave_nothing_after_the_next_write(jobs: int) -> None:
    """Slow: fifty kills."""
    killed = 0
    left = set()
    for status, names in _jobs("kill", jobs):
        killed += status != 0
        left |= set(names)
        if status == 0:
            assert names == ["c.arrow"]
    assert killed >= jobs * 5 / 6
    assert any(name.endswith(".tmp") for name in left)
    assert ".c.arrow.streamrnn.lock" in left
