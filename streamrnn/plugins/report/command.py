"""Draw on one page what was committed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from streamrnn.base.display import count, location
from streamrnn.cli.guide import example
from streamrnn.cli.report import Json, Quiet, Set, Verbose, print_json
from streamrnn.errors import ConfigError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
_DEFAULT = "report.html"


@app.command("report", epilog=example("report pipeline.toml -o report.html", "evaluate-report"))
def report(
    subject: Annotated[
        str, typer.Argument(metavar="OUT", help="The output folder of a run, or its pipeline file.")
    ],
    overrides: Set = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help=f"The HTML file to write; - for stdout. Default: {_DEFAULT}; with --json none.",
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="KEY", help="Draw this stream by itself. Repeatable, up to 12 times."
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Draw rows from this time on.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Draw rows before this time.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw an output: outputs, rows, streams, features and states over time, and errors.

    One HTML file that needs no network. --json prints the numbers under the pictures.
    """
    from streamrnn.jobs.pipeline import Pipeline
    from streamrnn.plugins.report.reporting import report_output
    from streamrnn.stream.config import is_pipe

    piped = output is not None and is_pipe(output)
    if piped and as_json:
        raise typer.BadParameter("-o - and --json both write to stdout: pass one of them")
    file = output if as_json or output is not None else _DEFAULT
    written = None if piped else file
    request: dict[str, Any] = {"keys": key or (), "since": since, "until": until}
    if "://" not in subject and (subject.endswith(".toml") or Path(subject).is_file()):
        drawn = Pipeline.from_toml(subject, overrides or []).report(written, **request)
    elif overrides:
        raise ConfigError(
            f"--set overrides a key of a pipeline file; {location(subject)} is not a pipeline file"
        )
    else:
        drawn = report_output(subject, written, **request)
    if as_json:
        print_json(drawn.as_dict())
    elif piped:
        print(drawn.html(), end="")
    elif not quiet:
        print(f"wrote {location(str(written))}: {count(len(drawn.pictures), 'picture')}")
