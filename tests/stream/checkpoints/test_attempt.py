"""Facts of several attempts, written apart, are one commit; without it they count nothing."""

import os
import pickle

import numpy as np
import pyarrow as pa
import pytest
from stream.checkpoints.disks import HastyDisk
from stream.checkpoints.small_run import REJECTS, SCHEMA, files_of, visible

from streamrnn.base.storage.local import LocalFiles
from streamrnn.errors import CheckpointError, SinkError
from streamrnn.outputs import compact, rewind, verify
from streamrnn.stream.checkpoints import (
    Attempt,
    OutputFolder,
    Snapshot,
    load_state,
    read_manifest,
    versions,
)
from streamrnn.stream.checkpoints.versions import StateDelta, delta_since

SHARDS = 3
STREAMS = 10


@pytest.fixture(autouse=True)
def quick_and_with_changes(monkeypatch):
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())
    monkeypatch.setattr(versions, "SMALL", 0)


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out")


def state_of(shard, seen):
    """The streams of a shard; stream 0 of each has the given count."""
    count = np.zeros(STREAMS, np.int64)
    count[0] = seen
    return pa.table({"stream": np.arange(STREAMS) + 100 * shard, "seen": count})


def delta(shard, seen, last, rows=None):
    """Of a state of which stream 0 was dirty (all of them, without a last version)."""
    table = state_of(shard, seen)

    def some(rows):
        return table if rows is None else table.take(rows)

    dirty = np.array([0]) if last else None
    return delta_since(Snapshot(STREAMS, dirty, some), last, table.schema)


def attempt_at(folder, shard, shards=SHARDS):
    """As a worker makes it, of nothing but plain values."""
    before = folder.manifest.shards if folder.manifest else ()
    return Attempt(
        {"rows": folder.path, "rejects": f"{folder.path}.rejects"},
        schema=SCHEMA,
        format="parquet",
        commit=folder.next_commit,
        shard=shard,
        last=before[shard].files if len(before) == shards else (),
    )


def written(folder, shard, seen, shards=SHARDS):
    """The facts of an attempt, as they come back from another process."""
    attempt = attempt_at(folder, shard, shards)
    attempt.write(pa.record_batch([[shard], [seen]], schema=SCHEMA))
    if shard:
        attempt.reject(pa.record_batch([["odd"], [10 * seen + shard]], schema=REJECTS))
    before = folder.manifest.shards if folder.manifest else ()
    last = before[shard].files if len(before) == shards else ()
    return pickle.loads(pickle.dumps(attempt.finish(delta(shard, seen, last))))


def begun(out, **options):
    folder = OutputFolder.open(out, **options)
    folder.begin(SCHEMA, model="model", config={"source.key": ["stream"]})
    folder.prepare("rejects")
    return folder


def states(seen):
    return pa.concat_tables([state_of(shard, seen) for shard in range(SHARDS)])


def test_shards_written_in_any_order_are_one_commit_in_the_order_of_the_shards(out):
    with begun(out, keep=3) as folder:
        for seen, order in enumerate([(0, 1, 2), (2, 0, 1), (1, 2, 0)], 1):
            facts = [written(folder, shard, seen) for shard in order]
            assert len(visible(out)) == SHARDS * (seen - 1)
            folder.commit(facts, complete=seen == 3)
            assert folder.manifest.commit == seen
            assert folder.load_state().equals(states(seen))
    found = read_manifest(out)
    assert [shard.rows for shard in found.shards] == [STREAMS] * SHARDS
    assert [len(shard.files) for shard in found.shards] == [3] * SHARDS
    assert visible(out) == [(shard, seen) for seen in (1, 2, 3) for shard in range(SHARDS)]
    rejected = [("odd", 10 * seen + shard) for seen in (1, 2, 3) for shard in (1, 2)]
    assert visible(f"{out}.rejects") == rejected
    assert verify(out).state_rows == found.state_rows == STREAMS * SHARDS
    with OutputFolder.open(out) as folder:
        assert folder.recovered == []
        assert folder.load_state().equals(states(3))
    compact(out)
    rewind(out, 2)
    assert load_state(out).equals(states(2))
    assert visible(out) == [(shard, seen) for seen in (1, 2) for shard in range(SHARDS)]
    verify(out)


def test_another_number_of_shards_takes_the_state_over_whole(out):
    with begun(out) as folder:
        folder.commit([written(folder, shard, 1) for shard in range(SHARDS)])
    with begun(out) as folder:  # all of it in one process, which dirty one stream
        table = folder.load_state()
        seen = table["seen"].to_numpy().copy()
        seen[4] = 7
        table = table.set_column(1, "seen", pa.array(seen))
        folder.write(pa.record_batch([[4], [7]], schema=SCHEMA))
        folder.commit(state=Snapshot(len(table), np.array([4]), lambda rows: table))
        assert [shard.rows for shard in folder.manifest.shards] == [STREAMS * SHARDS]
        assert folder.load_state().equals(table)
    with begun(out) as folder:
        folder.commit([written(folder, shard, 3) for shard in range(SHARDS)])
    assert load_state(out).equals(states(3))
    assert visible(out) == [(0, 1), (1, 1), (2, 1), (4, 7), (0, 3), (1, 3), (2, 3)]
    verify(out)


