"""`streamrnn run`: score new rows, and print a summary."""

import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
import typer.core

from streamrnn.base.display import as_text, count
from streamrnn.cli.check import PipelineFile
from streamrnn.cli.process import stop_on_signal
from streamrnn.cli.report import (
    LOGGER,
    Json,
    Quiet,
    Set,
    Verbose,
    print_json,
    print_table,
    progress,
    rows,
    values,
)
from streamrnn.errors import PublishError, StreamRNNError

if TYPE_CHECKING:
    from streamrnn.jobs.pipeline import Pipeline, Summary
    from streamrnn.stream.config.values import NewModel

INTERRUPTED = 130
_WHOLE_SECONDS = re.compile(r"\.0+(?!\d)")


class RunCommand(typer.core.TyperCommand):
    """`run`, which also explains the values of --new-model if its value is missing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after `run`."""
        return super().parse_args(ctx, [*args, ""] if args[-1:] == ["--new-model"] else args)


def _new_model(value: str | None) -> str | None:
    from streamrnn.stream.config.values import check_new_model

    try:
        return check_new_model(value)
    except ValueError as problem:
        raise typer.BadParameter(str(problem)) from None


def run(
    pipeline: PipelineFile,
    overrides: Set = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Print the first N scored rows; write nothing."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep running, and score new files as they arrive.")
    ] = False,
    full_refresh: Annotated[
        bool,
        typer.Option(
            "--full-refresh",
            help="Discard output and state, and start over; refused if the source lacks rows "
            "of the output.",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Run even if a used file has changed, or if no value of a feature is in its "
            "vocabulary; with --full-refresh, even if the source lacks rows of the output.",
        ),
    ] = False,
    new_model: Annotated[
        str | None,
        typer.Option(
            "--new-model",
            metavar="MODE",
            callback=_new_model,
            help="Resume with another model: replay (the model reads earlier rows into its own "
            "state; for a retrained one), carry (each stream keeps its state) or reset (all "
            "streams start again).",
        ),
    ] = None,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            help="Rewind to the last commit before the used files that changed, and score "
            "them again.",
        ),
    ] = False,
    reload_file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="Like --reload, for this used file or partition. Repeatable."
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"] | None,
        typer.Option(help="Where to score: in this process, or on Ray ([engine] type)."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Keep metrics in this .prom file, which Prometheus's node_exporter reads.",
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score new rows. Each stream resumes from its state after the last run."""
    if limit is not None and (follow or full_refresh or reload or reload_file or metrics):
        raise typer.BadParameter(
            "--limit cannot be combined with --follow, --full-refresh, --reload, --reload-file or "
            "--metrics"
        )
    job = _load(pipeline, overrides, metrics)
    if limit is not None:
        scored = job.preview(limit)
        if as_json:
            print_json(rows(scored))
        else:
            cells = [
                map(as_text, values(column)) if name in job.config.source.key else values(column)
                for name, column in zip(scored.column_names, scored.columns, strict=True)
            ]
            print_table(scored.column_names, zip(*cells, strict=True), widest=28)
        return
    on_workers = (engine or job.config.engine.type) != "local"
    with progress(quiet) as show, stop_on_signal(on_workers=on_workers) as stop:
        behind = None
        try:
            summary = job.run(
                full_refresh=full_refresh,
                force=force,
                new_model=cast("NewModel | None", new_model),
                reload=reload_file or reload,
                follow=follow,
                engine=engine,
                progress=show,
                stop=stop,
                metrics=metrics,
            )
        except PublishError as error:  # rows were committed, but a table is behind
            summary, behind = cast("Summary", error.summary), error
    phases = (f"{name} {seconds:.2f}" for name, seconds in summary.seconds_by_phase.items())
    LOGGER.debug("busy seconds, in parallel: %s", ", ".join(phases))
    # If stdout is the sink, the summary goes to stderr.
    out = sys.stderr if job.config.sink.folder is None else sys.stdout
    if as_json:
        print_json(summary.as_dict(), out)
    elif not quiet:
        print(in_words(summary), file=out)
    if behind is not None:
        raise behind
    if summary.interrupted:
        raise typer.Exit(INTERRUPTED)


def _load(pipeline: str, overrides: list[str] | None, metrics: str | None) -> "Pipeline":
    """Load a pipeline file; record a failure in the metrics."""
    from streamrnn.jobs.pipeline import Pipeline
    from streamrnn.jobs.running import record_failure

    try:
        return Pipeline.from_toml(pipeline, overrides or [])
    except StreamRNNError as error:
        record_failure(metrics, pipeline, error)
        raise


def in_words(summary: "Summary") -> str:
    """Return the summary of a run: rows, output, state, and a note for each peculiarity."""
    from streamrnn.jobs.outputs import Published

    if summary.nothing_new:
        lines = ["Nothing new since the last run."]
    else:
        rate, seconds = f"{summary.rows_per_second:,.0f} rows/s", summary.seconds_compiling
        if seconds >= 0.05:
            rate += f"; {seconds:.1f} s went into compiling kernels"
        rows = f"{count(summary.rows, 'row')} in {summary.seconds:.1f} s ({rate})"
        lines = [f"{rows} from {_source(summary)}"]
    lines.append(f"output   {summary.output}{_written(summary)}")
    lines += [str(Published(**item)) for item in summary.published]
    if summary.first_time is not None:
        times = f"{summary.first_time} to {summary.last_time}"
        lines.append(f"times    {_WHOLE_SECONDS.sub('', times)}")
    if summary.rejects and summary.rejected:
        lines.append(f"rejects  {summary.rejects}")
    for name, copies in summary.copies.items():
        if copies.rows:
            lines.append(f"{name:<8} {copies.path} ({count(copies.rows, 'row')})")
    lines.append(f"state    {_state(summary)}")
    if (load := summary.workload) is not None:
        lines.append(
            f"workers  {count(load.workers, 'worker')}, {count(load.shards, 'shard')}, "
            f"{count(load.epochs, 'epoch')}; {load.bytes / max(1, summary.rows):.0f} bytes a row "
            "handed over"
        )
        if load.largest_stream:
            share = f"{load.largest_share:.1%} of the rows"
            lines[-1] += f"; largest stream {load.largest_stream} ({share})"
    lines += [f"note     {note}" for note in _notes(summary)]
    if summary.interrupted and summary.replayed and not summary.commits:
        lines.append(
            f"Interrupted in the replay, after {count(summary.replayed, 'row')}; rerun the same "
            "command to resume it."
        )
    elif summary.interrupted and summary.commits:
        lines.append("Interrupted after a commit; rerun the same command to resume.")
    elif summary.interrupted:
        lines.append("Interrupted; nothing was committed. Rerun the same command to start over.")
    return "\n".join(lines)


def _source(summary: "Summary") -> str:
    if 0 < summary.files_read < summary.files:
        return f"{summary.files_read:,} of {count(summary.files, 'file')}"
    return count(summary.files, "file") if summary.files else "stdin"


def _written(summary: "Summary") -> str:
    if summary.nothing_new:
        return "" if summary.commit is None else f" (commit {summary.commit})"
    written = f"{count(summary.rows_out, 'row')} written"
    if summary.commits and summary.commit is not None:
        written += f" in {count(len(summary.parts), 'part')}, commit {summary.commit}"
    return f" ({written})"


def _state(summary: "Summary") -> str:
    streams = count(summary.streams, "stream")
    if 0 < summary.new_streams < summary.streams:
        streams += f", {summary.new_streams:,} of them new"
    if summary.state is None:
        return f"{streams}; not saved (set [state] save to keep it)"
    return f"{streams}; show it with: streamrnn state show {summary.state}"


def row_notes(
    counts: Mapping[str, int], unknown: Mapping[str, int], skipped: str, rejected: str
) -> list[str]:
    """Return a note for each kind of row and value that was handled specially.

    `unknown` counts unknown values by feature; `skipped` and `rejected` end the notes on such rows.
    """
    texts = {
        "skipped": ("row", f"skipped: {skipped}"),
        "dropped_late": ("row", "dropped: earlier than the stream's last time"),
        "repeated": ("row", "with a time that the stream already had, see [source] repeated"),
        "rejected": ("row", f"rejected{rejected}"),
        "crossed": ("row", "with quantiles that cross, see [output] sort"),
        "filled": ("null", "filled as set by `nulls`"),
        "nan": ("NaN", "treated as null, as set by `nan`"),
        "out_of_range": ("value", "outside `valid`, treated as null"),
        "clipped": ("value", "limited by `clip`"),
    }
    return [
        f"{count(counts[name], noun)} {what}"
        for name, (noun, what) in texts.items()
        if counts.get(name)
    ] + [
        f"{count(number, 'value')} unknown in {name}: not in its vocabulary, with id 0"
        for name, number in unknown.items()
    ]


def _notes(summary: "Summary") -> list[str]:
    s = summary
    notes = row_notes(
        vars(s),
        s.unknown_by_feature,
        "a feature was null (output is null there)",
        "; each has its reason in the rejects table",
    )
    reported = [
        (s.cast, "value", "cast: their file has another type for the column than the first file"),
        (s.fresh_starts, "stream", "reset by `reset` or `max_gap`"),
        (
            s.started_behind,
            "stream",
            "began more than [state] idle before the newest time, and may have had a state that "
            'was dropped. Read files in the order of their times ([source] order = "time"), or '
            "start over with a longer idle",
        ),
        (s.dropped_streams, "stream", "dropped at commits: silent for over twice [state] idle"),
        (s.fresh_init_streams, "stream", "not in the initial state table, started from zero"),
        (s.vanished_files, "used file", "not in the source"),
        (s.changed_files, "used file", "changed, skipped because of --force"),
        (s.rewritten_files, "new file", "with used rows, counted as used because of --force"),
        (
            s.files_by_footer,
            "used file",
            "with a new modification time, compared by footer only, as rows came from other files",
        ),
    ]
    notes += [f"{count(number, noun)} {what}" for number, noun, what in reported if number]
    if s.rewrites_unsettled:
        notes.append("it is unknown whether new files hold rows of used files that are gone")
    repaired = [f"repaired what an earlier run left behind: {repair}" for repair in s.recovered]
    if s.similar_keys:
        notes.append(
            f"{count(s.similar_keys, 'new stream')} with a key like another but for case or blanks "
            f"around it: {'; '.join(s.first_similar_keys)}. If they are the same, clean the column"
        )
    if s.first_late:
        notes.append(f"the first late row is {s.first_late}")
    if s.first_repeated:
        notes.append(f"the first repeated row is {s.first_repeated}")
    said = filter(None, [s.reloaded, s.times_in_utc, s.times_go_back, s.unusual_gap])
    advice = s.workload.advice if s.workload is not None else []
    return [*repaired, *s.state_notes, *notes, *said, *advice]
