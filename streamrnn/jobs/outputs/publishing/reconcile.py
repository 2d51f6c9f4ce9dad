"""The difference between a table and an output: what a new version of the table has to change.

Whatever a table has, making it equal to the manifest is one set difference. So publishing may be
repeated, interrupted, or late by any number of commits, and rewinding, merging, renaming and
starting over need no code of their own.
"""

from dataclasses import replace

from streamrnn.jobs.outputs.publishing.table import TableChanges, TableContents, TableFile
from streamrnn.stream.checkpoints import Manifest
from streamrnn.stream.sinks import Part


def changes(
    manifest: Manifest, contents: TableContents | None, *, merged: bool = False
) -> TableChanges:
    """Return what has to change in a table with these `contents` (None: there is no table).

    `merged`: since the table equaled the output, parts were only merged.

    A file is out of date if its part was written by a later commit than the last one registered, or
    differs in size: rewinding and merging reuse names.
    """
    parts = {part.name: part for part in manifest.parts}
    if contents is not None and contents.commit is not None and contents.commit > manifest.commit:
        contents = replace(contents, commit=None)  # the folder was restored from an older backup
    if contents is None:
        return TableChanges(manifest.parts, columns=True)
    if not contents.same_schema:
        remove = {name: file for name, file in contents.files.items() if name not in parts}
        return TableChanges(manifest.parts, remove, columns=True)
    add = [
        part
        for name, part in parts.items()
        if _needs_registering(part, contents.files.get(name), contents)
    ]
    remove = {name: file for name, file in contents.files.items() if name not in parts}
    if merged:
        return TableChanges(add, remove, frozenset({part.name for part in add} | remove.keys()))
    return TableChanges(add, remove, _moved(add, remove, contents))


def _needs_registering(part: Part, file: TableFile | None, contents: TableContents) -> bool:
    if file is None or contents.commit is None or part.commit > contents.commit:
        return True
    return (file.bytes, file.rows) != (part.bytes, part.rows)


def _moved(
    add: list[Part], remove: dict[str, TableFile], contents: TableContents
) -> frozenset[str]:
    """Return the old and new names of parts that were renamed because numbers got more digits."""
    if contents.commit is None:
        return frozenset()
    old = {(_number(name), file.bytes): name for name, file in remove.items()}
    pairs = [
        (part.name, name)
        for part in add
        if part.commit <= contents.commit and (name := old.get((_number(part.name), part.bytes)))
    ]
    return frozenset(name for pair in pairs for name in pair)


def _number(name: str) -> str:
    """Return the name of a part without the leading zeros of its number."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.removeprefix('part-').lstrip('0')}"
