"""`streamrnn summary` and `streamrnn convert`: model files."""

from typing import Annotated

import typer

from streamrnn.cli.report import Verbose

ModelFile = Annotated[str, typer.Argument(metavar="MODEL", help="A model file of any kind.")]


def summary(model: ModelFile, verbose: Verbose = False) -> None:
    """Print a model's layers, shapes and parameters."""
    from streamrnn import load_model

    load_model(model).summary()


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="A model file of any kind.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="The .safetensors to write.")],
    layers: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Layers of weights without an architecture (TOML)."),
    ] = None,
    node: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take this recurrent node of an ONNX graph.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a file with arrays that no layer takes.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Write a model in the native format. Shows which array became which weight."""
    from streamrnn.formats.dispatch import read

    loaded = read(source, layers=layers, node=node, strict=strict)
    loaded.model.save(target)
    print("\n".join(loaded.table()))
    print(f"wrote {target}")
