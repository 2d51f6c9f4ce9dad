"""Find out which files of a source are new, and whether the used files have changed."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from streamrnn.base.display import count, first_of
from streamrnn.errors import CheckpointError, DataError
from streamrnn.stream.checkpoints.manifest import Manifest, SeenFiles, UsedFile
from streamrnn.stream.checkpoints.rewrites import Rewrite, find_rewrites
from streamrnn.stream.sources import (
    NOTHING,
    Content,
    FileSource,
    Listing,
    Position,
    Reading,
    SourceFile,
    Table,
    etag,
)


@dataclass(frozen=True)
class SourcePlan:
    """What to read: `files` in order, the first from `position` if there is one.

    `before` is the content of the rows before `position`. `used` are the used files by their
    current names. `vanished` files were used and are gone. `changed` files were used, have changed,
    and are skipped because of `force`, as are the new files of `rewritten`, which hold used rows.
    `by_footer` is the number of used files with a new time that were compared by their footers
    only. `unresolved`: new files may hold the rows of vanished ones. `refreshed`: `used` has newer
    facts than the manifest.
    """

    files: tuple[SourceFile, ...]
    position: Position | None = None
    before: Content = NOTHING
    used: tuple[UsedFile, ...] = ()
    vanished: tuple[str, ...] = ()
    changed: tuple[SourceFile, ...] = ()
    rewritten: tuple[Rewrite, ...] = ()
    by_footer: int = 0
    unresolved: bool = False
    refreshed: bool = False


Select = Callable[[Sequence[SourceFile], Sequence[str]], Sequence[SourceFile]]
"""Chooses which new files to read; also receives the names of the files that were used."""


def select_all(new: Sequence[SourceFile], used: Sequence[str]) -> Sequence[SourceFile]:
    """Return all new files."""
    return new


class _Verdict(NamedTuple):
    """The updated facts of a used file, and what changed ("" if nothing); `cut`: rows were lost."""

    file: UsedFile
    changed: str = ""
    by_footer: bool = False
    cut: bool = False


def plan_sources(
    manifest: Manifest | SeenFiles | None,
    present: Sequence[SourceFile],
    reader: FileSource,
    *,
    home: str = "",
    force: bool = False,
    seen: Callable[[], SeenFiles | None] = lambda: None,
    select: Select = select_all,
) -> SourcePlan:
    """Compare the files of the source with the used files of a manifest or an initial state.

    New files are in the order of `present`; the ones that `select` leaves out are not compared,
    even if they hold used rows. `reader` reads what is needed to compare files; `home` is the
    canonical name of the output; `seen` returns, for a message, the files that the initial state
    has seen. If the source is a table, its log says which files hold used rows, and the files that
    it lists replace `present` and `reader.files`. Raises CheckpointError if a used file changed or
    new files hold used rows (unless `force`), or if the file in which the last run stopped is gone.
    """
    if manifest is None:
        return SourcePlan(tuple(select(present, ())))
    listed = {file.name: file for file in present}
    names = current_names(manifest, listed, home)
    used, position = renamed_files(manifest.sources, names), _renamed(manifest.position, names)
    id = manifest.table if isinstance(manifest, Manifest) else ""
    table = _in_table(reader.table, used, position, id)
    if table is not None:
        present = reader.files = table.files
        listed = {file.name: file for file in present}
    if position is not None and position.file not in listed:
        raise CheckpointError(
            f"{position.file} is gone: the last run stopped in it at row {position.file_row} "
            "(from 0), and later rows have not been read yet. Restore it, or start over with "
            "--full-refresh --force, which discards its rows."
        )
    verdicts = _verdicts(used, listed, position, reader, table)
    changed = [verdict for verdict in verdicts.values() if verdict.changed]
    if changed and not force:
        if isinstance(manifest, SeenFiles):
            raise CheckpointError(_changed(changed, manifest, committed=False))
        first = min(i for i, verdict in verdicts.items() if verdict.changed)
        early = any(kept.sources <= first for kept in manifest.kept)
        raise CheckpointError(_changed(changed, seen(), committed=True, early=early))
    by_path = {file.path: file for file in used}
    by_output = [*by_path] if isinstance(manifest, Manifest) else []
    covered = () if table is None else (*table.covered, *table.taken)
    again = {file.name for file in covered}
    new = select(
        [file for file in present if file.name not in by_path and file.name not in again], by_output
    )
    gone = [file for file in used if file.path not in listed]
    rewrites = find_rewrites(gone, new, reader)
    if rewrites.matches and not force:
        raise CheckpointError(_rewritten(rewrites.matches, isinstance(manifest, Manifest)))
    counted = {file.name for rewrite in rewrites.matches for file in rewrite.new}
    files = [file for file in new if file.name not in counted]
    before = NOTHING
    if position is not None:
        if position.file not in by_path:
            raise CheckpointError(
                f"the manifest was edited: its position is in {position.file}, which is not among "
                "its sources. Restore it from a backup, or start over with --full-refresh."
            )
        files.insert(0, listed[position.file])
        then = by_path[position.file].content
        if then is not None and then.rows == position.file_row:
            before = then
        else:
            before = reader.content(files[0], position.file_row)
    return SourcePlan(
        files=tuple(files),
        position=position,
        before=before,
        # Files of a table that no run read, but whose rows are in the output, count as used, too.
        used=(*_updated(used, verdicts, listed), *(UsedFile.of(file, None) for file in covered)),
        vanished=tuple(file.path for file in gone),
        changed=tuple(listed[v.file.path] for v in changed if v.file.path in listed),
        rewritten=tuple(rewrites.matches),
        by_footer=sum(verdict.by_footer for verdict in verdicts.values()),
        unresolved=rewrites.unresolved,
        refreshed=bool(again)
        or any(item.file.mtime_ns != used[i].mtime_ns for i, item in verdicts.items()),
    )


def _in_table(
    table: Table | None, used: Sequence[UsedFile], position: Position | None, id: str
) -> Listing | None:
    """Return the files of a table that have unread rows, or were used; None without a table.

    Raises CheckpointError if the log of the table does not explain a file, or if `id` ("": unknown)
    is not an id that the table has or had.
    """
    if table is None:
        return None
    table.refuse_another(id)
    gone = {file.path for file in used if file.gone}
    partly = "" if position is None or position.done else position.file
    return table.listing({file.path for file in used}, gone, partly)


def changed_files(
    manifest: Manifest, present: Sequence[SourceFile], reader: FileSource, *, home: str
) -> list[str]:
    """Return the used files, by their names in the manifest, that changed after they were read."""
    listed = {file.name: file for file in present}
    names = current_names(manifest, listed, home)
    used, position = renamed_files(manifest.sources, names), _renamed(manifest.position, names)
    table = _in_table(reader.table, used, position, manifest.table)
    verdicts = _verdicts(used, listed, position, reader, table)
    return [manifest.sources[i].path for i, verdict in verdicts.items() if verdict.changed]


def renamed_files(used: Sequence[UsedFile], names: Mapping[str, str]) -> Sequence[UsedFile]:
    """Return used files under their new names (see `current_names`)."""
    if not names:
        return used  # the same objects, so that their segments are not written again
    return [replace(file, path=names[file.path]) if file.path in names else file for file in used]


def _renamed(position: Position | None, names: Mapping[str, str]) -> Position | None:
    return position and replace(position, file=names.get(position.file, position.file))


def _updated(
    used: Sequence[UsedFile], verdicts: Mapping[int, _Verdict], listed: Mapping[str, SourceFile]
) -> tuple[UsedFile, ...]:
    """Return the used files with their updated facts, and whether they are gone."""
    files = (verdicts[i].file if i in verdicts else file for i, file in enumerate(used))
    return tuple(
        file if file.gone == (file.path not in listed) else replace(file, gone=not file.gone)
        for file in files
    )


def _verdicts(
    used: Sequence[UsedFile],
    listed: Mapping[str, SourceFile],
    position: Position | None,
    reader: FileSource,
    table: Listing | None,
) -> dict[int, _Verdict]:
    """Return index -> verdict of used files whose size, time or rows in the table have changed."""
    partly = position.file if position is not None else ""
    verdicts = {}
    for index, file in enumerate(used):
        now = listed.get(file.path)
        if now is not None and not file.is_listed_as(now):
            verdicts[index] = _compare(file, now, reader, file.path == partly)
    table = table or Listing()
    for index, file in enumerate(used):
        if file.path in table.changed:
            cut = file.path in table.deleted
            verdicts[index] = _Verdict(file, table.changed[file.path], cut=cut)
    return verdicts


class UsedFileIndex:
    """The used files of an output, with the files that this run has read.

    `files`: the used files of the last commit by their current names; None before `update`.
    """

    def __init__(self) -> None:
        self.files: tuple[UsedFile, ...] | None = None
        self._forced: dict[SourceFile, Reading | None] = {}
        self._indexed: Sequence[UsedFile] = ()
        self._indices: dict[str, int] = {}

    def update(self, plan: SourcePlan, reader: FileSource) -> None:
        """Store a plan; files that `force` counts as used are read by `reader`."""
        rewritten = (file for rewrite in plan.rewritten for file in rewrite.new)
        self.files = plan.used
        forced: dict[SourceFile, Reading | None] = dict.fromkeys((*plan.changed, *rewritten))
        for file in forced:
            with suppress(DataError):  # None for a changed file that cannot be read
                forced[file] = Reading(reader.content(file))
        self._forced = forced

    def after(
        self, last: Manifest | None, now: Sequence[SourceFile], readings: Mapping[str, Reading]
    ) -> tuple[UsedFile, ...]:
        """Return all used files after a commit of the files `now`.

        `readings`: name -> what was read of the file. A used file without a reading keeps its
        facts, unless its size or time has changed.
        """
        before = (last.sources if last else ()) if self.files is None else self.files
        if before is not self._indexed:
            self._indices = {file.path: i for i, file in enumerate(before)}
        forced = {file.name: reading for file, reading in self._forced.items() if reading}
        used = list(before)
        for file in (*self._forced, *now):
            index = self._indices.get(file.name)
            reading = readings.get(file.name, forced.get(file.name))
            if index is None:
                self._indices[file.name] = len(used)
                used.append(UsedFile.of(file, reading))
            elif reading is not None or not used[index].is_listed_as(file):
                used[index] = UsedFile.of(file, reading)
        self._indexed = tuple(used)
        return self._indexed

    def commit(self, manifest: Manifest) -> None:
        """Note that all used files are in `manifest`."""
        self._forced = {}
        if self.files is not None:
            self.files = manifest.sources


def current_names(
    manifest: Manifest | SeenFiles, listed: Mapping[str, SourceFile], home: str
) -> dict[str, str]:
    """Return old name -> new name of files whose source was moved together with its output.

    They are found by their paths relative to `home`, the folder of the output.
    """
    if home == manifest.home or not (home.startswith("/") and manifest.home.startswith("/")):
        return {}
    names = {}
    for name in (file.path for file in manifest.sources):
        if name not in listed and name.startswith("/"):
            other = os.path.normpath(os.path.join(home, os.path.relpath(name, manifest.home)))
            if other in listed:
                names[name] = other
    return names


def used_elsewhere(
    used: Sequence[UsedFile], files: Sequence[SourceFile], reader: FileSource
) -> set[str]:
    """Return the names of files that were used from another folder.

    Each has the file name of a used file, and either its size and time or its rows.
    """
    by_name: dict[str, list[UsedFile]] = {}
    for before in used:
        by_name.setdefault(os.path.basename(before.path), []).append(before)
    return {
        file.name
        for file in files
        for before in by_name.get(os.path.basename(file.name), ())
        if before.is_listed_as(file) or not _compare(before, file, reader, partly=False).changed
    }


def _compare(used: UsedFile, file: SourceFile, reader: FileSource, partly: bool) -> _Verdict:
    """Compare a file, whose size or time has changed, with what was used of it.

    If only the first rows were read (`partly`), later rows do not count. The file is read again
    only if nothing else decides.
    """
    same = replace(used, size=file.size, mtime_ns=file.mtime_ns)
    sizes = f"{used.size} bytes when it was read, {file.size} bytes now"
    try:
        if used.content is None:
            if used.size != file.size:
                return _Verdict(used, sizes, cut=file.size < used.size)
            if used.identity != file.identity():
                return _Verdict(used, f"{sizes}, other content")
            return _Verdict(same, by_footer=True)
        if used.size == file.size and used.etag:
            with suppress(OSError), file.open() as stream:
                if used.etag == etag(stream):
                    return _Verdict(same)
        rows, then = reader.footer(file).rows, used.content.rows
        if rows < then or (rows > then and not partly):
            read = f"{then} rows when it was read, {rows} rows now"
            return _Verdict(used, read, cut=rows < then)
        if not reader.content(file, then).holds_the_rows_of(used.content):
            return _Verdict(used, f"{sizes}, other values in its {then} rows")
    except DataError as error:
        return _Verdict(used, f"{sizes}; {error}", cut=True)
    return _Verdict(same)


def _changed(
    changed: Sequence[_Verdict], seen: SeenFiles | None, *, committed: bool, early: bool = False
) -> str:
    """Return the message; `early`: a commit from before the files were used is retained."""
    lines = [f"  {verdict.file.path}: {verdict.changed}" for verdict in changed]
    by_init = () if seen is None else seen.among([verdict.file.path for verdict in changed])
    one = len(changed) == 1
    them = "it" if one else "them"
    refresh = "--full-refresh"
    if any(verdict.cut for verdict in changed):
        refresh += " --force, which discards the rows that are gone"
    if seen is not None and by_init:
        advice = (
            f"{seen.advice(by_init, refresh=committed)} Or keep the state and score no other row "
            f"of {them} with --force."
        )
    else:
        keep = f"keep the output and score no other row of {them} with --force"
        advice = (
            f"With --reload, score {them} again from the last commit before that use; {keep}; or "
            f"start over with {refresh}."
            if early
            else f"No retained commit is old enough to score {them} again: start over with "
            f"{refresh}, or {keep}."
        )
    return (
        f"{count(len(changed), 'file')} of the source changed after {'its' if one else 'their'} "
        "rows were used:\n" + _some(lines) + f"\n{advice} Write new rows to a new file."
    )


def _rewritten(rewrites: Sequence[Rewrite], committed: bool) -> str:
    old = sum(len(rewrite.old) for rewrite in rewrites)
    new = sum(len(rewrite.new) for rewrite in rewrites)
    lines = [
        f"  {first_of([file.path for file in rewrite.old])} -> "
        f"{first_of([file.name for file in rewrite.new])}"
        + (f" (with {rewrite.more:,} more rows after them)" if rewrite.more else "")
        for rewrite in rewrites
    ]
    return (
        f"{count(new, 'new file')} of the source hold{'s' if new == 1 else ''} the rows of "
        f"{count(old, 'used file')} that {'is' if old == 1 else 'are'} no longer in it:\n"
        + _some(lines)
        + f"\nThese rows are already in the {'output' if committed else 'initial state'}. "
        "Count the new files as used with --force (no row of them is scored), "
        + ("" if committed else "or ")
        + "restore the old files and add files with new rows only"
        + (", or start over with --full-refresh" if committed else "")
        + ". If they are different rows that only look alike, keep the old files in the source for "
        "one more run."
    )


def _some(lines: Sequence[str]) -> str:
    more = [f"  … and {len(lines) - 10} more"] if len(lines) > 10 else []
    return "\n".join([*lines[:10], *more])
