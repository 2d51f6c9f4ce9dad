"""Checks before an output is rewound, so that one that fails leaves it as it is."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from streamrnn.base.display import count, first_of, location, short_model
from streamrnn.errors import CheckpointError, DataError
from streamrnn.jobs.outputs import rows_of_others
from streamrnn.jobs.preflight import features_of, refusals_of, run_config
from streamrnn.jobs.running.replay_plan import Earlier, needs_replay, plan_replay
from streamrnn.stream.checkpoints import (
    Manifest,
    RetainedCommit,
    check_same_pipeline,
    check_schema,
    load_state,
)
from streamrnn.stream.config.values import OTHER_WAYS
from streamrnn.stream.scoring import BoundPipeline, LoadedPipeline, RunOptions, starting_table
from streamrnn.stream.sources import Source, SourceFile, SourceOfFiles


def check_corrected(
    loaded: LoadedPipeline, source: SourceOfFiles, files: Sequence[SourceFile]
) -> None:
    """Check what the footers of files show: columns, types, nulls, ranges. No rows are read.

    Raises DataError or DTypeError for the first file at which a run would stop.
    """
    source.check_schemas(files)
    if loaded.config.source.bad == "reject":
        return
    for file in files:
        alone = loaded.source([file])
        alone.earlier = source.earlier
        for fault in _faults(loaded, alone):
            raise DataError(
                f"{file.path}: {fault}. Correct the file and rerun; the output has not been rewound"
            )


def _faults(loaded: LoadedPipeline, source: SourceOfFiles) -> Iterator[str]:
    contract = loaded.contract
    required = [name for name in (*contract.key, contract.time, contract.reset) if name is not None]
    for name, recorded in source.statistics(required).items():
        if recorded.nulls:
            nulls, rows = count(recorded.nulls, "null"), count(recorded.rows, "row")
            yield f"column {name!r}: {nulls} in {rows}"
    yield from refusals_of(loaded, features_of(loaded, source))


def refuse_lost_rows(gone: Sequence[str], target: RetainedCommit, path: str) -> None:
    """Refuse to drop the rows of files that are gone. Raises CheckpointError."""
    if gone:
        raise CheckpointError(
            f"{count(len(gone), 'used file')} that --reload would read again "
            f"{'is' if len(gone) == 1 else 'are'} gone: {first_of(gone)}. Restore "
            f"{'it' if len(gone) == 1 else 'them'} and rerun, or drop the rows: streamrnn rewind "
            f"{location(path)} --to {target.commit}, then a run without --reload."
        )


def refuse_another_pipeline(bound: BoundPipeline, manifest: Manifest, path: str) -> None:
    """Check that the last commit was made by this pipeline, with any model.

    Another one would find other values in files that did not change. Raises CheckpointError.
    """
    loaded = bound.loaded
    check_same_pipeline(manifest, loaded.fingerprint, run_config(bound), path, new_model=True)
    check_schema(manifest, bound.emitter.schema, path)


def check_models(
    bound: BoundPipeline,
    manifest: Manifest,
    target: RetainedCommit,
    path: str,
    options: RunOptions,
    source: Source,
) -> str:
    """Check that this pipeline, with its model, can resume from an earlier commit.

    Returns a note on rows of other models that its model scores again; "" if there are none. Raises
    CheckpointError for such rows without `new_model`; StateError for a state that the model cannot
    take over.
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
    note = _check_rows_of_others(manifest, target, loaded.fingerprint, path, options)
    on_change = options.on_change(loaded.config.model)
    may_differ = on_change != "error"
    check_same_pipeline(then, loaded.fingerprint, run_config(bound), path, new_model=may_differ)
    if target.model != loaded.fingerprint:
        state = load_state(path, of=target)
        if needs_replay(bound, then, on_change):
            rows = target.rows + target.outputs.get("rejects", 0)
            earlier = replace(Earlier.of(then, source, path, state), rows=rows)
            plan = plan_replay(bound, source, then, earlier, force=options.force)
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


def _check_rows_of_others(
    manifest: Manifest, target: RetainedCommit, model: str, path: str, options: RunOptions
) -> str:
    others = rows_of_others(manifest, target, model)
    if others and not options.new_model:
        raise CheckpointError(
            f"{location(path)}: --reload would replace rows that other models wrote by rows of the "
            f"current model {short_model(model)}:\n"
            + "\n".join(f"  {line}" for line in others)
            + "\nReplace them with --reload --new-model replay, carry or reset; or set [model] "
            "path to the model that wrote them and rerun with --reload."
        )
    return "".join(f"; {line}: replaced by rows of model {short_model(model)}" for line in others)
