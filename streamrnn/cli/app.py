"""The `streamrnn` command: its subcommands, and how errors are reported.

The exit codes are in the help (`EXIT_CODES`). A traceback is printed only with -v, and only for an
unexpected error.
"""

import errno
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
import typer.core

from streamrnn import __version__
from streamrnn.base.plugin import load_plugin, plugin_names, plugin_summary
from streamrnn.cli import check, evaluate, fit, guide, models, outputs, run
from streamrnn.cli.guide import EXIT_CODES, example
from streamrnn.cli.process import run_without_pandas
from streamrnn.cli.report import LOGGER, error
from streamrnn.errors import StreamRNNError


class _Commands(typer.core.TyperGroup):
    """The commands, followed by the commands of plug-ins, each of which is an app with one command.

    The list of commands has a plug-in's summary from its file; a plug-in is loaded only when its
    command is called.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        of_plugins = [name for name in plugin_names("command") if name not in names]
        return names + [name for name in of_plugins if plugin_summary("command", name) is not None]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in plugin_names("command"):
            command = _OfPlugin(cmd_name, help=plugin_summary("command", cmd_name))
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, _OfPlugin):
            command = typer.main.get_command(load_plugin("command", str(name)))
        return name, command, rest


class _OfPlugin(typer.core.TyperCommand):
    """A plug-in's entry in the list of commands, while the plug-in is not loaded."""


app = typer.Typer(
    name="streamrnn",
    cls=_Commands,
    help="Score logs of many streams with recurrent models that carry their state.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_COMMANDS: dict[str, tuple[Callable[..., None], str, str]] = {
    "run": (run.run, "run pipeline.toml --set window.lanes=32", "daily-job"),
    "fit": (fit.fit, "fit pipeline.toml --set train.epochs=3", "train"),
    "validate": (check.validate, "validate pipeline.toml", "troubleshooting"),
    "explain": (check.explain, "explain pipeline.toml --json", "start"),
    "compile": (check.compile_pipeline, "compile pipeline.toml", "performance"),
    "evaluate": (evaluate.evaluate, "evaluate pipeline.toml --by month --json", "evaluate-report"),
    "summary": (models.summary, "summary model.keras", "keras-model"),
    "convert": (
        models.convert,
        "convert model.keras model.safetensors --check check.npz",
        "torch-onnx-model",
    ),
    "verify": (outputs.verify, "verify scores", "guarantees"),
    "rewind": (outputs.rewind, "rewind scores --to 12", "daily-job"),
    "publish": (outputs.publish, "publish scores", "results"),
    "compact": (outputs.compact, "compact scores", "daily-job"),
    "init": (guide.init, "init new.toml --from data/log --model model.keras", "start"),
    "guide": (guide.guide, "guide keras-model", "index"),
    "schema": (guide.schema, "schema > pipeline.schema.json", "keys"),
}
"""Name -> function, example, page of the guide."""
for _name, (_function, _example, _page) in _COMMANDS.items():
    _codes = f"\n\n{EXIT_CODES}" if _name in ("run", "fit", "publish") else ""
    _class = run.RunCommand if _name == "run" else None
    app.command(_name, cls=_class, epilog=f"{example(_example, _page)}{_codes}")(_function)
app.add_typer(outputs.state, name="state")


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"streamrnn {__version__}")
        raise typer.Exit


@app.callback()
def _streamrnn(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Score logs of many streams with recurrent models that carry their state."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Always raises SystemExit with one of the exit codes.

    `arguments` default to sys.argv; the command then runs without pandas.
    """
    if arguments is None:
        run_without_pandas()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a path may not be UTF-8
    code = 1
    try:
        app(args=arguments, prog_name="streamrnn")
    except StreamRNNError as problem:
        code = problem.exit_code
        if code:  # 0: the reader closed the pipe, which is not a failure
            error("\n".join([str(problem), *getattr(problem, "__notes__", ())]))
            print(f"more: streamrnn guide {guide.page_on(type(problem))}", file=sys.stderr)
    except OSError as problem:
        error(_describe(problem))
    except ImportError as problem:
        error(f"cannot load a library: {problem}. Check that there is enough memory (ulimit -v); "
              "if there is, reinstall streamrnn and its dependencies")  # fmt: skip
    except MemoryError as problem:
        error(f"out of memory{f': {problem}' if str(problem) else ''}; "
              "reduce window.lanes, window.steps or source.batch_rows")  # fmt: skip
    except Exception as problem:  # noqa: BLE001 - a user must not see a bare traceback
        if LOGGER.isEnabledFor(logging.DEBUG):
            traceback.print_exc()
        error(_unexpected(problem))
    finally:
        try:
            if sys.stdout is not None:  # closed by the caller
                sys.stdout.flush()
        except BrokenPipeError:  # the reader is gone, which Python would report at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _unexpected(problem: Exception) -> str:
    if "can't start new thread" in str(problem):
        return (
            "cannot start a thread: not enough memory, or too many processes of this user "
            "(ulimit -v, ulimit -u)"
        )
    if isinstance(problem, SystemError):  # from C code that failed, mostly for lack of memory
        return (
            f"a library failed: {problem}. Check that there is enough memory (ulimit -v); if there "
            "is, report the failure with the output of the same command with -v."
        )
    return (
        f"unexpected {type(problem).__name__}: {problem}\n"
        "This is a bug in streamrnn. Please report it with the output of the same command with -v."
    )


def _describe(problem: OSError) -> str:
    if problem.errno == errno.ENOSPC:
        reason = "no space left on the device; free some space, then rerun the same command"
    elif "shared object" in str(problem):  # from llvmlite, which does not pass the cause on
        reason = f"cannot load a library: {problem}. Check that there is enough memory (ulimit -v)"
    else:
        reason = problem.strerror or str(problem)
    return f"{problem.filename}: {reason}" if problem.filename is not None else reason
