"""The precision of recurrent layers: weights as float32, or as integers (`kernels.integers`)."""

from collections.abc import Iterator, Mapping

from streamrnn.errors import ConfigError, ModelFileError, UnsupportedError
from streamrnn.kernels.integers import FLOAT32, PRECISIONS, Integers
from streamrnn.layers.gated import GatedCell
from streamrnn.layers.layer import Layer


def gated_cells(layer: Layer, path: str = "") -> Iterator[tuple[str, GatedCell]]:
    """Yield the cells in a layer or model that may be packed, each with the path of its weights."""
    if isinstance(layer, GatedCell) and layer.packable():
        yield path, layer
    for name, child in layer.children().items():
        yield from gated_cells(child, f"{path}/{name}".lstrip("/"))


def packed_weights(layer: Layer) -> dict[str, Integers]:
    """Return the weights that are integers, by the names of `named_weights`."""
    return {
        f"{path}/{name}".lstrip("/"): integers
        for path, cell in gated_cells(layer)
        for name, integers in cell.integers.items()
    }


def precision_of(layer: Layer) -> str:
    """Return the precision of a layer or model: of its packed cells, float32 if there are none."""
    found = [integers.precision for integers in packed_weights(layer).values()]
    return found[0] if found else FLOAT32


def set_precision(model: Layer, precision: str) -> None:
    """Round the weights of all LSTM, GRU and SimpleRNN cells, in place; other layers keep float32.

    `precision`: one of PRECISIONS, or "auto", which changes nothing. Raises ConfigError for another
    one, or for weights that are integers already, UnsupportedError if there is no such cell.
    """
    before = precision_of(model)
    if precision not in (*PRECISIONS, "auto"):
        raise ConfigError(
            f"precision must be auto or one of {', '.join(PRECISIONS)}, received {precision!r}"
        )
    if precision in ("auto", before):
        return
    if before != FLOAT32:
        raise ConfigError(
            f"the weights of {model} are stored as {before}: they cannot become {precision} again. "
            f'Use the float32 file that this one was converted from, or precision = "{before}"'
        )
    cells = [cell for _, cell in gated_cells(model)]
    if not cells:
        raise UnsupportedError(
            f"{model} has no layer that computes in {precision}: LSTM, GRU and SimpleRNN do, but "
            "not those of an ONNX graph, or with softmax as an activation. Leave precision out"
        )
    for cell in cells:
        cell.round_weights(precision)


def assign_integers(model: Layer, weights: Mapping[str, Integers]) -> None:
    """Make these weights, by the names of `named_weights`, those of their cells.

    Raises ModelFileError if a cell does not take them, or gets one of its two.
    """
    left = dict(weights)
    for path, cell in gated_cells(model):
        names = {name: f"{path}/{name}".lstrip("/") for name in ("kernel", "recurrent_kernel")}
        if all(own in left for own in names.values()):
            cell.set_integers({name: left.pop(own) for name, own in names.items()})
    if left:
        raise ModelFileError(f"stored as integers, but no layer reads them so: {', '.join(left)}")
