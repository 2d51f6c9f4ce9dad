"""`streamrnn verify`, `rewind`, `publish`, `compact`, and `state …`: what a run has committed."""

import json
from contextlib import suppress
from dataclasses import asdict
from os.path import commonpath
from typing import Annotated, Any

import typer

from streamrnn.base.display import as_text, count, location, short_model
from streamrnn.cli.guide import example
from streamrnn.cli.report import Json, Verbose, print_json, print_table, rows, values
from streamrnn.errors import CheckpointError, MissingFileError, PublishError

state = typer.Typer(
    help="Show, export, import, compare or drop the states of streams.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Output = Annotated[str, typer.Argument(metavar="OUT", help="The output folder of a run.")]
Rejects = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="The directory of the rejects, if they were moved."),
]
_STATES = "The output folder of a run, or a state table (.parquet, .arrow)."
_Keys = Annotated[
    list[str],
    typer.Option(
        "--key", metavar="KEY", help="A stream's key; commas separate key columns. Repeatable."
    ),
]


def verify(
    out: Output, rejects: Rejects = None, as_json: Json = False, verbose: Verbose = False
) -> None:
    """Check an output. Every committed file is read and compared with its checksum.

    Two outputs with equal rows and states have equal checksums, however their runs were cut.
    """
    from streamrnn.jobs import outputs

    output = outputs.verify(out, rejects=rejects)
    if as_json:
        print_json(asdict(output))
    else:
        parts = f"{count(output.parts, 'part')} with {count(output.rows, 'row')}"
        parts += f" ({output.live:,} read by sessions)" if output.live else ""
        parts += f", {count(output.rejected, 'reject')}" if output.rejected else ""
        print(
            f"{location(out)} is intact: commit {output.commit}, {parts}, "
            f"state of {count(output.state_rows, 'stream')}, {output.bytes / 1e6:,.1f} MB\n"
            f"checksum {output.rows_checksum} of the rows, {output.state_checksum} of the state"
        )
        print("".join(f"note     {table}\n" for table in output.left), end="")
    if output.behind:
        raise PublishError("\n".join(output.behind))


