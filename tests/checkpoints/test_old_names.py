"""Folders whose inner files have the names of earlier versions, without "_": read, then renamed."""

import fcntl
import json
import os
from pathlib import Path

import pytest
from checkpoints.small_run import as_of_earlier_versions, expected, outcome, run

from streamrnn.checkpoints import OutputFolder, has_manifest, load_state, read_manifest
from streamrnn.checkpoints.lock import Lock
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.outputs import verify
from streamrnn.pipeline.preflight import refuse_inside_output
from streamrnn.storage.local import LocalFiles
from streamrnn.storage.remote import RemoteFiles

OLD = {"manifest.json", "owner", "lock"}


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out")


def inside(out):
    return {path.name for path in Path(out, "_streamrnn").iterdir() if path.is_file()}


def test_all_names_inside_begin_with_an_underscore(out):
    """While a run has not committed its attempt, too."""
    with OutputFolder.open(out) as folder:
        assert inside(out) == {"_lock"}
        assert folder.manifest is None
    run(out, steps=2)
    for folder in (out, f"{out}.rejects"):
        names = [path.name for path in Path(folder, "_streamrnn").rglob("*") if path.is_file()]
        assert names
        assert all(name.startswith("_") for name in names)


def test_a_folder_of_an_earlier_version_is_read_and_goes_on(out):
    run(out, steps=3)
    committed = read_manifest(out)
    as_of_earlier_versions(out)
    assert OLD - {"owner"} <= inside(out)
    assert has_manifest(out)
    assert read_manifest(out) == committed
    assert load_state(out) is not None
    verify(out)
    OutputFolder.open(out).close()  # no commit, so the manifest stays
    assert "manifest.json" in inside(out)
    assert "_manifest.json" not in inside(out)
    assert read_manifest(out) == committed
    run(out)
    assert outcome(out) == expected()
    for folder in (out, f"{out}.rejects"):
        assert not OLD & inside(folder)


def test_the_newer_manifest_counts_where_both_are(out):
    """A run was killed between writing one and removing the other."""
    run(out, steps=1)
    old = Path(out, "_streamrnn", "_manifest.json").read_bytes()
    run(out, steps=3)
    newer = read_manifest(out)
    Path(out, "_streamrnn", "manifest.json").write_bytes(old)
    assert read_manifest(out) == newer
    OutputFolder.open(out).close()
    assert "manifest.json" not in inside(out)
    run(out)
    assert outcome(out) == expected()


def test_a_reader_meets_the_moment_of_the_change(out, monkeypatch):
    """The new name is missing at the first look, and the old one at the second."""
    run(out, steps=2)
    committed = read_manifest(out)
    as_of_earlier_versions(out)
    read = LocalFiles.read

    def commits_meanwhile(self, name):
        if name.endswith("/manifest.json"):
            os.rename(f"{out}/_streamrnn/manifest.json", f"{out}/_streamrnn/_manifest.json")
        return read(self, name)

    monkeypatch.setattr(LocalFiles, "read", commits_meanwhile)
    assert read_manifest(out) == committed


def test_the_lock_of_an_earlier_version_is_respected(out):
    """It holds the file with the old name; ours is free again after the refusal."""
    run(out, steps=1)
    path = Path(out, "_streamrnn", "lock")
    path.write_text(json.dumps({"host": "here", "pid": 123, "since": "2026-01-01"}))
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match=r"in use by another run .host here, pid 123"):
            run(out)
    run(out)
    assert outcome(out) == expected()
    assert not path.exists()


def test_an_earlier_version_respects_the_lock(out):
    """Where its own lock file exists, it is held too."""
    files = LocalFiles(out)
    files.make("")
    Path(out, "old").touch()
    lock = Lock(files, "new", "old")
    with Path(out, "old").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert json.loads(Path(out, "old").read_text())["pid"] == os.getpid()
    lock.release()
    with Path(out, "old").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_lock_of_an_earlier_version_on_an_object_store(tmp_path):
    from pyarrow import fs

    files = RemoteFiles(fs.LocalFileSystem(), str(tmp_path), "mock://bucket")
    owner = {"host": "elsewhere", "pid": 5, "since": "2026-01-01", "seen": 4e9}
    (tmp_path / "old").write_text(json.dumps(owner))
    with pytest.raises(CheckpointError, match=r"host elsewhere, pid 5.*delete mock://bucket/old"):
        Lock(files, "new", "old")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").write_text(json.dumps({**owner, "seen": 1.0}))
    lock = Lock(files, "new", "old")
    assert (tmp_path / "new").exists()
    lock.release()


def test_an_output_of_an_earlier_version_is_one(out):
    """Nothing is written inside it."""
    run(out, steps=1)
    as_of_earlier_versions(out)
    with pytest.raises(ConfigError, match="lies inside the output"):
        refuse_inside_output(f"{out}/deeper", "[sink] path")


def test_rejects_of_an_earlier_version_have_their_owner(out):
    """The old name is removed once the new one is written, also if a kill left both."""
    run(out, steps=2)
    as_of_earlier_versions(out)
    rejects = f"{out}.rejects"
    assert "owner" in inside(rejects)
    run(out, steps=4)
    assert "_owner" in inside(rejects)
    assert "owner" not in inside(rejects)
    Path(rejects, "_streamrnn", "owner").write_bytes(b"an earlier output")
    OutputFolder.open(out).close()
    assert "owner" not in inside(rejects)
    run(out)
    assert outcome(out) == expected()
