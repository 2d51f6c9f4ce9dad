"""Tables: lists of data files, with a log of the files that each version added and removed.

The log shows which files hold unread rows. A plug-in, whose entry point is `table.NAME`, reads the
log of a format, and returns a `Table`.
"""

import posixpath
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from streamrnn.base.display import first_of
from streamrnn.base.plugin import load_plugin
from streamrnn.errors import CheckpointError
from streamrnn.stream.sources.files import MAGIC, SourceFile, canonical_name, read_errors, resolve
from streamrnn.stream.sources.formats import SOURCE_FORMATS


@dataclass(frozen=True)
class Commit:
    """The files that one version added and removed; `name` is for messages.

    `changes`: the version changed the rows of the table. A rewrite does not: the added files hold
    the rows of the removed ones, partition by partition.
    """

    name: str
    added: tuple[SourceFile, ...]
    removed: tuple[SourceFile, ...]
    changes: bool


@dataclass
class Listing:
    """The files to read of a table whose files were used before.

    `files` are in the order of their arrival, used ones included. `covered` are the files whose
    rows were all used under other names; `changed`: used file whose rows were changed -> what
    changed them; `deleted` are the changed files of versions that added no file; `taken` are the
    files that the versions with these changes added.
    """

    files: list[SourceFile] = field(default_factory=list)
    covered: list[SourceFile] = field(default_factory=list)
    changed: dict[str, str] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    taken: list[SourceFile] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class Table:
    """A version of a table: its data files, in the order of their arrival, and how it came to be.

    Files arrive in the order of versions, then of the log; a rewritten file takes the place of the
    first one that it replaces. `base` are the files from before the first of `commits`, `root` is
    the canonical name of the folder that the files are in, with a slash, `version` is for messages,
    `renames` are old names of columns in older files, and `ids` are the identifiers that the
    format gave the table, the current one last.
    """

    root: str
    version: str
    base: Sequence[SourceFile]
    commits: Sequence[Commit]
    renames: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ids: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._removed = {file.name for commit in self.commits for file in commit.removed}
        active = {file.name: file for file in self.base}
        place = {file.name: i for i, file in enumerate(self.base)}
        end = len(self.base)
        for commit in self.commits:
            for file in commit.removed:
                active.pop(file.name, None)
            for i, file in enumerate(commit.added):
                active[file.name] = file
                place[file.name] = end + i
            end += len(commit.added)
            for old, new in _groups(commit):
                first = min((place[file.name] for file in old if file.name in place), default=end)
                place |= {file.name: first for file in new}
        self.files = sorted(active.values(), key=lambda file: place[file.name])

    @property
    def id(self) -> str:
        """The name that the format gave the table; "" if it has none."""
        return self.ids[-1] if self.ids else ""

    def refuse_another(self, earlier: str) -> None:
        """Raise CheckpointError unless `earlier` ("": unknown) is or was the id of this table."""
        if earlier and self.ids and earlier not in self.ids:
            raise CheckpointError(
                f"{self.root}: expected the table {earlier}, whose rows were read before, received "
                f"the table {self.id}: the table was dropped and created again. Which rows are new "
                "is unknown: set another [sink] path, or start over with --full-refresh "
                "--force, which discards the rows of the earlier table."
            )

    def lost(self, names: Collection[str]) -> list[str]:
        """Return those `names` of files that are neither in the table nor removed in its log."""
        active = {file.name for file in self.files}
        return [name for name in names if name not in active and name not in self._removed]

    def deleted(self, names: Collection[str]) -> set[str]:
        """Return those `names` of files that a version removed without adding a file.

        A file is left out if a rewrite has put its rows into a file that is still in the table.
        """
        origins, deleted = {name: {name} for name in names}, set[str]()
        for commit in self.commits:
            if commit.changes and not commit.added:
                deleted |= _origins(commit.removed, origins)
            changed = [(commit.removed, commit.added)] if commit.changes else []
            for old, new in (*changed, *_groups(commit)):
                before = _origins(old, origins)
                origins |= {file.name: before | origins.get(file.name, set()) for file in new}
        return deleted - _origins(self.files, origins)

    def listing(self, used: Collection[str], gone: Collection[str], partly: str) -> Listing:
        """Find the files with unread rows, given the names of the used ones.

        Files among `used` that are known to be `gone` may be missing; only the first rows of the
        file `partly` were used. Where a rewrite merged used and unread files, the unread ones are
        listed as they were before. Raises CheckpointError if one of these unread files was deleted,
        or if what became of a used file is unknown.
        """
        listing = Listing()
        covered = set(used) - {partly}
        origins = {name: {name} for name in used}  # the used files whose rows a file holds
        unread: dict[str, list[SourceFile]] = {}
        for commit in self.commits:
            if commit.changes:
                hit = _origins(commit.removed, origins).difference(gone)
                if hit:
                    listing.changed |= dict.fromkeys(sorted(hit), f"removed by {commit.name}")
                    listing.deleted |= set() if commit.added else hit
                    listing.taken += commit.added
                    covered |= {file.name for file in commit.added}
                    origins |= {file.name: hit for file in commit.added}
                continue
            for old, new in _groups(commit):
                before = _origins(old, origins)
                if not before:
                    continue
                origins |= {file.name: origins.get(file.name, before) for file in new}
                parts = {
                    part.name: part
                    for file in old
                    if file.name not in covered
                    for part in unread.get(file.name, [file])
                }
                if not parts:
                    covered |= {file.name for file in new}
                else:
                    self._check_kept(list(parts.values()), commit)
                    unread |= {file.name: list(parts.values()) for file in new}
        self._check_explained(set(used) - set(gone))
        listed = {part.name: part for f in self.files for part in unread.get(f.name, [f])}
        listing.files = list(listed.values())
        seen = {*used, *(file.name for file in listing.taken)}
        listing.covered = [f for f in listing.files if f.name in covered and f.name not in seen]
        listing.taken = [file for file in listing.taken if file.name in listed]
        return listing

    def _check_kept(self, parts: Sequence[SourceFile], commit: Commit) -> None:
        """Raise CheckpointError if a file with unread rows is no longer there."""
        lost = [file.path for file in parts if file.store.entry(file.location) is None]
        if lost:
            raise CheckpointError(
                f"{first_of(lost)} had rows that have not been read. They were merged with rows "
                f"that have been read, by {commit.name}, and the files were then deleted "
                "(VACUUM, expired snapshots): which rows are new is unknown. Restore the files, or "
                "start over with --full-refresh. Let runs read all rows before files are deleted."
            )

    def _check_explained(self, used: Collection[str]) -> None:
        """Raise CheckpointError if the log does not say what became of a used file."""
        lost = [name for name in self.lost(used) if name.startswith(self.root)]
        if lost:
            raise CheckpointError(
                f"{self.version} of the table lacks files that were used, and its log does not say "
                f"what became of them: {first_of(sorted(lost))}. Either this version is older than "
                "the one that was read, or the log was cleaned up since. Set [source] version to a "
                "later one, or start over with --full-refresh --force."
            )


