"""Rows of contracts for layers that make masks, and for those that hold others: models, graphs."""

from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import naive
import naive_values as values
import numpy as np
from contracts.rows_layers import (
    FEATUREWISE,
    MERGES,
    NO_WEIGHTS,
    RECURRENT,
    SHAPES,
    TOKENS,
    LayerRow,
    before,
    drawn,
    every,
    inputs_of,
    same,
)
from contracts.rows_operations import OPERATIONS
from contracts.rows_time import TIME

import streamrnn
from streamrnn import Input, Model, Sequential, layers

GRAPH = Path(__file__).parents[1] / "nn" / "formats" / "files" / "tf2onnx.onnx"


def gru() -> layers.Layer:
    return layers.GRU(3, return_sequences=True)


def steps_of(x: Any) -> Any:
    """The mask of the steps that are not all zeros, as Keras 3 writes it into a graph."""
    return layers.get("Any")()(layers.NotEqual(0)(x))


def masking(mask: Callable[..., Any]) -> Callable[[Any, str], Model]:
    """A GRU over the first input, masked by what mask(layer, *inputs) makes of all."""

    def model(layer: layers.Layer, reads: str) -> Model:
        symbols = inputs_of(reads)
        return Model(symbols, gru()(symbols[0], mask=mask(layer, *symbols)))

    return model


def masked(mask: Callable[..., Any]) -> Callable[..., Any]:
    """The oracle of `masking`; mask(*inputs) in plain Python."""
    return lambda w, *x: every(naive.gru(*w), x[0], mask_BT=mask(*x))


def either(*inputs: Any) -> Any:
    return values.each(max, *[values.differs(x) for x in inputs])


def made(name: str) -> Callable[[], layers.Layer]:
    return lambda: layers.get(name)()


MASK_IN_GRAPH = "Training refuses mask= in a graph, which only graphs of Keras files have."

MASKS = {
    "Masking": LayerRow(
        lambda: layers.Masking(0.0),
        lambda w, x: every(naive.gru(*w), x, mask_BT=naive.masking(x)[1]),
        model=before(gru),
    ),
    "Masking/value": LayerRow(lambda: layers.Masking(2.0), lambda _, x: naive.masking(x, 2.0)[0]),
    "Embedding/mask_zero": LayerRow(
        lambda: layers.Embedding(5, 3, mask_zero=True),
        lambda w, ids: every(
            naive.gru(*w[1:]),
            naive.embedding(ids, w[0]),
            mask_BT=values.each(lambda n: n != 0, ids),
        ),
        reads="ids",
        model=before(gru),
    ),
    "NotEqual": LayerRow(
        lambda: layers.NotEqual(0.0),
        masked(values.differs),
        model=masking(lambda layer, x: layers.get("Any")()(layer(x))),
        trained=MASK_IN_GRAPH,
    ),
    "Any": LayerRow(
        made("Any"),
        masked(values.differs),
        model=masking(lambda layer, x: layer(layers.NotEqual(0)(x))),
        trained=MASK_IN_GRAPH,
    ),
    "LogicalOr": LayerRow(
        made("LogicalOr"),
        masked(either),
        reads="two",
        model=masking(lambda layer, *x: layer([steps_of(each) for each in x])),
        trained=MASK_IN_GRAPH,
    ),
    "ExpandDims": LayerRow(
        made("ExpandDims"),
        masked(values.differs),
        model=masking(lambda layer, x: layers.get("Any")()(layer(steps_of(x)))),
        trained=MASK_IN_GRAPH,
    ),
    "JoinedMasks": LayerRow(
        made("JoinedMasks"),
        masked(either),
        reads="two",
        model=masking(
            lambda layer, *x: layers.get("Any")()(
                layer([layers.get("ExpandDims")()(steps_of(each)) for each in x])
            )
        ),
        trained=MASK_IN_GRAPH,
    ),
    "OnesLike": LayerRow(
        made("OnesLike"),
        lambda w, x: every(naive.gru(*w), x),
        model=masking(lambda layer, x: layer(steps_of(x))),
        trained=MASK_IN_GRAPH,
    ),
    "ZerosLike": LayerRow(
        made("ZerosLike"),
        masked(lambda x: [[False for _ in row] for row in x]),
        model=masking(lambda layer, x: layer(steps_of(x))),
        trained=MASK_IN_GRAPH,
    ),
}


def whole_model() -> Model:
    """Two branches of one input, a layer called twice, and a masked recurrent layer behind."""
    x, dense = Input((None, 4)), layers.Dense(4, "tanh")
    y = layers.Concatenate()([dense(x), dense(layers.Rescaling(2.0)(x))])
    return Model(x, layers.LSTM(3, return_sequences=True)(y))


def naive_model(w: Any, x: Any) -> Any:
    halves = [naive.dense(each, *w[:2], activation="tanh") for each in (x, naive.rescaling(x, 2.0))]
    return every(naive.lstm(*w[2:]), values.joined(*halves))


OF_ONNX = "A graph of ONNX has no rule in streamrnn/nn/training/rules.py."
RECORDED = "Its graph is judged by ONNX Runtime's recorded outputs: the row of the format .onnx."


def dropping_model() -> Model:
    x = Input((None, 4))
    return Model(x, layers.Dropout(0.5, seed=1)(x))


def dropped(model: Any, _: Any, x: Any) -> Any:
    drop = model.layers[-1]
    return np.where(drawn(drop, *np.shape(x)) < 0.5, 0, x) / 0.5


GRAPHS = {
    "InputLayer": LayerRow(
        lambda: layers.InputLayer((None, 4)),
        lambda _, x: naive.rescaling(x, 2.0),
        model=lambda layer, _: Model(layer.symbol, layers.Rescaling(2.0)(layer.symbol)),
    ),
    "Model": LayerRow(whole_model, naive_model, model=lambda model, _: model),
    "Model/nested": LayerRow(
        whole_model,
        lambda w, x: naive.activation(naive_model(w, x), "softmax"),
        model=before(layers.Softmax),
    ),
    "Model/dropping": LayerRow(
        dropping_model, same, model=lambda model, _: model, training=dropped
    ),
    "Sequential": LayerRow(
        lambda: Sequential([Input((None, 4)), gru(), layers.Dense(2), layers.Dropout(0.5, seed=1)]),
        lambda w, x: naive.dense(every(naive.gru(*w[:3]), x), *w[3:]),
        model=lambda model, _: model,
        training=lambda model, w, x: dropped(
            model, w, naive.dense(every(naive.gru(*w[:3]), x), *w[3:])
        ),
    ),
    "OnnxModel": LayerRow(
        lambda: streamrnn.load_model(GRAPH),
        RECORDED,
        reads="three",
        model=lambda model, _: model,
        trained=OF_ONNX,
        training="It takes its inputs by name, and no training.",
    ),
    "OnnxGraph": LayerRow(
        lambda: attrgetter("layer")(streamrnn.load_model(GRAPH)),
        RECORDED,
        reads="three",
        trained=OF_ONNX,
    ),
    "OnnxIds": LayerRow(
        lambda: layers.get("OnnxIds")(),
        lambda _, ids: values.each(lambda n: [2.0 * n], ids),
        reads="ids",
        trained=NO_WEIGHTS,
        model=before(lambda: layers.Rescaling(2.0)),
    ),
}

LAYERS = {**RECURRENT, **FEATUREWISE, **SHAPES, **TIME, **MERGES, **TOKENS, **MASKS, **GRAPHS}
LAYERS |= OPERATIONS
