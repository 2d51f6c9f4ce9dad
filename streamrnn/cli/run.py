"""`streamrnn run`: score what is new, and say in plain words what came of it."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from streamrnn.cli.progress import progress
from streamrnn.cli.report import Json, Quiet, Set, Verbose, count, print_json, print_table
from streamrnn.cli.signals import stop_on_signal
from streamrnn.cli.values import rows, values

if TYPE_CHECKING:
    import pyarrow as pa

    from streamrnn.pipeline import Summary

INTERRUPTED = 130


def run(
    pipeline: Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline file (TOML).")],
    overrides: Set = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Print what the first N rows give; commit nothing."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for new files, and score them as they come.")
    ] = False,
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Forget output and state, and start over.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on although a used file has changed.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score what is new. Each stream goes on from the state it had."""
    if limit is not None and (follow or full_refresh):
        raise typer.BadParameter(
            "--limit commits nothing: it goes with no --follow, --full-refresh"
        )
    from streamrnn.pipeline import Pipeline

    job = Pipeline.from_toml(pipeline, overrides or [])
    if limit is not None:
        _preview(job.preview(limit), as_json)
        return
    with progress(quiet) as show, stop_on_signal() as stop:
        summary = job.run(
            full_refresh=full_refresh, force=force, follow=follow, progress=show, stop=stop
        )
    # Where stdout is the sink, words go to stderr.
    out = sys.stderr if job.config.sink.folder is None else sys.stdout
    if as_json:
        print_json(summary.as_dict(), out)
    elif not quiet:
        print(in_words(summary), file=out)
    if summary.interrupted:
        raise typer.Exit(INTERRUPTED)


def in_words(summary: "Summary") -> str:
    """The closing summary: what was done, where it is, and what a reader might stumble over."""
    if summary.nothing_new:
        lines = ["Nothing new since the last run."]
    else:
        lines = [
            f"{count(summary.rows, 'row')} in {summary.seconds:.1f} s "
            f"({summary.rows_per_second:,.0f} rows/s) from {_source(summary)}"
        ]
    written = "" if summary.nothing_new else f" ({count(summary.rows_out, 'row')} written)"
    lines.append(f"output   {summary.output}{written}")
    if summary.rejects and summary.rejected:
        lines.append(f"rejects  {summary.rejects}")
    lines.append(f"state    {_state(summary)}")
    lines += [f"note     {note}" for note in _notes(summary)]
    if summary.interrupted and summary.commits:
        lines.append("Interrupted after a checkpoint; the same command goes on from there.")
    elif summary.interrupted:
        lines.append("Interrupted; nothing was committed, and the same command starts over.")
    return "\n".join(lines)


def _source(summary: "Summary") -> str:
    return count(summary.files, "file") if summary.files else "stdin"


def _state(summary: "Summary") -> str:
    """How many streams have a state, and where to look at it."""
    streams = count(summary.streams, "stream")
    if 0 < summary.new_streams < summary.streams:
        streams += f", {summary.new_streams:,} of them new"
    if summary.state is None:
        return f"{streams}; kept nowhere: [state] save would"
    return f"{streams}; look at it with: streamrnn state show {summary.state}"


def _notes(summary: "Summary") -> list[str]:
    """One line for each thing that was not simply scored."""
    s = summary
    told = [
        (s.skipped, "row", "skipped: a feature was null (output is null there)"),
        (s.dropped_late, "row", "dropped: earlier than the stream's last time"),
        (s.rejected, "row", "rejected, with the reason beside each"),
        (s.filled, "null", "filled in, as `nulls` says"),
        (s.out_of_range, "value", "outside `valid`, taken as null"),
        (s.clipped, "value", "limited by `clip`"),
        (s.fresh_starts, "stream", "started fresh by `reset` or `max_gap`"),
        (s.fresh_init_streams, "stream", "not in the initial state table, and started fresh"),
        (s.vanished_files, "used file", "no longer there"),
        (s.changed_files, "used file", "changed, and passed over because of --force"),
        (s.rewritten_files, "new file", "with used rows, counted as used because of --force"),
        (
            s.files_by_footer,
            "used file",
            "with another time of change, compared by footer only: an older version read it",
        ),
    ]
    notes = [f"{count(number, noun)} {what}" for number, noun, what in told if number]
    if s.rewrites_unsettled:
        notes.append("it could not be told whether new files hold the rows of used ones now gone")
    repaired = [f"repaired what an earlier run left behind: {repair}" for repair in s.recovered]
    return [*repaired, *s.state_notes, *notes, *filter(None, [s.times_go_back])]


def _preview(scored: "pa.Table", as_json: bool) -> None:
    if as_json:
        print_json(rows(scored))
    else:
        print_table(scored.column_names, zip(*map(values, scored.columns), strict=True), widest=28)
