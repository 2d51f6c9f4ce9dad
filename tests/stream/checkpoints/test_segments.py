"""Segments of the manifest: commits write few entries again, and all entries read back."""

import math
import random
import shutil
from pathlib import Path

import pytest
from stream.checkpoints.disks import HastyDisk
from stream.checkpoints.small_run import expected, files_of, outcome, run

from streamrnn.base.storage.local import LocalFiles
from streamrnn.errors import CheckpointError
from streamrnn.outputs import compact, history, rewind, verify
from streamrnn.stream.checkpoints import Manifest, UsedFile, read_manifest, reading, records
from streamrnn.stream.checkpoints.directory import INSIDE
from streamrnn.stream.checkpoints.records import read_segment, write_segments
from streamrnn.stream.sinks import Part
from streamrnn.stream.sources import Content

TAIL = 4
PARTS = [Part(f"part-{i:05d}.parquet", i, 10 * i, f"{i:064x}", i + 1, f"s{i}") for i in range(300)]
USED = [
    UsedFile(f"/in/é{i}", i, -1 if i % 3 else i, "", f"e{i % 2}", _content, i % 5 == 0)
    for i, _content in enumerate([None, Content(3, (1 << 64) - 1, -5, 7), Content(0, 0)] * 100)
]


@pytest.fixture(autouse=True)
def few_entries_make_a_segment(monkeypatch):
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())
    monkeypatch.setattr(records, "TAIL", TAIL)


class Written:
    """A list, and the segments of its last commit; `rows` counts the entries written to files."""

    def __init__(self, folder: Path, kind: type) -> None:
        self.files = LocalFiles(str(folder))
        self.files.make(INSIDE)
        self.kind = kind
        self.entries, self.segments = (), ()
        self.commits = self.rows = 0

    def commit(self, entries):
        self.commits += 1
        before, name = self.segments, f"{INSIDE}/_x-{self.commits:05d}-aa"
        self.segments = write_segments(self.files, name, before, self.entries, entries)
        self.entries = entries
        self.rows += sum(item.count for item in self.segments if item not in before)
        found = []
        for item in self.segments:
            found += read_segment(self.files, item, self.kind)
        assert len(entries) - len(found) <= TAIL
        assert tuple(found) == entries[: len(found)]


@pytest.mark.parametrize(("kind", "entries"), [(Part, PARTS), (UsedFile, USED)])
def test_entries_that_are_added_are_written_a_few_times_each(tmp_path, kind, entries):
    """In about log2(n / TAIL) files, each of which outlasts as many commits as it has entries."""
    written = Written(tmp_path, kind)
    longest = 0
    for count in range(len(entries) + 1):
        written.commit(tuple(entries[:count]))
        longest = max(longest, len(written.segments))
    levels = math.log2(len(entries) / TAIL)
    assert longest <= levels + 1
    assert written.rows <= len(entries) * (levels + 1)


@pytest.mark.parametrize("seed", range(20))
def test_any_changes_read_back(tmp_path, seed):
    """Entries are added, changed anywhere and cut off, in any order of commits."""
    rng, written, now = random.Random(seed), Written(tmp_path, Part), []
    for _ in range(60):
        what = rng.random()
        if what < 0.6:
            now += rng.sample(PARTS, rng.randrange(12))
        elif what < 0.8 and now:
            now[rng.randrange(len(now))] = rng.choice(PARTS)
        else:
            del now[rng.randrange(len(now) + 1) :]
        written.commit(tuple(now))


def test_a_change_rewrites_only_the_segment_that_it_is_in(tmp_path):
    written = Written(tmp_path, Part)
    for count in (200, 260, 280):
        written.commit(tuple(PARTS[:count]))
    first, *others = written.segments
    assert len(others) == 2
    written.commit((PARTS[0], PARTS[5], *PARTS[2:280]))
    assert written.segments[0] != first
    assert written.segments[0].count == first.count
    assert list(written.segments[1:]) == others
    written.commit((PARTS[0], PARTS[5], *PARTS[2:279], PARTS[0]))
    assert list(written.segments[1:]) == others  # the last entry is in the manifest


STEPS = 13


