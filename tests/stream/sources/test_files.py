"""Which files a path means, in which order, with which partitions."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from streamrnn.base.storage import store as disks
from streamrnn.base.storage.store import LocalStore, RemoteStore, is_wanted
from streamrnn.errors import ConfigError, DataError, MissingFileError
from streamrnn.stream.sources import FileSource, canonical_name, files, list_files
from streamrnn.stream.sources.files import Pattern, _split_glob_uri

NULL = "__HIVE_DEFAULT_PARTITION__"


def _make(root: Path, *names: str, table: pa.Table | None = None) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"x": [1]}) if table is None else table, path)


def _names(path: str, root: Path) -> list[str]:
    return [os.path.relpath(f.path, root) for f in list_files(path)]


def test_a_directory_is_its_parquet_files_at_any_depth_in_natural_order(tmp_path: Path) -> None:
    """Names that begin with . or _ are passed over, folders too."""
    _make(tmp_path, "b.parquet", "a/2.parquet", "a/10.pq", "_x/1.parquet", ".h/1.parquet")
    _make(tmp_path, "a/_1.parquet", "a/.1.parquet", "a/notes.txt")
    assert _names(str(tmp_path), tmp_path) == ["a/2.parquet", "a/10.pq", "b.parquet"]
    assert _names(f"{tmp_path}/", tmp_path) == ["a/2.parquet", "a/10.pq", "b.parquet"]


@pytest.mark.parametrize("filesystem", ["local", "object store"])
@pytest.mark.parametrize(
    "names",
    [
        ["part-2.parquet", "part-10.parquet", "part-100.parquet"],
        [f"year=2013/month={m}/day={d}/part-0.parquet" for m in (1, 2, 10) for d in (1, 2, 11)],
        ["date=2013-01-05/p.parquet", "date=2013-01-06/p.parquet", "date=2013-01-10/p.parquet"],
        [
            "shift=-10/p.parquet",
            "shift=-2/p.parquet",
            "shift=3/p.parquet",
            f"shift={NULL}/p.parquet",
        ],
        [
            f"x={x}/p.parquet"
            for x in ("-1e3", "-.5", "0.5", "1.", "1.25", "1.5", "+2", "1e1", NULL)
        ],
        [f"n={n}/p.parquet" for n in ("-3", "1", "+2", "10", "123456789012345678901")],
        ["site=1.5/p.parquet", "site=1.25/p.parquet", "site=x/p.parquet"],
        ["site=A/p.parquet", "site=b/p.parquet", f"site={NULL}/p.parquet"],
        ["log1/z.parquet", "log2/a.parquet", "log10/a.parquet"],
        ["v1.2.parquet", "v1.10.parquet", "v2.parquet"],
        ["a/02.parquet", "a/2.parquet", "a/3.parquet", "b.parquet"],
    ],
    ids=lambda names: names[0],
)
def test_numbers_in_paths_count_as_numbers(
    names: list[str], filesystem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Partition values by their type, null last; what a lake writes is read in its order."""
    _make(tmp_path, *sorted(names))
    if filesystem == "object store":
        store = pafs.SubTreeFileSystem(str(tmp_path.parent), pafs.LocalFileSystem())
        monkeypatch.setattr(files, "resolve", lambda _: (RemoteStore(store), tmp_path.name))
        found = [f.location.removeprefix(f"{tmp_path.name}/") for f in list_files("s3://bucket")]
    else:
        found = _names(str(tmp_path), tmp_path)
    assert found == names


def test_a_file_is_known_by_one_name_however_it_is_spelled(workdir: Path) -> None:
    """Relative, absolute, with dots and slashes, through links, as a URI, by a pattern."""
    _make(workdir, "in/a.parquet")
    (workdir / "link").symlink_to("in")
    (workdir / "one.parquet").symlink_to("in/a.parquet")
    spellings = [
        "in", "./in", "in/", "in//", f"{workdir}/in", f"../{workdir.name}/in", "link",
        "link/../in", f"file://{workdir}/in", "in/*.parquet", "in/**", "**/a.parquet",
        "./**/in/a*", "in/a.parquet", "one.parquet", f"file://{workdir}/link/a.parquet",
    ]  # fmt: skip
    real = os.path.realpath(workdir / "in" / "a.parquet")
    assert {path: [f.name for f in list_files(path)] for path in spellings} == {
        path: [real] for path in spellings
    }
    assert canonical_name("in/a.parquet") == canonical_name(f"file://{workdir}/link/a.parquet")


