"""What an output folder takes, what it refuses, and what a reader sees meanwhile."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from stream.checkpoints.disks import HastyDisk
from stream.checkpoints.small_run import REJECTS, SCHEMA, expected, files_of, outcome, run, visible

from streamrnn.base.storage.local import LocalFiles
from streamrnn.errors import CheckpointError, MissingFileError, SinkError
from streamrnn.stream.checkpoints import (
    OutputFolder,
    Snapshot,
    has_manifest,
    load_state,
    read_manifest,
)
from streamrnn.stream.checkpoints.manifest import NamedOutput


@pytest.fixture(autouse=True)
def no_time_for_syncs(monkeypatch):
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out")


def batch(*rows):
    return pa.record_batch([[r[0] for r in rows], [r[1] for r in rows]], schema=SCHEMA)


def begin(folder, model="model", **config):
    folder.begin(SCHEMA, model=model, config={"source.key": ["stream"], **config})


def die(out, *rows, commit=False, **options):
    """Write rows, commit them or not, write one more and die."""
    with OutputFolder.open(out, **options) as folder:
        begin(folder)
        folder.write(batch(*rows))
        folder.reject(pa.record_batch([["why"], [3]], schema=REJECTS))
        if commit:
            folder.commit()
            folder.write(batch((2, 2)))
        raise ZeroDivisionError


# -- what a run does -----------------------------------------------------------------------------


def test_a_run_leaves_what_it_should_and_nothing_else(out):
    run(out)
    assert outcome(out) == expected()
    assert sorted(os.listdir(out)) == ["_streamrnn", *(f"part-0000{n}.parquet" for n in range(5))]
    inside = {name for name in files_of(out) if name.startswith("_streamrnn")}
    state = {f"_streamrnn/{name}" for name in read_manifest(out).state_names()}
    assert inside == {"_streamrnn/_lock", "_streamrnn/_manifest.json", *state}


def contents(out):
    """Checksums and sizes of parts and state, of which the manifest says them."""
    manifest = read_manifest(out)
    state = [file for shard in manifest.shards for file in shard.files]
    files: list[Any] = [*manifest.parts, *manifest.named("rejects").parts, *state]
    return [(file.rows, file.bytes, file.sha256) for file in files]


def test_the_same_run_again_is_bit_equal(out, tmp_path):
    run(out)
    run(tmp_path / "again")
    assert contents(out) == contents(str(tmp_path / "again"))


def test_a_later_run_goes_on(out):
    run(out, steps=2)
    assert run(out) == []
    assert outcome(out) == expected()


def test_a_run_without_rows_leaves_a_part_with_the_schema(out):
    with OutputFolder.open(out) as folder:
        begin(folder)
        folder.commit(complete=True)
    assert ds.dataset(out).schema == SCHEMA
    assert ds.dataset(out).count_rows() == 0
    with OutputFolder.open(out) as folder:
        begin(folder)
        folder.commit(complete=True)
    assert len(read_manifest(out).parts) == 1


def test_a_commit_without_rows_makes_no_part(out):
    with OutputFolder.open(out) as folder:
        begin(folder)
        folder.commit(counters={"steps": 1})
        assert visible(out) == []
        folder.write(batch((1, 1)))
        folder.commit(complete=True)
        assert folder.manifest.counters == {"steps": 1}
    assert [part.name for part in read_manifest(out).parts] == ["part-00000.parquet"]


def test_only_a_run_with_rejects_makes_a_folder_for_them(out):
    run(out, steps=1)
    assert not os.path.exists(f"{out}.rejects")
    run(out, steps=2)
    assert visible(f"{out}.rejects") == [("odd", 1)]


def test_rejects_go_where_they_are_told(out, tmp_path):
    with OutputFolder.open(out, side={"rejects": str(tmp_path / "bad")}) as folder:
        begin(folder)
        folder.reject(pa.record_batch([["why"], [3]], schema=REJECTS))
        folder.commit(complete=True)
    assert visible(tmp_path / "bad") == [("why", 3)]
    with pytest.raises(CheckpointError, match=r"rejects of .*out are in .*bad"):
        OutputFolder.open(out)


def test_state_none_leaves_the_state(out):
    state = pa.table({"stream": [1]})
    with OutputFolder.open(out) as folder:
        begin(folder)
        assert folder.load_state() is None
        folder.commit(state=Snapshot(1, None, lambda rows: state))
        folder.commit(complete=True)
        assert folder.load_state().equals(state)
    assert load_state(out).equals(state)


def test_a_state_that_was_taken_is_committed_as_it_was(out):
    seen = [1]
    snapshot = Snapshot(1, None, lambda rows: pa.table({"seen": seen}))
    with OutputFolder.open(out) as folder:
        begin(folder)
        delta = folder.delta(snapshot)
        seen[0] = 2
        folder.commit(state=delta)
        assert folder.load_state().to_pydict() == {"seen": [1]}
        folder.commit(state=snapshot)
        assert folder.load_state().to_pydict() == {"seen": [2]}


def test_a_run_that_fails_before_its_first_commit_leaves_nothing(out):
    with pytest.raises(ZeroDivisionError):
        die(out, (1, 1))
    assert not os.path.exists(out)
    assert not os.path.exists(f"{out}.rejects")


def test_rows_after_the_last_commit_are_as_if_never_written(out):
    with pytest.raises(ZeroDivisionError):
        die(out, (1, 1), commit=True)
    assert visible(out) == [(1, 1)]
    with OutputFolder.open(out) as folder:
        assert folder.recovered == ["removed 1 file that no commit names"]
    assert os.listdir(f"{out}/_streamrnn/staging") == []


def test_a_full_refresh_keeps_the_old_rows_until_its_first_commit(out):
    run(out)
    with OutputFolder.open(out, full_refresh=True) as folder:
        assert folder.manifest is None
        folder.begin(SCHEMA, model="another", config={})
        folder.write(batch((9, 9)))
        assert outcome(out) == expected()
        folder.commit(complete=True)
    assert visible(out) == [(9, 9)]
    assert visible(f"{out}.rejects") == []
    assert read_manifest(out).commit == 6


def test_a_full_refresh_that_fails_first_has_changed_nothing(out):
    run(out, steps=3)
    with pytest.raises(ZeroDivisionError):
        die(out, (9, 9), full_refresh=True)
    run(out)
    assert outcome(out) == expected()


def test_write_and_commit_need_begin(out):
    with OutputFolder.open(out) as folder:
        with pytest.raises(ValueError, match="begin"):
            folder.write(batch((1, 1)))
        with pytest.raises(ValueError, match="begin"):
            folder.commit()


def test_after_a_failed_commit_nothing_more_is_taken(out):
    def fails(rows):
        raise ZeroDivisionError

    with OutputFolder.open(out) as folder:
        begin(folder)
        folder.write(batch((1, 1)))
        with pytest.raises(ZeroDivisionError):
            folder.commit(state=Snapshot(1, None, fails))
        with pytest.raises(SinkError, match="Rerun the command; it resumes"):
            folder.commit()


# -- what is refused -----------------------------------------------------------------------------


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(out):
    os.mkdir(out)
    with open(f"{out}/thesis.tex", "w") as file:
        file.write("mine")
    for refresh in (False, True):
        with pytest.raises(CheckpointError, match=r"not empty and has no .*manifest.*thesis\.tex"):
            run(out, full_refresh=refresh)
    assert files_of(out) == {"thesis.tex": 4}


def test_parts_without_their_manifest_are_refused(out):
    run(out)
    os.unlink(f"{out}/_streamrnn/_manifest.json")
    with pytest.raises(CheckpointError, match=r"has no _streamrnn/_manifest\.json\. It holds"):
        run(out)
    assert len(visible(out)) == len(expected()[0])
    run(out, full_refresh=True)
    assert outcome(out) == expected()


def test_rejects_of_an_output_that_is_gone_are_refused(out, tmp_path):
    run(out)
    os.rename(out, tmp_path / "moved")
    with pytest.raises(
        CheckpointError, match=r"out\.rejects is not empty and its files do not belong to"
    ):
        run(out)


def test_rejects_of_another_output_are_left_alone(out, tmp_path):
    shared = str(tmp_path / "bad")
    bad = pa.record_batch([["why"], [3]], schema=REJECTS)
    for name in ("early", "other"):
        with OutputFolder.open(str(tmp_path / name), side={"rejects": shared}) as folder:
            begin(folder)
            if name == "other":
                folder.reject(bad)
            folder.commit(complete=True)
    refused = (
        r"bad is not empty and its files do not belong to this output\. It holds part-00000\.p"
    )
    with pytest.raises(CheckpointError, match=refused):
        OutputFolder.open(out, side={"rejects": shared})
    with OutputFolder.open(str(tmp_path / "early"), side={"rejects": shared}) as folder:
        begin(folder)
        with pytest.raises(CheckpointError, match=refused):
            folder.reject(bad)
    with pytest.raises(CheckpointError, match=refused):
        OutputFolder.open(str(tmp_path / "early"), side={"rejects": shared}, full_refresh=True)
    assert visible(shared) == [("why", 3)]


def test_rejects_that_were_never_committed_are_cleared(out):
    run(out, steps=1)
    with pytest.raises(ZeroDivisionError):
        die(out, (2, 2))
    (left,) = os.listdir(f"{out}.rejects/_streamrnn/staging")
    assert left.startswith("_00002-000-")
    with OutputFolder.open(out) as folder:
        assert folder.recovered == ["removed 2 files that no commit names"]
    run(out)
    assert outcome(out) == expected()


def test_an_output_may_move_with_its_rejects(out, tmp_path):
    run(out, steps=2)
    os.rename(out, tmp_path / "moved")
    os.rename(f"{out}.rejects", tmp_path / "moved.rejects")
    run(tmp_path / "moved")
    assert outcome(tmp_path / "moved") == expected()


def test_other_rows_are_refused_with_both_schemas(out):
    run(out)
    with OutputFolder.open(out) as folder:
        other = SCHEMA.append(pa.field("more", pa.float32()))
        with pytest.raises(
            CheckpointError, match=r"output:   stream: int64, seen: int64\n.*more: float"
        ):
            folder.begin(other, model="model", config={"source.key": ["stream"]})


def test_all_names_inside_begin_with_an_underscore(out):
    """While a run has not committed its attempt, too: Polars tells hidden files by their names."""
    with OutputFolder.open(out) as folder:
        assert files_of(out).keys() == {"_streamrnn/_lock"}
        assert folder.manifest is None
    run(out, steps=2)
    for folder in (out, f"{out}.rejects"):
        names = [name for name in files_of(folder) if name.startswith("_streamrnn/")]
        assert names
        assert all(os.path.basename(name).startswith("_") for name in names)


def test_a_manifest_of_another_layout_is_refused(out):
    run(out)
    path = Path(out, "_streamrnn", "_manifest.json")
    _, rest = path.read_bytes().split(b' "layout": 1,\n')
    for written, said in (
        (b' "layout": 99,\n', "has layout 99"),
        (b' "layout": true,\n', "has layout true"),
        (b' "layout": 1.0,\n', r"has layout 1\.0"),
        (b' "version": 4,\n', r"was written before version 0\.1\.0"),
    ):
        digest = hashlib.sha256(written + rest).hexdigest().encode()
        path.write_bytes(b'{\n "sha256": "' + digest + b'",\n' + written + rest)
        with pytest.raises(
            CheckpointError,
            match=rf"json {said}; this version of streamrnn reads layout 1\. To start over and",
        ):
            run(out)


def test_a_folder_that_never_committed_has_no_manifest(out):
    with pytest.raises(MissingFileError, match="no such output folder, or it is empty"):
        read_manifest(out)
    assert not has_manifest(out)
    run(out)
    assert has_manifest(out)


def test_the_part_after_number_99999_gives_all_of_them_eight_digits(out):
    run(out, steps=1)
    found = read_manifest(out)
    os.rename(f"{out}/part-00000.parquet", f"{out}/part-99999.parquet")
    last = replace(found.parts[0], name="part-99999.parquet")
    with open(f"{out}/_streamrnn/_manifest.json", "wb") as file:
        file.write(replace(found, outputs={"rows": NamedOutput((last,))}).to_bytes())
    run(out, steps=3)
    names = [f"part-00{number}.parquet" for number in ("099999", "100000", "100001")]
    assert sorted(os.listdir(out)) == ["_streamrnn", *names]
    run(out)
    assert outcome(out) == expected()


def test_a_part_number_that_is_used_up_says_how_to_go_on(out):
    run(out, steps=1)
    found = read_manifest(out)
    last = replace(found.parts[0], name="part-99999999.parquet")
    os.rename(f"{out}/part-00000.parquet", f"{out}/part-99999999.parquet")
    with open(f"{out}/_streamrnn/_manifest.json", "wb") as file:
        file.write(replace(found, outputs={"rows": NamedOutput((last,))}).to_bytes())
    with pytest.raises(SinkError, match="streamrnn compact"):
        run(out)


# -- locks ---------------------------------------------------------------------------------------

HOLDER = """
import sys
from streamrnn.stream.checkpoints import OutputFolder
with OutputFolder.open(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(out):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, out],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert holder.stdout.readline() == b"held\n"
    return holder


