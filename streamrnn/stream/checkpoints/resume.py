"""Whether a run may resume from what is committed, or start over with --full-refresh."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from streamrnn.base.display import count, first_of, location, short_model
from streamrnn.errors import CheckpointError, DataError
from streamrnn.stream.checkpoints.manifest import Manifest, UsedFile, decode_schema
from streamrnn.stream.checkpoints.rewrites import find_rewrites
from streamrnn.stream.checkpoints.used import current_names, renamed_files
from streamrnn.stream.config import may_change, value_of, without_secrets
from streamrnn.stream.config.values import WAYS
from streamrnn.stream.sources import FileSource, SourceFile, Table, canonical_name

_LIVE = 'A server and a session take "carry" and "reset" from [model] on_change.'


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config as JSON would store it, without credentials, for comparison."""
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
    """Raise CheckpointError, with all differences, if model or config is not as in the manifest.

    With `new_model`, the model and the keys that describe it may differ.
    """
    then, now = plain(manifest.config), plain(config)
    if "source.schema" in then:
        then["source.schema"] = _typed(then["source.schema"], now.get("source.schema"))
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
            "To go on after its last row, write to another folder: set another [sink] path, and "
            f'[state] init = "{location(output)}". Or undo the change, '
        )
    raise CheckpointError(
        f"{location(output)} was written by another {'pipeline' if others else 'model'} (commit "
        f"{manifest.commit}, {manifest.time}):\n" + "\n".join(lines) + f"\n{advice}or start over "
        "with --full-refresh, which removes the output written so far."
    )


def check_schema(manifest: Manifest, schema: pa.Schema, output: str) -> None:
    """Raise CheckpointError, with both schemas, for rows whose schema is not the manifest's."""
    then = decode_schema(manifest.schema)
    if not then.equals(schema):
        raise CheckpointError(
            f"the columns of {output} differ from those that this run writes.\n"
            f"  output:   {_columns(then)}\n  this run: {_columns(schema)}\n"
            "Set [output] names to the names in the output, set another [sink] path, or start over "
            "with --full-refresh."
        )


def refuse_lost_pipe(manifest: Manifest, reader: FileSource | None, *, path: str) -> None:
    """Refuse to start the output at `path` over if rows that cannot be read again would be lost.

    These are all rows if this run reads a pipe (`reader` is None), else the rows that are in no
    used file, such as rows of an earlier pipe. Raises CheckpointError.
    """
    rows, instead = manifest.rows + manifest.named("rejects").rows, "add the rows of the pipe"
    where = ", and this run reads a pipe, which cannot send them again"
    if reader is not None:
        rows, instead = rows_of_no_file(manifest, rows), "score new files alone"
        where = " that are in none of its used files, such as rows of a pipe or a session"
    if rows > 0:
        lost = f"{count(rows, 'row')}{where}. "
        raise _would_lose(path, lost, f"Run without --full-refresh to {instead}; ")


def rows_of_no_file(manifest: Manifest, rows: int) -> int:
    """Return how many of `rows` (written and rejected) are in no used file, or no longer in one.

    Rows of pipes and sessions are included. Each row of a file is written or rejected at most once:
    if there are more rows than the used files have, something was cut from a file.
    """
    beyond = sum(manifest.beyond_files.values())
    contents = [file.content for file in manifest.sources if file.content is not None]
    if len(contents) < len(manifest.sources):
        return beyond  # the rows of files that no run has read are not recorded
    return max(beyond, rows - sum(content.rows for content in contents))


def _would_lose(path: str, lost: str, instead: str) -> CheckpointError:
    return CheckpointError(
        f"{location(path)} has {lost}--full-refresh would discard these rows, and could not score "
        f"them again. {instead}or say with --full-refresh --force that these rows may go."
    )


def refuse_lost_files(
    manifest: Manifest, present: Sequence[SourceFile], reader: FileSource, *, path: str
) -> None:
    """Raise CheckpointError if files with rows of the output at `path` are gone or were cut.

    Files that a table's log says were rewritten, or whose rows new files hold, are not missed.
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
        "and score new files alone; "
        if reader.table is not None or any(file.path in cut for file in missing)
        else "Run without --full-refresh to score new files alone; or set [source] path to "
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
    """Return the used files that the source lacks; of a table, unless they were rewritten."""
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
        if file is None or (then.size, then.mtime_ns) == (file.size, file.mtime_ns):
            continue
        try:
            rows = reader.footer(file).rows
        except DataError:
            rows = 0
        if rows < then.content.rows if then.content is not None else file.size < then.size:
            cut[then.path] = rows
    return cut


def _typed(then: Any, now: Any) -> Any:
    """Return the recorded types of columns; a column that had no values gets its current type."""
    if not isinstance(then, Mapping) or not isinstance(now, Mapping):
        return then
    return {k: now.get(k, kind) if kind == "null" else kind for k, kind in then.items()}


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def _value(config: Mapping[str, Any], key: str) -> Any:
    return json.loads(json.dumps(value_of(key, config), default=str))


def _shown(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(value_of(key, config), ensure_ascii=False) if key in config else "not set"
