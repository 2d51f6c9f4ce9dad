"""Rewind an output to the commit before used files that changed, so that a run rereads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from streamrnn.checkpoints import (
    Manifest,
    changed_files,
    check_same_pipeline,
    current_names,
    has_manifest,
    read_manifest,
)
from streamrnn.display import count, first_of, location
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.outputs import commit_before, rewind, used_files
from streamrnn.pipeline.preflight import run_config, seen_before
from streamrnn.scoring import LoadedPipeline
from streamrnn.sources import Source, SourceFile, canonical_name


def rewind_before_changes(
    loaded: LoadedPipeline,
    source: Source,
    named: Sequence[str],
    *,
    new_model: bool,
    force: bool = False,
) -> str | None:
    """Rewind the output to the last commit before the `named` files, or all that changed.

    With `force` not before changed files that its initial state has seen. Returns what was done,
    in a sentence; None if no used file changed. Raises ConfigError for a name that no used file has
    or a source without files, CheckpointError if no retained commit is early enough or the output
    is another pipeline's.
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
        seen = _seen(loaded, source, names) if force else []
        names = [name for name in names if name not in seen]
    if not names:
        return None
    target = commit_before(manifest, names)
    if target is None:
        raise CheckpointError(_not_retained(loaded, source, manifest, names, path))
    bound = loaded.bind(source.schema, source.name)
    check_same_pipeline(
        replace(manifest, model=target.model, commit=target.commit, time=target.time),
        loaded.fingerprint,
        run_config(bound),
        path,
        new_model=new_model,
    )
    _check_order(loaded, source, manifest, target.sources, home)
    dropped = manifest.rows - target.rows
    rewind(path, target.commit)
    return (
        f"rewound to commit {target.commit}, before {first_of(names)} was read; "
        f"{count(dropped, 'row')} {'is' if dropped == 1 else 'are'} scored again"
    )


def _named(
    manifest: Manifest, present: Sequence[SourceFile], named: Sequence[str], path: str
) -> list[str]:
    """Return the used files of these names; none for a file that is still to be read."""
    paths: list[str] = []
    for name in named:
        used = used_files(manifest, name)
        if not used and not any(item.name.endswith(name.lstrip("./")) for item in present):
            raise ConfigError(f"--reload-file {name}: {path} has not used a file of this name")
        paths += used
    return paths


def _check_order(
    loaded: LoadedPipeline, source: Source, manifest: Manifest, first: int, home: str
) -> None:
    """Refuse to read used files, those from `first` on, in another order than before.

    The states of their streams would be those of another history. Raises CheckpointError.
    """
    names = current_names(manifest, {file.name: file for file in source.files}, home)
    before = [names.get(used.path, used.path) for used in manifest.sources[first:]]
    again = {file.name for file in source.files}
    files = [file for file in source.files if file.name in set(before)]
    if loaded.config.source.order == "time":
        files = source.in_time_order(files)
    if [file.name for file in files] != [name for name in before if name in again]:
        raise CheckpointError(
            f"{location(str(loaded.config.sink.folder))}: its files were read in another order than"
            f" that of the source now: {first_of(before)}. Read again in the order of now, they "
            "would give another result. Set [source] order, start over with --full-refresh, or, if "
            "the order does not matter, use `streamrnn rewind` and a plain run."
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
        f"{path}: every retained commit was made after {first_of(names)} was read (retained "
        f"commits: {retained or 'none'}; [checkpoint] keep sets how many are retained). "
        "Start over with --full-refresh."
    )