def rewind(
    out: Output,
    to: Annotated[
        int | None, typer.Option("--to", metavar="N", help="The commit to return to.")
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            "--before",
            metavar="FILE|TIME",
            help="Go back to the last commit that was made before this time, or before this file "
            "or partition was read.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also drop rows of sessions, which no source has.")
    ] = False,
    rejects: Rejects = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the retained commits, or return to one: --to or --before drops all later rows."""
    from streamrnn.jobs import outputs

    if to is not None or before is not None:
        manifest = outputs.rewind(out, to, before=before, rejects=rejects, force=force)
        if as_json:
            print_json(
                {
                    "commit": manifest.commit,
                    "rows": manifest.rows,
                    "files": len(manifest.sources),
                    "streams": manifest.state_rows,
                }
            )
        else:
            print(
                f"{location(out)} is back at {count(manifest.rows, 'row')} of "
                f"{count(len(manifest.sources), 'file')}, state of "
                f"{count(manifest.state_rows, 'stream')} (now commit {manifest.commit}); the next "
                "run resumes from there"
            )
        return
    commits = [
        {
            "commit": kept.commit,
            "time": kept.time,
            "rows": kept.rows,
            "of_sessions": kept.live,
            "rejected": kept.rejected,
            "streams": kept.state_rows,
            "files": kept.sources,
            "newest_file": kept.newest,
            "model": short_model(kept.model),
            "complete": kept.complete,
        }
        for kept in outputs.history(out)
    ]
    if as_json:
        print_json(commits)
        return
    newest, folder = [str(commit["newest_file"]) for commit in commits], ""
    with suppress(ValueError):  # no paths, or a mix of absolute and relative ones
        folder = commonpath([path.rpartition("/")[0] for path in newest if path])
    for commit, path in zip(commits, newest, strict=True):
        commit["newest_file"] = path.removeprefix(folder).lstrip("/")
        if not commits[-1]["of_sessions"]:
            del commit["of_sessions"]
    print_table(
        [name.replace("_", " ") for name in commits[0]], [commit.values() for commit in commits]
    )
    if len(commits) > 1:
        again = f"streamrnn rewind {location(out)} --to N"
        print(f"\nthe last one is current; return to another with: {again}")
    else:
        print("\nno older commit is kept; [checkpoint] keep sets how many commits are")


def publish(
    out: Output, rejects: Rejects = None, as_json: Json = False, verbose: Verbose = False
) -> None:
    """Bring the tables of [publish] up to date. A run does so by itself."""
    from streamrnn.jobs import outputs

    done = outputs.publish(out, rejects=rejects)
    if as_json:
        print_json([asdict(item) for item in done])
    elif not done:
        print(f"{location(out)}: every table of [publish] is up to date")
    else:
        print("\n".join(map(str, done)))


def compact(
    out: Output, rejects: Rejects = None, as_json: Json = False, verbose: Verbose = False
) -> None:
    """Merge small parts into larger ones. Rows, their order and the state do not change."""
    from streamrnn.jobs import outputs
    from streamrnn.stream.config import SIDE_OUTPUTS

    last = outputs.read_manifest(out)
    manifest = outputs.compact(out, rejects=rejects)
    before, after = len(last.parts), len((manifest or last).parts)
    if as_json:
        print_json({"parts_before": before, "parts_after": after})
    elif manifest is None:
        print(f"{location(out)}: no small parts to merge")
    else:
        beside = ""
        for key in SIDE_OUTPUTS:
            then, now = (len(of.named(key).parts) for of in (last, manifest))
            beside += f", {then} of {key} into {now}" if now < then else ""
        print(f"{location(out)}: merged {count(before, 'part')} into {after}{beside}")


@state.command(epilog=example("state show scores --limit 20", "state"))
def show(
    out: Annotated[str, typer.Argument(metavar="OUT", help=_STATES)],
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="The number of streams to show.")
    ] = 10,
    keys: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="KEY", help="Show only this stream. Repeatable."),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort", metavar="COLUMN", help="Sort by a column, largest first: steps, last_time."
        ),
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show the states of streams; without --sort, in the order of their first rows."""
    from streamrnn.jobs.outputs import history, key_names, read_states

    states = read_states(out, keys or (), sort)
    first = states.slice(0, limit)
    if as_json:
        print_json(rows(first))
        return
    ids = len(key_names(states))  # as --key takes them
    cells = [
        [_vector(v) if isinstance(v, list) else _key(v) if place < ids else v for v in column]
        for place, column in enumerate(map(values, first.columns))
    ]
    print_table(first.schema.names, zip(*cells, strict=True))
    left = states.num_rows - first.num_rows
    notes = [f"{left:,} not shown"] if left else []
    with suppress(MissingFileError, CheckpointError):  # a state table
        live = history(out)[-1].live
        notes += [f"after {live:,} rows of sessions"] if live else []
    print(f"\n{', '.join([count(states.num_rows, 'stream'), *notes])}")


@state.command(epilog=example("state export scores -o states.parquet", "state"))
def export(
    out: Output,
    file: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="FILE", help="The .parquet or .arrow file to write."
        ),
    ],
    verbose: Verbose = False,
) -> None:
    """Write the states of all streams to a file."""
    from streamrnn.jobs.outputs import export_state

    print(f"wrote {location(file)}: {count(export_state(out, file), 'stream')}")


@state.command("import", epilog=example("state import states.parquet scores", "state"))
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A state table (.parquet, .arrow).")],
    out: Output,
    verbose: Verbose = False,
) -> None:
    """Replace the states of an output with a state table, in one commit."""
    from streamrnn.jobs.outputs import import_state

    number = import_state(file, out)
    print(f"{location(out)} now has the state of {location(file)}: {count(number, 'stream')}")


