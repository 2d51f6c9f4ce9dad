"""A folder of parts: those that readers find, and those in staging.

The parts that the manifest names are brought in place so that a reader, at any moment, finds a
prefix of the committed rows: what is in the way is removed from the last to the first, then what
is missing appears from the first to the last. A part keeps the name that it had in staging, so
that it can go back there.
"""

from collections.abc import Sequence
from contextlib import suppress

import pyarrow as pa

from streamrnn.errors import CheckpointError, SinkError
from streamrnn.sinks import Part, PartFormat, PartWriter, StagedPart, name_of, number_of, width_for
from streamrnn.storage.files import Files

INSIDE = "_streamrnn"
STAGING = f"{INSIDE}/staging"
LOCK = f"{INSIDE}/lock"
OWNER = f"{INSIDE}/owner"


class PartDirectory:
    """Parts below one root, either the rows or the rejects of a run."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.path = files.show("")

    def prepare(self) -> None:
        """Make the folders. Raises SinkError if that cannot be."""
        self.files.make("")
        self.files.make(INSIDE)
        self.files.make(STAGING)

    def foreign_entries(self) -> list[str]:
        """What is in the folder and cannot be ours, given that no manifest names anything."""
        return [name for name in self.files.entries("") if name != INSIDE]

    def only_our_files(self) -> bool:
        """Whether there is nothing but our own folder and parts named as we name them."""
        entries = self.files.entries("")
        return INSIDE in entries and all(e == INSIDE or number_of(e) is not None for e in entries)

    def owner(self) -> str:
        """The output that the parts belong to, where `mark` has said so; else ""."""
        with suppress(FileNotFoundError):
            return self.files.read(OWNER).decode(errors="replace")
        return ""

    def mark(self, output: str) -> None:
        """Say, beside the parts, which output they belong to."""
        if self.owner() != output:
            self.files.put(OWNER, output.encode())

    def _visible(self) -> dict[str, int]:
        found = self.files.sizes("")
        return {name: size for name, size in found.items() if number_of(name) is not None}

    def writer(self, schema: pa.Schema, attempt: str, format: PartFormat) -> PartWriter:
        """A writer of a part in staging, named after its attempt. Raises SinkError."""
        return PartWriter(self.files, f"{STAGING}/{attempt}{format.suffix}.tmp", schema, format)

    def place(
        self, parts: Sequence[Part], staged: Sequence[StagedPart], commit: int
    ) -> tuple[Part, ...]:
        """All parts when those in staging, in order, come behind `parts`. Raises SinkError.

        Where their numbers need more digits, all of `parts` get longer names.
        """
        if not staged:
            return tuple(parts)
        first = parts[-1].number + 1 if parts else 0
        before = parts[0].width if parts else 0
        width = width_for(first + len(staged) - 1, least=before)
        if width is None:
            raise SinkError(
                f"{self.path} has {len(parts)} parts and no number for another. "
                f"Merge them with `streamrnn compact {self.path}`."
            )
        if width != before:
            parts = [part.renamed(width) for part in parts]
        new = (
            part.placed(name_of(number, part.format.suffix, width), commit)
            for number, part in enumerate(staged, first)
        )
        return (*parts, *new)

    def sync_names(self) -> None:
        """Make the names of parts last, before the manifest that names them.

        The parts in place come first: of a rename that lasts by halves, the file must be left.
        """
        self.files.sync("")
        self.files.sync(STAGING)

    def publish(self, parts: Sequence[Part]) -> None:
        """Let readers find parts that come after all those they find already.

        Not synced before the next commit: what the power takes back, the next start does again.
        """
        for part in parts:
            self.files.move(f"{STAGING}/{part.staged}", part.name)

    def withdraw(self, parts: Sequence[Part]) -> None:
        """Move parts back to staging, the last one first, where it lasts: their names change.

        Published parts must be in place for good (`sync_names`).
        """
        for part in reversed(parts):
            self.files.move(part.name, f"{STAGING}/{part.staged}")
        self.files.sync(STAGING)
        self.files.sync("")

    def locate(self, parts: Sequence[Part]) -> dict[str, str]:
        """Where the bytes of committed parts are now: part's name -> file, in place or in staging.

        A part that is not there, or not with the size that it had, is left out.
        """
        visible, staged = self._visible(), self.files.sizes(STAGING)
        places = {part.name: part.name for part in parts if visible.get(part.name) == part.bytes}
        for part in parts:
            if staged.get(part.staged) == part.bytes:
                places[part.name] = f"{STAGING}/{part.staged}"
        return places

    def check(self, parts: Sequence[Part]) -> None:
        """Raise CheckpointError when a part has another size than when it was committed."""
        places = self.locate(parts)
        for part in parts:
            if part.name not in places:
                raise CheckpointError(self.lost(part))

    def check_staged(self, parts: Sequence[StagedPart]) -> None:
        """Raise CheckpointError when a part that is to be committed is not in staging."""
        staged = self.files.sizes(STAGING) if parts else {}
        for part in parts:
            if staged.get(part.staged) != part.bytes:
                raise CheckpointError(
                    f"{self.files.show(f'{STAGING}/{part.staged}')} is not there with the "
                    f"{part.bytes} bytes that its attempt wrote: it was committed before, or "
                    "removed by a start since. Write the rows of this commit again."
                )

    def lost(self, part: Part) -> str:
        """The message for a part that `locate` does not find."""
        size = self._visible().get(part.name)
        return (
            f"{self.files.show(part.name)} "
            + ("is missing" if size is None else f"has {size} bytes")
            + f"; committed were {part.bytes} bytes with {part.rows} rows (commit "
            f"{part.commit}). Restore it from a backup, go back to an earlier commit with "
            "`streamrnn rewind`, or start over with --full-refresh."
        )

    def reconcile(self, parts: Sequence[Part]) -> tuple[int, int]:
        """Make what readers find exactly `parts`, and staging empty.

        Returns how many parts were brought in place and how many files were removed. What it does
        depends on what is there alone, so that it can be cut anywhere and be done again.
        """
        visible, staged = self._visible(), self.files.sizes(STAGING)
        by_name = {part.name: part for part in parts}
        # What is in staging is newer than what has its place.
        waiting = {part.name for part in parts if staged.get(part.staged) == part.bytes}
        out_of_place = waiting | (visible.keys() - by_name.keys())
        removed = 0
        if out_of_place:
            first = min(out_of_place)
            for name in sorted((name for name in visible if name >= first), reverse=True):
                if name in out_of_place:
                    self.files.delete(name)
                    removed += name not in by_name
                elif waiting:
                    self.files.move(name, f"{STAGING}/{by_name[name].staged}")
                    waiting.add(name)
            # No part appears before what was in its way is gone for good.
            self.files.sync(STAGING)
            self.files.sync("")
            self.publish([part for part in parts if part.name in waiting])
        keep = {part.staged for part in parts}
        leftovers = [f"{STAGING}/{name}" for name in sorted(staged.keys() - keep)]
        beside = (f"{INSIDE}/{name}" for name in sorted(self.files.sizes(INSIDE)))
        leftovers += [name for name in beside if name.startswith(f"{OWNER}.")]
        for name in leftovers:
            self.files.delete(name)
        return len(waiting), removed + len(leftovers)
