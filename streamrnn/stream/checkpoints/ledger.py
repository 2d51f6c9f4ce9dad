"""The driver's half of a commit: name new parts, write the manifest, reconcile the folder."""

import secrets
from collections.abc import Mapping
from dataclasses import replace

from streamrnn.stream.checkpoints.directory import (
    INSIDE,
    LOCK,
    MANIFEST,
    PartDirectory,
    is_later,
    name_inside,
)
from streamrnn.stream.checkpoints.lock import LockSet
from streamrnn.stream.checkpoints.manifest import Manifest
from streamrnn.stream.checkpoints.partitioning import layout_in
from streamrnn.stream.checkpoints.segments import write_segments
from streamrnn.stream.checkpoints.starting import refuse_another_writer
from streamrnn.stream.sinks import Part


class Ledger:
    """The commits of one output.

    `manifest` is the manifest of the last commit (None before the first), `next_commit` is the
    number of the next commit, and `reconciled` tells whether the folder matches the manifest.
    Methods raise SinkError, and CheckpointError if another run committed meanwhile.
    """

    def __init__(self, directories: Mapping[str, PartDirectory], locks: LockSet) -> None:
        self.manifest: Manifest | None = None
        self.next_commit = 1
        self.reconciled = True
        self._directories = directories
        self._locks = locks
        self._rows = directories["rows"]
        self._files = self._rows.files

    def reconcile(self, manifest: Manifest, *, running: bool = False) -> tuple[int, int]:
        """Make the folder match the manifest; return how many parts it moved and files it removed.

        While a run is `running`, files of attempts at later commits stay: they are its own.
        """
        after = manifest.commit if running else None
        finished = removed = 0
        for name, directory in self._directories.items():
            if directory in self._locks:
                moved, deleted = directory.reconcile(manifest.named(name).parts, after)
                finished, removed = finished + moved, removed + deleted
        present = self._files.sizes(INSIDE).keys()
        named = manifest.file_names() | {name_inside(MANIFEST), name_inside(LOCK)}
        for name in sorted(name for name in present - named if not is_later(name, after)):
            self._files.delete(f"{INSIDE}/{name}")
            removed += 1
        self.reconciled = True
        return finished, removed

    def install(self, manifest: Manifest) -> Manifest:
        """Do steps 3 to 5 of a commit, after syncing the names that the manifest relies on.

        Returns the manifest with its segments, which are written before it. If the folder is
        reconciled, new parts follow the ones of the last commit. Parts whose names change are moved
        back to staging before the manifest is written, since both the old and the new manifest find
        them there.
        """
        last = self.manifest
        new: dict[str, tuple[Part, ...]] = {}
        renamed: list[tuple[PartDirectory, tuple[Part, ...]]] = []
        for name, directory in self._directories.items():
            before = last.named(name).parts if last else ()
            now = manifest.named(name).parts
            new[name] = now[len(before) :]
            if before and now and before[0].width != now[0].width:
                renamed.append((directory, before))
        if renamed:
            self.reconciled = False
        self._rows.make_folders(new["rows"])
        for name, directory in self._directories.items():
            if directory in self._locks and (not self.reconciled or new[name]):
                directory.sync_names()
        manifest = self._with_segments(manifest)
        self._locks.renew()
        self._files.sync(INSIDE)
        refuse_another_writer(self._files, self.next_commit)
        for directory, before in renamed:
            directory.withdraw(before)
        layouts = frozenset([layout_in(manifest.config)])
        if not self.reconciled:  # if this run dies, the next one finds what to remove
            for name, directory in self._directories.items():
                if name != "rows" and directory in self._locks:
                    directory.mark(manifest.output)
        if self._rows.layouts != layouts:  # parts in other layouts are removed below
            self._rows.keep_layouts()
        self._files.put(MANIFEST, manifest.to_bytes())
        self.manifest = manifest
        self.next_commit = manifest.commit + 1
        if not self.reconciled:
            self.reconcile(manifest, running=True)
            self._rows.layouts = layouts
            return manifest
        for name, directory in self._directories.items():
            directory.publish(new[name])
        gone = (last.file_names() if last else set()) - manifest.file_names()
        for name in sorted(gone):
            self._files.delete(f"{INSIDE}/{name}")
        return manifest

    def _with_segments(self, manifest: Manifest) -> Manifest:
        """Write the segments that the lists of a manifest need; return it with their names."""
        last = self.manifest
        before = last.lists if last else {}
        token = secrets.token_hex(8)
        segments = {
            name: write_segments(
                self._files,
                f"{INSIDE}/_{name}-{manifest.commit:05d}-{token}",
                last.segments.get(name, ()) if last else (),
                before.get(name, ()),
                entries,
            )
            for name, entries in manifest.lists.items()
        }
        return replace(manifest, segments={key: items for key, items in segments.items() if items})
