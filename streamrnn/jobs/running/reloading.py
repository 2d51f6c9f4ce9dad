"""Rewind an output to before it read files that have changed, so that a run rereads them."""

from collections.abc import Sequence
from dataclasses import replace

from streamrnn.base.display import count, first_of, location, short_model
from streamrnn.errors import CheckpointError, ConfigError, DataError
from streamrnn.jobs.outputs import (
    commit_before,
    files_named,
    log_folder,
    refuse_behind,
    restore_commit,
    rows_of_others,
    used_files,
)
from streamrnn.jobs.preflight import features_of, refusals_of, run_config, seen_before
from streamrnn.jobs.running.replay_plan import needs_replay, plan_replay
from streamrnn.stream.checkpoints import (
    Manifest,
    RetainedCommit,
    changed_files,
    check_same_pipeline,
    check_schema,
    current_names,
    has_manifest,
    load_state,
    read_manifest,
)
from streamrnn.stream.config.values import OTHER_WAYS
from streamrnn.stream.scoring import BoundPipeline, LoadedPipeline, RunOptions, starting_table
from streamrnn.stream.sources import FileSource, Source, SourceFile, canonical_name


def _check_corrected(
    loaded: LoadedPipeline, source: FileSource, files: Sequence[SourceFile]
) -> None:
    """Check what the footers of files show: columns, types, nulls, ranges. No rows are read.

    Raises DataError or DTypeError for the first file at which a run would stop.
    """
    source.check_schemas(files)
    if loaded.config.source.bad == "reject":
        return
    contract = loaded.contract
    required = [name for name in (*contract.key, contract.time, contract.reset) if name is not None]
    for file in files:
        alone = loaded.source([file])
        alone.earlier = source.earlier
        faults = [
            f"column {name!r}: {count(recorded.nulls, 'null')} in {count(recorded.rows, 'row')}"
            for name, recorded in alone.statistics(required).items()
            if recorded.nulls
        ]
        if faults := faults or refusals_of(loaded, features_of(loaded, alone)):
            raise DataError(
                f"{file.path}: {faults[0]}. Correct the file and rerun; the output has not been "
                "rewound"
            )


def _check_models(
    bound: BoundPipeline,
    manifest: Manifest,
    target: RetainedCommit,
    path: str,
    options: RunOptions,
    source: Source,
) -> str:
    """Check that this pipeline, with its model, can resume from an earlier commit.

    Returns a note on rows of other models that this model would replace; "" if there are none.
    Raises CheckpointError for such rows without `new_model`; StateError for a state that the model
    cannot take over.
    """
    loaded = bound.loaded
    then = replace(
        manifest,
        model=target.model,
        commit=target.commit,
        time=target.time,
        sources=manifest.sources[: target.sources],
        position=target.position,
        positions=target.positions,
        counters=target.counters,
    )
    others = rows_of_others(manifest, target, loaded.fingerprint)
    if others and not options.new_model:
        raise CheckpointError(
            f"{location(path)}: --reload would replace rows of other models with rows of the "
            f"current model {short_model(loaded.fingerprint)}:\n"
            + "\n".join(f"  {line}" for line in others)
            + "\nReplace them with --reload --new-model replay, carry or reset; or set [model] "
            "path to the model that wrote them and rerun with --reload."
        )
    note = "".join(
        f"; {line}: replaced by rows of model {short_model(loaded.fingerprint)}" for line in others
    )
    on_change = options.on_change(loaded.config.model)
    may_differ = on_change != "error"
    check_same_pipeline(then, loaded.fingerprint, run_config(bound), path, new_model=may_differ)
    if target.model != loaded.fingerprint:
        state = load_state(path, of=target)
        if needs_replay(bound, then, on_change):
            rows = target.rows + target.outputs.get("rejects", 0)
            plan = plan_replay(bound, source, then, state, scored=rows, force=options.force)
            if plan.gone:
                raise CheckpointError(
                    f"replay: {count(len(plan.gone), 'used file')} of {location(path)} "
                    f"{'is' if len(plan.gone) == 1 else 'are'} gone: {first_of(plan.gone)}. "
                    f"Restore {'it' if len(plan.gone) == 1 else 'them'}, or use {OTHER_WAYS}."
                )
            return note
        starting_table(
            bound,
            state,
            f"the state of {location(path)}",
            on_change=on_change,
            earlier_map=manifest.config.get("state.map", {}),
        )
    return note


