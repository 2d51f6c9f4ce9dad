"""Checks before a run: the place of its output, the files there, and what is committed.

They find out whether the folder lies in another output (readers of the outer one would read the
rows of both), belongs to this output, and is intact; which commit is next; and whether the run may
resume, or start over with --full-refresh.
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa

from streamrnn.base.display import count, first_of, location, short_model
from streamrnn.base.storage.files import Files
from streamrnn.base.storage.store import in_the_way, open_files
from streamrnn.errors import CheckpointError, ConfigError, DataError, SinkError
from streamrnn.stream.checkpoints.directory import (
    INSIDE,
    MANIFEST,
    OWNER,
    REPLAY,
    STAGING,
    PartDirectory,
    name_inside,
)
from streamrnn.stream.checkpoints.manifest import Manifest, UsedFile, decode_schema
from streamrnn.stream.checkpoints.reading import find_commit, find_manifest
from streamrnn.stream.checkpoints.rewrites import find_rewrites
from streamrnn.stream.checkpoints.used import current_names, renamed_files
from streamrnn.stream.checkpoints.versions import check_shards
from streamrnn.stream.config import (
    SIDE_OUTPUTS,
    may_change,
    same_place,
    title,
    value_of,
    without_secrets,
)
from streamrnn.stream.config.values import WAYS
from streamrnn.stream.sources import FileSource, SourceFile, Table, canonical_name

_LOGGER = logging.getLogger("streamrnn.checkpoints")
NOT_OURS = "its files do not belong to this output"
_OF_AN_OUTPUT = {name_inside(name) for name in (MANIFEST, OWNER)}
_NUMBERED = re.compile(r"_?(?:[a-z]+-)?(\d+)[-.]")


def last_manifest(files: Files, full_refresh: bool) -> Manifest | None:
    """Read the last commit; None if there is none.

    For a damaged manifest, returns None with `full_refresh`, else raises CheckpointError.
    """
    with suppress(*[CheckpointError] if full_refresh else []):
        return find_manifest(files)
    return None


def refuse_foreign_entries(
    directory: PartDirectory, why: str, *, ours_may_stay: bool = False
) -> None:
    """Raise CheckpointError if a folder holds anything but leftovers of a run.

    `ours_may_stay`: files named like our parts, beside our own folder, are accepted too.
    """
    foreign = directory.foreign_entries()
    if foreign and not (ours_may_stay and directory.only_our_files()):
        some = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise CheckpointError(
            f"{directory.path} is not empty and {why}. It holds {some}. "
            "Choose an empty or new directory, or empty this one."
        )


def free_number(files: Files, last: Manifest | None) -> int:
    """Return a number for the next commit that no file has, even without a manifest."""
    if last is not None:
        return last.commit + 1
    names = [*files.entries(INSIDE), *files.entries(STAGING)]
    return 1 + max((int(n[1]) for name in names if (n := _NUMBERED.match(name))), default=0)


def check_files(files: Files, directories: Mapping[str, PartDirectory], manifest: Manifest) -> None:
    """Raise CheckpointError unless the sizes of all files and the checksums of the state match."""
    for name, output in manifest.outputs.items():
        if output.parts:
            directories[name].check(output.parts)
    check_shards(files, manifest.shards, whole=True)
    for kept in manifest.kept:
        check_shards(files, kept.shards, whole=False)


def are_ours(
    name: str, rows: PartDirectory, beside: PartDirectory, last: Manifest | None, full_refresh: bool
) -> bool:
    """Return whether to lock the folder of a side output: it exists, and is not another output's.

    The folder is locked even if the last commit has no rows in it: that commit may have replaced a
    commit with such rows, and its run may have died before it removed them. Raises CheckpointError
    if earlier rows are elsewhere, or if the rejects of a new output would be among foreign files
    (for other side outputs and later runs, `prepare` refuses such files when there is a row or a
    filter).
    """
    if last is not None and last.named(name).parts:
        then, held = last.place_of(name, rows.path), last.named(name).rows
        moved, key = not same_place(then, beside.path), title(SIDE_OUTPUTS[name].path)
        if not full_refresh:
            if moved and beside.owner() != last.output:
                raise CheckpointError(
                    f"the {name} of {rows.path} are in {then} ({held} rows); {key} is now "
                    f"{beside.path}. Change it back, or start over with --full-refresh."
                )
            if INSIDE not in beside.files.entries(""):
                raise CheckpointError(
                    f"the {name} of {rows.path} ({held} rows) are not in {beside.path}. Was the "
                    "output moved, copied or linked without them? Move them there, or set "
                    f"{key} to where they are; or start over with --full-refresh."
                )
            return True
        if moved:
            message = "%s: the %s of the output that is replaced stay in %s; remove that folder"
            _LOGGER.warning(message, rows.path, name, then)
    lost = full_refresh and last is None and bool(rows.foreign_entries())
    if not lost and (last is None or beside.owner() != last.output):
        may_wait = SIDE_OUTPUTS[name].where or (last is not None and not full_refresh)
        if may_wait and beside.foreign_entries():
            return False  # refused when the first row comes
        refuse_foreign_entries(beside, NOT_OURS)
    return INSIDE in beside.files.entries("")


def refuse_another_writer(files: Files, commit: int) -> None:
    """Raise CheckpointError if another run has committed (on object stores locks are advisory)."""
    if files.local:
        return
    with suppress(CheckpointError):
        last = find_commit(files)
        if last is None or last < commit:
            return
    raise CheckpointError(
        f"{files.show('')}: another run has committed since this one started. Two runs must not "
        "write to one output; this run stops, and what it has not committed is discarded."
    )


def refuse_no_directory(path: str, key: str) -> None:
    """Raise ConfigError, naming `key`, if a file is at `path`, or in place of a parent folder."""
    if file := in_the_way(path):
        raise ConfigError(
            f"{key}: {path}: expected a directory, which need not exist yet, but {file} is a "
            "file, device or pipe. Set the path of a directory."
        )


def refuse_nested_output(path: str, key: str) -> None:
    """Raise ConfigError, naming `key`, if an output at `path` would be in or around another."""
    refuse_inside_output(path, key)
    files = open_files(path)
    ends = tuple(f"/{INSIDE}/{name}" for name in _OF_AN_OUTPUT)
    names = (name for name in files.tree() if not name.startswith(f"{REPLAY}/"))
    inner = [name.rpartition(f"/{INSIDE}/")[0] for name in names if name.endswith(ends)]
    if inner:
        other = files.show(min(inner, key=len))
        raise ConfigError(
            f"{key}: {files.show('')} contains the output {other}: readers of the outer folder "
            "would read the rows of both. Choose a folder that contains no output, or move that "
            "output away, which is safe: it still finds its source files, whether they move with "
            "it or stay, and resumes where it stopped."
        )


def refuse_inside_output(path: str, key: str) -> None:
    """Raise ConfigError, naming `key`, if a file or folder at `path` would lie in an output."""
    files = open_files(path)
    for outer in files.above():
        inside: Iterable[str] = ()
        with suppress(SinkError):  # credentials for a prefix may not allow listing its parents
            inside = outer.sizes(INSIDE)
        if not _OF_AN_OUTPUT.isdisjoint(inside):
            raise ConfigError(
                f"{key}: {files.show('')} lies inside the output {outer.show('')}: readers of "
                "that output would read the rows of this one too. Choose a path outside it."
            )


_LIVE = 'For a server or a session, set [model] on_change to "carry" or "reset".'


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config without credentials, in the form that JSON gives it, for comparison."""
    stored: dict[str, Any] = json.loads(json.dumps(without_secrets(config), default=str))
    return stored


