"""The manifest: one JSON file that describes what is committed, with segments for long lists.

The file starts with the sha256 of all bytes after it, so that any flipped or missing byte is
detected. Version 1 named used files as the pipeline file did, and stored a digest of their footers
instead of their content. Versions 1 and 2 stored the state as one shard, and no names in staging:
those follow from the commit and the name of a part. Versions 1 to 3 had one model. Version 4 has no
alerts; it is still written where there are none. A manifest
without segments has all entries of its lists.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NoReturn

import pyarrow as pa

from streamrnn.checkpoints.segments import Segment
from streamrnn.checkpoints.shape import check_shape
from streamrnn.errors import CheckpointError, DataError
from streamrnn.sinks import Part
from streamrnn.sources import Content, Position, Reading, SourceFile

VERSION = 5
WITHOUT_ALERTS = 4
READABLE = (1, 2, 3, 4, 5)


def fields_of(item: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, with slots or without, for JSON."""
    return {name: getattr(item, name) for name in item.__match_args__}


# json.dumps would make an encoder in each call.
_ENCODE = json.JSONEncoder(ensure_ascii=False, default=fields_of).encode
_HEAD = re.compile(rb'\{\n "sha256": "([0-9a-f]{64})",\n')


@dataclass(frozen=True, slots=True)
class UsedFile:
    """A file of the source whose first rows, or all of them, are in the output.

    `path` is its `SourceFile.name`, `content` that of the rows that were read; if that is None,
    `identity` of the footer replaces it. `etag` is from the object store. `mtime_ns` is -1 if the
    file was written so shortly before it was read that a later change may have the same time.
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
        """Describe a file as listed, with what was read of it; None: read its footer now.

        A damaged file, which is skipped, has no footer.
        """
        if reading is None:
            identity = ""
            with suppress(DataError):
                identity = file.identity()
            return cls(file.name, file.size, file.mtime_ns, identity)
        time = -1 if _is_fresh(file.mtime_ns, reading.opened_ns) else file.mtime_ns
        return cls(file.name, file.size, time, "", reading.etag, reading.content)


LISTS: dict[str, type] = {"sources": UsedFile, "parts": Part, "rejects": Part, "alerts": Part}
"""The lists of a manifest that grow with its output, with their entries."""

ReadSegment = Callable[[Segment, type], list[Any]]
_rows_of = attrgetter("rows")


@dataclass(frozen=True)
class StateFile:
    """One file of a version of the state: the first has all rows, later ones have changes."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Shard:
    """A version of the state of one shard: `rows` rows in `files` (see `versions`)."""

    rows: int
    files: tuple[StateFile, ...]


@dataclass(frozen=True)
class RetainedCommit:
    """An earlier commit that `rewind` can go back to."""

    commit: int
    time: str
    complete: bool
    sources: int
    position: Position | None
    rows: int
    rejected: int
    shards: tuple[Shard, ...]
    counters: Mapping[str, Any]
    model: str
    end_of_run: bool
    alerts: int = 0
    positions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state_rows(self) -> int:
        """Number of rows of the state, over all shards."""
        return sum(shard.rows for shard in self.shards)


