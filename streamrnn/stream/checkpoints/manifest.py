"""The manifest: one JSON file that describes what is committed, with segments for long lists.

The file starts with the sha256 of all bytes after that field, so that any flipped or missing byte
is detected. The docstring of the package describes the layout.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pyarrow as pa

from streamrnn.base.display import first_of, location
from streamrnn.base.storage import AnyPath
from streamrnn.errors import CheckpointError, DataError, StateError
from streamrnn.stream.checkpoints.directory import RESTORE_MANIFEST
from streamrnn.stream.checkpoints.records import Segment, built, check_fields, fields_of
from streamrnn.stream.config import SIDE_OUTPUTS, check_schema_types, recorded_place
from streamrnn.stream.sinks import Part
from streamrnn.stream.sources import Content, Position, Reading, SourceFile
from streamrnn.stream.states.positions import PositionPairs

LAYOUT = 1
SOURCES = "sources"
"""The name of the list of used files among the lists that grow."""
# json.dumps would make an encoder in each call.
_ENCODE = json.JSONEncoder(ensure_ascii=False, default=fields_of).encode
_HEAD = re.compile(rb'\{\n "sha256": "([0-9a-f]{64})",\n')


@dataclass(frozen=True, slots=True)
class UsedFile:
    """A file of the source whose first rows, or all of them, are in the output.

    `path` is its `SourceFile.name`; `content` describes the rows that were read; if it is None,
    `identity` describes the footer. `etag` is from the object store. `mtime_ns` is -1 if the file
    was read so soon after it was written that a later change may have the same time. `gone`: the
    source no longer had the file when a run last looked for it.
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
        """Describe a file as listed, with what was read of it (None: its footer is read now)."""
        if reading is None:
            identity = ""
            with suppress(DataError):  # a damaged file, which is skipped, has no footer
                identity = file.identity()
            return cls(file.name, file.size, file.mtime_ns, identity)
        # On object stores, times are whole seconds, equal for writes within one second.
        whole = file.mtime_ns % 1_000_000_000 == 0
        time = -1 if whole and reading.opened_ns - file.mtime_ns < 2_000_000_000 else file.mtime_ns
        return cls(file.name, file.size, time, "", reading.etag, reading.content)

    def is_listed_as(self, file: SourceFile) -> bool:
        """Return whether a listed file has this size and time."""
        return (self.size, self.mtime_ns) == (file.size, file.mtime_ns)


ReadSegment = Callable[[Segment, type], list[Any]]


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
class NamedOutput:
    """The parts of the rows or of a side output; `path`: their folder, "" for the default."""

    parts: tuple[Part, ...] = ()
    path: str = ""

    @property
    def rows(self) -> int:
        """Number of rows committed so far, over all runs."""
        return sum(part.rows for part in self.parts)


class _Commit:
    shards: tuple[Shard, ...]
    counters: Mapping[str, Any]

    @property
    def live(self) -> int:
        """Number of rows of sessions so far."""
        return int(self.counters.get("live", 0))

    @property
    def state_rows(self) -> int:
        """Number of rows of the state, over all shards."""
        return sum(shard.rows for shard in self.shards)


@dataclass(frozen=True)
class RetainedCommit(_Commit):
    """An earlier commit that `rewind` can go back to, with fields as in `Manifest`.

    `sources` is the number of used files, `outputs` the number of rows of each output.
    """

    commit: int
    time: str
    model: str
    complete: bool = False
    sources: int = 0
    position: Position | None = None
    outputs: Mapping[str, int] = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()
    counters: Mapping[str, Any] = field(default_factory=dict)
    end_of_run: bool = True
    positions: PositionPairs = ()

    @property
    def rows(self) -> int:
        """Number of rows of the output."""
        return self.outputs.get("rows", 0)


