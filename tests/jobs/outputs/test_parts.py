"""Going back, merging parts, replacing the state."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stream.checkpoints.disks import HastyDisk
from stream.checkpoints.small_run import expected, files_of, outcome, run, visible

from streamrnn.base.storage.local import LocalFiles
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.jobs.outputs import merge_small_parts
from streamrnn.outputs import compact, history, rewind, verify
from streamrnn.stream.checkpoints import OutputFolder, load_state, read_manifest
from streamrnn.stream.config import SIDE_OUTPUTS, SideOutput


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())
    return str(tmp_path / "out")


def numbers(out):
    return [kept.commit for kept in history(out)]


# -- history and rewind --------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "kept"), [(0, [5]), (1, [4, 5]), (3, [2, 3, 4, 5])])
def test_so_many_commits_are_kept(out, keep, kept):
    run(out, keep=keep)
    assert numbers(out) == kept


def test_ends_of_runs_are_kept_beside(out):
    during = {}
    for steps in (2, 4, 7, 9):
        run(out, steps=steps, keep=2, one_run=True, say=lambda n: during.update({n: numbers(out)}))
    assert during[6] == [2, 4, 5, 6]
    assert during[7] == [2, 4, 7]
    assert during[9] == [4, 7, 9]
    assert all(kept.complete for kept in history(out))


def test_state_files_of_kept_commits_stay_and_others_go(out):
    run(out, keep=2)
    inside = sorted(name for name in files_of(out) if name.endswith(".arrow"))
    commits = [name.removeprefix("_streamrnn/_state-")[:5] for name in inside]
    assert commits == ["00003", "00004", "00005"]


@pytest.mark.parametrize("to", [1, 2, 3, 4])
def test_rewind_brings_rows_rejects_state_and_position_back(out, to):
    run(out, keep=4)
    manifest = rewind(out, to)
    assert outcome(out) == expected(to)
    assert manifest.position.row == to - 1
    assert manifest.counters == {"steps": to}
    assert manifest.commit == 6
    assert numbers(out) == [*range(1, to), 6]
    verify(out)
    run(out, keep=4)
    assert outcome(out) == expected()


def test_rewind_to_what_is_not_kept_lists_what_is(out):
    run(out, keep=2)
    with pytest.raises(ConfigError, match=r"cannot go back to commit 2\. Retained commits: 3, 4;"):
        rewind(out, 2)
    with pytest.raises(ConfigError, match="cannot go back to commit 5"):
        rewind(out, 5)


def test_rewind_of_a_folder_in_use_is_refused(out):
    run(out)
    with OutputFolder.open(out), pytest.raises(CheckpointError, match="in use"):
        rewind(out, 4)


def test_rewind_over_merged_parts_cuts_them(out):
    run(out, keep=4)
    compact(out)
    rewind(out, 3)
    assert outcome(out) == expected(3)
    verify(out)
    run(out)
    assert outcome(out) == expected()


def test_rewind_to_a_commit_without_rows(out):
    schema = pa.schema([("y", pa.float32())])
    with OutputFolder.open(out, keep=3) as folder:
        folder.begin(schema, model="", config={})
        folder.commit(complete=True)
        folder.write(pa.record_batch([pa.array([1, 2], pa.float32())], schema=schema))
        folder.commit(complete=True)
    rewind(out, 1)
    assert visible(out) == []
    assert pq.read_table(f"{out}/part-00000.parquet").schema == schema


# -- compact -------------------------------------------------------------------------------------


def test_compact_merges_all_small_parts_and_changes_no_row(out):
    run(out)
    compact(out)
    assert [part.rows for part in read_manifest(out).parts] == [len(expected()[0])]
    assert outcome(out) == expected()
    verify(out)


def test_compact_stops_at_the_size_it_is_given(out):
    run(out)
    sizes = [part.bytes for part in read_manifest(out).parts]
    compact(out, small=max(sizes) + 1)
    assert [part.name[5:10] for part in read_manifest(out).parts] == ["00000", "00002", "00004"]
    assert outcome(out) == expected()


def test_a_run_goes_on_after_compact(out):
    run(out, steps=3)
    compact(out)
    run(out)
    assert [part.name for part in read_manifest(out).parts][-1] == "part-00002.parquet"
    assert outcome(out) == expected()
    compact(out)
    assert outcome(out) == expected()


def test_compact_with_nothing_to_merge_commits_nothing(out):
    run(out)
    compact(out)
    commit = read_manifest(out).commit
    assert compact(out) is None
    assert read_manifest(out).commit == commit


def test_compact_does_not_bless_a_damaged_part(out):
    run(out)
    with open(f"{out}/part-00001.parquet", "r+b") as file:
        file.seek(30)
        file.write(b"?")
    with pytest.raises(CheckpointError, match=r"part-00001\.parquet is damaged"):
        compact(out)
    assert len(read_manifest(out).parts) == 5


def test_a_run_may_merge_its_own_parts_between_commits(out):
    with OutputFolder.open(out, keep=1) as folder:
        folder.begin(pa.schema([("n", pa.int64())]), model="", config={})
        for n in range(25):
            folder.write(pa.record_batch([[n]], names=["n"]))
            folder.commit(complete=n == 24)
            merge_small_parts(folder, least=10)
    assert [part.rows for part in read_manifest(out).parts] == [19, 1, 1, 1, 1, 1, 1]
    assert visible(out) == [(n,) for n in range(25)]
    assert numbers(out) == [26, 27]
    verify(out)


def test_compact_keeps_what_can_be_gone_back_to(out):
    run(out, keep=2)
    compact(out)
    assert numbers(out) == [3, 4, 6]


# -- the state -----------------------------------------------------------------------------------


def test_checksums_are_of_rows_and_states_however_they_are_divided(out, tmp_path):
    """Five commits, merged parts, and four commits: only the last has other rows and states."""
    run(out)
    five = verify(out)
    compact(out)
    merged = verify(out)
    assert five.parts > merged.parts == 1
    run(str(tmp_path / "four"), steps=4)
    four = verify(str(tmp_path / "four"))
    sums = [(found.rows_checksum, found.state_checksum) for found in (five, merged, four)]
    assert sums[0] == sums[1]
    assert all(len(text) == 16 for text in sums[0])
    assert not set(sums[0]) & set(sums[2])


def test_another_state_in_place_of_the_last(out):
    run(out, steps=3)
    with OutputFolder.open(out) as folder:
        table = folder.load_state()
        folder.replace_state(table.slice(0, 2))
    assert load_state(out).equals(table.slice(0, 2))
    assert visible(out) == expected(3)[0]
    assert read_manifest(out).position.row == 2
    rewind(out, 3)
    assert load_state(out).equals(table)


def test_no_state_to_replace_before_a_commit(out):
    with OutputFolder.open(out) as folder, pytest.raises(CheckpointError, match="no commit yet"):
        folder.replace_state(pa.table({"a": [1]}))


# -- side outputs --------------------------------------------------------------------------------


def test_a_fourth_output_is_one_entry(out, monkeypatch):
    """It is committed, merged, undone and verified with the others, by an entry in the table."""
    monkeypatch.setitem(
        SIDE_OUTPUTS, "samples", SideOutput("sampled", "samples.path", "samples.where")
    )
    run(out, keep=5, where="seen >= 2", more={"samples.where": "seen >= 2"})
    alerts, samples = f"{out}.alerts", f"{out}.samples"
    assert len(files_of(samples)) > 2
    assert visible(samples) == visible(alerts) != []
    compact(out)
    rewind(out, to=3)
    assert visible(samples) == visible(alerts)
    assert read_manifest(out).named("samples").rows == read_manifest(out).named("alerts").rows > 0
    verify(out)
    damaged = Path(samples, "part-00000.parquet")
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"out\.samples.*is damaged"):
        verify(out)