def test_names_on_object_stores_hold_no_options_and_no_secrets() -> None:
    assert canonical_name("s3://key:secret@b/in/a.parquet?region=x") == "s3://b/in/a.parquet"
    assert canonical_name("gs://b/a.parquet") == canonical_name("gcs://b/a.parquet")


def test_only_what_stands_before_the_bucket_is_a_user() -> None:
    assert canonical_name("s3://b/in/a@b.parquet") == "s3://b/in/a@b.parquet"
    assert canonical_name("s3://key:x@b/a@b.parquet") == "s3://b/a@b.parquet"


def test_links_in_a_circle_are_read_once(tmp_path: Path) -> None:
    """A folder that holds itself, two that hold each other, and a file that is linked beside."""
    _make(tmp_path, "in/a.parquet", "in/x/b.parquet", "in/y/c.parquet")
    (tmp_path / "in/again").symlink_to(".")
    (tmp_path / "in/x/y").symlink_to("../y")
    (tmp_path / "in/y/x").symlink_to("../x")
    (tmp_path / "in/zz.parquet").symlink_to("a.parquet")
    (tmp_path / "in/nowhere.parquet").symlink_to("gone.parquet")
    expected = ["a.parquet", "x/b.parquet", "y/c.parquet"]
    assert _names(f"{tmp_path}/in", tmp_path / "in") == expected
    assert _names(f"{tmp_path}/in/**/*.parquet", tmp_path / "in") == expected


def test_links_to_other_folders_are_followed(tmp_path: Path) -> None:
    _make(tmp_path, "else/where/a.parquet")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to("../else")
    assert _names(f"{tmp_path}/in", tmp_path) == ["in/link/where/a.parquet"]


def test_a_folder_with_several_links_is_read_where_it_has_its_partitions(tmp_path: Path) -> None:
    """Whatever the names of the other links, and by the first path in order where both have."""
    _make(tmp_path, "store/a/p.parquet", "store/b/p.parquet", "in/day=2/p.parquet")
    for link, folder in (("day=1", "a"), ("a", "a"), ("latest", "a"), ("day=10", "b")):
        (tmp_path / "in" / link).symlink_to(tmp_path / "store" / folder)
    (tmp_path / "in/day=9").symlink_to(tmp_path / "store/b")
    expected = ["day=1/p.parquet", "day=2/p.parquet", "day=9/p.parquet"]
    for path in ("in", "in/**/*.parquet", "in/*/*.parquet"):
        assert _names(f"{tmp_path}/{path}", tmp_path / "in") == expected, path
    assert [dict(f.partitions)["day"].as_py() for f in list_files(f"{tmp_path}/in")] == [1, 2, 9]
    assert _names(f"{tmp_path}/in/late*/**/*.parquet", tmp_path / "in") == ["latest/p.parquet"]


def test_a_linked_folder_that_lies_inside_as_well_is_read_by_its_partition(tmp_path: Path) -> None:
    _make(tmp_path, "in/all/x/p.parquet", "in/all/y/p.parquet")
    (tmp_path / "in/day=1").symlink_to("all/x")
    (tmp_path / "in/zz").symlink_to("all")
    assert _names(f"{tmp_path}/in", tmp_path / "in") == ["all/y/p.parquet", "day=1/p.parquet"]


@pytest.mark.parametrize("name", ["to-{}", "to={}", "{}=1"])
def test_many_links_in_circles_are_few_readings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve folders that each hold links to all of them: 12! paths without a file twice."""
    for i in range(12):
        _make(tmp_path, f"in/{i}/p.parquet")
        for j in range(12):
            (tmp_path / "in" / str(i) / name.format(j)).symlink_to(f"../{j}")
    read: list[str] = []
    entries = disks._entries
    monkeypatch.setattr(disks, "_entries", lambda path: read.append(path) or entries(path))
    assert len(list_files(f"{tmp_path}/in")) == 12
    assert len(read) <= 1 + 12 * 13


def test_a_link_to_itself_is_no_file(tmp_path: Path) -> None:
    _make(tmp_path, "in/a.parquet")
    for name in ("x", "x.parquet"):
        (tmp_path / "in" / name).symlink_to(name)
    for path in ("in", "in/*", "in/**", "in/**/*.parquet"):
        assert _names(f"{tmp_path}/{path}", tmp_path / "in") == ["a.parquet"], path


@pytest.mark.parametrize("call", ["scandir", "stat"])
@pytest.mark.parametrize("path", ["in", "in/**/*.parquet", "in/*/*.parquet"])
def test_what_may_not_be_read_is_named(
    path: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder, and a link that leads into one: nothing is left out in silence."""
    _make(tmp_path, "in/a/p.parquet", "locked/p.parquet")
    (tmp_path / "in/link").symlink_to(tmp_path / "locked")
    refused = str(tmp_path / "in/link")
    original = getattr(os, call)

    def refuse(found: Any, *args: Any, **options: Any) -> Any:
        if found == refused:
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(found, *args, **options)

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(DataError, match=r"link \(a link to .*locked\): cannot be read: Permission"):
        list_files(f"{tmp_path}/{path}")


