"""`streamrnn init` and `streamrnn schema`: help for writing a pipeline file."""

import json
from pathlib import Path
from typing import Annotated

import typer

from streamrnn.errors import ConfigError


def init(
    path: Annotated[Path, typer.Argument(metavar="[PATH]", help="The file to write.")] = Path(
        "pipeline.toml"
    ),
) -> None:
    """Write a sample pipeline file. It shows every key, its default and what it does."""
    from streamrnn.config import sample

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(sample())
    except FileExistsError:
        raise ConfigError(f"{path} already exists; choose another name, or remove it") from None
    print(f"wrote {path}; edit it, then check it: streamrnn validate {path}")


def schema() -> None:
    """Print the JSON Schema of the pipeline file, for editors."""
    from streamrnn.config import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
