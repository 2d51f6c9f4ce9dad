"""Whole disks and object stores: what sources and state tables read, and files written whole."""

import errno
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as arrow_fs
import pytest

from streamrnn.base.storage import LocalFiles, Output, Store, open_store, replace_file
from streamrnn.base.storage.local import Disk
from streamrnn.base.storage.store import LocalStore, RemoteStore
from streamrnn.errors import SinkError
from streamrnn.states import read_state_file, write_state_file


@dataclass(frozen=True)
class Ending:
    """Names that end so, in any folder but those whose names begin with "_"."""

    suffix: str

    def below(self, folder: str) -> "Ending | None":
        return None if folder.startswith("_") else self

    def takes(self, file: str) -> bool:
        return file.endswith(self.suffix)


@pytest.fixture(params=["disk", "object store"])
def store(request: pytest.FixtureRequest) -> Store:
    """Both read the same files here."""
    return LocalStore() if request.param == "disk" else RemoteStore(arrow_fs.LocalFileSystem())


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for name in ("top/a.x", "top/in/b.x", "top/in/c.y", "top/_no/d.x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path / "top"


def test_the_files_that_are_wanted_are_found_at_any_depth(store: Store, top: Path) -> None:
    found = store.find(str(top), Ending(".x"))
    assert sorted(each.path for each in found) == [f"{top}/a.x", f"{top}/in/b.x"]
    for each in found:
        assert store.entry(each.path) == each
        assert each.size == len(store.open(each.path).read())


def test_what_is_no_file_has_no_entry(store: Store, top: Path) -> None:
    assert [store.exists(str(top / name)) for name in ("a.x", "in", "none")] == [True, True, False]
    assert [store.entry(str(top / name)) for name in ("in", "none")] == [None, None]
    with pytest.raises(FileNotFoundError):
        store.open(str(top / "none"))


def test_paths_and_uris_are_of_the_disk_or_of_an_object_store() -> None:
    store, place = open_store("a b/x%20y")
    assert (type(store), place) == (LocalStore, "a b/x%20y")
    store, place = open_store("file:///a%20b")
    assert (type(store), place) == (LocalStore, "/a b")
    store, place = open_store("s3://bucket/a/b?region=x")
    assert (type(store), place) == (RemoteStore, "bucket/a/b")
    files, name = store.around(place)
    assert (files.show(name), files.local) == ("s3://bucket/a/b", False)


def _fail_amid(output: Output) -> None:
    output.write(b"half")
    raise KeyError


@pytest.mark.parametrize("path", ["{}/new/folder/a", "file://{}/new/folder/a"])
def test_a_file_is_replaced_once_it_is_whole(path: str, tmp_path: Path) -> None:
    """And stays what it was if the writing fails; nothing is left beside it."""
    place = tmp_path / "new/folder/a"
    for text in (b"one", b"two!"):
        with replace_file(path.format(tmp_path)) as output:
            output.write(text)
        assert place.read_bytes() == text
    with pytest.raises(KeyError), replace_file(path.format(tmp_path)) as output:
        _fail_amid(output)
    assert place.read_bytes() == b"two!"
    assert [each.name for each in place.parent.iterdir()] == ["a"]


def test_an_object_is_written_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It appears when it is whole, and needs no other name before."""
    store = RemoteStore(arrow_fs.LocalFileSystem())
    monkeypatch.setattr(
        "streamrnn.base.storage.store.open_store", lambda _: (store, f"{tmp_path}/a")
    )
    with replace_file("s3://bucket/a") as output:
        output.write(b"one")
        assert [each.name for each in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"one"


class FullDisk(Disk):
    """Has no room left when it is to sync."""

    def sync(self, descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_state_table_that_finds_no_room_leaves_the_one_before(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """State tables are written through the one disk that tests can fail."""
    path = str(tmp_path / f"state{suffix}")
    before = pa.table({"steps": [1, 2]})
    write_state_file(before, path)
    monkeypatch.setattr(LocalFiles, "disk", FullDisk())
    with pytest.raises(
        SinkError, match=rf"state\{suffix}: cannot write the state table: .*No space"
    ):
        write_state_file(pa.table({"steps": [3]}), path)
    assert read_state_file(path).equals(before)
    assert [each.name for each in tmp_path.iterdir()] == [f"state{suffix}"]