def _origins(files: Sequence[SourceFile], origins: Mapping[str, set[str]]) -> set[str]:
    return {name for file in files for name in origins.get(file.name, ())}


def _groups(commit: Commit) -> Iterator[tuple[list[SourceFile], list[SourceFile]]]:
    """Yield the removed and the added files of each partition that a version rewrote."""
    if commit.changes:
        return
    old, new = _by_partition(commit.removed), _by_partition(commit.added)
    if not new.keys() <= old.keys():  # a log need not name the partitions of removed files
        yield list(commit.removed), list(commit.added)
        return
    for key, files in old.items():
        yield files, new.get(key, [])


def _by_partition(files: Sequence[SourceFile]) -> dict[str, list[SourceFile]]:
    groups: dict[str, list[SourceFile]] = {}
    for file in files:
        groups.setdefault(repr(file.partitions), []).append(file)
    return groups


CATALOG = "iceberg:"
"""Start of a path that names a catalog and a table in it: iceberg:catalog/namespace.table."""
DELTA_LOG = "_delta_log"
"""The folder in a Delta table that has its log."""


def open_table(path: str, format: str, version: int | None) -> Table | None:
    """Open a table at a version (None: the latest); None if path or format is not a table's.

    With format "auto", a folder with `_delta_log` is a Delta table; the name of a catalog's table,
    or a metadata file, means an Iceberg table. (A folder of Iceberg is not enough: only a catalog
    knows which of its metadata files is current.) Raises ConfigError, DataError, MissingFileError,
    and UnsupportedError without the plug-in of the format.
    """
    if format == "auto":
        format = next((name for name, is_at in MARKS.items() if is_at(path)), "")
    if not format or format in SOURCE_FORMATS:
        return None
    table: Table = load_plugin("table", format)(path, version)
    return table


def _has_delta_log(path: str) -> bool:
    with read_errors(canonical_name(path)):
        if MAGIC.intersection(path.partition("?")[0]):
            return False
        store, location = resolve(path)
        log = posixpath.join(location, DELTA_LOG)
        return store.exists(log) and store.is_folder(log)


MARKS: dict[str, Callable[[str], bool]] = {
    "iceberg": lambda path: path.startswith(CATALOG) or path.endswith(".metadata.json"),
    "delta": _has_delta_log,
}
"""Format -> test whether a path is a table of this format.

The tests work without the plug-in, so that with format "auto" a table is not read as plain files,
which may have rows that the table removed. The tests raise DataError for an invalid URI.
"""