def check_same_pipeline(
    manifest: Manifest,
    model: str,
    config: Mapping[str, Any],
    output: str,
    *,
    new_model: bool = False,
) -> None:
    """Raise CheckpointError, with all differences, if the model or a fixed key has changed.

    With `new_model`, the model and the keys of [model] may differ from the manifest.
    """
    then, now = plain(manifest.config), plain(config)
    if "source.schema" in then:
        types, current = then["source.schema"], now.get("source.schema")
        if isinstance(types, Mapping) and isinstance(current, Mapping):
            # A column that had no values, or had integers and now has floats, gets its new type.
            new = {k: v for k, v in current.items() if k in types and _may_become(types[k], v)}
            then["source.schema"] = {**types, **new}
            declared = {k: v for k, v in _value(now, "source.types").items() if k in new}
            then["source.types"] = {**_value(then, "source.types"), **declared}
    keys = [
        key
        for key in sorted(then.keys() | now.keys())
        if _value(then, key) != _value(now, key) and not may_change(key, then, now)
        if not (new_model and key.startswith("model."))
    ]
    others = [key for key in keys if not key.startswith("model.")]
    changed = manifest.model != model and not new_model
    if not (changed or keys):
        return
    lines = [f"  {key}: was {_shown(then, key)}, is now {_shown(now, key)}" for key in keys]
    if changed:
        then_model, now_model = short_model(manifest.model), short_model(model)
        lines.insert(0, f"  model fingerprint: was {then_model}, is now {now_model}")
    advice = "Set another [sink] path, undo the change, "
    if changed and not others:
        ways = "".join(f"\n  --new-model {way}: {what}" for way, what in WAYS.items())
        advice = f"Say how the new model takes over:{ways}\n{_LIVE}\nUndo the change, "
    elif not changed and keys == ["output.model_column"]:
        advice = (
            "To continue after its last row in another folder, set another [sink] path, and "
            f'[state] init = "{location(output)}". Or undo the change, '
        )
    raise CheckpointError(
        f"{location(output)} was written by another {'pipeline' if others else 'model'} (commit "
        f"{manifest.commit}, {manifest.time}):\n" + "\n".join(lines) + f"\n{advice}or start over "
        "with --full-refresh, which removes the output written so far."
    )