@state.command(epilog=example("state diff scores states.parquet", "state"))
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=_STATES)],
    b: Annotated[str, typer.Argument(metavar="B", help=_STATES)],
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="The number of streams to list.")
    ] = 20,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare two state tables, bit for bit. Exits with 1 if they differ.

    Differences of times are in seconds.
    """
    from streamrnn.jobs.outputs import diff_states

    differences = diff_states(a, b)
    if as_json:
        print_json(asdict(differences))
    elif not differences:
        print(f"no difference in {count(differences.same, 'stream')}")
    else:
        lines = [
            *([key, "differs", ", ".join(columns)] for key, columns in differences.changed.items()),
            *([key, f"only in {location(a)}", ""] for key in differences.only_a),
            *([key, f"only in {location(b)}", ""] for key in differences.only_b),
        ]
        print_table(["stream", "what", "columns"], lines[:limit])
        left = f", {len(lines) - limit:,} not shown" if len(lines) > limit else ""
        print(
            f"\n{count(len(lines), 'difference')}{left}; {count(differences.same, 'stream')} equal"
        )
        for column, largest in differences.largest.items():
            streams = sum(column in columns for columns in differences.changed.values())
            apart = "" if largest is None else f", by at most {largest:.4g}"
            print(f"{column} differs in {count(streams, 'stream')}{apart}")
    if differences:
        raise typer.Exit(1)


@state.command(epilog=example("state drop scores --key N162UW", "state"))
def drop(out: Output, keys: _Keys, verbose: Verbose = False) -> None:
    """Forget streams. Their next rows are scored like rows of new streams."""
    from streamrnn.jobs.outputs import drop_streams

    print(f"{location(out)}: {count(drop_streams(out, keys), 'stream')} dropped")


@state.command(epilog=example("state reset scores --key N162UW", "state"))
def reset(out: Output, keys: _Keys, verbose: Verbose = False) -> None:
    """Reset streams to the initial state. They keep their last time: earlier rows are late."""
    from streamrnn.jobs.outputs import reset_streams

    print(f"{location(out)}: {count(reset_streams(out, keys), 'stream')} reset")


@state.command("compact", epilog=example("state compact scores --idle 90d", "state"))
def drop_idle(
    out: Output,
    idle: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Drop streams whose last row is older than the newest row by more than this, such "
            "as 90d or 6h.",
        ),
    ],
    verbose: Verbose = False,
) -> None:
    """Forget streams without recent rows."""
    from streamrnn.jobs import outputs
    from streamrnn.stream.config import parse_duration

    try:
        silence = parse_duration(idle)
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--idle") from None
    dropped = count(outputs.drop_idle(out, silence), "stream")
    print(f"{location(out)}: {dropped} dropped, idle for more than {idle} at the newest row")


@state.command(epilog=example("state gc scores", "state"))
def gc(out: Output, verbose: Verbose = False) -> None:
    """Remove files left behind by a killed run, as the next run would."""
    from streamrnn.jobs.outputs import clear_leftovers

    print(f"{location(out)}: {count(clear_leftovers(out), 'file')} removed")


def _key(value: object) -> str:
    """Return a key as --key takes it, in quotes if there are blanks in it."""
    text = as_text(value)
    return json.dumps(text, ensure_ascii=False) if any(map(str.isspace, text)) else text


def _vector(values: list[Any]) -> str:
    """Return the first three numbers of a state, and how many there are."""
    head = " ".join(map(_item, values[:3]))
    return f"{head} … ({len(values)})" if len(values) > 3 else head


def _item(value: Any) -> str:
    """Format an item of a list: a number of a state, or a row that waits for its window."""
    match value:
        case None:
            return "-"
        case list():
            return f"[{_vector(value)}]"
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)
