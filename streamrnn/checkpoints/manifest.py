"""The manifest: one JSON file that says what is committed.

The file begins with the sha256 of all bytes after it, so that a flipped or missing byte anywhere
in it is noticed. Version 1 named used files as the pipeline file did, and had a digest of their
footers instead of their content. Versions 1 and 2 had the state as one shard, and no names in
staging: those followed from the commit and the name of a part.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from streamrnn.errors import CheckpointError, DataError
from streamrnn.sinks import Part
from streamrnn.sources import Content, Position, Reading, SourceFile

VERSION = 3
READABLE = (1, 2, 3)
# json.dumps makes such an encoder at each call.
_ENCODE = json.JSONEncoder(ensure_ascii=False, default=vars).encode
_HEAD = re.compile(rb'\{\n "sha256": "([0-9a-f]{64})",\n')


@dataclass(frozen=True)
class UsedFile:
    """A file of the source whose first rows, or all of them, are in the output.

    `path` is its `SourceFile.name`, `content` of the rows that were read. Where that is None the
    `identity` of the footer stands for it. `etag` is the object store's. `mtime_ns` is -1 where the
    file was written so shortly before it was read that the next change may have the same time.
    `gone`: it was no longer in the source at an earlier commit.
    """

    path: str
    size: int
    mtime_ns: int
    identity: str = ""
    etag: str = ""
    content: Content | None = None
    gone: bool = False

    @classmethod
    def of(cls, file: SourceFile, reading: Reading | None) -> "UsedFile":
        """The file as it was listed, and what was read of it; None: its footer is read now.

        A damaged one, which is passed over, has none.
        """
        if reading is None:
            identity = ""
            with suppress(DataError):
                identity = file.identity()
            return cls(file.name, file.size, file.mtime_ns, identity)
        time = -1 if _is_fresh(file.mtime_ns, reading.opened_ns) else file.mtime_ns
        return cls(file.name, file.size, time, "", reading.etag, reading.content)


@dataclass(frozen=True)
class StateFile:
    """One file of a version of the state: the first is whole, those after it are changes."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """A version of the state of one shard: `rows` of it, in the files `files` (see `versions`)."""

    rows: int
    files: tuple[StateFile, ...]


@dataclass(frozen=True)
class RetainedCommit:
    """An earlier commit to which `rewind` can go back."""

    commit: int
    time: str
    complete: bool
    sources: int
    position: Position | None
    rows: int
    rejected: int
    shards: tuple[Shard, ...]
    counters: Mapping[str, Any]

    @property
    def state_rows(self) -> int:
        """Rows of the state, over all shards."""
        return sum(shard.rows for shard in self.shards)


@dataclass(frozen=True)
class Manifest:
    """What is committed: rows (as parts), position in the source, and the state, at one moment.

    `output` is a name drawn for the folder at its first commit, which its rejects bear as well;
    `home` is where the folder was ("" in version 1).
    `sources` are in the order in which they were read; where `position` is not None, it lies in
    one of them and the others are done; it is never at the end of a file. `counters` is whatever
    the run gave to `commit`.
    `config` is dotted key -> value, `schema` the Arrow schema of the rows as base64. `shards` are
    those of the state, in order: there are none where there is no state.
    """

    output: str
    commit: int
    time: str
    complete: bool
    model: str
    config: Mapping[str, Any]
    schema: str
    sources: tuple[UsedFile, ...] = ()
    position: Position | None = None
    parts: tuple[Part, ...] = ()
    rejects_path: str = ""
    rejects: tuple[Part, ...] = ()
    shards: tuple[Shard, ...] = ()
    counters: Mapping[str, Any] = field(default_factory=dict)
    kept: tuple[RetainedCommit, ...] = ()
    home: str = ""
    version: int = VERSION

    @property
    def rows(self) -> int:
        """Rows committed so far, over all runs."""
        return sum(part.rows for part in self.parts)

    @property
    def rejected(self) -> int:
        """Rows in the rejects so far, over all runs."""
        return sum(part.rows for part in self.rejects)

    @property
    def state_rows(self) -> int:
        """Rows of the state, over all shards."""
        return sum(shard.rows for shard in self.shards)

    def as_kept(self) -> RetainedCommit:
        """What has to be remembered of this commit to go back to it."""
        return RetainedCommit(
            self.commit,
            self.time,
            self.complete,
            len(self.sources),
            self.position,
            self.rows,
            self.rejected,
            self.shards,
            self.counters,
        )

    def kept_after(self, keep: int) -> tuple[RetainedCommit, ...]:
        """What the next commit keeps: the last `keep` commits, and the last `keep` ends of runs.

        Ends of runs as well, because a bad load of yesterday may be many commits.
        """
        if keep < 1:
            return ()
        known = (*self.kept, self.as_kept())
        ends = [kept for kept in known if kept.complete][-keep:]
        return tuple(kept for kept in known if kept in ends or kept in known[-keep:])

    def state_names(self) -> set[str]:
        """All files of state that this commit or a kept one needs."""
        commits = [self.shards, *(kept.shards for kept in self.kept)]
        return {file.name for shards in commits for shard in shards for file in shard.files}

    def to_bytes(self) -> bytes:
        """The manifest as JSON, led by the checksum of what follows the first two lines."""
        rest = (
            ",\n".join(f' "{key}": {_json(value)}' for key, value in vars(self).items())
        ).encode()
        rest += b"\n}\n"
        return b'{\n "sha256": "' + hashlib.sha256(rest).hexdigest().encode() + b'",\n' + rest

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> "Manifest":
        """Read back `to_bytes`; raises CheckpointError naming `path` when a byte was changed."""
        head = _HEAD.match(data)
        if head is None or hashlib.sha256(data[head.end() :]).hexdigest().encode() != head[1]:
            raise CheckpointError(
                f"{path} is damaged: its bytes are not those that its checksum was made of "
                f"({len(data)} bytes found). Restore it from a backup, or start over with "
                "--full-refresh, which removes the output written so far."
            )
        found = json.loads(data)
        if found["version"] not in READABLE:
            raise CheckpointError(
                f"{path} has format version {found['version']}, this streamrnn reads versions "
                f"{READABLE[0]} to {READABLE[-1]}. Use the streamrnn that wrote it, or start over "
                "with --full-refresh."
            )
        del found["sha256"], found["version"]
        return cls(
            **{
                **_with_shards(found),
                "sources": tuple(map(_used, found["sources"])),
                "position": _position(found["position"]),
                "parts": tuple(map(_part, found["parts"])),
                "rejects": tuple(map(_part, found["rejects"])),
                "kept": tuple(
                    RetainedCommit(
                        **{**_with_shards(item), "position": _position(item["position"])}
                    )
                    for item in found["kept"]
                ),
            }
        )


def with_used(
    known: Sequence[UsedFile], now: Sequence[SourceFile], readings: Mapping[str, Reading]
) -> tuple[UsedFile, ...]:
    """The used files with those of `now` added, or in place of those of the same name.

    `readings`: name -> what was read of a file. One without, that is known as it is, stays so.
    """
    used = list(known)  # two may have one name, where an older version knew a file by two
    places = {file.path: at for at, file in reversed(list(enumerate(used)))}
    for file in now:
        at, reading = places.get(file.name), readings.get(file.name)
        if at is None:
            places[file.name] = len(used)
            used.append(UsedFile.of(file, reading))
        elif reading is not None or (used[at].size, used[at].mtime_ns) != (
            file.size,
            file.mtime_ns,
        ):
            used[at] = UsedFile.of(file, reading)
    return tuple(used)


def _is_fresh(mtime_ns: int, opened_ns: int) -> bool:
    """Whether a file may be written once more without getting another time: where times are whole
    seconds, as on object stores, within the same one."""
    return mtime_ns % 1_000_000_000 == 0 and opened_ns - mtime_ns < 2_000_000_000


def encode_schema(schema: pa.Schema) -> str:
    """A schema as base64 of its Arrow form, as it stands in a manifest."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def decode_schema(text: str) -> pa.Schema:
    """The schema that `encode_schema` was given."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def _json(value: Any) -> str:
    """JSON with an item of a list a line. (dataclasses.asdict and indent= took 4 x as long.)"""
    if isinstance(value, tuple) and value:
        return "[\n  " + ",\n  ".join(map(_json, value)) + "\n ]"
    return _ENCODE(value)


def _used(found: dict[str, Any]) -> UsedFile:
    content = found.get("content")
    return UsedFile(**{**found, "content": None if content is None else Content(**content)})


def _position(found: dict[str, Any] | None) -> Position | None:
    return None if found is None else Position(**found)


def _part(found: dict[str, Any]) -> Part:
    if "staged" not in found:
        found = {**found, "staged": f"{found['commit']:05d}-{found['name']}.tmp"}
    return Part(**found)


def _with_shards(found: dict[str, Any]) -> dict[str, Any]:
    """A commit with its shards; before version 3 all of the state was one."""
    rest = {key: value for key, value in found.items() if key not in ("state", "state_rows")}
    shards = found.get("shards")
    if shards is None:
        shards = [{"rows": found["state_rows"], "files": found["state"]}] if found["state"] else []
    return {**rest, "shards": tuple(map(_shard, shards))}


def _shard(found: dict[str, Any]) -> Shard:
    return Shard(found["rows"], tuple(StateFile(**item) for item in found["files"]))
