"""Layers as ONNX operators, by their exact class: a custom subclass may compute anything."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from streamrnn.nn import layers
from streamrnn.nn.layers import Layer, registry
from streamrnn.nn.layers.activation import LEAST_DEVIATION
from streamrnn.plugins.onnx.export_activations import activated, clipped_relu
from streamrnn.plugins.onnx.export_call import LayerCall
from streamrnn.plugins.onnx.export_recurrent import recurrent_node

_REASONS = {
    layers.Bidirectional: "its second direction reads each window from its end, so that no state "
    "can be carried to the next one",
    layers.StringLookup: "give the model the ids, as an Input of dtype int64",
    layers.IntegerLookup: "give the model the ids, as an Input of dtype int64",
}


def exported(call: LayerCall) -> list[str]:
    """Append the nodes of a call, and return the names of its outputs.

    Raises UnsupportedError that names the layer, and what ONNX has instead.
    """
    layer = call.layer
    if layer.makes_mask:
        raise call.refused(
            "it masks steps, and recurrent nodes of ONNX have no masks; remove the masked steps "
            "before the model reads them"
        )
    if getattr(layer, "axes", (-1,)) != (-1,):
        raise call.refused("it works on axes other than the last; use axis = -1")
    if type(layer) in _RECURRENT:
        return recurrent_node(call)
    if type(layer) in _WRITERS:
        return [_WRITERS[type(layer)](call)]
    listed = ", ".join(sorted(kind.__name__ for kind in (*_WRITERS, *_RECURRENT)))
    raise call.refused(
        _REASONS.get(type(layer))
        or f"the layers that can be are {listed}. Leave it out of the model, or write the model as "
        ".safetensors, which has every layer"
    )


def _dense(call: LayerCall) -> str:
    w = call.layer.named_weights()
    y = call.add("MatMul", call.inputs[0], call.constant("kernel", w["kernel"]))
    if "bias" in w:
        y = call.add("Add", y, call.constant("bias", w["bias"]))
    return activated(call, call.layer.activation, y)


def _relu(call: LayerCall) -> str:
    layer, (x,) = call.layer, call.inputs
    if layer.threshold or (layer.negative_slope and layer.max_value is not None):
        raise call.refused("no operator has its threshold, or both a slope and a largest value")
    if layer.max_value is not None:
        return clipped_relu(call, x, layer.max_value)
    if layer.negative_slope:
        return call.add("LeakyRelu", x, alpha=layer.negative_slope)
    return call.add("Relu", x)


def _normalization(call: LayerCall) -> str:
    layer, (x,) = call.layer, call.inputs
    mean = layer.named_weights()["mean"] if layer.mean is None else layer.mean.reshape(-1)
    center, scale = call.constant("mean", mean), call.constant("deviation", layer.deviation())
    if layer.invert:
        return call.add("Add", call.add("Mul", x, scale), center)
    return call.add("Div", call.add("Sub", x, center), scale)


def _rescaling(call: LayerCall) -> str:
    y = call.add("Mul", *call.inputs, call.constant("scale", call.layer.scale))
    return call.add("Add", y, call.constant("offset", call.layer.offset))


def _layer_normalization(call: LayerCall) -> str:
    layer = call.layer
    w, ones = layer.named_weights(), np.ones(layer.features, np.float32)
    scale = call.constant("gamma", w.get("gamma", ones))
    shift = [call.constant("beta", w["beta"])] if layer.center else []
    return call.add(
        "LayerNormalization", *call.inputs, scale, *shift, axis=-1, epsilon=float(layer.epsilon)
    )


def _batch_normalization(call: LayerCall) -> str:
    layer = call.layer
    w = layer.named_weights()
    factor = layer.factor(w["moving_variance"])
    shift = -w["moving_mean"] * factor
    if layer.center:
        shift = shift + w["beta"]
    y = call.add("Mul", *call.inputs, call.constant("factor", factor))
    return call.add("Add", y, call.constant("shift", shift))


def _gaussian(call: LayerCall) -> str:
    halves = [call.builder.fresh(f"{call.path}/{name}") for name in ("mean", "above")]
    call.builder.node("Split", call.inputs, halves, halves[0], axis=-1)
    least = call.constant("least", LEAST_DEVIATION)
    deviation = call.add("Add", call.add("Softplus", halves[1]), least)
    return call.add("Concat", halves[0], deviation, axis=-1)


def _embedding(call: LayerCall) -> str:
    (ids,) = call.inputs
    if ids not in call.builder.integers:
        raise call.refused("its ids are computed; they must be an input of the model")
    table = call.constant("embeddings", call.layer.get_weights()[0])
    return call.add("Gather", table, ids, axis=0)


def _pairwise(op: str) -> Callable[[LayerCall], str]:
    return lambda call: reduce(lambda a, b: call.add(op, a, b), call.inputs)


def _mean(call: LayerCall) -> str:
    total = reduce(lambda a, b: call.add("Add", a, b), call.inputs)
    return call.add("Div", total, call.constant("number", len(call.inputs)))


def _spread(call: LayerCall) -> str:
    mean = _mean(call)
    errors = [call.add("Sub", x, mean) for x in call.inputs]
    squares = reduce(lambda a, b: call.add("Add", a, b), [call.add("Mul", e, e) for e in errors])
    part = call.add("Div", squares, call.constant("number", len(errors)))
    variance = call.constant("variance", call.layer.variance)
    return call.add("Sqrt", call.add("Add", part, variance))


def _reshape(call: LayerCall) -> str:
    # 0 copies the number of rows.
    sizes = np.array([0, *call.layer.target_shape], np.int64)
    return call.add("Reshape", *call.inputs, call.builder.constant(f"{call.owner}/shape", sizes))


def _time_distributed(call: LayerCall) -> str:
    inner: Layer = call.layer.layer
    if type(inner) not in _ON_FEATURES:
        listed = ", ".join(sorted(kind.__name__ for kind in _ON_FEATURES))
        raise call.refused(f"the layer inside is {inner}; supported are {listed}")
    within = LayerCall(
        call.builder, inner, f"{call.path}/layer", f"{call.owner}/layer", call.inputs
    )
    return exported(within)[0]


_RECURRENT = registry.own_classes(layers.RNN)
_ON_FEATURES: dict[type[Any], Callable[[LayerCall], str]] = {
    **dict.fromkeys(
        (
            layers.ActivityRegularization,
            layers.AlphaDropout,
            layers.Dropout,
            layers.GaussianDropout,
            layers.GaussianNoise,
            layers.Identity,
            layers.SpatialDropout1D,
        ),
        lambda call: call.inputs[0],
    ),
    layers.Activation: lambda call: activated(call, call.layer.activation, call.inputs[0]),
    layers.BatchNormalization: _batch_normalization,
    layers.Dense: _dense,
    layers.ELU: lambda call: call.add("Elu", *call.inputs, alpha=float(call.layer.alpha)),
    layers.Embedding: _embedding,
    layers.Gaussian: _gaussian,
    layers.LayerNormalization: _layer_normalization,
    layers.LeakyReLU: lambda call: call.add(
        "LeakyRelu", *call.inputs, alpha=float(call.layer.negative_slope)
    ),
    layers.Normalization: _normalization,
    layers.PReLU: lambda call: call.add(
        "PRelu", *call.inputs, call.constant("alpha", call.layer.get_weights()[0])
    ),
    layers.ReLU: _relu,
    layers.Rescaling: _rescaling,
    layers.Softmax: lambda call: call.add("Softmax", *call.inputs, axis=-1),
}
"""Layers that compute each step alike, whatever the axes before the last."""
_WRITERS: dict[type[Any], Callable[[LayerCall], str]] = {
    **_ON_FEATURES,
    layers.Add: _pairwise("Add"),
    layers.Average: _mean,
    layers.Concatenate: lambda call: call.add("Concat", *call.inputs, axis=call.layer.from_end),
    layers.Flatten: lambda call: call.add("Flatten", *call.inputs, axis=1),
    layers.Maximum: lambda call: call.add("Max", *call.inputs),
    layers.Minimum: lambda call: call.add("Min", *call.inputs),
    layers.Multiply: _pairwise("Mul"),
    layers.Reshape: _reshape,
    layers.Spread: _spread,
    layers.Subtract: _pairwise("Sub"),
    layers.TimeDistributed: _time_distributed,
}
