"""Which files are read next, and how used files are known again."""

from dataclasses import dataclass, field, replace

import pytest

from streamrnn.errors import CheckpointError, DataError
from streamrnn.stream.checkpoints import Manifest, UsedFile, rewrites
from streamrnn.stream.checkpoints.used import changed_files, plan_sources
from streamrnn.stream.sources import Content, Position, Reading, SourceFile


@dataclass(frozen=True)
class Present:
    """A file of a source, as far as a plan looks at it."""

    name: str
    size: int = 10
    mtime_ns: int = 1
    rows: tuple[int, ...] = (1, 2, 3)
    footer: str = "a"

    def identity(self):
        return self.footer


def content(rows):
    """A digest of rows that does not depend on their order, as the real one."""
    return Content(len(rows), sum(row * row for row in rows))


@dataclass
class Reader:
    """Reads `Present` files, and remembers which."""

    files_read: list[str] = field(default_factory=list)
    table: None = None

    def content(self, file, rows=None):
        self.files_read.append(file.name)
        if not file.rows:
            raise DataError(f"{file.name}: cannot be read")
        return content(file.rows[:rows])

    def footer(self, file):
        return _Footer(len(file.rows))


@dataclass
class _Footer:
    rows: int
    times: tuple[int, int] | None = None


def used(name, rows=(1, 2, 3)):
    return UsedFile(name, 10, 1, content=content(rows))


def manifest(*files, position=None, home="/out"):
    sources = tuple(used(file) if isinstance(file, str) else file for file in files)
    return Manifest(
        output="",
        commit=7,
        time="2026-01-02T03:04:05Z",
        complete=position is None,
        model="",
        config={},
        schema="",
        sources=sources,
        position=position,
        home=home,
    )


def plan(last, *present, reader=None, **options):
    return plan_sources(last, present, reader or Reader(), home="/out", **options)


def names(found):
    return [file.name for file in found.files]


def test_at_the_first_start_everything_is_new():
    found = plan(None, Present("/a"), Present("/b"))
    assert names(found) == ["/a", "/b"]
    assert found.position is None


def test_only_new_files_are_read_in_their_order():
    found = plan(manifest("/a", "/b"), *map(Present, ["/a", "/aa", "/b", "/c"]))
    assert names(found) == ["/aa", "/c"]


def test_the_file_of_the_position_comes_first():
    here = Position("/b", 1, 1, 2, False)
    last = manifest("/a", used("/b", (1, 2)), position=here)
    found = plan(last, *map(Present, ["/a", "/aa", "/b", "/c"]))
    assert names(found) == ["/b", "/aa", "/c"]
    assert found.position == here
    assert found.before == content((1, 2))


def test_what_was_read_before_a_position_is_read_again_after_a_rewind():
    """The file is known by more rows than are used now."""
    reader = Reader()
    last = manifest(used("/b"), position=Position("/b", 0, 1, 1, False))
    found = plan(last, Present("/b"), reader=reader)
    assert found.before == content((1,))
    assert reader.files_read == ["/b"]


def test_used_files_that_vanished_are_listed():
    found = plan(manifest("/a", "/b"), Present("/b"), Present("/c", rows=(7,)))
    assert found.vanished == ("/a",)
    assert names(found) == ["/c"]


def test_the_file_of_the_position_must_not_vanish():
    here = Position("/b", 1, 5, 105, False)
    with pytest.raises(CheckpointError, match=r"/b is gone: .*row 105 \(from 0\)"):
        plan(manifest("/a", "/b", position=here), Present("/a"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (Present("/a", mtime_ns=2, rows=(1, 2, 4)), "other values in its 3 rows"),
        (Present("/a", size=11, rows=(1, 2)), "3 rows when it was read, 2 rows now"),
        (Present("/a", size=11, rows=(1, 2, 3, 4)), "3 rows when it was read, 4 rows now"),
        (Present("/a", size=11, rows=()), "3 rows when it was read, 0 rows now"),
    ],
)
def test_a_changed_file_is_refused_by_name_or_passed_over_with_force(changed, said):
    with pytest.raises(CheckpointError, match=f"/a: .*{said}") as caught:
        plan(manifest("/a", "/b"), changed, Present("/b"))
    assert "--full-refresh" in str(caught.value)
    assert "--force" in str(caught.value)
    found = plan(manifest("/a", "/b"), changed, Present("/b"), Present("/c"), force=True)
    assert found.changed == (changed,)
    assert names(found) == ["/c"]


def test_many_changed_files_are_counted():
    files = [f"/f{n:02}" for n in range(30)]
    with pytest.raises(CheckpointError, match=r"30 files(?s:.*)and 20 more"):
        plan(manifest(*files), *(Present(path, size=1, rows=(9,)) for path in files))