def test_a_name_that_is_no_text_is_named_in_bytes(tmp_path: Path) -> None:
    """No manifest could hold it."""
    _make(tmp_path, "in/a.parquet")
    os.rename(tmp_path / "in/a.parquet", os.fsencode(tmp_path / "in") + b"/b\xff.parquet")
    for path in ("in", "in/*"):
        with pytest.raises(DataError, match=r"in/b\\xff\.parquet'.*Rename the file"):
            list_files(f"{tmp_path}/{path}")


def test_empty_parts_of_a_pattern_count_for_nothing(tmp_path: Path) -> None:
    _make(tmp_path, "in/a.parquet", "in/x/b.parquet")
    for path in ("in//**/*.parquet", "in/**//*.parquet", "in//./**/*.parquet", "in//**"):
        found = [os.path.normpath(f.path) for f in list_files(f"{tmp_path}/{path}")]
        assert found == [f"{tmp_path}/in/a.parquet", f"{tmp_path}/in/x/b.parquet"], path


def test_a_way_up_after_a_pattern_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'"\.\." is not allowed after a wildcard'):
        list_files(f"{tmp_path}/*/../*.parquet")


def test_globs(tmp_path: Path) -> None:
    """*, ?, [] and **, sorted; without a match there is no file."""
    _make(tmp_path, "b1.parquet", "b2.parquet", "c.parquet", "d/e/b3.parquet")
    assert _names(f"{tmp_path}/b*.parquet", tmp_path) == ["b1.parquet", "b2.parquet"]
    assert _names(f"{tmp_path}/b[2-9].parquet", tmp_path) == ["b2.parquet"]
    assert _names(f"{tmp_path}/**/b?.parquet", tmp_path) == [
        "b1.parquet",
        "b2.parquet",
        "d/e/b3.parquet",
    ]
    assert list_files(f"{tmp_path}/z*") == []


def test_a_name_with_special_characters_means_itself_if_it_is_there(tmp_path: Path) -> None:
    """`log[1].parquet` is a file before it is a pattern; spaces and % are only characters."""
    _make(tmp_path, "log[1].parquet", "log1.parquet", "a b%20.parquet", "x*y/1.parquet")
    assert _names(f"{tmp_path}/log[1].parquet", tmp_path) == ["log[1].parquet"]
    assert _names(f"{tmp_path}/a b%20.parquet", tmp_path) == ["a b%20.parquet"]
    assert _names(f"{tmp_path}/x*y", tmp_path) == ["x*y/1.parquet"]


def test_nothing_there_is_told(tmp_path: Path) -> None:
    """A path without a pattern that is not there is an error, an empty directory is empty."""
    with pytest.raises(MissingFileError, match="no such file or directory"):
        list_files(str(tmp_path / "none"))
    assert list_files(str(tmp_path)) == []


def test_file_uris_are_read_by_their_path(tmp_path: Path) -> None:
    """Files, directories and patterns of a URI; names keep the scheme."""
    _make(tmp_path, "a.parquet", "d/b.parquet")
    assert [f.path for f in list_files(f"file://{tmp_path}")] == [
        f"file://{tmp_path}/a.parquet",
        f"file://{tmp_path}/d/b.parquet",
    ]
    assert [f.path for f in list_files(f"file://{tmp_path}/*/b*")] == [
        f"file://{tmp_path}/d/b.parquet"
    ]


def test_patterns_of_a_uri_are_encoded_as_the_rest_of_it(tmp_path: Path) -> None:
    """As the message about a URI with a space advises; an encoded `[` stands for itself."""
    _make(tmp_path, "a b/é [1].parquet", "a b/é 1.parquet", "x[1]/c.parquet", "x1/c.parquet")
    with pytest.raises(DataError, match="%20 for a space"):
        list_files(f"file://{tmp_path}/a b/*.parquet")
    assert len(list_files(f"file://{tmp_path}/a%20b/%C3%A9%20*.parquet")) == 2
    (found,) = list_files(f"file://{tmp_path}/*/%C3%A9%20%5B1%5D.parquet")
    assert found.path == f"file://{tmp_path}/a b/é [1].parquet"
    (found,) = list_files(f"file://{tmp_path}/x%5B1%5D/*.parquet")
    assert found.path == f"file://{tmp_path}/x[1]/c.parquet"


