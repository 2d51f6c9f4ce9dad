"""The `streamrnn` command: its verbs, and what every error becomes.

Exit codes: 0 ok, 1 run failed, 2 usage, 65 data broke the contract, 78 bad config,
130 interrupted after a checkpoint. Nothing that input can cause prints a traceback.
"""

import errno
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from streamrnn import __version__
from streamrnn.cli import check, files, models, outputs, run, states
from streamrnn.cli.lean import run_without_pandas
from streamrnn.cli.report import LOGGER, error
from streamrnn.errors import StreamRNNError

app = typer.Typer(
    name="streamrnn",
    help="Score Parquet logs of many streams with recurrent models that carry their state.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("validate")(check.validate)
app.command("explain")(check.explain)
app.command("compile")(check.compile_pipeline)
app.command("summary")(models.summary)
app.command("convert")(models.convert)
app.add_typer(states.app, name="state")
app.command("verify")(outputs.verify)
app.command("rewind")(outputs.rewind)
app.command("compact")(outputs.compact)
app.command("init")(files.init)
app.command("schema")(files.schema)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"streamrnn {__version__}")
        raise typer.Exit


@app.callback()
def _streamrnn(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Score Parquet logs of many streams with recurrent models that carry their state."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; always ends in SystemExit with one of the codes above.

    Without arguments it takes those of the process, which is then the command's own.
    """
    if arguments is None:
        run_without_pandas()
    try:
        app(args=arguments, prog_name="streamrnn")
    except StreamRNNError as problem:
        code = problem.exit_code
        if code:  # 0: the reader of a pipe has seen enough, and nothing is wrong
            error(str(problem))
    except OSError as problem:
        error(_in_words(problem))
        code = 1
    except MemoryError as problem:
        error(f"out of memory{f': {problem}' if str(problem) else ''}; "
              "fewer window.lanes, window.steps or source.batch_rows need less")  # fmt: skip
        code = 1
    except Exception as problem:  # noqa: BLE001 - the last line of defence: no bare traceback
        if LOGGER.isEnabledFor(logging.DEBUG):
            traceback.print_exc()
        error(
            f"unexpected {type(problem).__name__}: {problem}\n"
            "This is a bug in streamrnn: please report it, with the output of the same command "
            "and -v."
        )
        code = 1
    sys.exit(code)


def _in_words(problem: OSError) -> str:
    if problem.errno == errno.ENOSPC:
        reason = "no space left on the device; free some, then run the same command again"
    else:
        reason = problem.strerror or str(problem)
    return f"{problem.filename}: {reason}" if problem.filename is not None else reason