def test_a_second_run_is_refused_and_names_the_first_whose_death_frees_it(out):
    run(out, steps=1)
    with hold(out) as holder:
        with pytest.raises(CheckpointError, match="in use by another run") as caught:
            run(out)
        assert holder.poll() is None  # it was not waited for
        assert f"host {socket.gethostname()}, pid {holder.pid}, since 20" in str(caught.value)
        assert has_manifest(out)  # looking is allowed
        holder.kill()
        holder.wait()
    run(out)
    assert outcome(out) == expected()


def test_the_lock_file_says_who(out):
    with OutputFolder.open(out):
        with open(f"{out}/_streamrnn/_lock") as file:
            assert json.load(file)["pid"] == os.getpid()
        with pytest.raises(CheckpointError, match=f"pid {os.getpid()}"):
            OutputFolder.open(out)
    OutputFolder.open(out).close()


# -- readers -------------------------------------------------------------------------------------


def test_a_reader_sees_the_commits_and_nothing_else_at_every_moment(out):
    seen = []

    def say(commit):
        rows = visible(out)
        assert rows == expected(commit)[0]
        assert ds.dataset(out, format="parquet").count_rows() == len(rows)
        seen.append(commit)

    run(out, say=say)
    assert seen == [1, 2, 3, 4, 5]