def _may_become(then: str, now: str) -> bool:
    """Return whether a column of one type may have another in a later run."""
    return then == "null" or (now == "double" and then.lstrip("u").startswith("int"))


def check_schema(manifest: Manifest, schema: pa.Schema, output: str) -> None:
    """Raise CheckpointError, with both schemas, if the schema of rows is not the manifest's.

    Columns of integers may have become columns of floats.
    """
    then = decode_schema(manifest.schema)
    same = then.names == schema.names and all(
        a.equals(b) or (_may_become(str(a.type), str(b.type)) and not pa.types.is_null(a.type))
        for a, b in zip(then, schema, strict=True)
    )
    if not same:
        raise CheckpointError(
            f"the columns of {output} differ from the columns that this run writes.\n"
            f"  output:   {_columns(then)}\n  this run: {_columns(schema)}\n"
            "Set [output] names to the names in the output, set another [sink] path, or start over "
            "with --full-refresh."
        )


def refuse_lost_pipe(manifest: Manifest, reader: FileSource | None, *, path: str) -> None:
    """Raise CheckpointError if starting the output at `path` over would lose rows for good.

    All rows would be lost if this run reads a pipe (`reader` is None), else the rows that are in no
    used file, such as rows of an earlier pipe.
    """
    rows, instead = manifest.rows + manifest.named("rejects").rows, "add the rows of the pipe"
    where = ", and this run reads a pipe, which cannot send them again"
    if reader is not None:
        rows, instead = rows_of_no_file(manifest, rows), "score only new files"
        where = " that are in none of its used files, such as rows of a pipe or a session"
    if rows > 0:
        lost = f"{count(rows, 'row')}{where}. "
        raise _would_lose(path, lost, f"Run without --full-refresh to {instead}; ")