@pytest.fixture
def out(tmp_path):
    run(tmp_path / "out", steps=STEPS, keep=3)
    return tmp_path / "out"


def names_of(out):
    found = read_manifest(str(out))
    return {key: [item.name for item in items] for key, items in found.segments.items()}


def assert_tidy(out):
    named = {f"_streamrnn/{n}" for n in read_manifest(str(out)).file_names()}
    inside = {name for name in files_of(out) if name.startswith("_streamrnn/")}
    assert inside == named | {"_streamrnn/_manifest.json", "_streamrnn/_lock"}


def test_a_run_leaves_the_segments_that_its_manifest_names(out):
    found = names_of(out)
    assert found.keys() == {"rows", "rejects"}
    assert all(name.startswith("_rows-") for name in found["rows"])
    manifest = read_manifest(str(out))
    assert [part.commit for part in manifest.parts] == list(range(1, STEPS + 1))
    assert outcome(out) == expected(STEPS)
    assert verify(str(out)).parts == STEPS
    assert_tidy(out)


def test_a_manifest_with_all_entries_reads_as_one_with_segments(out):
    """The next commit makes some."""
    found = read_manifest(str(out))
    path = out / "_streamrnn/_manifest.json"
    for name in (name for names in names_of(out).values() for name in names):
        (out / "_streamrnn" / name).unlink()
    whole = Manifest(**{**vars(found), "segments": {}})
    path.write_bytes(whole.to_bytes())
    assert read_manifest(str(out)) == whole
    run(out, steps=STEPS + 1)
    assert names_of(out).keys() == {"rows", "rejects"}
    assert outcome(out) == expected(STEPS + 1)
    assert_tidy(out)


def test_rewind_and_compact_replace_segments(out):
    target = history(str(out))[0].commit
    rewind(str(out), target)
    assert len(read_manifest(str(out)).parts) == target
    assert_tidy(out)
    run(out, steps=STEPS)
    compact(str(out))
    assert "rows" not in names_of(out)
    assert_tidy(out)
    assert outcome(out) == expected(STEPS)
    verify(str(out))


def test_a_damaged_segment_is_named(out):
    """However it is damaged, and whoever reads it; a full refresh starts over."""
    for names in names_of(out).values():
        path = out / "_streamrnn" / names[0]
        good = path.read_bytes()
        for at in range(0, len(good), 41):
            path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
            for act in (read_manifest, verify, compact, run):
                with pytest.raises(CheckpointError, match=rf"{path.name} is damaged: expected"):
                    act(str(out))
            path.write_bytes(good[:at])
            with pytest.raises(CheckpointError, match=rf"is damaged.* found {at} bytes"):
                read_manifest(str(out))
        path.unlink()
        with pytest.raises(CheckpointError, match=rf"{path.name} is damaged.*--full-refresh"):
            run(out)
        path.write_bytes(good)
    run(out, steps=STEPS)
    path.unlink()
    run(out, steps=3, full_refresh=True)
    assert outcome(out) == expected(3)
    assert_tidy(out)


def test_a_reader_reads_again_when_a_commit_replaced_a_segment(out, monkeypatch):
    """Between the manifest and its segment, more commits remove it."""
    real, done = reading.read_segment, []

    def after_more_commits(*arguments):
        if not done:
            done.append(True)
            run(out, steps=2 * STEPS)
        return real(*arguments)

    monkeypatch.setattr(reading, "read_segment", after_more_commits)
    assert len(read_manifest(str(out)).parts) == 2 * STEPS


def test_numbers_of_commits_are_not_used_again_if_only_segments_are_left(out):
    """Without a manifest, the names of the other files give the number."""
    (out / "_streamrnn/_manifest.json").unlink()
    newest = max(int(name.split("-")[1]) for names in names_left(out) for name in names)
    rejects = out.with_name("out.rejects")
    for path in [*out.glob("*.parquet"), *(out / "_streamrnn").glob("_state-*")]:
        path.unlink()
    shutil.rmtree(rejects)
    run(out, steps=1, full_refresh=True)
    assert read_manifest(str(out)).commit == newest + 1


def names_left(out):
    return [[path.name for path in (out / "_streamrnn").glob("_r*-*.json")]]