def rewind_before_changes(
    loaded: LoadedPipeline, source: Source, named: Sequence[str], options: RunOptions
) -> tuple[str, str] | None:
    """Rewind the output to the last commit before a `named` file, else a changed one, was read.

    With `force`, changed files that the initial state has seen do not count. What can be checked
    without reading rows is checked first. Returns what was done, and what to add to the error of a
    run that fails; None if there is nothing to reload. Raises ConfigError for a name that no used
    file has or a source without files; CheckpointError if no retained commit is early enough, if
    sessions have scored rows since, unless `force` allows dropping them, or if the output is
    another pipeline's or model's; DataError and DTypeError for files that a run would refuse.
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
        seen = seen_before(loaded, source) if options.force and names else None
        by_init = [] if seen is None else seen.among(names)
        names = [name for name in names if name not in by_init]
    if not names:
        return None
    refuse_behind(path, manifest, log_folder(loaded.config))
    bound = loaded.bind(source.schema, source.name)
    # Another pipeline would find other values in files that did not change.
    check_same_pipeline(manifest, loaded.fingerprint, run_config(bound), path, new_model=True)
    check_schema(manifest, bound.emitter.schema, path)
    target = commit_before(manifest, names)
    if target is None:
        seen = seen_before(loaded, source)
        if seen is not None and (by_init := seen.among(names)):
            raise CheckpointError(
                f"{path}: {seen.advice(by_init, refresh=True)} Or keep the state with --force, "
                f"which scores no other row of {'it' if len(by_init) == 1 else 'them'}."
            )
        retained = ", ".join(str(commit.commit) for commit in manifest.kept)
        raise CheckpointError(
            f"{path}: every retained commit was made after {first_of(names)} was read. Retained "
            f"commits: {retained or 'none'}; [checkpoint] keep sets how many there are. "
            "Start over with --full-refresh."
        )
    note = _check_models(bound, manifest, target, path, options, source)
    listed = {file.name: file for file in files.files}
    current = current_names(manifest, listed, canonical_name(path))
    again = [current.get(used.path, used.path) for used in manifest.sources[target.sources :]]
    wanted = {current.get(name, name) for name in names}
    gone = [name for name in again if name not in listed and name not in wanted]
    if gone:
        raise CheckpointError(
            f"{count(len(gone), 'used file')} that --reload would read again "
            f"{'is' if len(gone) == 1 else 'are'} gone: {first_of(gone)}. Restore "
            f"{'it' if len(gone) == 1 else 'them'} and rerun, or drop the rows: streamrnn rewind "
            f"{location(path)} --to {target.commit}, then a run without --reload."
        )
    _check_corrected(
        loaded, files, [listed[name] for name in again if name in wanted & listed.keys()]
    )
    _check_order(loaded, files, again, target, path)
    dropped = manifest.rows - target.rows
    # The run publishes when it begins.
    restore_commit(path, manifest, target, force=options.force)
    return (
        f"rewound to commit {target.commit}, before {first_of(names)} was read; "
        f"{count(dropped, 'row')} {'is' if dropped == 1 else 'are'} scored again{note}",
        f"The output {location(path)} was rewound to commit {target.commit} "
        f"({count(target.rows, 'row')}; it had {manifest.rows:,}). Correct the file and rerun the "
        "same command: it scores the rows after that commit again.",
    )


def _named(
    manifest: Manifest, present: Sequence[SourceFile], named: Sequence[str], path: str
) -> list[str]:
    """Return the used files of these names; a file that is still to be read is left out."""
    paths: list[str] = []
    for name in named:
        used = used_files(manifest, name, path)
        if not used and not files_named([item.name for item in present], name):
            last = manifest.sources[-1].path if manifest.sources else "none"
            raise ConfigError(
                f"--reload-file {location(name)}: {path} has not used a file or partition of "
                f"this name; the last file it used: {last}"
            )
        paths += used
    return paths


def _check_order(
    loaded: LoadedPipeline,
    source: FileSource,
    before: Sequence[str],
    target: RetainedCommit,
    path: str,
) -> None:
    """Refuse to read used files again in another order than `before`, in which they were read.

    Their streams would get other states. Raises CheckpointError.
    """
    then = set(before)
    files = [file for file in source.files if file.name in then]
    if loaded.config.source.order == "time":
        files = source.in_time_order(files)
    present = {file.name for file in files}
    if [file.name for file in files] != [name for name in before if name in present]:
        output = location(path)
        raise CheckpointError(
            f"{output}: its files were read in another order than the source has now: "
            f"{first_of(before)}. Read again in the current order, they would give another result. "
            "If [source] order has changed since, restore it and rerun. If the order does not "
            f"matter: streamrnn rewind {output} --to {target.commit}, then a run without --reload. "
            "Or start over with --full-refresh."
        )
