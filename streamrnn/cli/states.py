"""`streamrnn state …`: the states of streams as a table."""

from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any

import typer

from streamrnn.base.display import as_text, count, location
from streamrnn.cli.guide import example
from streamrnn.cli.outputs import Output
from streamrnn.cli.report import Json, Verbose, print_json, print_table, rows, values
from streamrnn.errors import CheckpointError, MissingFileError

app = typer.Typer(
    help="Show, export, import, compare or drop the states of streams.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DIFFERENT = 1
STATES = "The output folder of a run, or a state table (.parquet, .arrow)."
Keys = Annotated[
    list[str],
    typer.Option(
        "--key", metavar="KEY", help="A stream's key; commas separate key columns. Repeatable."
    ),
]


@app.command(epilog=example("state show scores --limit 20", "state"))
def show(
    out: Annotated[str, typer.Argument(metavar="OUT", help=STATES)],
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
        [_vector(v) if isinstance(v, list) else as_text(v) if place < ids else v for v in column]
        for place, column in enumerate(map(values, first.columns))
    ]
    print_table(first.schema.names, zip(*cells, strict=True))
    left = states.num_rows - first.num_rows
    notes = [f"{left:,} not shown"] if left else []
    with suppress(MissingFileError, CheckpointError):  # a state table
        live = history(out)[-1].live
        notes += [f"after {live:,} rows of sessions"] if live else []
    print(f"\n{', '.join([count(states.num_rows, 'stream'), *notes])}")


@app.command(epilog=example("state export scores -o states.parquet", "state"))
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


@app.command("import", epilog=example("state import states.parquet scores", "state"))
def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A state table (.parquet, .arrow).")],
    out: Output,
    verbose: Verbose = False,
) -> None:
    """Replace the states of an output with a state table, in one commit."""
    from streamrnn.jobs.outputs import import_state

    number = import_state(file, out)
    print(f"{location(out)} now has the state of {location(file)}: {count(number, 'stream')}")


@app.command(epilog=example("state diff scores states.parquet", "state"))
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=STATES)],
    b: Annotated[str, typer.Argument(metavar="B", help=STATES)],
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
        raise typer.Exit(DIFFERENT)


@app.command(epilog=example("state drop scores --key N162UW", "state"))
def drop(out: Output, keys: Keys, verbose: Verbose = False) -> None:
    """Forget streams. Their next rows are scored like rows of new streams."""
    from streamrnn.jobs.outputs import drop_streams

    print(f"{location(out)}: {count(drop_streams(out, keys), 'stream')} dropped")


@app.command(epilog=example("state reset scores --key N162UW", "state"))
def reset(out: Output, keys: Keys, verbose: Verbose = False) -> None:
    """Reset streams to the initial state. They keep their last time: earlier rows are late."""
    from streamrnn.jobs.outputs import reset_streams

    print(f"{location(out)}: {count(reset_streams(out, keys), 'stream')} reset")


@app.command(epilog=example("state compact scores --idle 90d", "state"))
def compact(
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
    from streamrnn.jobs.outputs import drop_idle
    from streamrnn.stream.config import parse_duration

    try:
        silence = parse_duration(idle)
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--idle") from None
    dropped = count(drop_idle(out, silence), "stream")
    print(f"{location(out)}: {dropped} dropped, idle for more than {idle} at the newest row")


@app.command(epilog=example("state gc scores", "state"))
def gc(out: Output, verbose: Verbose = False) -> None:
    """Remove files left behind by a killed run, as the next run would."""
    from streamrnn.jobs.outputs import clear_leftovers

    print(f"{location(out)}: {count(clear_leftovers(out), 'file')} removed")


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
