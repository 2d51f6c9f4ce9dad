"""`streamrnn summary` and `streamrnn convert`: model files."""

from typing import Annotated

import typer

from streamrnn.base.plugin import load_plugin
from streamrnn.cli.report import Verbose

FILE = "A model file: .safetensors, .keras, .h5, .hdf5 or .onnx."
ModelFile = Annotated[str, typer.Argument(metavar="MODEL", help=FILE)]


def summary(
    model: ModelFile,
    mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print the graph as a Mermaid flowchart.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Print a model's layers, shapes and parameters."""
    from streamrnn.nn.formats import load_model
    from streamrnn.nn.models import model_mermaid

    loaded = load_model(model)
    if mermaid:
        print(model_mermaid(loaded))
    else:
        loaded.summary()


def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help=FILE)],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            help="The file to write: .safetensors, .torch.safetensors, .keras or .onnx.",
        ),
    ],
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A TOML file with [[model.layers]], for weights without an architecture.",
        ),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Convert one recurrent node of an ONNX graph."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a file with arrays that no layer uses.")
    ] = False,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Compare with recorded inputs x and outputs y of the original framework (.npz).",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            metavar="P",
            help="int16 or int8: store the weights of LSTM, GRU and SimpleRNN, and of large Dense "
            "and Conv1D layers, as integers: half or a quarter of the size, and faster; --check "
            "shows the error. auto: the precision of IN.",
        ),
    ] = "auto",
    module: Annotated[
        str | None,
        typer.Option(
            "--module",
            metavar="FILE",
            help="Write the PyTorch module that loads OUT, a .torch.safetensors file.",
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Convert a model to the native format, PyTorch, Keras or ONNX.

    Shows which array became which weight.

    In an ONNX graph, each recurrent state is an input and an output, whose names are shown, too.
    """
    from streamrnn.nn.formats.convert import convert as convert_file
    from streamrnn.nn.formats.convert import is_onnx
    from streamrnn.nn.models import Eager
    from streamrnn.nn.models.rounding import RoundingError
    from streamrnn.nn.models.steps import notes_on_steps, own_steps

    loaded, differences = convert_file(
        source,
        target,
        layers=layers,
        node=node,
        strict=strict,
        check=check,
        precision=precision,
        module=module,
    )
    print("\n".join(loaded.table()))
    if loaded.model.precision != "float32":
        print(f"precision: {loaded.model.precision}; streamrnn summary {target} names the layers")
    if not isinstance(loaded.model, Eager):
        for note in notes_on_steps(loaded.model, own_steps(loaded.model, None)):
            print(f"note: {note}")
    for difference in differences:
        print(f"checked: {difference}")
        if isinstance(difference, RoundingError) and (warning := difference.warning()):
            print(f"warning: {warning}")
    if is_onnx(target):
        states = load_plugin("export", "onnx").state_names(loaded.model)
        for before, after in states.items():
            print(f"state: input {before}, next value {after}")
    print(f"wrote {target}")
