"""`streamrnn guide`: the pages for users, in a terminal; and the epilogs of help texts."""

import difflib
import sys
from pathlib import Path
from typing import Annotated

import typer

from streamrnn import errors

# "\b": click keeps the line breaks of the paragraph.
EXIT_CODES = """\b
Exit codes:
  0    done
  1    the run failed; `state diff`: tables differ
  2    unknown command or option
  65   invalid data, or a damaged model file
  66   pipeline file, model, source, output folder or other input not found
  75   committed, but a table of [publish] is behind; the next run catches up
  78   invalid pipeline file or argument; a model or state that does not fit
  130  interrupted; rerun to resume
  143  terminated by SIGTERM before the run had begun, or by a second one
"""


def example(arguments: str, page: str) -> str:
    """Return the epilog of a command: an example of its arguments, and its page of the guide."""
    return f"\b\nExample:\n  streamrnn {arguments}\n\n\b\nMore:\n  streamrnn guide {page}"


_FOLDER = Path(errors.__file__).parent / "guide"
_WIDEST = 100
"""Largest width of a text, in columns, that is still easy to read."""
_PAGES: dict[type[errors.StreamRNNError], str] = {
    errors.LateRowError: "daily-job",
    errors.DivergedError: "train",
    errors.ModelFileError: "troubleshooting",
    errors.DataError: "messy-log",
    errors.DTypeError: "messy-log",
    errors.ModelMismatchError: "keras-model",
    errors.ConfigError: "keys",
    errors.StateError: "new-model",
    errors.EngineError: "many-machines",
    errors.PublishError: "results",
    errors.AlreadyProcessed: "own-job",
    errors.PositionError: "own-job",
    errors.StreamRNNError: "troubleshooting",
}


def page_on(problem: type[errors.StreamRNNError]) -> str:
    """Return the name of the page that says more about errors of a class.

    >>> page_on(errors.ConfigFileMissingError)
    'keys'
    """
    return next(_PAGES[kind] for kind in problem.__mro__ if kind in _PAGES)


def _names() -> list[str]:
    return sorted(page.stem for page in _FOLDER.glob("*.md"))


def guide(
    page: Annotated[
        str, typer.Argument(metavar="[PAGE]", autocompletion=_names, help="The name of a page.")
    ] = "index",
) -> None:
    """Show a page of the guide. Without PAGE, list the pages."""
    name = page.removesuffix(".md")
    if name not in _names():
        close = difflib.get_close_matches(name, _names(), n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "`streamrnn guide` lists the pages."
        raise typer.BadParameter(f"no such page. {hint}")
    text = (_FOLDER / f"{name}.md").read_text(encoding="utf-8")
    if sys.stdout is None or not sys.stdout.isatty():
        print(text, end="")
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    console.print(Markdown(text, hyperlinks=False), width=min(console.width, _WIDEST))