def test_a_shard_without_new_state_keeps_the_one_it_had(out):
    with begun(out) as folder:
        folder.commit([written(folder, shard, 1) for shard in range(SHARDS)])
        still = attempt_at(folder, 1).finish(None)
        folder.commit([written(folder, 0, 2), still, written(folder, 2, 2)], complete=True)
    expected = [state_of(shard, 1 if shard == 1 else 2) for shard in range(SHARDS)]
    assert load_state(out).equals(pa.concat_tables(expected))
    assert len(read_manifest(out).parts) == 2 * SHARDS - 1


def test_shards_without_any_row_leave_one_part_with_the_schema(out):
    with begun(out) as folder:
        nothing = [attempt_at(folder, shard).finish(None) for shard in range(SHARDS)]
        folder.commit(nothing, complete=True)
    (part,) = read_manifest(out).parts
    assert (part.name, part.rows) == ("part-00000.parquet", 0)
    assert load_state(out) is None


def test_facts_of_too_many_or_too_few_shards_are_refused(out):
    with begun(out) as folder:
        zero, two = written(folder, 0, 1), written(folder, 2, 1)
        with pytest.raises(ValueError, match=r"once each, received \[0, 2\]"):
            folder.commit([two, zero])
    with begun(out) as folder:
        zero = written(folder, 0, 1)
        with pytest.raises(ValueError, match=r"once each, received \[0, 0\]"):
            folder.commit([zero, zero])
    with begun(out) as folder:
        one = attempt_at(folder, 1).finish(None)
        with pytest.raises(ValueError, match="received none for shard 1"):
            folder.commit([written(folder, 0, 1), one])
    assert not os.path.exists(out)


def test_facts_of_an_attempt_at_an_earlier_commit_are_refused(out):
    """They come late, from a worker that seemed dead: the state of its shard is not the last one's,
    though all that it wrote is there."""
    with begun(out) as folder:
        late = written(folder, 1, 1)
        folder.commit([written(folder, shard, 1) for shard in range(SHARDS)])
        with pytest.raises(ValueError, match=r"facts of commit 2, .* of commit 1 for shard 1"):
            folder.commit([written(folder, 0, 2), late, written(folder, 2, 2)])
    with begun(out) as folder:
        folder.commit([written(folder, shard, 2) for shard in range(SHARDS)], complete=True)
    assert load_state(out).equals(states(2))
    assert visible(out) == [(shard, seen) for seen in (1, 2) for shard in range(SHARDS)]


@pytest.mark.parametrize("what", ["rows", "rejects", "state"])
def test_facts_whose_files_are_gone_are_refused(out, what):
    """A start of a driver removes what no commit names: a commit of it then would be of rows that
    nobody has."""
    with begun(out) as folder:
        folder.commit([written(folder, shard, 1) for shard in range(SHARDS)])
        before = visible(out)
    with begun(out) as folder:
        facts = [written(folder, shard, 2) for shard in range(SHARDS)]
        gone = {
            "rows": f"{out}/_streamrnn/staging/{facts[1].parts['rows'][0].staged}",
            "rejects": f"{out}.rejects/_streamrnn/staging/{facts[1].parts['rejects'][0].staged}",
            "state": f"{out}/_streamrnn/{facts[1].state.files[-1].name}",
        }[what]
        os.unlink(gone)
        with pytest.raises(CheckpointError, match=os.path.basename(gone)):
            folder.commit(facts)
    with OutputFolder.open(out) as folder:
        assert folder.load_state().equals(states(1))
    assert visible(out) == before
    verify(out)


def test_an_attempt_whose_facts_are_never_committed_leaves_nothing(out):
    with begun(out) as folder:
        folder.commit([written(folder, shard, 1) for shard in range(SHARDS)])
        before, rejected = files_of(out), files_of(f"{out}.rejects")
        written(folder, 1, 2)
        attempt_at(folder, 2).write(pa.record_batch([[9], [9]], schema=SCHEMA))
        assert files_of(out).items() > before.items()
        folder.commit([written(folder, shard, 3) for shard in range(SHARDS)])
        assert visible(out) == [(shard, seen) for seen in (1, 3) for shard in range(SHARDS)]
        assert files_of(f"{out}.rejects").items() > rejected.items()
    with OutputFolder.open(out) as folder:
        assert folder.recovered == ["removed 4 files that no commit names"]
        assert folder.load_state().equals(states(3))
        manifest = folder.manifest
    inside = {*manifest.state_names(), "_manifest.json", "_lock"}
    named = {part.name for part in manifest.parts} | {f"_streamrnn/{name}" for name in inside}
    assert files_of(out).keys() == named
    assert os.listdir(f"{out}.rejects/_streamrnn/staging") == []
    verify(out)


def test_two_attempts_of_one_name_are_one_too_many(out, monkeypatch):
    """Should the same token ever be drawn twice: the second one stops, the first one stays."""
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)
    with begun(out) as folder:
        facts = written(folder, 0, 1, shards=1)
        whole = files_of(out)
        with pytest.raises(SinkError, match=r"cannot create .*staging/.*: File exists"):
            written(folder, 0, 1, shards=1)
        with pytest.raises(SinkError, match=r"cannot create .*/_state-.*: File exists"):
            attempt_at(folder, 0).finish(StateDelta(1, None, state_of(0, 1)))
        assert files_of(out) == whole
        folder.commit([facts], complete=True)
    assert load_state(out).equals(state_of(0, 1))
    verify(out)
