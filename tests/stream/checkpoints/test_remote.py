"""The same commits where nothing can be renamed, synced or locked: on a pyarrow.fs filesystem."""

import glob
import json
import os
import shutil
import socket

import pyarrow.parquet as pq
import pytest
from pyarrow import fs as arrow_fs
from selection import slow
from stream.checkpoints.disks import Stopped
from stream.checkpoints.small_run import expected, run
from stream.checkpoints.zombie import Zombie

from streamrnn.base.storage.remote import RemoteFiles
from streamrnn.errors import CheckpointError
from streamrnn.jobs.outputs import parts
from streamrnn.outputs import compact, rewind, verify
from streamrnn.stream.checkpoints import (
    OutputFolder,
    attempt,
    directory,
    folder,
    load_state,
    read_manifest,
    reading,
    records,
)
from streamrnn.stream.sinks import part

STEPS = 2
URI = "mock://bucket/out"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A folder that stands for a bucket; `where` can be changed to another one."""

    class Store:
        where = tmp_path / "store"

        def files(self, uri):
            root = self.where / uri.removeprefix("mock://")
            (root / directory.STAGING).mkdir(parents=True, exist_ok=True)
            return RemoteFiles(arrow_fs.LocalFileSystem(), str(root), uri)

        def rows(self, uri=URI):
            root = self.where / uri.removeprefix("mock://")
            names = sorted(glob.glob(str(root / "**/*.parquet"), recursive=True))
            return [
                tuple(row.values()) for name in names for row in pq.read_table(name).to_pylist()
            ]

    store = Store()
    for module in (attempt, folder, parts, reading):
        monkeypatch.setattr(module, "open_files", store.files)
    monkeypatch.setattr(records, "TAIL", 1)
    return store


def outcome(store):
    return store.rows(), store.rows(f"{URI}.rejects"), load_state(URI).to_pydict()


def test_a_run_and_all_that_is_done_to_it(store):
    run(URI, steps=3, keep=3)
    assert outcome(store) == expected(3)
    compact(URI)
    assert outcome(store) == expected(3)
    verify(URI)
    rewind(URI, 2)
    assert outcome(store) == expected(2)
    run(URI)
    assert outcome(store) == expected()
    verify(URI)
    assert "_lock" not in os.listdir(store.where / "bucket/out/_streamrnn")


# Not `create`: on an object store a file that is begun is not there until it is finished.
CALLS = ("put", "move", "delete")


def stop_at(monkeypatch, number, points):
    """The n-th call that changes the store stops the run: before it, between, or after it."""

    def stepping(name, call):
        def stepped(self, *arguments):
            step(f"before {name}")
            result = call(self, *arguments)
            step(f"after {name}")
            return result

        return stepped

    def step(point):
        points.append(point)
        if len(points) == number + 1:
            raise Stopped(point)

    for name in CALLS:
        monkeypatch.setattr(RemoteFiles, name, stepping(name, getattr(RemoteFiles, name)))


def test_a_commit_reads_no_segment(store, monkeypatch):
    """It looks for another writer; that takes the manifest only, however many parts there are."""
    run(URI, steps=6, keep=3)
    assert read_manifest(URI).segments.keys() == {"rows", "rejects"}
    real, read = reading.read_segment, []

    def counted(*arguments):
        read.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(reading, "read_segment", counted)
    read_manifest(URI)
    once = len(read)
    assert once >= 2
    run(URI, steps=12, keep=3)
    assert len(read) == 2 * once


def test_stopped_at_every_point(store, tmp_path, monkeypatch):
    points = []
    with monkeypatch.context() as patch:
        stop_at(patch, -2, points)
        run(URI, steps=STEPS)
    assert points.count("after put") >= STEPS
    for number, point in enumerate(points):
        store.where = tmp_path / str(number)
        with monkeypatch.context() as patch:
            stop_at(patch, number, [])
            with pytest.raises(Stopped):
                run(URI, steps=STEPS)
        assert store.rows() == expected(STEPS)[0][: len(store.rows())], point
        run(URI, steps=STEPS)
        assert outcome(store) == expected(STEPS), point


@slow
def test_stopped_at_every_point_while_parts_get_longer_names(store, tmp_path, monkeypatch):
    """Rows at the eleventh commit with a part, rejects at the eleventh that rejects. Slow: names
    that get longer in a bucket; the quick tests have them on a disk."""
    monkeypatch.setattr(part, "WIDTHS", (1, 2))
    for before, after in ((10, 11), (21, 22)):
        store.where = tmp_path / f"{before}"
        run(URI, steps=before)
        points = []
        with monkeypatch.context() as patch:
            stop_at(patch, -2, points)
            shutil.copytree(store.where, tmp_path / "traced")
            store.where = tmp_path / "traced"
            run(URI, steps=after)
        shutil.rmtree(store.where)
        for number, point in enumerate(points):
            if point.startswith("before"):
                continue  # what is true there was true after the call before
            store.where = tmp_path / "stopped"
            shutil.copytree(tmp_path / f"{before}", store.where)
            with monkeypatch.context() as patch:
                stop_at(patch, number, [])
                with pytest.raises(Stopped):
                    run(URI, steps=after)
            assert store.rows() == expected(after)[0][: len(store.rows())], point
            rejects = store.rows(f"{URI}.rejects")
            assert rejects == expected(after)[1][: len(rejects)], point
            run(URI, steps=after)
            assert outcome(store) == expected(after), point
            verify(URI)
            shutil.rmtree(store.where)


@slow
def test_a_zombie_that_writes_at_any_step_changes_nothing(store, tmp_path, monkeypatch):
    """Slow: a second writer on an object store; test_zombie has one on a disk."""
    run(URI, steps=STEPS)
    start = store.where
    points = []
    with monkeypatch.context() as patch:
        stop_at(patch, -2, points)
        store.where = tmp_path / "traced"
        shutil.copytree(start, store.where)
        run(URI, steps=STEPS + 1)
    for number, point in enumerate(points):
        store.where = tmp_path / str(number)
        shutil.copytree(start, store.where)
        zombie = Zombie(URI)
        seen = Haunted(number, lambda zombie=zombie: zombie.finish(zombie.begin()))
        with monkeypatch.context() as patch:
            stop_at(patch, -2, seen)
            run(URI, steps=STEPS + 1)
        assert outcome(store) == expected(STEPS + 1), point
        verify(URI)
        OutputFolder.open(URI).close()
        for uri in (URI, f"{URI}.rejects"):
            root = store.where / uri.removeprefix("mock://")
            assert os.listdir(root / "_streamrnn/staging") == [], point
        assert outcome(store) == expected(STEPS + 1), point


class Haunted(list):
    """Calls once `haunt`, when so many points have been passed."""

    def __init__(self, number, haunt):
        super().__init__()
        self.number = number
        self.haunt = haunt

    def append(self, point):
        super().append(point)
        if len(self) == self.number + 1:
            self.haunt()


def lock(store, **owner):
    path = store.where / "bucket/out/_streamrnn/_lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(owner))


def test_a_run_on_another_host_that_was_just_seen_is_named(store, monkeypatch):
    run(URI, steps=1)
    lock(store, host="elsewhere", pid=5, since="2026-01-01T00:00:00Z", seen=4e9)
    with pytest.raises(CheckpointError, match="host elsewhere, pid 5, since 2026-01-01") as caught:
        run(URI)
    assert "mock://bucket/out/_streamrnn/_lock" in str(caught.value)


@pytest.mark.parametrize(
    "owner", [{"host": "elsewhere", "seen": 5.0}, {"host": None, "pid": 2**22 - 1}]
)
def test_the_lock_of_a_dead_run_is_taken_over(store, owner):
    run(URI, steps=1)
    lock(store, **{**owner, "host": owner["host"] or socket.gethostname()})
    run(URI)
    assert outcome(store) == expected()


def test_a_run_overtaken_by_another_stops_at_its_commit(store):
    run(URI, steps=1)
    with OutputFolder.open(URI) as slow:
        os.unlink(store.where / "bucket/out/_streamrnn/_lock")
        run(URI, steps=3)
        found = read_manifest(URI)
        slow.begin(
            pq.read_schema(store.where / "bucket/out/part-00000.parquet").remove_metadata(),
            model="model",
            config={"source.key": ["stream"]},
        )
        with pytest.raises(CheckpointError, match="another run has committed"):
            slow.commit()
    assert read_manifest(URI) == found
    assert outcome(store) == expected(3)


def test_partitions_and_all_that_is_done_to_them(store, monkeypatch):
    def make(files, folder):
        """The bucket is a disk here."""
        files.fs.create_dir(f"{files.root}/{folder}")

    monkeypatch.setattr(RemoteFiles, "make", make)
    options = {"partition_by": ["stream"]}
    run(URI, steps=3, keep=3, **options)
    whole = sorted(row[-1] for row in expected(3)[0])
    assert sorted(row[-1] for row in store.rows()) == whole
    names = {part.name for part in read_manifest(URI).parts}
    assert all(name.startswith("stream=") for name in names)
    compact(URI)
    assert sorted(row[-1] for row in store.rows()) == whole
    verify(URI)
    rewind(URI, 2)
    assert len(store.rows()) == len(expected(2)[0])
    run(URI, **options)
    assert len(store.rows()) == len(expected()[0])
    verify(URI)
    run(URI, full_refresh=True)
    assert outcome(store) == expected()
