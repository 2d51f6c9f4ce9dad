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
    check: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Compare with inputs x and outputs y that the original framework gave (.npz).",
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Write a model in the native format. Shows which array became which weight."""
    from streamrnn.formats.convert import convert as convert_file

    loaded, differences = convert_file(
        source, target, layers=layers, node=node, strict=strict, check=check
    )
    print("\n".join(loaded.table()))
    for difference in differences:
        print(f"checked: {difference}")
    print(f"wrote {target}")
