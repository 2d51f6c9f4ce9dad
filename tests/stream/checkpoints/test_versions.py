"""A version of the state costs what was dirty, and reads back as the whole table."""

import numpy as np
import pyarrow as pa
import pytest
from selection import first_quick
from stream.checkpoints.disks import HastyDisk

from streamrnn.base.storage.local import LocalFiles
from streamrnn.errors import CheckpointError, StateError
from streamrnn.stream.checkpoints import Snapshot, versions
from streamrnn.stream.checkpoints.directory import INSIDE
from streamrnn.stream.states import Layout, StateTable
from streamrnn.stream.states import table as table_module

WIDTH = 4


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())
    monkeypatch.setattr(versions, "SMALL", 0)
    (tmp_path / INSIDE).mkdir()
    return LocalFiles(str(tmp_path))


class Table:
    """Streams named by text, with a vector each; it counts the rows that were asked for."""

    def __init__(self, rows):
        self.values = np.zeros((rows, WIDTH), np.float32)
        self.asked = 0

    def grow(self, rows):
        self.values = np.concatenate([self.values, np.zeros((rows, WIDTH), np.float32)])

    def to_arrow(self, rows=None):
        rows = np.arange(len(self.values)) if rows is None else rows
        self.asked += len(rows)
        flat = pa.array(self.values[rows].reshape(-1))
        state = pa.FixedSizeListArray.from_arrays(flat, WIDTH)
        key = pa.array([f"stream {row}" for row in rows], pa.string())
        return pa.table({"key": key, "gru/h": state})

    def snapshot(self, dirty):
        return Snapshot(len(self.values), dirty, self.to_arrow)


def write(files, commit, table, dirty, last, schema=None):
    delta = versions.delta_since(table.snapshot(dirty), last, schema or table.to_arrow([]).schema)
    return versions.write_version(files, f"{commit}.arrow", delta, last)


@pytest.mark.parametrize("batch_rows", [37, 65536])
def test_many_commits_read_back_as_the_table_and_copy_what_was_touched(
    files, monkeypatch, batch_rows
):
    """Also where a snapshot is due: it is merged from files."""
    monkeypatch.setattr(versions, "_BATCH_ROWS", batch_rows)
    rng = np.random.default_rng(5)
    table = Table(2000)
    version = write(files, 1, table, None, ())
    table.asked, touched_rows, longest, merged = 0, 0, 0, 0
    for commit in range(2, 202):
        new = int(rng.integers(0, 3))
        table.grow(new)
        old = rng.choice(2000, size=int(rng.integers(0, 20)), replace=False)
        dirty = np.concatenate([old, np.arange(len(table.values) - new, len(table.values))])
        table.values[dirty] += rng.random((len(dirty), WIDTH), np.float32)
        version = write(files, commit, table, rng.permutation(dirty), version)
        touched_rows += len(dirty)
        longest = max(longest, len(version))
        merged += len(version) == 1
        if commit % 20 == 0:
            found = versions.read_version(files, version, len(table.values))
            assert found.equals(table.to_arrow())
            table.asked -= len(table.values)
    assert longest <= versions.CHAIN + 5
    assert table.asked == touched_rows
    assert merged


def test_a_version_needs_only_the_files_it_names(files, tmp_path):
    table = Table(1000)
    version = write(files, 1, table, None, ())
    for commit in range(2, 40):
        dirty = np.arange(commit, commit + 30)
        table.values[dirty] = commit
        version = write(files, commit, table, dirty, version)
    named = {file.name for file in version}
    for path in (tmp_path / INSIDE).iterdir():
        if path.name not in named:
            path.unlink()
    assert versions.read_version(files, version, 1000).equals(table.to_arrow())


def test_a_small_table_is_always_written_whole(files, monkeypatch):
    monkeypatch.setattr(versions, "SMALL", 1 << 20)
    table = Table(100)
    version = write(files, 1, table, None, ())
    version = write(files, 2, table, np.array([3]), version)
    assert [file.rows for file in version] == [100]


def test_nothing_touched_writes_nothing(files, tmp_path):
    table = Table(10)
    version = write(files, 1, table, None, ())
    again = write(files, 2, table, np.array([], np.int64), version)
    assert again == version
    assert len(list((tmp_path / INSIDE).iterdir())) == 1


def test_half_of_the_table_changed_makes_a_whole_one(files):
    table = Table(100)
    version = write(files, 1, table, None, ())
    version = write(files, 2, table, np.arange(30), version)
    assert [file.rows for file in version] == [100, 30]
    version = write(files, 3, table, np.arange(30), version)
    assert [file.rows for file in version] == [100]


def test_other_columns_than_at_the_last_commit_make_a_whole_one(files):
    table = Table(100)
    version = write(files, 1, table, None, ())
    other = table.to_arrow([]).schema.append(pa.field("gru/c", pa.float32()))
    version = write(files, 2, table, np.arange(3), version, other)
    assert [file.rows for file in version] == [100]


@pytest.mark.parametrize("dirty", [0, 3])
def test_another_model_with_the_same_columns_is_a_change(files, dirty):
    """Its name is in the metadata of the last file, even where no row is dirty, and stays."""
    table, plain = Table(100), pa.schema([])
    version = write(files, 1, table, None, ())

    def commit(commit, rows, version, model, before):
        def tagged(rows):
            return table.to_arrow(rows).replace_schema_metadata({"model": model})

        snapshot = Snapshot(100, np.arange(rows), tagged)
        schema = table.to_arrow([]).schema.with_metadata(before)
        delta = versions.delta_since(snapshot, version, schema)
        return versions.write_version(files, f"{commit}.arrow", delta, version)

    table.values[:dirty] = 7
    before = plain.metadata
    for number, (rows, model) in enumerate([(dirty, "b"), (0, "b"), (40, "b"), (20, "c")]):
        version = commit(number + 2, rows, version, model, before)
        before = {"model": model}
        read = versions.read_version(files, version, 100)
        assert read.equals(table.to_arrow().replace_schema_metadata(before), check_metadata=True)
        assert versions.read_schema(files, version).equals(read.schema, check_metadata=True)
    assert [file.rows for file in version] == [100]


