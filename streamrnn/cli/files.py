"""`streamrnn init` and `streamrnn schema`: help for writing a pipeline file."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from streamrnn.base.display import location, uri_fault
from streamrnn.errors import ConfigError


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
        str | None, typer.Option(metavar="FILE", help="With --from: the model to score it with.")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Write demo.toml with a log and a model, ready to run.")
    ] = False,
) -> None:
    """Write a sample pipeline file. It shows every key, its default and what it does."""
    from streamrnn.stream.config import is_pipe, sample

    if demo:
        if (file, data, model) != (None, None, None):
            raise typer.BadParameter("--demo writes demo.toml; leave out PATH, --from and --model")
        from streamrnn.jobs.guesses import write_demo

        pipeline, *others = write_demo()
        print(f"wrote {pipeline}, {' and '.join(others)}; run it: streamrnn run {pipeline}")
        return
    file = "pipeline.toml" if file is None else file
    if (data is None) != (model is None):
        raise typer.BadParameter("--from and --model go together: pass both, or neither")
    if "://" in file or uri_fault(file):
        raise ConfigError(
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


def _exists(path: Path) -> ConfigError:
    return ConfigError(f"{path} already exists; choose another name, or remove it")


def schema() -> None:
    """Print the JSON Schema of the pipeline file, for editors."""
    from streamrnn.stream.config import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