@dataclass(frozen=True)
class Manifest(_Commit):
    """What is committed at one moment; the docstring of the package describes the fields.

    `table` and `home` are "" if unknown, or if there is none. `position` is in one of the
    `sources`, never at its end, and the others are done; if it is None, all are done. The lists
    include the entries in `segments` (see the module `records`). `config` is dotted key -> value,
    `schema` the Arrow schema of the rows as base64. `end_of_run`: this is the last commit of its
    run (with --follow: the last one for the new files of one poll).
    """

    output: str
    commit: int
    time: str
    model: str
    config: Mapping[str, Any]
    schema: str
    home: str = ""
    table: str = ""
    complete: bool = False
    end_of_run: bool = True
    sources: tuple[UsedFile, ...] = ()
    position: Position | None = None
    positions: PositionPairs = ()
    outputs: Mapping[str, NamedOutput] = field(default_factory=dict)
    shards: tuple[Shard, ...] = ()
    counters: Mapping[str, Any] = field(default_factory=dict)
    kept: tuple[RetainedCommit, ...] = ()
    segments: Mapping[str, tuple[Segment, ...]] = field(default_factory=dict)

    def named(self, name: str) -> NamedOutput:
        """Return an output by its name."""
        return self.outputs.get(name, NamedOutput())

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the rows."""
        return self.named("rows").parts

    @property
    def beyond_files(self) -> dict[str, int]:
        """Number of rows so far that come from no file: `piped` into runs, `live` in sessions."""
        beyond = "piped", "live"
        return {name: int(self.counters[name]) for name in beyond if name in self.counters}

    @property
    def rows(self) -> int:
        """Number of rows committed so far, over all runs."""
        return self.named("rows").rows

    @property
    def lists(self) -> dict[str, tuple[Any, ...]]:
        """The lists that grow with an output: used files, and the parts of each output."""
        return {SOURCES: self.sources, **{name: out.parts for name, out in self.outputs.items()}}

    def place_of(self, name: str, path: str) -> str:
        """Return the folder of a side output, where `path` is the folder of the rows."""
        return recorded_place(self.named(name).path, path, name)

    def side_folders(self, path: str, **moved: AnyPath | None) -> dict[str, str]:
        """Return the folders of all side outputs by name; `moved` overrides some."""
        places = {name: moved.get(name) or self.place_of(name, path) for name in SIDE_OUTPUTS}
        return {name: os.fspath(place) for name, place in places.items()}

    def as_kept(self) -> RetainedCommit:
        """Return what `rewind` needs to go back to this commit."""
        facts = {item.name: getattr(self, item.name) for item in fields(RetainedCommit)}
        facts["sources"] = len(self.sources)
        facts["outputs"] = {name: out.rows for name, out in self.outputs.items() if out.rows}
        return RetainedCommit(**facts)

    def kept_after(self, keep: int, end_of_run: bool) -> tuple[RetainedCommit, ...]:
        """Return which commits the next one retains: the last `keep` ends of runs, and some others.

        The others are the last `keep` commits that ended no run; at an `end_of_run`, none stay.
        """
        if keep < 1:
            return ()
        commits = (*self.kept, self.as_kept())
        ends = [kept.commit for kept in commits if kept.end_of_run][-keep:]
        within = [kept.commit for kept in commits if not kept.end_of_run][-keep:]
        stay = {*ends, *([] if end_of_run else within)}
        return tuple(kept for kept in commits if kept.commit in stay)

    def file_names(self) -> set[str]:
        """Return the names of all files that the manifest needs: state files and segments."""
        segments = {item.name for items in self.segments.values() for item in items}
        return self.state_names() | segments

    def state_names(self) -> set[str]:
        """Return the names of all state files that this commit or a retained one needs."""
        commits = [self.shards, *(kept.shards for kept in self.kept)]
        return {file.name for shards in commits for shard in shards for file in shard.files}

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON, the checksum first; entries in segments are left out."""
        tails = {
            name: entries[sum(item.count for item in self.segments.get(name, ())) :]
            for name, entries in self.lists.items()
        }
        outputs = {
            name: replace(out, parts=tails[name])
            for name, out in self.outputs.items()
            if out != NamedOutput()
        }
        stored = replace(self, sources=tails[SOURCES], outputs=outputs)
        written = {"layout": LAYOUT, **fields_of(stored)}
        lines = (f' "{key}": {_json(value)}' for key, value in written.items())
        rest = (",\n".join(lines) + "\n}\n").encode()
        return b'{\n "sha256": "' + hashlib.sha256(rest).hexdigest().encode() + b'",\n' + rest

    @classmethod
    def from_bytes(cls, data: bytes, path: str, read: ReadSegment) -> "Manifest":
        """Read the result of `to_bytes`; `read` reads the entries of a segment.

        Raises CheckpointError, with `path`, if a byte was changed, or for another layout.
        """
        head = _HEAD.match(data)
        if head is None or hashlib.sha256(data[head.end() :]).hexdigest().encode() != head[1]:
            raise CheckpointError(
                f"{path} is damaged: its checksum does not match its content "
                f"({len(data)} bytes found). {RESTORE_MANIFEST}"
            )
        fields = json.loads(data)
        layout = fields.pop("layout", None)
        if type(layout) is not int or layout != LAYOUT:  # not true, nor 1.0
            number = f"has layout {json.dumps(layout)}"
            raise CheckpointError(
                f"{path} {'was written before version 0.1.0' if layout is None else number}; this "
                f"version of streamrnn reads layout {LAYOUT}. To start over and keep this output, "
                "set another [sink] path (and another [sink] rejects and [alerts] path, if they "
                "are set). Or start over in its place with --full-refresh, which removes it. If "
                "its [state] init is an output of another layout, too, start that one over first, "
                "because its state cannot be read."
            )
        del fields["sha256"]
        tail: Manifest = built(cls, fields)

        def whole(name: str, kind: type, newest: tuple[Any, ...]) -> tuple[Any, ...]:
            segments = tail.segments.get(name, ())
            return (*(entry for item in segments for entry in read(item, kind)), *newest)

        outputs = {
            name: replace(output, parts=whole(name, Part, output.parts))
            for name, output in tail.outputs.items()
        }
        return replace(tail, sources=whole(SOURCES, UsedFile, tail.sources), outputs=outputs)


