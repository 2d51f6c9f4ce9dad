"""Versions of the state: full snapshots at intervals, and changed rows between them.

A version is a list of Arrow IPC files: first the whole table, then changes. A file of changes has
the columns of the table, preceded by `CHANGED`: the number of the row that each row replaces (or
adds, past the end). The number of rows of the table is in the manifest: rows of the files beyond
that number belong to dropped streams, about which nothing else is written. So the cost of a commit
depends on the rows that are dirty:

- a table below `SMALL` bytes is always written as a whole, and so is a table of which more than
  half is dirty
- changes are written until they, and rows that were dropped, add up to more than half of the rows
  of the snapshot; then a new snapshot is merged from the version's files, batch by batch, while the
  table goes on changing
- if the metadata changed, because another model took over the same columns, the last file has the
  current metadata
- from `CHAIN` files of changes on, the last ones are merged with the new one while they are at most
  twice its size, so that a start reads few files
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from streamrnn.base.arrays import Ints
from streamrnn.base.storage.files import Files, sink_errors
from streamrnn.errors import CheckpointError, StateError
from streamrnn.stream.checkpoints.directory import INSIDE, RESTORE
from streamrnn.stream.checkpoints.manifest import Shard, StateFile
from streamrnn.stream.states import Copying, StateTable

CHANGED = "__row__"
SMALL = 1 << 20
CHAIN = 8
_SHARE = 0.5
_FEW = 1000
"""Number of rows whose copy takes less than 1 ms."""
# IPC batches of a snapshot: small, so that neither writer nor reader holds a second copy.
_BATCH_ROWS = 65536


class Snapshot(NamedTuple):
    """A snapshot of the state for a commit.

    `rows`: number of rows of the table. `dirty`: the rows changed, moved or added since the last
    commit, in any order (None: unknown). `table(which)` returns the rows `which`, in the order of
    `which` (None: all rows), or a copy that is still being made; the commit calls it before it
    returns.
    """

    rows: int
    dirty: Ints | None
    table: Callable[[Ints | None], pa.Table | Copying]

    @classmethod
    def of(cls, table: StateTable, copy: bool = True) -> "Snapshot":
        """Take a snapshot of `table`, with the rows that are dirty since `table.mark_clean()`.

        Without `copy`, the table must not change until the snapshot is committed.
        """
        return cls(len(table), table.dirty(), partial(table.to_arrow, copy=copy))

    @classmethod
    def begun(cls, table: StateTable) -> "Snapshot":
        """Take a snapshot of `table`, which may change while the commit copies it."""

        def copied(which: Ints | None) -> pa.Table | Copying:
            few = which is not None and len(which) <= _FEW
            return table.to_arrow(which) if few else table.copied(which)

        return cls(len(table), table.dirty(), copied)


class StateDelta(NamedTuple):
    """A copy of the part of the state that a commit will write; the state may change meanwhile.

    `rows`: number of rows of the whole state. `changed`: the rows that `table` holds, None for all.
    `table` is None if there is nothing to write; it may be a copy that is still being made.
    """

    rows: int
    changed: Ints | None
    table: pa.Table | Copying | None


def delta_since(
    snapshot: Snapshot, last: Sequence[StateFile], last_schema: pa.Schema | None
) -> StateDelta:
    """Copy what to write after the version `last`: the dirty rows, or all rows.

    All rows are copied if there is no `last`, if the dirty rows are unknown or more than half, or
    if the table is small or has other columns. Raises StateError if a column has a reserved name.
    """
    dirty = snapshot.dirty
    few = dirty is not None and len(dirty) <= _SHARE * snapshot.rows
    if dirty is not None and last and (not len(dirty) or (few and last[0].bytes >= SMALL)):
        schema = snapshot.table(dirty[:0]).schema
        if schema.equals(last_schema):  # the columns of the earlier files
            nothing = not len(dirty) and schema.equals(last_schema, check_metadata=True)
            return StateDelta(snapshot.rows, dirty, None if nothing else snapshot.table(dirty))
    table = snapshot.table(None)
    if CHANGED in table.schema.names:
        raise StateError(
            f"a column of the state is named {CHANGED!r}, which is reserved; rename the key column"
        )
    return StateDelta(snapshot.rows, None, table)


def write_version(
    files: Files, name: str, delta: StateDelta, last: Sequence[StateFile]
) -> tuple[StateFile, ...]:
    """Write `delta`, if it has a table, to one new file; the folder is not synced.

    Returns the files of the new version, which follows the version `last`. Raises SinkError, and
    CheckpointError if a file of `last` is damaged.
    """
    table = delta.table.finish() if isinstance(delta.table, Copying) else delta.table
    if table is None:
        return tuple(last)
    if delta.changed is None:
        return (_write(files, name, table.schema, [table], len(table)),)
    changes = table.add_column(0, CHANGED, pa.array(delta.changed, pa.int64()))
    written = sum(file.rows for file in last[1:]) + len(changes)
    dropped = max(0, last[0].rows - delta.rows)
    if written + dropped > _SHARE * last[0].rows:
        older = [_read(files, file) for file in last[1:]]
        latest = _latest_changes([*older, changes])
        with files.open(f"{INSIDE}/{last[0].name}") as source:
            batches = _merged(pa.ipc.open_file(source), latest, delta.rows)
            return (_write(files, name, table.schema, batches, delta.rows),)
    stay, rows = len(last), len(changes)
    while len(last) > CHAIN and stay > 1 and last[stay - 1].rows <= 2 * rows:
        stay -= 1
        rows += last[stay].rows
    if stay < len(last):
        older = [_read(files, file) for file in last[stay:]]
        changes = _latest_changes([*older, changes])
    return (*last[:stay], _write(files, name, changes.schema, [changes], len(changes)))


def _merged(snapshot: pa.RecordBatchFileReader, changes: pa.Table, rows: int) -> Iterator[pa.Table]:
    """Yield `rows` rows: a snapshot and later additions, with `changes` (sorted by row) applied."""
    row_N, changed = changes[CHANGED].to_numpy(), changes.drop_columns([CHANGED])
    first = 0
    for number in range(snapshot.num_record_batches):
        batch = snapshot.get_batch(number).slice(0, max(0, rows - first))
        begin, end = np.searchsorted(row_N, [first, first + len(batch)])
        source = np.arange(len(batch))
        source[row_N[begin:end] - first] = len(batch) + np.arange(end - begin)
        both = [pa.Table.from_batches([batch]), changed.slice(begin, end - begin)]
        yield pa.concat_tables(both).take(source).combine_chunks()
        first += len(batch)
    begin, end = np.searchsorted(row_N, [first, rows])
    yield changed.slice(begin, end - begin)


def _latest_changes(changes: Sequence[pa.Table]) -> pa.Table:
    """Merge tables of changes, the oldest first, into one with the newest change of each row."""
    table = pa.concat_tables(changes)
    row_N = table[CHANGED].to_numpy()
    # np.unique keeps the first of equal rows, so the newest come first.
    _, newest = np.unique(row_N[::-1], return_index=True)
    table = table.replace_schema_metadata(changes[-1].schema.metadata)
    return table.take(len(row_N) - 1 - newest).combine_chunks()


def read_shards(files: Files, shards: Sequence[Shard]) -> pa.Table | None:
    """Read the state tables of all shards as one, None without shards. Raises CheckpointError."""
    tables = [read_version(files, shard.files, shard.rows) for shard in shards]
    return pa.concat_tables(tables) if tables else None


def read_version(files: Files, version: Sequence[StateFile], rows: int) -> pa.Table:
    """Read the state table of a version. Raises CheckpointError if a file is damaged."""
    base = _read(files, version[0])
    if len(version) > 1:
        changes = _latest_changes([_read(files, file) for file in version[1:]])
        row_N = changes[CHANGED].to_numpy()
        source_N = np.arange(max(len(base), int(row_N.max(initial=-1)) + 1))
        source_N[row_N] = len(base) + np.arange(len(row_N))
        # There are no gaps: each row past the end was added by a change.
        changed = changes.drop_columns([CHANGED])
        base = pa.concat_tables([base, changed]).take(source_N)
        base = base.replace_schema_metadata(changed.schema.metadata)
    base = base.slice(0, rows)  # later rows were dropped
    if len(base) != rows:
        raise CheckpointError(
            f"{files.show(INSIDE)}: the state has {len(base)} rows, expected {rows} as in the "
            f"manifest. {RESTORE}"
        )
    return base


def check_shards(files: Files, shards: Sequence[Shard], *, whole: bool) -> None:
    """Raise CheckpointError if a file is missing or has a wrong size or, if `whole`, checksum."""
    sizes = files.sizes(INSIDE)
    for file in (file for shard in shards for file in shard.files):
        size = sizes.get(file.name)
        if size is None:
            raise _damaged(files, file, "no file")
        if size != file.bytes:
            raise _damaged(files, file, f"{size} bytes")
        if whole and (digest := files.sha256(f"{INSIDE}/{file.name}")) != file.sha256:
            raise _damaged(files, file, f"sha256 {digest[:16]}…")


def read_schema(files: Files, version: Sequence[StateFile]) -> pa.Schema:
    """Read the schema of a version of the state from its last file."""
    with files.open(f"{INSIDE}/{version[-1].name}") as file:
        schema = pa.ipc.open_file(file).schema
    return schema.remove(0) if len(version) > 1 else schema


def _write(
    files: Files, name: str, schema: pa.Schema, tables: Iterable[pa.Table], rows: int
) -> StateFile:
    """Write tables, which have `rows` rows in all, with the metadata of `schema`."""
    output = files.create(f"{INSIDE}/{name}")
    try:
        with sink_errors("write", output.path):
            writer = pa.ipc.new_file(output, schema)
            for table in tables:
                table = table.replace_schema_metadata(schema.metadata)
                writer.write_table(table, max_chunksize=_BATCH_ROWS)
            writer.close()
        output.finish()
    finally:
        output.close()
    return StateFile(name, rows, output.bytes, output.sha256)


def _read(files: Files, file: StateFile) -> pa.Table:
    try:
        with files.open(f"{INSIDE}/{file.name}") as source:
            return pa.ipc.open_file(source.read_buffer()).read_all()
    except (OSError, pa.ArrowException) as error:
        raise _damaged(files, file, str(error)) from error


def _damaged(files: Files, file: StateFile, received: str) -> CheckpointError:
    return CheckpointError(
        f"{files.show(f'{INSIDE}/{file.name}')} is damaged: expected {file.bytes} bytes with "
        f"sha256 {file.sha256[:16]}…, found {received}. {RESTORE}"
    )