@dataclass(frozen=True)
class Manifest:
    """What is committed: rows (as parts), position in the source, and the state, at one moment.

    `output` is a random name of the folder from its first commit, which its rejects store too;
    `home` is where the folder was ("" in version 1), `table` the id of the table whose files were
    read ("" if unknown, or none). `sources` are in the order in which they were
    read; if `position` is not None, it is in one of them and the others are done; it is never at
    the end of a file. `segments`: name of a list -> the files with its first entries (the list
    itself has them too, see the module `segments`). `counters` is what the run passed to `commit`.
    `config` is dotted key -> value, `schema` the Arrow schema of the rows as base64. `shards` are
    those of the state, in order, empty without state. `end_of_run`: the last commit of its run
    (with --follow: of the files that one poll found). `positions`: {"last": JSON} of the checkpoint
    that the state was imported from (see `states.positions`), empty without one.
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
    alerts_path: str = ""
    alerts: tuple[Part, ...] = ()
    shards: tuple[Shard, ...] = ()
    counters: Mapping[str, Any] = field(default_factory=dict)
    kept: tuple[RetainedCommit, ...] = ()
    home: str = ""
    table: str = ""
    end_of_run: bool = True
    segments: Mapping[str, tuple[Segment, ...]] = field(default_factory=dict)
    positions: Mapping[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @property
    def rows(self) -> int:
        """Number of rows committed so far, over all runs."""
        return sum(map(_rows_of, self.parts))

    @property
    def rejected(self) -> int:
        """Number of rejected rows so far, over all runs."""
        return sum(map(_rows_of, self.rejects))

    @property
    def alerted(self) -> int:
        """Number of rows in the alerts so far, over all runs."""
        return sum(map(_rows_of, self.alerts))

    @property
    def state_rows(self) -> int:
        """Number of rows of the state, over all shards."""
        return sum(shard.rows for shard in self.shards)

    def as_kept(self) -> RetainedCommit:
        """Return what `rewind` needs to go back to this commit."""
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
            self.model,
            self.end_of_run,
            self.alerted,
            self.positions,
        )

    def kept_after(self, keep: int, end_of_run: bool) -> tuple[RetainedCommit, ...]:
        """Return what the next commit retains: `keep` ends of runs, and commits of its own run.

        Of the latter the last `keep`, and none if the next commit is the `end_of_run`: one bad run
        may be many commits.
        """
        if keep < 1:
            return ()
        known = (*self.kept, self.as_kept())
        ends = [kept.commit for kept in known if kept.end_of_run][-keep:]
        within = [kept.commit for kept in known if not kept.end_of_run][-keep:]
        stay = {*ends, *([] if end_of_run else within)}
        return tuple(kept for kept in known if kept.commit in stay)

    def file_names(self) -> set[str]:
        """Return all files beside the manifest that it needs: of state, and segments."""
        segments = {item.name for items in self.segments.values() for item in items}
        return self.state_names() | segments

    def state_names(self) -> set[str]:
        """Return all files of state that this commit or a retained one needs."""
        commits = [self.shards, *(kept.shards for kept in self.kept)]
        return {file.name for shards in commits for shard in shards for file in shard.files}

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON, led by the checksum of all after the first two lines.

        Entries in segments are left out.
        """
        found = dict(vars(self))
        for key, segments in self.segments.items():
            found[key] = found[key][sum(item.count for item in segments) :]
        used = self.alerted or self.alerts_path or any(kept.alerts for kept in self.kept)
        left_out = set[str]()  # what earlier versions did not have, where it is not used
        if not used:  # as version 4
            found["version"] = WITHOUT_ALERTS if self.version == VERSION else self.version
            del found["alerts_path"]
            left_out.add("alerts")
        if not (self.positions or any(kept.positions for kept in self.kept)):
            left_out.add("positions")
        kept = map(fields_of, self.kept)
        found["kept"] = tuple({k: v for k, v in item.items() if k not in left_out} for item in kept)
        found = {k: v for k, v in found.items() if k not in left_out}
        if not self.table:  # as before there were tables
            del found["table"]
        rest = (",\n".join(f' "{key}": {_json(value)}' for key, value in found.items())).encode()
        rest += b"\n}\n"
        return b'{\n "sha256": "' + hashlib.sha256(rest).hexdigest().encode() + b'",\n' + rest

    @classmethod
    def from_bytes(cls, data: bytes, path: str, read: ReadSegment | None = None) -> "Manifest":
        """Read the result of `to_bytes`; CheckpointError with `path` if a byte was changed.

        `read` reads the entries of a segment.
        """
        head = _HEAD.match(data)
        if head is None or hashlib.sha256(data[head.end() :]).hexdigest().encode() != head[1]:
            raise CheckpointError(
                f"{path} is damaged: its checksum does not match its content "
                f"({len(data)} bytes found). Restore it from a backup, or start over with "
                "--full-refresh, which removes the output written so far."
            )
        found = json.loads(data)
        check_shape(found)
        if found["version"] not in READABLE:
            refuse_layout(path, found["version"])
        old = found["version"] < 4
        model = {"model": found["model"]} if old else {}
        del found["sha256"], found["version"]
        segments = {
            key: tuple(Segment(**item) for item in items)
            for key, items in found.get("segments", {}).items()
        }
        older: dict[str, list[Any]] = {key: [] for key in LISTS}
        for key, items in segments.items():
            assert read is not None
            older[key] = [entry for item in items for entry in read(item, LISTS[key])]
        return cls(
            **{
                **_with_shards(found),
                **_end_of_run(found, old),
                "sources": (*older["sources"], *map(decode_used, found["sources"])),
                "position": decode_position(found["position"]),
                "parts": (*older["parts"], *(_part({**part, **model}) for part in found["parts"])),
                "rejects": (*older["rejects"], *map(_part, found["rejects"])),
                "alerts": (*older["alerts"], *map(_part, found.get("alerts", ()))),
                "segments": segments,
                "kept": tuple(
                    RetainedCommit(
                        **{
                            **_with_shards(item),
                            **model,
                            **_end_of_run(item, old),
                            "position": decode_position(item["position"]),
                        }
                    )
                    for item in found["kept"]
                ),
            }
        )