def rows_of_no_file(manifest: Manifest, rows: int) -> int:
    """Return how many of `rows` (written and rejected) are in no used file, or no longer in one.

    Rows of pipes and sessions are included. Each row of a file is written or rejected at most once:
    if there are more rows than the used files have, rows were cut from a file.
    """
    beyond = sum(manifest.beyond_files.values())
    contents = [file.content for file in manifest.sources if file.content is not None]
    if len(contents) < len(manifest.sources):
        return beyond  # the rows of files that no run has read are not recorded
    return max(beyond, rows - sum(content.rows for content in contents))


def _would_lose(path: str, lost: str, instead: str) -> CheckpointError:
    return CheckpointError(
        f"{location(path)} has {lost}--full-refresh would discard these rows, and could not score "
        f"them again. {instead}or give these rows up with --full-refresh --force."
    )


def refuse_lost_files(
    manifest: Manifest, present: Sequence[SourceFile], reader: FileSource, *, path: str
) -> None:
    """Raise CheckpointError if files with rows of the output at `path` are gone or were cut.

    A file does not count if a table's log says that it was rewritten, or if new files hold its
    rows.
    """
    listed = {file.name: file for file in present}
    used = renamed_files(manifest.sources, current_names(manifest, listed, canonical_name(path)))
    cut = {} if reader.table is not None else _rows_of_cut(used, listed, reader)
    gone = [*_gone(used, listed, reader.table), *(file for file in used if file.path in cut)]
    names = {file.path for file in used}
    rewrites = find_rewrites(gone, [file for file in present if file.name not in names], reader)
    rewritten = {file.path for rewrite in rewrites.matches for file in rewrite.old}
    missing = [file for file in gone if file.path not in rewritten]
    if not missing:
        return
    contents = [(file.path, file.content) for file in missing if file.content is not None]
    rows = f"{sum(content.rows - cut.get(name, 0) for name, content in contents):,}"
    least = "at least " if len(contents) < len(missing) else ""
    instead = (
        "Restore these rows; or run with --force and without --full-refresh, to keep these rows "
        "and score only new files; "
        if reader.table is not None or any(file.path in cut for file in missing)
        else "Run without --full-refresh to score only new files; or set [source] path to "
        "all the files; "
    )
    raise _would_lose(
        path,
        f"{least}{rows} rows of {count(len(missing), 'file')} that the source does not have: "
        f"{first_of([file.path for file in missing], 1)}. ",
        instead,
    )


def _gone(
    used: Sequence[UsedFile], listed: Mapping[str, SourceFile], table: Table | None
) -> list[UsedFile]:
    """Return the used files that the source lacks; for a table, without rewritten files."""
    gone = [file for file in used if file.path not in listed]
    if table is None:
        return gone
    # When a run noted that a file is gone, the log had explained what became of the file.
    lost = {*table.lost([file.path for file in gone if not file.gone])}
    lost |= table.deleted([file.path for file in gone])
    return [file for file in gone if file.path in lost]


def _rows_of_cut(
    used: Sequence[UsedFile], listed: Mapping[str, SourceFile], reader: FileSource
) -> dict[str, int]:
    """Return how many rows are left in used files that were cut in place: name -> rows.

    Where rows are not recorded, sizes are compared. A torn file counts as having no rows.
    """
    cut = {}
    for then in used:
        file = listed.get(then.path)
        if file is None or then.is_listed_as(file):
            continue
        try:
            rows = reader.footer(file).rows
        except DataError:
            rows = 0
        if rows < then.content.rows if then.content is not None else file.size < then.size:
            cut[then.path] = rows
    return cut


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def _value(config: Mapping[str, Any], key: str) -> Any:
    return json.loads(json.dumps(value_of(key, config), default=str))


def _shown(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(value_of(key, config), ensure_ascii=False) if key in config else "not set"