def encode_schema(schema: pa.Schema) -> str:
    """Encode a schema as base64 of its Arrow form, as stored in a manifest."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def decode_schema(text: str) -> pa.Schema:
    """Decode the result of `encode_schema`."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def _json(value: Any) -> str:
    """Encode as JSON, one line per list item: asdict and indent= took four times as long."""
    if isinstance(value, tuple) and value:
        return "[\n  " + ",\n  ".join(map(_json, value)) + "\n ]"
    if isinstance(value, NamedOutput):
        value = fields_of(value)
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{_ENCODE(key)}: {_json(item)}" for key, item in value.items()) + "}"
        )
    return _ENCODE(value)


_KEY = b"streamrnn.sources"


@dataclass(frozen=True)
class SeenFiles:
    """The used files of an output, as in `Manifest`; `label` names its state table in messages.

    `schema` has the columns that were read, in order, and their types as text.
    """

    sources: tuple[UsedFile, ...]
    position: Position | None
    home: str
    schema: Mapping[str, str]
    label: str = "the initial state"

    def within(self, names: Container[str], columns: Sequence[str] | None) -> "SeenFiles":
        """Return a copy for the files `names` and the columns `columns` (None: any columns).

        A position in another file is left out, and so is a schema with other columns.
        """
        there = self.position is None or self.position.file in names
        same = columns is None or set(columns) == set(self.schema)
        return replace(
            self, position=self.position if there else None, schema=self.schema if same else {}
        )

    def among(self, names: Sequence[str]) -> list[str]:
        """Return which of `names` the state has seen."""
        seen = {file.path for file in self.sources}
        return [name for name in names if name in seen]

    def advice(self, names: Sequence[str], *, refresh: bool) -> str:
        """Advise how to score again the files that the state has seen.

        `refresh`: the output has commits.
        """
        return (
            f"The initial state has seen {first_of(names)} ({self.label}). Score "
            f"{'it' if len(names) == 1 else 'them'} again where the state was made"
            f"{f' ({location(self.home)})' if self.home else ''}, with --reload; export the state "
            f"again; and rerun this pipeline{' with --full-refresh' if refresh else ''}."
        )


def with_seen_files(table: pa.Table, manifest: Manifest | None) -> pa.Table:
    """Add the used files of an output to the metadata of its state table."""
    if manifest is None or not manifest.sources:
        return table
    schema = manifest.config.get("source.schema", {})
    return with_seen(table, SeenFiles(manifest.sources, manifest.position, manifest.home, schema))


def with_seen(table: pa.Table, seen: SeenFiles) -> pa.Table:
    """Add the files that a state has seen to the metadata of its table."""
    facts = {name: getattr(seen, name) for name in ("sources", "position", "home", "schema")}
    text = json.dumps(facts, default=fields_of, ensure_ascii=False)
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: text.encode()})


def seen_files(table: pa.Table, label: str) -> SeenFiles | None:
    """Read what `with_seen_files` added; None if there is nothing. Raises StateError."""
    text = (table.schema.metadata or {}).get(_KEY)
    if text is None:
        return None
    try:
        facts = json.loads(text)
        check_schema_types(facts["schema"])
        seen: SeenFiles = built(SeenFiles, facts)
        check_fields([seen])
        return replace(seen, label=label)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StateError(
            f"{label}: the list of used files in its metadata is damaged: {error}. Export the "
            "state again."
        ) from error