def test_a_column_named_as_ours_is_refused():
    clash = pa.table({versions.CHANGED: [1]})
    with pytest.raises(StateError, match="__row__"):
        versions.delta_since(Snapshot(1, None, lambda rows: clash), (), None)


def test_another_number_of_rows_than_the_manifest_says_is_noticed(files):
    version = write(files, 1, Table(7), None, ())
    with pytest.raises(CheckpointError, match="has 7 rows, expected 8 as in the manifest"):
        versions.read_version(files, version, 8)


def test_an_empty_table_reads_back(files):
    version = write(files, 1, Table(0), None, ())
    assert versions.read_version(files, version, 0).equals(Table(0).to_arrow([]))


KEYS = (pa.field("k", pa.string()), pa.field("n", pa.int64()))
LAYOUT = Layout(KEYS, pa.int64(), {"h": WIDTH}, previous={"a": pa.float32()})
IDLE = 20


class Streams:
    """A state table and the oracle of its streams, a dict; keys come, come again, and go."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.table = StateTable(LAYOUT, {"h": np.full(WIDTH, 0.5, np.float32)})
        self.known, self.clock, self.touched = {}, 0, set()

    def write(self):
        """Rows of some streams: of new ones, whose states may stay as they begin, and others."""
        size = int(self.rng.integers(1, 12))
        numbers = np.unique(self.rng.integers(max(0, self.clock - 60), self.clock + 3, size))
        self.clock += int(self.rng.integers(0, 12))
        names = [(f"s{number % 7}", int(number)) for number in numbers]
        slots = self.table.find([pa.array(column) for column in zip(*names, strict=True)])
        values = self.rng.random(len(slots)).astype(np.float32)
        present = values < 0.5
        self.table.advance(
            slots, numbers, np.full(len(slots), self.clock), {"a": (values, present)}
        )
        moved = values < 0.7
        states = np.repeat(values[moved, None], WIDTH, axis=1)
        self.table.scatter(slots[moved], {"h": states})
        for name, number, value, moves in zip(names, numbers, values, moved, strict=True):
            before = self.known.get(name, {"h": [0.5] * WIDTH})
            self.known[name] = {
                "steps": int(number),
                "last_time": self.clock,
                "h": [float(value)] * WIDTH if moves else before["h"],
                "previous/a": float(value) if value < 0.5 else None,
            }
            self.touched.add(name)

    def drop(self):
        oldest = self.clock - 2 * IDLE
        gone = [
            name
            for name, row in self.known.items()
            if row["last_time"] < oldest and name not in self.touched
        ]
        assert self.table.drop_idle(IDLE) == len(gone)
        for name in gone:
            del self.known[name]
        self.touched.clear()
        return len(gone)

    def assert_as_expected(self, found):
        rows = {(row.pop("k"), row.pop("n")): row for row in found.to_pylist()}
        assert rows == self.known


@pytest.mark.parametrize("batch_rows", [5, 65536])
@pytest.mark.parametrize("seed", first_quick(range(3)))
def test_dropped_streams_and_moved_rows_are_changes(files, monkeypatch, seed, batch_rows):
    """Nothing is written of those that are gone but the number of rows that are left.

    Slow: more draws.
    """
    monkeypatch.setattr(versions, "_BATCH_ROWS", batch_rows)
    monkeypatch.setattr(table_module, "_IDLE_SHARE", 0)
    streams, version, schema = Streams(seed), (), None
    dropped = chains = merged = nothing = 0
    for commit in range(150):
        for _ in range(int(streams.rng.integers(0, 4))):
            streams.write()
        if commit % 50 == 49:
            streams.clock += 3 * IDLE  # all but a few go
            streams.write()
        dropped += streams.drop()
        delta = versions.delta_since(Snapshot.of(streams.table), version, schema)
        before = version
        version = versions.write_version(files, f"{commit}.arrow", delta, before)
        streams.table.mark_clean()
        chains += len(version) > 1
        merged += len(version) == 1 and delta.changed is not None
        nothing += before == version
        found = versions.read_version(files, version, len(streams.table))
        assert found.equals(streams.table.to_arrow(), check_metadata=True)
        streams.assert_as_expected(found)
        schema = versions.read_schema(files, version)
    assert dropped > 150
    assert min(chains, merged, nothing) > 3


def test_a_drop_alone_writes_nothing_and_fewer_rows_than_there_are_streams_are_damage(files):
    table = Table(100)
    version = write(files, 1, table, None, ())
    table.values = table.values[:60]
    again = write(files, 2, table, np.array([], np.int64), version)
    assert again == version
    assert versions.read_version(files, again, 60).equals(table.to_arrow())
    with pytest.raises(CheckpointError, match="the state has 100 rows, expected 101"):
        versions.read_version(files, again, 101)


def test_half_of_the_rows_dropped_makes_a_whole_one(files):
    """Merged from the files: what was copied are the rows that changed."""
    table = Table(100)
    version = write(files, 1, table, None, ())
    version = write(files, 2, table, np.array([98]), version)
    table.values, table.asked = table.values[:49], 0
    table.values[3] = 1
    version = write(files, 3, table, np.array([3]), version)
    assert [file.rows for file in version] == [49]
    assert table.asked == 1
    with files.open(f"{INSIDE}/{version[0].name}") as source:
        assert pa.ipc.open_file(source).read_all().equals(table.to_arrow())
