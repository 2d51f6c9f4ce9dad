"""The file layer: on a disk, and on what pyarrow.fs opens."""

import hashlib

import pytest
from pyarrow import fs as arrow_fs

from streamrnn.base.storage import open_files
from streamrnn.base.storage.local import LocalFiles
from streamrnn.base.storage.remote import RemoteFiles
from streamrnn.errors import ConfigError, SinkError
from streamrnn.stream.config import side_folder


@pytest.fixture(params=["local", "remote"])
def files(request, tmp_path):
    if request.param == "local":
        return LocalFiles(str(tmp_path))
    (tmp_path / "in").mkdir()  # an object store has no folders; the disk below this one has
    return RemoteFiles(arrow_fs.LocalFileSystem(), str(tmp_path), "s3://user:secret@bucket/out?x=1")


def test_what_is_put_can_be_read(files):
    files.make("in")
    files.put("in/a", b"one")
    files.put("in/a", b"two!")
    assert files.read("in/a") == b"two!"
    assert files.sizes("in") == {"a": 4}
    assert files.entries("in") == ["a"]
    assert files.sha256("in/a") == hashlib.sha256(b"two!").hexdigest()


def test_an_output_counts_and_hashes_what_it_writes(files):
    output = files.create("a")
    output.write(b"some")
    output.write(memoryview(b"more"))
    output.finish()
    assert files.read("a") == b"somemore"
    assert (output.bytes, output.tell()) == (8, 8)
    assert output.sha256 == hashlib.sha256(b"somemore").hexdigest()
    output.write(b"late")
    assert files.read("a") == b"somemore"


def test_move_takes_the_place_of_what_is_there(files):
    files.put("a", b"new")
    files.put("b", b"old")
    files.move("a", "b")
    assert files.read("b") == b"new"
    assert files.sizes("") == {"b": 3}


def test_what_is_not_there(files):
    assert files.sizes("nowhere") == {}
    assert files.entries("nowhere") == []
    files.delete("nothing")
    with pytest.raises(FileNotFoundError):
        files.read("nothing")
    with pytest.raises(SinkError, match="/b: "):
        files.move("nothing", "b")


def test_delete(files):
    files.put("a", b"x")
    files.delete("a")
    assert files.sizes("") == {}


def test_messages_name_the_uri_and_no_secret(files):
    if not files.local:
        assert files.show("part") == "s3://bucket/out/part"
        assert files.show("") == "s3://bucket/out"


def test_a_tree_follows_links_and_lists_each_folder_once(tmp_path):
    """By its real name where it lies inside, whatever a link to it is called."""
    for name in ("root/sub/b", "root/a", "else/inner/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for link, target in (("root/0", "sub"), ("root/l", "../else"), ("else/inner/up", "../../root")):
        (tmp_path / link).symlink_to(target)
    assert LocalFiles(str(tmp_path / "root")).tree() == ["a", "l/inner/c", "sub/b"]


@pytest.mark.parametrize("path", ["{}", "file://{}"])
def test_paths_and_file_uris_are_on_the_disk(tmp_path, path):
    files = open_files(path.format(tmp_path))
    assert isinstance(files, LocalFiles)
    assert files.show("a") == str(tmp_path / "a")


def test_a_uri_that_cannot_be_opened_is_a_config_error():
    with pytest.raises(ConfigError, match=r"the path .* cannot be opened.*Expected a directory"):
        open_files("nonsense://x/y")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("out/weather", "out/weather.rejects"),
        ("out/weather/", "out/weather.rejects"),
        ("s3://b/out?region=x", "s3://b/out.rejects?region=x"),
        ("file:///out/", "file:///out.rejects"),
    ],
)
def test_rejects_go_beside(path, expected):
    assert side_folder(path, "rejects") == expected
