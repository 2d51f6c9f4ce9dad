"""Whether a run may go on from what is committed, and with which files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from streamrnn.checkpoints.manifest import Manifest, UsedFile, decode_schema
from streamrnn.errors import CheckpointError
from streamrnn.sources import Position, SourceFile

# What the promises let change between two runs: none of it changes a bit of the output so far.
# `source.path`: files are known by their own paths. `late`, `bad`: said of rows not yet read.
FREE = (
    "source.path",
    "source.batch_rows",
    "source.late",
    "source.bad",
    "source.max_rejects",
    "window.lanes",
    "model.path",
    "model.threads",
    "sink",
    "state.save",
    "checkpoint",
)


@dataclass(frozen=True)
class SourcePlan:
    """What is to be read: `files` in order, the first from `position` if that is not None.

    `vanished` were used and are gone; `changed` were used, are not what they were, and are
    passed over because of `force`.
    """

    files: tuple[SourceFile, ...]
    position: Position | None
    vanished: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


def plan_sources(
    manifest: Manifest | None, present: Sequence[SourceFile], *, force: bool
) -> SourcePlan:
    """Compare the files that are there with those that were used.

    New files come in the order of `present`. Raises CheckpointError when a used file changed (and
    not `force`), or when the file that was being read is gone.
    """
    if manifest is None:
        return SourcePlan(tuple(present), None)
    used = {file.path: file for file in manifest.sources}
    there = {file.path: file for file in present}
    changed = [
        path for path, file in used.items() if path in there and not file.is_as_it_was(there[path])
    ]
    if changed and not force:
        raise CheckpointError(_changed(changed, used, there))
    current = manifest.position
    if current is not None and current.file not in there:
        raise CheckpointError(
            f"{current.file} is gone: the last run stopped in it at row {current.file_row} (from "
            "0), and the rows after that are still to be read. Put it back, or start over with "
            "--full-refresh."
        )
    new = [file for file in present if file.path not in used]
    first = [there[current.file]] if current is not None else []
    vanished = tuple(path for path in used if path not in there)
    return SourcePlan((*first, *new), current, vanished, tuple(changed))


def _changed(
    changed: Sequence[str], used: Mapping[str, UsedFile], there: Mapping[str, SourceFile]
) -> str:
    lines = [
        f"  {path}: {used[path].size} bytes when it was read, {there[path].size} bytes now"
        + (", other content" if used[path].size == there[path].size else "")
        for path in changed[:10]
    ]
    if len(changed) > 10:
        lines.append(f"  … and {len(changed) - 10} more")
    return (
        f"{len(changed)} files of the source changed after their rows were used:\n"
        + "\n".join(lines)
        + "\nStart over with --full-refresh, or go on with --force (rows used stay as they are; "
        "new rows go into a new file)."
    )


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as it looks after a way through JSON, so that two can be compared."""
    found: dict[str, Any] = json.loads(json.dumps(dict(config), default=str))
    return found


def check_same(manifest: Manifest, model: str, config: Mapping[str, Any], output: str) -> None:
    """Refuse to go on with another model or config than the manifest's.

    Raises CheckpointError with both fingerprints and all differing keys with both values.
    """
    then, now = plain(manifest.config), plain(config)
    lines = []
    if manifest.model != model:
        lines.append(f"  model fingerprint: {manifest.model[:16]} then, {model[:16]} now")
    lines += [
        f"  {key}: {_said(then, key)} then, {_said(now, key)} now"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and not _is_free(key, then, now)
    ]
    if lines:
        raise CheckpointError(
            f"{output} was written by another pipeline (commit {manifest.commit}, "
            f"{manifest.time}):\n" + "\n".join(lines) + "\nName another sink.path, change it back, "
            "or start over with --full-refresh, which removes the output written so far."
        )


def check_schema(manifest: Manifest, schema: pa.Schema, output: str) -> None:
    """Refuse to add rows of another schema than the manifest's; CheckpointError with both."""
    then = decode_schema(manifest.schema)
    if not then.equals(schema):
        raise CheckpointError(
            f"the rows of {output} have other columns than this run writes.\n"
            f"  there: {_columns(then)}\n  now:   {_columns(schema)}\n"
            "Name another sink.path, or start over with --full-refresh."
        )


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def _is_free(key: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if key == "window.steps":
        return then.get("window.kind") == now.get("window.kind") == "carry"
    if key == "window.stride":  # means something in the kind fixed only
        return "fixed" not in (then.get("window.kind"), now.get("window.kind"))
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def _said(config: Mapping[str, Any], key: str) -> str:
    return json.dumps(config[key], ensure_ascii=False) if key in config else "not set"
