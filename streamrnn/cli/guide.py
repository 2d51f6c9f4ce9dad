"""`streamrnn guide`, `init` and `schema`: help for users; and the epilogs of help texts."""

import difflib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from streamrnn import errors
from streamrnn.base.display import location, uri_fault

# "\b": click keeps the line breaks of the paragraph.
EXIT_CODES = """\b
Exit codes:
  0    done
  1    the run failed; `state diff`: tables differ
  2    invalid command line: command, option or value
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


def init(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATH]", help="The file to write; - for stdout.", show_default="pipeline.toml"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--from", metavar="DATA", help="Guess key, time and features of this data."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="FILE", help="With --from: the model that scores DATA.")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Write the files that the guide uses, ready to run.")
    ] = False,
) -> None:
    """Write a sample pipeline file. It shows every key, its default and what it does.

    With --from and --model, write a draft for this data and model instead.
    """
    from streamrnn.stream.config import is_pipe, sample

    if demo:
        if (file, data, model) != (None, None, None):
            raise typer.BadParameter("--demo goes alone; leave out PATH, --from and --model")
        from streamrnn.jobs.guesses import write_demo

        files = write_demo()
        print(f"wrote {len(files)} files in data and pipelines; run: streamrnn run {files[0]}")
        return
    file = "pipeline.toml" if file is None else file
    if (data is None) != (model is None):
        raise typer.BadParameter("--from and --model go together: pass both, or neither")
    if "://" in file or uri_fault(file):
        raise errors.ConfigError(
            f"{location(file)}: a pipeline file is written to a disk, not to a URI; write it to a "
            "disk, and copy it"
        )
    piped, path = is_pipe(file), Path(file)
    if not piped and path.exists():
        raise _exists(path)
    todos: list[str] = []
    if data is None or model is None:
        text = sample()
    else:
        from streamrnn.jobs.guesses import draft_pipeline

        draft = draft_pipeline(data, model)
        text, todos = draft.text, draft.todos
        for guess in draft.guesses:
            print(f"guessed: {guess}", file=sys.stderr)
        for todo in todos:
            print(f"TODO: {todo}", file=sys.stderr)
    if piped:
        print(text, end="")
        return
    try:
        with path.open("x", encoding="utf-8") as output:
            output.write(text)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:
        path.unlink(missing_ok=True)  # otherwise the same command would refuse to replace it
        raise
    edit = "fill in each TODO" if todos else "edit it"
    print(f"wrote {path}; {edit}, then check it: streamrnn validate {path}")


def _exists(path: Path) -> errors.ConfigError:
    return errors.ConfigError(f"{path} already exists; choose another name, or remove it")


def schema() -> None:
    """Print the JSON Schema of the pipeline file, for editors."""
    from streamrnn.stream.config import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
