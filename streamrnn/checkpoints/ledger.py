"""The driver's half of a commit: name new parts, write the manifest, reconcile the folder."""

import secrets
from collections.abc import Sequence
from dataclasses import replace

from streamrnn.checkpoints.directory import (
    INSIDE,
    LOCK,
    MANIFEST,
    PartDirectory,
    is_later,
    name_inside,
)
from streamrnn.checkpoints.holding import Holding
from streamrnn.checkpoints.manifest import LISTS, Manifest
from streamrnn.checkpoints.partitioning import layout_in
from streamrnn.checkpoints.segments import write_segments
from streamrnn.checkpoints.starting import refuse_another_writer
from streamrnn.sinks import Part, StagedPart


class Ledger:
    """The commits of one output.

    `manifest` is the last one (None before the first), `next_commit` the number of the next,
    `reconciled` whether the folder matches the manifest. Methods raise SinkError, and
    CheckpointError if another run committed meanwhile.
    """

    def __init__(
        self, rows: PartDirectory, rejects: PartDirectory, alerts: PartDirectory, held: Holding
    ) -> None:
        self.manifest: Manifest | None = None
        self.next_commit = 1
        self.reconciled = True
        self._rows = rows
        self._beside = {"rejects": rejects, "alerts": alerts}
        self._held = held
        self._files = rows.files

    def reconcile(self, manifest: Manifest, *, running: bool = False) -> tuple[int, int]:
        """Make the folder match the manifest; return how many parts were moved, files removed.

        While a run is `running`, files of attempts at later commits stay: they are its own.
        """
        after = manifest.commit if running else None
        finished, removed = self._rows.reconcile(manifest.parts, after)
        for key, directory in self._beside.items():
            if directory in self._held:
                more_finished, more_removed = directory.reconcile(getattr(manifest, key), after)
                finished, removed = finished + more_finished, removed + more_removed
        found = self._files.sizes(INSIDE).keys()
        named = manifest.file_names() | {name_inside(MANIFEST), name_inside(LOCK)}
        for name in sorted(name for name in found - named if not is_later(name, after)):
            self._files.delete(f"{INSIDE}/{name}")
            removed += 1
        self.reconciled = True
        return finished, removed

    def place(self, staged: Sequence[StagedPart], model: str) -> tuple[Part, ...]:
        """Return all parts of rows when these, of `model`, are appended in order."""
        before = self.manifest.parts if self.manifest else ()
        return self._rows.place(before, staged, self.next_commit, model)

    def place_beside(self, key: str, staged: Sequence[StagedPart]) -> tuple[Part, ...]:
        """Return all parts of the rejects or alerts when these are appended in order."""
        before = getattr(self.manifest, key) if self.manifest else ()
        return self._beside[key].place(before, staged, self.next_commit)

    def install(self, manifest: Manifest) -> Manifest:
        """Do steps 3 to 5 of a commit, after syncing the names that the manifest relies on.

        Returns the manifest with its segments, which are written before it.

        If the folder is reconciled, new parts follow those of the last commit. Parts whose names
        change are moved back to staging before the manifest is written, since both the old and the
        new manifest find them there.
        """
        last = self.manifest
        renamed = self._renamed(manifest)
        if renamed:
            self.reconciled = False
        parts = manifest.parts[len(last.parts) if last else 0 :]
        new = [(self._rows, parts)]
        for key, directory in self._beside.items():
            first = len(getattr(last, key)) if last else 0
            new.append((directory, getattr(manifest, key)[first:]))
        self._rows.make_folders(parts)
        for directory, added in new:
            if directory in self._held and (not self.reconciled or added):
                directory.sync_names()
        manifest = self._with_segments(manifest)
        self._held.renew()
        self._files.sync(INSIDE)
        refuse_another_writer(self._files, self.next_commit)
        for directory, before in renamed:
            directory.withdraw(before)
        layouts = frozenset([layout_in(manifest.config)])
        if not self.reconciled:  # if this run dies, the next one finds what to remove
            for directory in self._beside.values():
                if directory in self._held:
                    directory.mark(manifest.output)
        if self._rows.layouts != layouts:  # parts of others are removed below
            self._rows.keep_layouts()
        self._files.put(MANIFEST, manifest.to_bytes())
        self.manifest = manifest
        self.next_commit = manifest.commit + 1
        if not self.reconciled:
            self.reconcile(manifest, running=True)
            self._rows.layouts = layouts
            return manifest
        for directory, added in new:
            directory.publish(added)
        gone = (last.file_names() if last else set()) - manifest.file_names()
        for name in sorted(gone):
            self._files.delete(f"{INSIDE}/{name}")
        return manifest

    def _with_segments(self, manifest: Manifest) -> Manifest:
        """Write the segments that the lists of a manifest need; return it with their names."""
        last = self.manifest
        token = secrets.token_hex(8)
        segments = {
            key: write_segments(
                self._files,
                f"{INSIDE}/_{key}-{manifest.commit:05d}-{token}",
                last.segments.get(key, ()) if last else (),
                getattr(last, key) if last else (),
                getattr(manifest, key),
            )
            for key in LISTS
        }
        return replace(manifest, segments={key: items for key, items in segments.items() if items})

    def _renamed(self, manifest: Manifest) -> list[tuple[PartDirectory, tuple[Part, ...]]]:
        """Return the parts of the last commit that have longer names in this one."""
        if self.manifest is None:
            return []
        pairs = [(self._rows, self.manifest.parts, manifest.parts)]
        for key, directory in self._beside.items():
            pairs.append((directory, getattr(self.manifest, key), getattr(manifest, key)))
        return [
            (directory, before)
            for directory, before, now in pairs
            if before and now and before[0].width != now[0].width
        ]
