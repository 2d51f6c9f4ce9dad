"""The commits of an output, and the way back to one of them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from streamrnn.base.display import count, first_of, location, short_model
from streamrnn.base.storage import AnyPath
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.jobs.outputs.parts import rewritten
from streamrnn.jobs.outputs.publisher import Publisher
from streamrnn.stream.checkpoints import Manifest, OutputFolder, RetainedCommit, read_manifest
from streamrnn.stream.checkpoints.versions import check_shards
from streamrnn.stream.sinks import Part


@dataclass(frozen=True)
class CommitInfo:
    """A commit that `rewind` can return to, or the current one.

    `time` is when it was made, or when the commit that it restores was made (UTC); `newest` is the
    file of the source that was read last, `model` the fingerprint of the model, `complete` whether
    its run had read all of the source. `live` of its rows were scored in sessions.
    """

    commit: int
    time: str
    rows: int
    rejected: int
    state_rows: int
    sources: int
    newest: str
    model: str
    complete: bool
    live: int = 0


def history(path: AnyPath) -> list[CommitInfo]:
    """List the commits that `rewind` can go back to, oldest first, and then the current one.

    Raises CheckpointError if there is no commit, or if the manifest is damaged.

    >>> [commit.rows for commit in history("out/weather")]
    [50, 80]
    """
    path = os.fspath(path)
    manifest = read_manifest(path)
    return [
        CommitInfo(
            kept.commit,
            kept.time,
            kept.rows,
            kept.outputs.get("rejects", 0),
            kept.state_rows,
            kept.sources,
            read[-1].path if (read := manifest.sources[: kept.sources]) else "",
            kept.model,
            kept.complete,
            kept.live,
        )
        for kept in (*manifest.kept, manifest.as_kept())
    ]


def rewind(
    path: AnyPath,
    to: int | None = None,
    *,
    before: AnyPath | date | None = None,
    rejects: AnyPath | None = None,
    force: bool = False,
) -> Manifest:
    """Go back to an earlier commit: remove later rows, restore state and position.

    Parameters
    ----------
    path
        The output folder. It may be damaged, as long as the files that the commit needs are intact.
    to
        The number of a commit of `history`.
    before
        Instead of `to`: a file or partition of the source, by its path or the end of its path, or a
        time (a datetime, a date, or text in ISO 8601; UTC where it names no zone). This selects the
        last commit that had read no row of that file or partition, or was made before that time.
    rejects
        Where the rejects of the output are, if they were moved.
    force
        Also drop rows that sessions have scored since, which no source has.

    The way back is a new commit, atomic like any other, with the time of the earlier one. Returns
    the new manifest. Raises ConfigError if no such commit is retained, or if the last commit was
    made before the time; CheckpointError if the folder is in use or a needed file is damaged, and
    for rows of sessions without `force`; PublishError if the output was rewound, but a table of
    [publish] could not be updated.

    >>> rewind("out/weather", to=1).rows
    50
    """
    path = os.fspath(path)
    listed = read_manifest(path)
    if (to is None) == (before is None):
        raise ConfigError("rewind: expected either `to`, the number of a commit, or `before`")
    choice = {kept.commit: kept for kept in listed.kept}
    if before is not None:
        text = before.isoformat() if isinstance(before, date) else os.fspath(before)
        target = _before(listed, text, path)
    elif to in choice:
        target = choice[to]
    else:
        raise ConfigError(f"{path} cannot go back to commit {to}. {_retained(listed)}")
    manifest = restore_commit(path, listed, target, rejects=rejects, force=force)
    Publisher.of(manifest.config, path).publish(manifest)
    return manifest


def restore_commit(
    path: str,
    listed: Manifest,
    target: RetainedCommit,
    *,
    rejects: AnyPath | None = None,
    force: bool = False,
) -> Manifest:
    """Go back to a commit that the last manifest, `listed`, retains, and publish nothing.

    Raises CheckpointError as `rewind` does, and if there has been a commit after `listed`.
    """
    if (lost := listed.live - target.live) > 0 and not force:
        raise CheckpointError(
            f"{location(path)}: {count(lost, 'row')} of sessions after commit {target.commit} "
            f"{'is' if lost == 1 else 'are'} in no source: going back to that commit would drop "
            f"{'it' if lost == 1 else 'them'} for good. Say with --force that "
            f"{'it' if lost == 1 else 'they'} may go."
        )
    with OutputFolder.reopen(path, rejects=rejects, check="manifest") as folder:
        manifest = folder.manifest
        if manifest is None or manifest.commit != listed.commit:
            raise CheckpointError(
                f"{path} got a new commit meanwhile; list the commits again with "
                f"`streamrnn rewind {path}`"
            )
        check_shards(folder.rows.files, target.shards, whole=True)
        return folder.replace(
            time=target.time,
            complete=target.complete,
            end_of_run=target.end_of_run,
            model=target.model,
            sources=manifest.sources[: target.sources],
            position=target.position,
            outputs={
                name: replace(output, parts=_first_rows(folder, name, target.outputs.get(name, 0)))
                for name, output in manifest.outputs.items()
            },
            shards=target.shards,
            counters=target.counters,
            positions=target.positions,
            kept=tuple(kept for kept in manifest.kept if kept.commit < target.commit),
        )


def commit_before(manifest: Manifest, files: Sequence[str]) -> RetainedCommit | None:
    """Return the last retained commit before any of these used files was read, or None."""
    first = min(i for i, used in enumerate(manifest.sources) if used.path in files)
    return max(
        (kept for kept in manifest.kept if kept.sources <= first),
        key=lambda kept: kept.commit,
        default=None,
    )


def rows_of_others(manifest: Manifest, target: RetainedCommit, model: str) -> list[str]:
    """Describe the rows after a retained commit that models other than `model` wrote.

    There is one line for each model, with its rows, commits and parts.
    """
    by_model: dict[str, list[tuple[Part, int]]] = {}
    end = 0
    for part in manifest.parts:
        end += part.rows
        rows = min(part.rows, end - target.rows)
        if rows > 0 and part.model != model:
            by_model.setdefault(part.model, []).append((part, rows))
    return [_written(name, parts) for name, parts in by_model.items()]


def _written(model: str, parts: Sequence[tuple[Part, int]]) -> str:
    commits = sorted({part.commit for part, _ in parts})
    one = len(commits) == 1
    numbers = f"commit {commits[0]}" if one else f"commits {commits[0]} to {commits[-1]}"
    return (
        f"{count(sum(rows for _, rows in parts), 'row')} of {numbers} by model "
        f"{short_model(model)} ({first_of([part.name for part, _ in parts])})"
    )


def _before(manifest: Manifest, before: str, path: str) -> RetainedCommit:
    """Return the last retained commit before a file or a time."""
    names = used_files(manifest, before, path)
    if names:
        target = commit_before(manifest, names)
        what = f"made before any row of {before}"
    else:
        try:
            moment = _time(before)
        except ValueError:
            raise ConfigError(
                f"--before {location(before)}: expected a file or partition that {location(path)} "
                "has used, or a time such as 2013-01-05T06:00"
            ) from None
        if _time(manifest.time) < moment:
            raise ConfigError(
                f"--before {before}: the last commit of {location(path)} ({manifest.commit}, "
                f"{manifest.time}) was made earlier; there is nothing to rewind"
            )
        earlier = [kept for kept in manifest.kept if _time(kept.time) < moment]
        target = earlier[-1] if earlier else None
        what = f"made before {before}"
    if target is None:
        raise ConfigError(f"{path} has no retained commit {what}. {_retained(manifest)}")
    return target


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _retained(manifest: Manifest) -> str:
    retained = ", ".join(str(commit.commit) for commit in manifest.kept)
    if not retained:
        return "No earlier commit is retained; [checkpoint] keep sets how many are."
    return f"Retained commits: {retained}; [checkpoint] keep sets how many there are."


def _first_rows(folder: OutputFolder, name: str, rows: int) -> tuple[Part, ...]:
    """Return the parts with the first `rows` rows of an output; a part with later rows is cut."""
    stay: list[Part] = []
    for part in folder.manifest.named(name).parts if folder.manifest else ():
        # An empty first part stands for an output without rows.
        if rows <= 0 and (part.rows or stay):
            break
        if part.rows > rows:
            part = rewritten(folder, folder.directories[name], part.name, [part], rows)
        stay.append(part)
        rows -= part.rows
    return tuple(stay)


def used_files(manifest: Manifest, name: str, output: str) -> list[str]:
    """Return the used files that `name` means: one, all of a partition, or [] if unknown.

    Raises ConfigError, with the candidates, if `name` is the end of several paths.
    """
    meant = files_named([used.path for used in manifest.sources], name)
    if len(meant) > 1:
        kind = "file" if all(path in paths for path, paths in meant.items()) else "partition"
        raise ConfigError(
            f"{name}: {location(output)} has used {count(len(meant), kind)} of this name: "
            f"{first_of(list(meant))}. Name one by more of its path"
        )
    return [path for paths in meant.values() for path in paths]


def files_named(paths: Sequence[str], name: str) -> dict[str, list[str]]:
    """Return the files, or the partitions with their files, whose paths are `name` or end in it.

    >>> files_named(["in/day=1/a.parquet", "in/day=2/a.parquet"], "day=2")
    {'in/day=2': ['in/day=2/a.parquet']}
    """
    if name in paths:
        return {name: [name]}
    end = "/" + name.lstrip("./").rstrip("/")
    meant = {path: [path] for path in paths if path.endswith(end)}
    if meant or "=" not in name:
        return meant
    for path in dict.fromkeys(paths):
        before, folder, _ = f"/{path}".partition(f"{end}/")
        if folder:
            meant.setdefault(f"{before}{end}"[1:], []).append(path)
    return meant
