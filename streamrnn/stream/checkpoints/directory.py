"""A folder of parts: the published ones, and the ones in staging.

Parts are moved into place so that a reader finds a prefix of the committed rows at any moment:
parts in the way are removed from the last to the first, then missing ones are moved in from the
first to the last. A `Part` records the name that its file had in staging, so that
the file can be moved back.
"""

import json
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pyarrow as pa

from streamrnn.base.storage.files import Files
from streamrnn.errors import CheckpointError, SinkError
from streamrnn.stream.sinks import (
    Part,
    PartFormat,
    PartWriter,
    StagedPart,
    layout_of,
    name_of,
    number_of,
    width_for,
)

INSIDE = "_streamrnn"
STAGING = f"{INSIDE}/staging"
REPLAY = f"{INSIDE}/_replay"
"""The folder of a replay that has not ended: an output without rows, with the state so far."""
RESTORE = (
    "Restore it from a backup, go back to a retained commit that does not need it (`streamrnn "
    "rewind OUT` lists them), or start over with --full-refresh."
)
"""What to do about a file of an output that is damaged or gone."""
RESTORE_MANIFEST = (
    "Restore it from a backup, or start over with --full-refresh, which removes the output written "
    "so far."
)
# The names of an attempt's files, of rows or of state: commit, shard, token.
_ATTEMPT = re.compile(r"_?(?:state-)?(\d{5,})-\d{3,}-[0-9a-f]{16}")
# Names of files inside begin with "_" too: Polars recognizes hidden files by their own names.
MANIFEST = f"{INSIDE}/_manifest.json"
LOCK = f"{INSIDE}/_lock"
OWNER = f"{INSIDE}/_owner"
LAYOUTS = f"{INSIDE}/_layouts.json"


def name_inside(path: str) -> str:
    """Return the name of a file within our own folder."""
    return path.removeprefix(f"{INSIDE}/")


def is_later(name: str, after: int | None) -> bool:
    """Return whether a file is from an attempt at a commit after number `after` (None: False).

    >>> is_later("_00012-003-0123456789abcdef.parquet.tmp", 11)
    True
    """
    attempt = _ATTEMPT.match(name)
    return after is not None and attempt is not None and int(attempt[1]) > after


def is_part(name: str) -> bool:
    """Return whether a file is named like a part, with or without partition folders."""
    return layout_of(name) is not None and number_of(name.rpartition("/")[2]) is not None


def order_of(name: str) -> tuple[str, str]:
    """Return a key that sorts the names of parts by file name first, then by partition folder."""
    folder, _, file = name.rpartition("/")
    return file, folder