@pytest.mark.parametrize("size", [10, 99])
def test_a_file_with_the_same_rows_is_as_it_was(size):
    """Touched, compressed anew, or with its rows in another order; and known as such next time."""
    dirty = Present("/a", size=size, mtime_ns=99, rows=(3, 1, 2))
    found = plan(manifest("/a"), dirty)
    assert names(found) == []
    assert [(file.size, file.mtime_ns) for file in found.used] == [(size, 99)]


def test_an_untouched_file_is_not_read():
    reader = Reader()
    plan(manifest("/a"), Present("/a", rows=(9,)), reader=reader)
    assert reader.files_read == []


def test_of_a_file_that_is_being_read_only_what_was_read_must_stay():
    here = Position("/a", 0, 2, 2, False)
    last = manifest(used("/a", (1, 2)), position=here)
    assert names(plan(last, Present("/a", mtime_ns=2, rows=(2, 1, 7, 8)))) == ["/a"]
    with pytest.raises(CheckpointError, match="other values in its 2 rows"):
        plan(last, Present("/a", mtime_ns=2, rows=(2, 7, 1)))


# -- files whose rows came from other files: of them footers are known ------------------------


def unread(path, footer="a"):
    return UsedFile(path, 10, 1, identity=footer)


def test_a_file_that_no_run_has_read_is_known_by_size_and_footer():
    last = manifest(unread("/in/a"), unread("/in/b"), unread("/in/c"))
    here = [Present(f"/in/{name}", mtime_ns=2) for name in "abc"]
    found = plan(last, *here)
    assert names(found) == []
    assert found.by_footer == 3
    with pytest.raises(CheckpointError, match="b: 10 bytes when it was read, 10 bytes now, other"):
        plan(last, here[0], Present("/in/b", mtime_ns=2, footer="b"), here[2])
    with pytest.raises(CheckpointError, match="c: 10 bytes when it was read, 11 bytes now"):
        plan(last, *here[:2], Present("/in/c", size=11))


def test_a_file_that_no_run_has_read_is_refused_under_another_name():
    with pytest.raises(CheckpointError, match=r"in/a -> .*in/z"):
        plan(manifest(unread("/in/a")), Present("/in/z", mtime_ns=2))


def test_a_folder_that_was_moved_with_its_source_knows_its_files(tmp_path):
    last = manifest("/then/in/a", "/then/in/b", home="/then/out")
    found = plan_sources(
        last, [Present("/now/in/a"), Present("/now/in/c", rows=(5,))], Reader(), home="/now/out"
    )
    assert names(found) == ["/now/in/c"]
    assert [file.path for file in found.used] == ["/now/in/a", "/then/in/b"]
    assert found.vanished == ("/then/in/b",)


def test_a_file_that_is_being_read_may_grow_where_it_was_moved_with_the_output():
    here = Position("/then/in/a", 0, 2, 2, False)
    last = manifest(used("/then/in/a", (1, 2)), position=here, home="/then/out")
    for rows, changed in (((1, 2, 3), []), ((1, 7, 3), ["/then/in/a"])):
        moved = Present("/now/in/a", mtime_ns=2, rows=rows)
        assert changed_files(last, [moved], Reader(), home="/now/out") == changed


# -- rewritten sources --------------------------------------------------------------------------

A, B, C = used("/in/a", (1, 2)), used("/in/b", (3, 4)), used("/in/c", (5, 6, 7))


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ([Present("/in/z", rows=(1, 2))], "/in/a -> /in/z"),
        ([Present("/else/z", rows=(2, 1))], "/in/a -> /else/z"),
        ([Present("/in/z", rows=(1, 2, 3, 4, 5, 6, 7))], "/in/a, /in/b, /in/c -> /in/z"),
        ([Present("/in/z", rows=(5, 6, 7, 2, 1))], "/in/a, /in/c -> /in/z"),
        (
            [Present("/in/y", rows=(1, 5)), Present("/in/z", rows=(2, 6, 7, 3, 4))],
            "/in/a, /in/b, /in/c -> /in/y, /in/z",
        ),
        (
            [Present("/x/y", rows=(1, 5, 6)), Present("/y/z", rows=(2, 7, 3, 4))],
            "/in/a, /in/b, /in/c -> /x/y, /y/z",
        ),
    ],
    ids=["renamed", "elsewhere", "all in one", "some in one", "split anew", "other folders"],
)
@pytest.mark.parametrize("more", [(), ((8, 9),), ((8,), (9, 10, 11))], ids=["", "one", "two"])
def test_new_files_with_used_rows_are_refused_with_both_names(new, said, more):
    """Beside real news as well."""
    news = [Present(f"/in/new{i}", rows=rows) for i, rows in enumerate(more)]
    with pytest.raises(CheckpointError, match="already in the output") as caught:
        plan(manifest(A, B, C), *news, *new)
    assert said in str(caught.value)
    found = plan(manifest(A, B, C), *news, *new, force=True)
    assert names(found) == [file.name for file in news]
    assert [f.name for r in found.rewritten for f in r.new] == [file.name for file in new]


