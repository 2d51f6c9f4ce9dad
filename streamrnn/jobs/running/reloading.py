"""Rewind an output to the commit before used files that changed, so that a run rereads them."""

from collections.abc import Sequence
from typing import NamedTuple

from streamrnn.base.display import count, first_of, location
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.jobs.outputs import commit_before, files_named, restore_commit, used_files
from streamrnn.jobs.preflight import seen_before
from streamrnn.jobs.running.rechecking import (
    check_corrected,
    check_models,
    refuse_another_pipeline,
    refuse_lost_rows,
)
from streamrnn.stream.checkpoints import (
    Manifest,
    RetainedCommit,
    changed_files,
    current_names,
    has_manifest,
    read_manifest,
)
from streamrnn.stream.scoring import LoadedPipeline, RunOptions
from streamrnn.stream.sources import Source, SourceFile, SourceOfFiles, canonical_name


class Reload(NamedTuple):
    """A rewind before a run: what was done, and what to add to the error of a run that fails."""

    note: str
    if_it_fails: str


def rewind_before_changes(
    loaded: LoadedPipeline, source: Source, named: Sequence[str], options: RunOptions
) -> Reload | None:
    """Rewind the output to the last commit before the `named` files, or all that changed.

    With `force` not before changed files that its initial state has seen. What can be checked
    without reading rows is checked first. Returns None if no used file changed. Raises ConfigError
    for a name that no used file has or a source without files; CheckpointError if no retained
    commit is early enough, if sessions have scored rows since, unless `force` says that they may
    go, or if the output is another pipeline's or model's; DataError and
    DTypeError for files that a run would refuse.
    """
    path, files = loaded.config.sink.folder, source.of_files
    if path is None or files is None:
        raise ConfigError(
            "--reload needs source files and an output folder; it cannot be used with stdin or "
            "stdout"
        )
    if not has_manifest(path):
        return None
    manifest = read_manifest(path)
    source.earlier = manifest.config.get("source.schema", {})
    home = canonical_name(path)
    if named:
        names = _named(manifest, files.files, named, path)
    else:
        names = changed_files(manifest, files.files, files, home=home)
        seen = _seen(loaded, source, names) if options.force else []
        names = [name for name in names if name not in seen]
    if not names:
        return None
    bound = loaded.bind(source.schema, source.name)
    refuse_another_pipeline(bound, manifest, path)
    target = commit_before(manifest, names)
    if target is None:
        raise CheckpointError(_not_retained(loaded, source, manifest, names, path))
    note = check_models(bound, manifest, target, path, options, source)
    _check_files(loaded, files, manifest, target, names, path)
    dropped = manifest.rows - target.rows
    restore_commit(path, target.commit, force=options.force)  # the run publishes it when it begins
    return Reload(
        f"rewound to commit {target.commit}, before {first_of(names)} was read; "
        f"{count(dropped, 'row')} {'is' if dropped == 1 else 'are'} scored again{note}",
        f"The output {location(path)} was rewound to commit {target.commit} "
        f"({count(target.rows, 'row')}; it had {manifest.rows:,}). Correct the file and rerun the "
        "same command: it scores the rows after that commit again.",
    )


def _check_files(
    loaded: LoadedPipeline,
    source: SourceOfFiles,
    manifest: Manifest,
    target: RetainedCommit,
    names: Sequence[str],
    path: str,
) -> None:
    """Check that the used files after `target` are present and in the same order, and `names` good.

    Raises CheckpointError, DataError and DTypeError.
    """
    listed = {file.name: file for file in source.files}
    current = current_names(manifest, listed, canonical_name(path))
    again = [current.get(used.path, used.path) for used in manifest.sources[target.sources :]]
    wanted = {current.get(name, name) for name in names}
    refuse_lost_rows(
        [name for name in again if name not in listed and name not in wanted], target, path
    )
    check_corrected(
        loaded, source, [listed[name] for name in again if name in wanted & listed.keys()]
    )
    _check_order(loaded, source, again, target, path)


def _named(
    manifest: Manifest, present: Sequence[SourceFile], named: Sequence[str], path: str
) -> list[str]:
    """Return the used files of these names; none for a file that is still to be read."""
    paths: list[str] = []
    for name in named:
        used = used_files(manifest, name, path)
        if not used and not files_named([item.name for item in present], name):
            raise ConfigError(
                f"--reload-file {location(name)}: {path} has not used a file or partition of "
                f"this name; the last one it used is {manifest.sources[-1].path}"
            )
        paths += used
    return paths


def _check_order(
    loaded: LoadedPipeline,
    source: SourceOfFiles,
    before: Sequence[str],
    target: RetainedCommit,
    path: str,
) -> None:
    """Refuse to read used files, those of `before`, in another order than then.

    The states of their streams would be those of another history. Raises CheckpointError.
    """
    then = set(before)
    files = [file for file in source.files if file.name in then]
    if loaded.config.source.order == "time":
        files = source.in_time_order(files)
    present = {file.name for file in files}
    if [file.name for file in files] != [name for name in before if name in present]:
        output = location(path)
        raise CheckpointError(
            f"{output}: its files were read in another order than that of the source now: "
            f"{first_of(before)}. Read again in the order of now, they would give another result. "
            "If [source] order has changed since, restore it and rerun. If the order does not "
            f"matter: streamrnn rewind {output} --to {target.commit}, then a run without --reload. "
            "Or start over with --full-refresh."
        )


def _seen(loaded: LoadedPipeline, source: Source, names: Sequence[str]) -> list[str]:
    """Return those of the used files that the initial state has seen."""
    if not names or (seen := seen_before(loaded, source)) is None:
        return []
    return seen.among(names)


def _not_retained(
    loaded: LoadedPipeline, source: Source, manifest: Manifest, names: Sequence[str], path: str
) -> str:
    seen = seen_before(loaded, source)
    if seen is not None and (by_init := seen.among(names)):
        return (
            f"{path}: {seen.advice(by_init, refresh=True)} Or keep the state with --force, which "
            f"scores no other row of {'it' if len(by_init) == 1 else 'them'}."
        )
    retained = ", ".join(str(commit.commit) for commit in manifest.kept)
    return (
        f"{path}: every retained commit was made after {first_of(names)} was read. Retained "
        f"commits: {retained or 'none'}; [checkpoint] keep sets how many there are. "
        "Start over with --full-refresh."
    )