def test_options_of_a_uri_are_no_pattern() -> None:
    """`?` begins the options, which hold for the fixed part as well."""
    store: Any
    store, location = _split_glob_uri("s3://bucket/a/x*.parquet?region=eu-west-3")
    assert (store.fs.region, location) == ("eu-west-3", "bucket/a/x*.parquet")
    store, location = _split_glob_uri("s3://bucket/a?region=eu-west-3")
    assert (store.fs.region, location) == ("eu-west-3", "bucket/a")


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("a/b.parquet", "a/*.parquet", True),
        ("a/c/b.parquet", "a/*.parquet", False),
        ("a/b.parquet", "a/**/*.parquet", True),
        ("a/c/d/b.parquet", "a/**/*.parquet", True),
        ("a/c/d/b.parquet", "a/**/d/*", True),
        ("a", "a/*", False),
        ("x/y", "**", True),
        ("x/.y", "**", False),
        (".x/y", "**", False),
        (".x/y", ".*/*", True),
        ("a/b/c/d", "**/b/**/d", True),
        ("a/b/d", "**/b/**/d", True),
        ("a/d/b", "**/b/**/d", False),
        ("a/b.parquet", "a//*.parquet", True),
    ],
)
def test_patterns_on_object_stores_are_those_of_folders(
    path: str, pattern: str, expected: bool
) -> None:
    """`*` stays within a name."""
    assert is_wanted(path, Pattern.of(pattern)) is expected


def _columns(root: Path, *names: str) -> dict[str, list[object]]:
    source = FileSource(list_files(str(root)), list(names), 100)
    tables = [pa.Table.from_batches([b.batch]) for b in source.batches()]
    return pa.concat_tables(tables).to_pydict()


def test_hive_partitions_are_columns(tmp_path: Path) -> None:
    """Integers where all values are, else text, decoded from URLs; the default is null."""
    _make(tmp_path, "year=2012/site=a%2Fb/1.parquet", "year=2013/site=7/1.parquet")
    _make(tmp_path, "year=__HIVE_DEFAULT_PARTITION__/site=c d/1.parquet")
    found = _columns(tmp_path, "site", "year", "x")
    assert found == {"site": ["a/b", "7", "c d"], "year": [2012, 2013, None], "x": [1, 1, 1]}


def test_partitions_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    """Each invalid byte would be read as the same character, and streams of two folders as one."""
    _make(tmp_path, "site=%E9/1.parquet", "site=%E8/1.parquet")
    with pytest.raises(DataError, match=r"folder 'site=%E[89]': expected percent-encoded UTF-8"):
        _columns(tmp_path, "site")


def test_numbers_that_are_no_integers_stay_text(tmp_path: Path) -> None:
    """They are only sorted as numbers."""
    _make(tmp_path, "v=1.5/p.parquet", "v=1.25/p.parquet", "v=+2/p.parquet")
    assert _columns(tmp_path, "v") == {"v": ["1.25", "1.5", "+2"]}


def test_a_column_of_the_file_goes_before_a_partition_of_its_name(tmp_path: Path) -> None:
    """Whatever type the folder's name would have."""
    _make(tmp_path, "day=1/a.parquet", table=pa.table({"x": [1], "day": ["Mon"]}))
    assert _columns(tmp_path, "day") == {"day": ["Mon"]}


def test_identity_is_that_of_the_content(tmp_path: Path) -> None:
    """A copy has it, other rows do not; without a footer there is none."""
    _make(tmp_path, "a.parquet", "b.parquet")
    _make(tmp_path, "c.parquet", table=pa.table({"x": [2]}))
    a, b, c = (f.identity() for f in list_files(str(tmp_path)))
    assert a == b != c
    (tmp_path / "c.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-3])
    with pytest.raises(DataError, match="expected 'PAR1' at its end"):
        list_files(f"{tmp_path}/c.parquet")[0].identity()


def test_an_identity_that_cannot_be_read_names_the_file(tmp_path: Path) -> None:
    _make(tmp_path, "a.parquet")
    (file,) = list_files(str(tmp_path))

    class Refusing(LocalStore):
        def open(self, path: str) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(DataError, match=r"a\.parquet: cannot be read: Permission denied\. Allow"):
        replace(file, store=Refusing()).identity()
    os.unlink(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: the file was removed before it could"):
        file.identity()
