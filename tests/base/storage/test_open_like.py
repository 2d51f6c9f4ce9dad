"""A folder that a URI names is opened as another one connects."""

from pathlib import Path

from pyarrow import fs

from streamrnn.base.storage.local import LocalFiles
from streamrnn.base.storage.remote import RemoteFiles
from streamrnn.base.storage.store import open_like


def test_a_folder_of_the_same_store_has_its_connection(tmp_path: Path) -> None:
    (tmp_path / "b" / "x").mkdir(parents=True)
    (tmp_path / "b" / "x" / "file").write_bytes(b"1")
    store = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    files = RemoteFiles(store, "a/out", "s3://a/out?region=eu-west-3")
    found = open_like("s3://b/x", files)
    assert found.read("file") == b"1"
    assert found.show("file") == "s3://b/x/file"


def test_a_local_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a b?c#d%20"
    folder.mkdir()
    (folder / "file").write_bytes(b"1")
    assert open_like(f"file://{folder}", LocalFiles("/")).read("file") == b"1"