def test_ordinary_retention_passes_and_is_counted():
    """Old files are deleted, new ones with as many other rows come."""
    reader = Reader()
    news = [Present("/in/d", rows=(8, 9)), Present("/in/e", rows=(8, 9, 10))]
    found = plan(manifest(A, B, C), Present("/in/c"), *news, reader=reader)
    assert names(found) == ["/in/d", "/in/e"]
    assert found.vanished == ("/in/a", "/in/b")


def test_files_whose_times_differ_are_not_read(monkeypatch):
    """Ordinary retention of files with equal numbers of rows costs footers alone."""
    reader = Reader()
    monkeypatch.setattr(Reader, "footer", lambda _, file: _Footer(len(file.rows), (50, 60)))
    gone = UsedFile("/in/a", 10, 1, content=Content(2, 5, first=10, last=20))
    found = plan(manifest(gone), Present("/in/d", rows=(8, 9)), reader=reader)
    assert names(found) == ["/in/d"]
    assert reader.files_read == []


@pytest.mark.parametrize("sizes", ["equal", "all others"])
def test_many_files_take_a_bounded_number_of_tries(sizes, monkeypatch):
    """Which of 200 numbers add up to another could take for ever; a run says that it gave up."""
    monkeypatch.setattr(rewrites, "_STEPS", 100)
    length = {"equal": lambda i: 5, "all others": lambda i: 2 * i + 2}[sizes]
    gone = [used(f"/in/{i}", tuple(range(i, i + length(i)))) for i in range(200)]
    reader = Reader()
    found = plan(manifest(*gone), Present("/in/z", rows=tuple(range(995))), reader=reader)
    assert names(found) == ["/in/z"]
    assert found.unresolved
    assert reader.files_read in ([], ["/in/z"])


def timed(rows, first, last):
    return Content(len(rows), content(rows).digest, first, last)


def test_times_tell_which_of_the_gone_files_a_new_one_may_hold(monkeypatch):
    """Retention took the first ones, in the same moment; and files went to another folder."""
    times = {"/m/x": (30, 59), "/in/new": (60, 69)}
    monkeypatch.setattr(Reader, "footer", lambda _, file: _Footer(len(file.rows), times[file.name]))
    gone = [
        UsedFile(f"/in/{i}", 10, 1, content=timed((i, i + 1), 10 * i, 10 * i + 9)) for i in range(6)
    ]
    whole = Present("/m/x", rows=(3, 4, 4, 5, 5, 6))
    with pytest.raises(CheckpointError, match="/in/3, /in/4, /in/5 -> /m/x"):
        plan(manifest(*gone), whole, Present("/in/new", rows=(8,)))


def test_what_vanished_since_the_last_commit_is_tried_first():
    """Earlier retention, of files with as many rows, does not hide a rewrite."""
    earlier = [replace(used(f"/in/{i}", (i, 9)), gone=True) for i in range(300)]
    since = [used(f"/in/a{i}", (50 + i, 60 + i)) for i in range(20)]
    rows = tuple(row for i in range(20) for row in (50 + i, 60 + i))
    with pytest.raises(CheckpointError, match="the rows of 20 used files"):
        plan(manifest(*earlier, *since), Present("/in/all", rows=rows))


def test_a_file_that_begins_with_used_rows_is_refused():
    with pytest.raises(
        CheckpointError, match=r"/in/a, /in/b -> /in/z \(with 3 more rows after them\)"
    ):
        plan(manifest(A, B), Present("/in/z", rows=(1, 2, 3, 4, 7, 8, 9)))


# -- object stores ------------------------------------------------------------------------------


def test_an_object_that_may_have_changed_within_the_second_is_looked_at_again():
    second = 1_000_000_000
    file = SourceFile("a", "s3://b/a", 10, 7 * second, None, "b/a")
    at_once = UsedFile.of(file, Reading(content((1,)), "v1", opened_ns=8 * second))
    later = UsedFile.of(file, Reading(content((1,)), "v1", opened_ns=10 * second))
    assert (at_once.mtime_ns, later.mtime_ns) == (-1, 7 * second)