def refuse_layout(path: str, layout: object) -> NoReturn:
    """Raise CheckpointError for a manifest of another layout (None: of before there were any)."""
    written = "was written before version 0.1.0" if layout is None else f"has layout {layout}"
    raise CheckpointError(
        f"{path} {written}; this version of streamrnn reads layout {VERSION}. To start over and "
        "keep this output, set another [sink] path (and another [sink] rejects and [alerts] path, "
        "if they are set). Or start over in its place with --full-refresh, which removes it."
    )


def _is_fresh(mtime_ns: int, opened_ns: int) -> bool:
    """Whether a later write of the file may get the same time.

    Times of whole seconds, as on object stores, are equal within one second.
    """
    return mtime_ns % 1_000_000_000 == 0 and opened_ns - mtime_ns < 2_000_000_000


def encode_schema(schema: pa.Schema) -> str:
    """Encode a schema as base64 of its Arrow form, as stored in a manifest."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def decode_schema(text: str) -> pa.Schema:
    """Decode the result of `encode_schema`."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def _json(value: Any) -> str:
    """Encode as JSON, one line per list item. dataclasses.asdict and indent= took 4x as long."""
    if isinstance(value, tuple) and value:
        return "[\n  " + ",\n  ".join(map(_json, value)) + "\n ]"
    return _ENCODE(value)


def decode_used(found: dict[str, Any]) -> UsedFile:
    """Read a used file back from JSON."""
    content = found.get("content")
    return UsedFile(**{**found, "content": None if content is None else Content(**content)})


def decode_position(found: dict[str, Any] | None) -> Position | None:
    """Read a position back from JSON."""
    return None if found is None else Position(**found)


def _part(found: dict[str, Any]) -> Part:
    if "staged" not in found:
        found = {**found, "staged": f"{found['commit']:05d}-{found['name']}.tmp"}
    return Part(**found)


def _end_of_run(found: dict[str, Any], old: bool) -> dict[str, bool]:
    """Before version 4 only a run that read to the end of its input was known to have ended."""
    return {"end_of_run": found["complete"]} if old else {}


def _with_shards(found: dict[str, Any]) -> dict[str, Any]:
    """Add the shards of a commit; before version 3 the state was one shard."""
    rest = {key: value for key, value in found.items() if key not in ("state", "state_rows")}
    shards = found.get("shards")
    if shards is None:
        shards = [{"rows": found["state_rows"], "files": found["state"]}] if found["state"] else []
    return {**rest, "shards": tuple(map(_shard, shards))}


def _shard(found: dict[str, Any]) -> Shard:
    return Shard(found["rows"], tuple(StateFile(**item) for item in found["files"]))
