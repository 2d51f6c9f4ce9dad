"""Rows of contracts for operations: one for each kind of function, and those with own gradients."""

from collections.abc import Callable
from typing import Any

import naive
import numpy as np
from contracts.rows_layers import LayerRow, inputs_of, last

from streamrnn import Model, layers

IN_TIME = "It combines the steps of the time axis."
PICKS = "It takes some steps of the time axis."
NO_RULE = "It has no rule in training, which refuses it."
MOVES = "It may move the time axis."


def made(function: str, *operands: Any, **arguments: Any) -> Callable[[], layers.Operation]:
    """An operation on one tensor, or on operands with "input" for each tensor."""
    return lambda: layers.Operation(function, operands or ("input",), arguments)


def of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The oracle: a function of NumPy in float64."""
    return lambda _, *inputs: function(*[np.array(x, np.float64) for x in inputs]).tolist()


def positive(layer: layers.Layer, reads: str) -> Model:
    """The layer behind x * x + 0.5."""
    (x,) = inputs_of(reads)
    return Model(x, layer(x * x + 0.5))


def of_positive(function: Callable[..., Any]) -> Callable[..., Any]:
    return of(lambda x: function(x * x + 0.5))


def softmax(x: Any) -> Any:
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def slices(*entries: Any) -> list[Any]:
    return [{"slice": list(e)} if isinstance(e, tuple) else e for e in entries]


FULL = (None, None, None)

ROWS = {
    "": LayerRow(made("add", "input", "input"), of(np.add), reads="two"),
    "/number": LayerRow(made("multiply", "input", 2.5), of(lambda x: x * 2.5)),
    "/number_first": LayerRow(made("subtract", 1.0, "input"), of(lambda x: 1 - x)),
    "/numbers": LayerRow(
        made("true_divide", "input", [1.0, 2.0, -3.0, 4.0]),
        of(lambda x: x / np.array([1, 2, -3, 4])),
    ),
    "/steps": LayerRow(
        made("add", "input", [[float(t)] for t in range(6)]),
        of(lambda x: x + np.arange(6)[:, None]),
        reads="six steps",
        cut="It has a number for each step.",
    ),
    "/quotient": LayerRow(
        made("true_divide", 1.0, "input"), of_positive(lambda x: 1 / x), model=positive
    ),
    "/power": LayerRow(made("power", "input", 3), of(lambda x: x**3)),
    "/root": LayerRow(made("power", "input", 0.5), of_positive(np.sqrt), model=positive),
    "/inverse": LayerRow(made("power", "input", -2), of_positive(lambda x: x**-2), model=positive),
    "/log": LayerRow(made("log"), of_positive(np.log), model=positive),
    "/sqrt": LayerRow(made("sqrt"), of_positive(np.sqrt), model=positive),
    "/rsqrt": LayerRow(made("rsqrt"), of_positive(lambda x: x**-0.5), model=positive),
    "/exp": LayerRow(made("exp"), of(np.exp)),
    "/square": LayerRow(made("square"), of(np.square)),
    "/negative": LayerRow(made("negative"), of(np.negative)),
    "/absolute": LayerRow(made("absolute"), of(np.abs)),
    "/tanh": LayerRow(made("tanh"), of(np.tanh)),
    "/sigmoid": LayerRow(made("sigmoid"), of(lambda x: 1 / (1 + np.exp(-x)))),
    "/relu": LayerRow(made("relu"), of(lambda x: np.maximum(x, 0))),
    "/softmax": LayerRow(made("softmax"), of(softmax)),
    "/product": LayerRow(made("multiply", "input", "input"), of(np.multiply), reads="two"),
    "/maximum": LayerRow(made("maximum", "input", "input"), of(np.maximum), reads="two"),
    "/minimum": LayerRow(made("minimum", "input", 0.1), of(lambda x: np.minimum(x, 0.1))),
    "/clip": LayerRow(made("clip", x_min=-0.4, x_max=0.6), of(lambda x: np.clip(x, -0.4, 0.6))),
    "/where": LayerRow(
        made("where", "input", "input", 0.5), of(lambda a, b: np.where(a != 0, b, 0.5)), reads="two"
    ),
    "/greater": LayerRow(
        made("greater", "input", 0.1),
        of(lambda x: (x > 0.1) * 1.0),
        model=lambda layer, reads: Model(x := inputs_of(reads)[0], layer(x) * 1.0),
    ),
    "/modulo": LayerRow(
        made("mod", "input", 2.0),
        of(lambda x: x % 2),
        trained=NO_RULE,
    ),
    "/mean": LayerRow(
        made("mean", axis=-1, keepdims=True), of(lambda x: x.mean(-1, keepdims=True))
    ),
    "/mean_in_time": LayerRow(made("mean", axis=1), of(lambda x: x.mean(1)), cut=IN_TIME),
    "/sum_in_time": LayerRow(
        made("sum", axis=[1], keepdims=True), of(lambda x: x.sum(1, keepdims=True)), cut=IN_TIME
    ),
    "/max_in_time": LayerRow(
        made("max", axis=1),
        of(lambda x: x.max(1)),
        cut=IN_TIME,
        trained=NO_RULE,
    ),
    "/features": LayerRow(
        made("get_item", key=slices("...", (1, 3, None))), of(lambda x: x[..., 1:3])
    ),
    "/last_step": LayerRow(
        made("get_item", key=slices(FULL, -1)), of(lambda x: x[:, -1]), cut=PICKS
    ),
    "/of_last_output": LayerRow(
        made("get_item", key=slices(FULL, (None, None, 2))),
        lambda w, x: np.array(last(naive.gru(*w), x))[:, ::2].tolist(),
        model=lambda layer, reads: Model(x := inputs_of(reads)[0], layer(layers.GRU(3)(x))),
    ),
    "/joined": LayerRow(
        made("concatenate", "input", "input", axis=-1),
        of(lambda a, b: np.concatenate([a, b], -1)),
        reads="two",
    ),
    "/stacked": LayerRow(
        made("stack", "input", "input", axis=-1),
        of(lambda a, b: np.stack([a, b], -1).sum(-1)),
        reads="two",
        model=lambda layer, reads: Model(
            both := inputs_of(reads), layers.Operation("sum", arguments={"axis": -1})(layer(both))
        ),
    ),
    "/new_axis": LayerRow(
        made("expand_dims", axis=2),
        of(lambda x: x),
        model=lambda layer, reads: Model(
            x := inputs_of(reads)[0], layers.Operation("squeeze", arguments={"axis": 2})(layer(x))
        ),
    ),
    "/reshape": LayerRow(
        made("reshape", newshape=[-1, 24]),
        of(lambda x: x.reshape(-1, 24)),
        reads="six steps",
        cut=MOVES,
    ),
    "/log1p": LayerRow(made("log1p"), of_positive(np.log1p), model=positive),
    "/take": LayerRow(
        made("take", indices=[2, 0], axis=-1), of(lambda x: x[..., [2, 0]]), trained=NO_RULE
    ),
    "/roll": LayerRow(
        made("roll", shift=1, axis=-1), of(lambda x: np.roll(x, 1, -1)), trained=NO_RULE
    ),
    "/normalize": LayerRow(
        made("normalize"),
        of(lambda x: x / np.maximum(np.sqrt((x * x).sum(-1, keepdims=True)), 1e-7)),
        trained=NO_RULE,
    ),
    "/cumsum_in_time": LayerRow(
        made("cumsum", axis=1), of(lambda x: np.cumsum(x, 1)), cut=IN_TIME, trained=NO_RULE
    ),
    "/pad": LayerRow(
        made("pad", pad_width=[[0, 0], [2, 1], [0, 0]]),
        of(lambda x: np.pad(x, [[0, 0], [2, 1], [0, 0]])),
        cut=MOVES,
        trained=NO_RULE,
    ),
    "/tile": LayerRow(
        made("tile", repeats=[1, 2, 1]),
        of(lambda x: np.tile(x, [1, 2, 1])),
        cut=MOVES,
        trained=NO_RULE,
    ),
    "/matmul": LayerRow(
        made("matmul", "input", [[1.0, 2.0], [0.5, 0.0], [-1.0, 3.0], [0.1, 0.2]]),
        of(lambda x: x @ np.array([[1, 2], [0.5, 0], [-1, 3], [0.1, 0.2]])),
        cut=MOVES,
        trained=NO_RULE,
    ),
    "/flip": LayerRow(made("flip", axis=-1), of(lambda x: x[..., ::-1])),
}
OPERATIONS = {f"Operation{name}": row for name, row in ROWS.items()}
