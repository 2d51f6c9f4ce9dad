"""`streamrnn summary` and `streamrnn convert`: model files."""

from typing import Annotated

import typer

from streamrnn.cli.report import Verbose

ModelFile = Annotated[str, typer.Argument(help="A model file of any kind.")]


def summary(model: ModelFile, verbose: Verbose = False) -> None:
    """Print a model's layers, shapes and parameters."""
    from streamrnn import load_model

    load_model(model).summary()


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A model file of any kind.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="The .safetensors to write.")],
    verbose: Verbose = False,
) -> None:
    """Write a model file in the native format."""
    from streamrnn import load_model

    load_model(source).save(target)
    print(f"wrote {target}; look at it with: streamrnn summary {target}")