class PartDirectory:
    """Parts below one root: the rows of a run, or a side output.

    `layouts` says which partition folders are ours (None: all): a layout has the names of the
    columns that the folders stand for; () is for parts in the root.
    """

    def __init__(self, files: Files, layout: tuple[str, ...] = ()) -> None:
        self.files = files
        self.path = files.show("")
        self.layouts: frozenset[tuple[str, ...]] | None = frozenset([layout])
        self._unsynced: set[str] = set()  # folders of parts whose names may not be durable

    def prepare(self) -> None:
        """Create the folders. Raises SinkError."""
        self.files.make("")
        self.files.make(INSIDE)
        self.files.make(STAGING)

    def foreign_entries(self) -> list[str]:
        """List the entries that are not ours in a folder without a manifest.

        Partition folders without files are ours: a run that died before its first commit left them.
        """
        others = [name for name in self.files.entries("") if name != INSIDE]
        if not any("=" in name for name in others):
            return others
        full = {name.partition("/")[0] for name in self.files.tree()}
        return [name for name in others if name in full or "=" not in name]

    def only_our_files(self) -> bool:
        """Return whether our own folder is there, and all other files are named like parts."""
        entries = self.files.entries("")
        if any("=" in name for name in entries):
            inside = (name for name in self.files.tree() if not name.startswith(f"{INSIDE}/"))
            entries = [name for name in entries if "=" not in name]
            if not all(map(is_part, inside)):
                return False
        return INSIDE in entries and all(entry == INSIDE or is_part(entry) for entry in entries)

    @contextmanager
    def token(self) -> Iterator[tuple[str, str]]:
        """Write a random token, for `read_token` in another process; yield its name and content.

        The token is deleted at the end.
        """
        content = secrets.token_hex(16)
        name = f"{STAGING}/_token-{content[:8]}"
        self.files.put(name, content.encode())
        try:
            yield name, content
        finally:
            self.files.delete(name)

    def keep_layouts(self) -> None:
        """Store the layouts, by which the next start finds the parts to remove.

        The next `Ledger.reconcile` removes the file with them, too.
        """
        layouts = None if self.layouts is None else sorted(self.layouts)
        self.files.put(LAYOUTS, json.dumps(layouts).encode())

    def add_kept_layouts(self) -> None:
        """Add the layouts that `keep_layouts` stored, if a run died before removing parts in them.

        Raises CheckpointError if the file was edited.
        """
        text = self._read(LAYOUTS)
        try:
            layouts = json.loads(text) if text else []
            kept = None if layouts is None else frozenset(map(tuple, layouts))
        except (TypeError, ValueError):
            raise CheckpointError(
                f"{self.files.show(LAYOUTS)} was edited; remove it, and remove parts of an earlier "
                "output, if there are any, from the folder"
            ) from None
        self.layouts = None if kept is None or self.layouts is None else self.layouts | kept

    def owner(self) -> str:
        """Return the output that the parts belong to, as `mark` recorded it; "" if it did not."""
        return self._read(OWNER)

    def _read(self, name: str) -> str:
        with suppress(FileNotFoundError):
            return self.files.read(name).decode(errors="replace")
        return ""

    def mark(self, output: str) -> None:
        """Record which output the parts belong to."""
        if self.owner() != output:
            self.files.put(OWNER, output.encode())

    def _visible(self) -> dict[str, int]:
        plain = self.layouts == frozenset([()])
        sizes = self.files.sizes("") if plain else self.files.tree_sizes()
        return {
            name: size
            for name, size in sizes.items()
            if is_part(name) and (self.layouts is None or layout_of(name) in self.layouts)
        }

    def writer(
        self, schema: pa.Schema, attempt: str, format: PartFormat, folder: str = ""
    ) -> PartWriter:
        """Make a writer of a part in staging, named after its attempt. Raises SinkError."""
        name = f"{STAGING}/_{attempt}{format.suffix}.tmp"
        return PartWriter(self.files, name, schema, format, folder)

    def place(
        self, parts: Sequence[Part], staged: Sequence[StagedPart], commit: int, model: str = ""
    ) -> tuple[Part, ...]:
        """Return `parts`, followed by the staged parts with their new names.

        If the numbers need more digits, all `parts` get longer names. Raises SinkError if no
        number is left.
        """
        if not staged:
            return tuple(parts)
        first = parts[-1].number + 1 if parts else 0
        before = parts[0].width if parts else 0
        width = width_for(first + len(staged) - 1, least=before)
        if width is None:
            raise SinkError(
                f"{self.path} has {len(parts)} parts, and no part number is left. "
                f"Merge them with `streamrnn compact {self.path}`."
            )
        if width != before:
            parts = [part.renamed(width) for part in parts]
        new = (
            part.placed(name_of(number, part.format.suffix, width), commit, model)
            for number, part in enumerate(staged, first)
        )
        return (*parts, *new)

    def sync_names(self) -> None:
        """Make the names of parts durable, before the manifest that names them is written."""
        # First the names of parts in place: a half-durable rename must not lose the file.
        for folder in sorted({"", *self._unsynced}):
            self.files.sync(folder)
        self._unsynced = set()
        self.files.sync(STAGING)

    def make_folders(self, parts: Sequence[Part]) -> None:
        """Create the partition folders, before a manifest names parts in them.

        Raises SinkError if the disk has a folder under a name that differs only in case or Unicode
        form, and takes the two for one.
        """
        folders = sorted({part.folder for part in parts} - {""})
        for folder in folders:
            self.files.make(folder)
        if not self.files.local:
            return
        above: dict[str, set[str]] = {}
        for folder in folders:
            steps = folder.split("/")
            for depth, step in enumerate(steps):
                top = "/".join(steps[:depth])
                if top not in above:
                    above[top] = set(self.files.entries(top))
                if step not in above[top]:
                    raise SinkError(
                        f"{self.files.show(folder)}: the disk has this folder under a name that "
                        "differs only in case or Unicode form: two values would share a partition. "
                        "Write to a disk that keeps such names apart, or make the values equal"
                    )

    def publish(self, parts: Sequence[Part]) -> None:
        """Move parts into place; the next start repeats moves that a power loss has undone."""
        for part in parts:
            self.files.move(f"{STAGING}/{part.staged}", part.name)
        self._unsynced |= {part.folder for part in parts}

    def withdraw(self, parts: Sequence[Part]) -> None:
        """Move parts, whose names are durable, back to staging durably, the last one first."""
        for part in reversed(parts):
            self.files.move(part.name, f"{STAGING}/{part.staged}")
        self.files.sync(STAGING)
        for folder in sorted({part.folder for part in parts}):
            self.files.sync(folder)

    def locate(self, parts: Sequence[Part]) -> dict[str, str]:
        """Find committed parts of the right size, in place or in staging: name -> file name."""
        visible, staged = self._visible(), self.files.sizes(STAGING)
        places = {}
        for part in parts:
            if staged.get(part.staged) == part.bytes:
                places[part.name] = f"{STAGING}/{part.staged}"
            elif visible.get(part.name) == part.bytes:
                places[part.name] = part.name
        return places

    def check(self, parts: Sequence[Part]) -> None:
        """Raise CheckpointError if a part is missing or its size has changed since its commit."""
        places = self.locate(parts)
        for part in parts:
            if part.name not in places:
                raise CheckpointError(self.lost(part))

    def check_staged(self, parts: Sequence[StagedPart]) -> None:
        """Raise CheckpointError if a part to be committed is not in staging with its full size."""
        staged = self.files.sizes(STAGING) if parts else {}
        for part in parts:
            if staged.get(part.staged) != part.bytes:
                raise CheckpointError(
                    f"{self.files.show(f'{STAGING}/{part.staged}')} is missing or does not have "
                    f"the {part.bytes} bytes that its attempt wrote. If it is missing, it may have "
                    "been committed already, or removed when another run started. Write the rows "
                    "of this commit again."
                )

    def lost(self, part: Part) -> str:
        """Return the message for a part that `locate` does not find."""
        size = self._visible().get(part.name)
        there = "is missing" if size is None else f"has {size} bytes"
        return (
            f"{self.files.show(part.name)} {there}; expected {part.bytes} bytes with {part.rows} "
            f"rows (commit {part.commit}). {RESTORE}"
        )

    def reconcile(self, parts: Sequence[Part], after: int | None = None) -> tuple[int, int]:
        """Make readers find exactly `parts`, and empty staging.

        Files of attempts at commits after number `after` stay in staging (None: these are removed,
        too). Returns how many parts were moved into place, and how many files were removed. A call
        can be interrupted anywhere and repeated, as its work depends only on the files that exist.
        """
        visible, staged = self._visible(), self.files.sizes(STAGING)
        by_name = {part.name: part for part in parts}
        # A part in staging is newer than the file in its place.
        waiting = {part.name for part in parts if staged.get(part.staged) == part.bytes}
        out_of_place = waiting | (visible.keys() - by_name.keys())
        removed = 0
        if out_of_place:
            first = min(map(order_of, out_of_place))
            later = [name for name in visible if order_of(name) >= first]
            for name in sorted(later, key=order_of, reverse=True):
                if name in out_of_place:
                    self.files.delete(name)
                    removed += name not in by_name
                elif waiting:
                    self.files.move(name, f"{STAGING}/{by_name[name].staged}")
                    waiting.add(name)
            # No part appears before the removal of what was in its way is durable.
            self.files.sync(STAGING)
            for folder in sorted({"", *(name.rpartition("/")[0] for name in later)}):
                self.files.sync(folder)
            for folder in sorted({name.rpartition("/")[0] for name in later} - {""}, reverse=True):
                while folder:  # remove those that are now empty
                    self.files.clear(folder)
                    folder = folder.rpartition("/")[0]
            published = [part for part in parts if part.name in waiting]
            self.make_folders(published)
            self.publish(published)
        last = max((part.commit for part in parts), default=0)
        self._unsynced |= {part.folder for part in parts if part.commit == last}
        keep = {part.staged for part in parts}
        unnamed = (name for name in staged.keys() - keep if not is_later(name, after))
        beside = (f"{INSIDE}/{name}" for name in self.files.sizes(INSIDE))
        leftovers = sorted(f"{STAGING}/{name}" for name in unnamed)
        leftovers += sorted(name for name in beside if name.startswith(f"{OWNER}."))
        for name in leftovers:
            self.files.delete(name)
        return len(waiting), removed + len(leftovers)
