"""Used files that changed: back to the commit before them, so that a run reads them again."""

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
from streamrnn.display import first_of
from streamrnn.errors import CheckpointError, ConfigError
from streamrnn.outputs import commit_before, rewind, used_files
from streamrnn.pipeline.preflight import run_config
from streamrnn.scoring import LoadedPipeline
from streamrnn.sources import Source


def rewind_before_changes(
    loaded: LoadedPipeline, source: Source, named: Sequence[str], *, new_model: bool
) -> str | None:
    """Rewind the output to the last commit before the `named` files, or all that changed.

    Returns what was done, in a sentence; None where no used file changed. Raises ConfigError for a
    name that no used file has or a source that is not of files, CheckpointError where no commit
    early enough is kept, or the output is another pipeline's.
    """
    path, files = loaded.config.sink.folder, source.of_files
    if path is None or files is None:
        raise ConfigError("--reload is for files and an output folder: not for stdin, stdout")
    if not has_manifest(path):
        return None
    manifest = read_manifest(path)
    source.earlier = manifest.config.get("source.schema", {})
    names = _named(manifest, named, path) if named else changed_files(manifest, files.files, files)
    if not names:
        return None
    target = commit_before(manifest, names)
    if target is None:
        raise CheckpointError(_not_kept(manifest, names, path))
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
        f"went back to commit {target.commit}, before {first_of(names)}: {dropped:,} rows are "
        "computed again"
    )


def _named(manifest: Manifest, named: Sequence[str], path: str) -> list[str]:
    found: list[str] = []
    for name in named:
        used = used_files(manifest, name)
        if not used:
            raise ConfigError(f"--reload-file {name}: {path} has not used a file of this name")
        found += used
    return found


def _not_kept(manifest: Manifest, names: Sequence[str], path: str) -> str:
    kept = ", ".join(str(kept.commit) for kept in manifest.kept)
    return (
        f"{path}: no retained commit is from before {first_of(names)} was read (retained commits: "
        f"{kept or 'none'}; [checkpoint] keep sets how many). Start over with --full-refresh."
    )
