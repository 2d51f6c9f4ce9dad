"""Rewind an output to the commit before used files that changed, so that a run rereads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from streamrnn.checkpoints import (
    Manifest,
    changed_files,
    check_same_pipeline,
    has_manifest,
    read_manifest,
)
from streamrnn.display import count, first_of
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.outputs import commit_before, rewind, used_files
from streamrnn.pipeline.preflight import run_config
from streamrnn.scoring import LoadedPipeline
from streamrnn.sources import Source


def rewind_before_changes(
    loaded: LoadedPipeline, source: Source, named: Sequence[str], *, new_model: bool
) -> str | None:
    """Rewind the output to the last commit before the `named` files, or all that changed.

    Returns what was done, in a sentence; None if no used file changed. Raises ConfigError for a
    name that no used file has or a source without files, CheckpointError if no retained commit is
    early enough or the output is another pipeline's.
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
    names = _named(manifest, named, path) if named else changed_files(manifest, files.files, files)
    if not names:
        return None
    target = commit_before(manifest, names)
    if target is None:
        raise CheckpointError(_not_retained(manifest, names, path))
    bound = loaded.bind(source.schema, source.name)
    check_same_pipeline(
        replace(manifest, model=target.model),
        loaded.fingerprint,
        run_config(bound),
        path,
        new_model=new_model,
    )
    dropped = manifest.rows - target.rows
    rewind(path, target.commit)
    return (
        f"rewound to commit {target.commit}, before {first_of(names)} was read; "
        f"{count(dropped, 'row')} {'is' if dropped == 1 else 'are'} scored again"
    )


def _named(manifest: Manifest, named: Sequence[str], path: str) -> list[str]:
    paths: list[str] = []
    for name in named:
        used = used_files(manifest, name)
        if not used:
            raise ConfigError(f"--reload-file {name}: {path} has not used a file of this name")
        paths += used
    return paths


def _not_retained(manifest: Manifest, names: Sequence[str], path: str) -> str:
    retained = ", ".join(str(commit.commit) for commit in manifest.kept)
    return (
        f"{path}: every retained commit was made after {first_of(names)} was read (retained "
        f"commits: {retained or 'none'}; [checkpoint] keep sets how many are retained). "
        "Start over with --full-refresh."
    )
