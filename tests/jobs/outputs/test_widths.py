"""Outputs whose parts got longer names, and those whose parts have not, are worked with alike."""

import pytest
from selection import slow
from stream.checkpoints.disks import HastyDisk, TracingDisk
from stream.checkpoints.small_run import expected, files_of, outcome, run, visible

from streamrnn.base.storage.local import LocalFiles
from streamrnn.outputs import compact, history, rewind, verify
from streamrnn.stream.checkpoints import read_manifest
from streamrnn.stream.sinks import part

LIMIT = 10
"""So many parts have numbers of one digit."""


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())
    monkeypatch.setattr(part, "WIDTHS", (1, 2))
    return str(tmp_path / "out")


def names(out, directory=""):
    return sorted(name for name in files_of(f"{out}{directory}") if name.startswith("part-"))


def test_a_folder_keeps_its_names_until_numbers_are_used_up(out):
    run(out, steps=LIMIT)
    before = [f"part-{n}.parquet" for n in range(LIMIT)]
    assert names(out) == before
    run(out, steps=LIMIT + 1)
    assert names(out) == [f"part-{n:02d}.parquet" for n in range(LIMIT + 1)]
    assert names(out, ".rejects") == [f"part-{n}.parquet" for n in range(LIMIT // 2)]
    assert outcome(out) == expected(LIMIT + 1)
    verify(out)


def test_a_run_that_passes_the_limit_in_its_midst_is_as_one_that_does_not(out):
    run(out, steps=2 * LIMIT + 2, keep=3)
    assert outcome(out) == expected(2 * LIMIT + 2)
    assert len(names(out, ".rejects")) == LIMIT + 1
    assert names(out, ".rejects")[-1] == "part-10.parquet"
    verify(out)


@pytest.mark.parametrize("to", [8, 9, 10, 11])
def test_rewind_over_the_change_of_names(out, to):
    run(out, steps=LIMIT + 2, keep=4)
    assert [kept.commit for kept in history(out)] == [8, 9, 10, 11, 12]
    rewind(out, to)
    assert outcome(out) == expected(to)
    assert names(out) == [f"part-{n:02d}.parquet" for n in range(to)]
    verify(out)
    run(out, steps=LIMIT + 3)
    assert outcome(out) == expected(LIMIT + 3)


@pytest.mark.parametrize("steps", [LIMIT, LIMIT + 1])
def test_compact_keeps_the_width_of_the_numbers(out, steps):
    run(out, steps=steps)
    width = read_manifest(out).parts[0].width
    largest = max(each.bytes for each in read_manifest(out).parts)
    compact(out, small=largest + 1)
    assert {each.width for each in read_manifest(out).parts} == {width}
    assert outcome(out) == expected(steps)
    compact(out)
    assert names(out) == [part.name_of(0, ".parquet", width)]
    assert outcome(out) == expected(steps)
    run(out, steps=steps + LIMIT)
    assert outcome(out) == expected(steps + LIMIT)
    verify(out)


def test_starting_over_begins_with_short_names_again(out):
    run(out, steps=LIMIT + 1)
    run(out, steps=2, full_refresh=True)
    assert names(out) == ["part-0.parquet", "part-1.parquet"]
    assert outcome(out) == expected(2)


@slow
def test_a_reader_finds_rows_in_order_at_every_moment_of_the_change(out, monkeypatch):
    """Slow: each point of a run; the others look at its end."""
    run(out, steps=LIMIT)
    rows, rejects, _ = expected(LIMIT + 1)
    seen = set()

    def look(point):
        found = visible(out)
        assert found == rows[: len(found)], point
        assert visible(f"{out}.rejects") == rejects, point
        seen.add(len(found))
        verify(out)

    monkeypatch.setattr(LocalFiles, "disk", TracingDisk(out, look))
    run(out, steps=LIMIT + 1)
    assert {0, len(rows)} < seen
