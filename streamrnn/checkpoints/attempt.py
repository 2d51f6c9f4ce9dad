"""What a worker does of a commit: it writes the rows, rejects and state of one shard.

Nothing of it counts before the driver commits its facts (`OutputFolder.commit`). The same shard of
the same commit may be written more than once: a worker that seemed dead comes back, or a dead run's
one outlives it. So each attempt draws a token for the names of its files, and creates them anew.
"""

import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from streamrnn.checkpoints.directory import INSIDE, PartDirectory
from streamrnn.checkpoints.manifest import Shard, StateFile
from streamrnn.checkpoints.versions import StateDelta, write_version
from streamrnn.errors import SinkError
from streamrnn.sinks import FORMATS, PartWriter, StagedPart
from streamrnn.storage.opening import open_files


@dataclass(frozen=True)
class Facts:
    """What an attempt has finished, in plain values: it may come from another process.

    `commit` is the number of the only commit that they are good for. `parts` and `rejects` wait in
    staging; `state` is the version of the shard's state behind them, None where it stays as it was.
    """

    commit: int
    shard: int
    parts: tuple[StagedPart, ...]
    rejects: tuple[StagedPart, ...]
    state: Shard | None


def draw_name(commit: int, shard: int = 0) -> str:
    """A name for the files of one attempt, which no other one has."""
    return f"{commit:05d}-{shard:03d}-{secrets.token_hex(8)}"


class Attempt:
    """Writes one shard of one commit, into staging and beside the manifest.

    It needs no lock, and changes no file but its own: what its facts, if they are never committed,
    leave behind is removed by the next start. `last`: the files of the shard's state so far. Not
    for use by two threads at once. Every method raises SinkError.
    """

    def __init__(
        self,
        rows: PartDirectory,
        rejects: PartDirectory,
        *,
        schema: pa.Schema,
        format: str,
        commit: int,
        shard: int = 0,
        last: Sequence[StateFile] = (),
    ) -> None:
        self.commit = commit
        self.shard = shard
        self._rows = rows
        self._rejects = rejects
        self._schema = schema
        self._format = FORMATS[format]
        self._last = last
        self._name = draw_name(commit, shard)
        self._writer: PartWriter | None = None
        self._rejects_writer: PartWriter | None = None

    @classmethod
    def at(
        cls,
        path: str,
        rejects: str,
        *,
        schema: pa.Schema,
        format: str,
        commit: int,
        shard: int,
        last: Sequence[StateFile],
    ) -> "Attempt":
        """An attempt in a process that has not opened the folder: its driver has.

        `path` and `rejects` are where rows and rejects go; the driver has made both folders
        (`OutputFolder.open`, `prepare_rejects`).
        """
        return cls(
            PartDirectory(open_files(path)),
            PartDirectory(open_files(rejects)),
            schema=schema,
            format=format,
            commit=commit,
            shard=shard,
            last=last,
        )

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows, in the order of the output."""
        if self._writer is None:
            self._writer = self._rows.writer(self._schema, self._name, self._format)
        self._writer.write(batch)

    def reject(self, batch: pa.RecordBatch) -> None:
        """Add rows to the rejects."""
        if self._rejects_writer is None:
            self._rejects_writer = self._rejects.writer(batch.schema, self._name, self._format)
        self._rejects_writer.write(batch)

    def finish(self, state: StateDelta | None) -> Facts:
        """Close and sync what was written, and write the state (None: it stays as it was).

        The names of the files last when the driver has synced the folders they are in.
        """
        parts, rejects = _finished(self._writer), _finished(self._rejects_writer)
        return Facts(self.commit, self.shard, parts, rejects, self._version(state))

    def _version(self, state: StateDelta | None) -> Shard | None:
        if state is None:
            return None
        name = f"state-{self._name}.arrow"
        return Shard(state.rows, write_version(self._rows.files, INSIDE, name, state, self._last))

    def abandon(self) -> None:
        """Close all files, finished or not."""
        for writer in (self._writer, self._rejects_writer):
            if writer is not None:
                with suppress(SinkError):
                    writer.abandon()


def in_order(facts: Sequence[Facts], commit: int) -> list[Facts]:
    """The facts of a commit, by shard.

    Raises ValueError unless there is one of each shard, each of an attempt at this commit.
    """
    if late := [each for each in facts if each.commit != commit]:
        raise ValueError(
            f"expected facts of commit {commit}, received those of commit {late[0].commit} of "
            f"shard {late[0].shard}: its rows and state do not follow the last commit"
        )
    ordered = sorted(facts, key=lambda each: each.shard)
    found = [each.shard for each in ordered]
    if not found or found != list(range(len(found))):
        raise ValueError(f"expected facts of shards 0, 1, 2, … once each, received {found}")
    return ordered


def shards_after(last: Sequence[Shard], facts: Sequence[Facts]) -> tuple[Shard, ...]:
    """The shards of the state when `facts`, in order, are committed after `last`.

    Raises ValueError for a shard that was not written and that the last commit has no state of.
    """
    if all(each.state is None for each in facts):
        return tuple(last)
    before = last if len(last) == len(facts) else [None] * len(facts)
    states = [each.state or old for each, old in zip(facts, before, strict=True)]
    shards = tuple(state for state in states if state is not None)
    if len(shards) < len(facts):
        raise ValueError(f"no state of shard {states.index(None)}, in facts or the last commit")
    return shards


def _finished(writer: PartWriter | None) -> tuple[StagedPart, ...]:
    return () if writer is None else (writer.finish(),)
