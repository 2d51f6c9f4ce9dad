"""Several trained models as one, which returns the mean and the spread of their outputs."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import ModelMismatchError
from streamrnn.nn.layers import Average, Concatenate, Dense, Gaussian, Input, Rescaling, Spread
from streamrnn.nn.layers.registry import counted_from_the_start
from streamrnn.nn.layers.structure import leaves
from streamrnn.nn.models.model import Model
from streamrnn.nn.models.steps import in_steps

MEAN, SPREAD = "mean", "spread"
"""Names of the outputs."""


def mixture_of(models: Sequence[Model], seeds: Sequence[int], variance: Sequence[float]) -> Model:
    """Return a model of several members with the same inputs, and one output of U units each.

    Its outputs are the mean (U,), and the spread (U,): the standard deviation of a mixture whose
    members have errors of this `variance`, (U,) or (1,), or (U x steps,) of members whose outputs
    have steps of their own. Copies of the members are layers of the
    model, named after their seeds: seed_0 and so on.
    """
    with counted_from_the_start():
        inputs = [
            Input(symbol.shape[1:], dtype=symbol.dtype, name=symbol.layer.name)
            for symbol in models[0].graph.inputs
        ]
        member_inputs: Any = inputs[0] if len(inputs) == 1 else inputs
        outputs = []
        for member, seed in zip(models, seeds, strict=True):
            copy: Model = type(member).from_config({**member.get_config(), "name": f"seed_{seed}"})
            copy.set_weights(member.get_weights())
            outputs.append(copy(member_inputs))
        mean = Average(name=MEAN)(outputs)
        variances, (*_, steps, units) = np.array(variance, float), outputs[0].shape
        if len(variances) not in (1, units):
            variances = in_steps(variances, steps)
        each = variances.tolist()
        spread = Spread(each if len(each) > 1 else each[0], name=SPREAD)(outputs)
    return Model(inputs, [mean, spread], name=models[0].name)


def members_of(model: Model) -> list[Model]:
    """Return the members of a model that `mixture_of` has made; [] for another model."""
    symbols = model.graph.outputs
    if len(symbols) != 2 or not isinstance(symbols[1].layer, Spread):
        return []
    return [layer for layer in model.layers if isinstance(layer, Model)]


def gives_moments(model: Model) -> bool:
    """Return whether half of the outputs are the standard deviations of the other half.

    A model of several members gives such outputs; so does one that ends with a `Gaussian`, which a
    Rescaling may follow.
    """
    last, *others = model.graph.outputs
    if not others and isinstance(last.node.layer, Rescaling):
        (last,) = leaves(last.node.inputs)
    return isinstance(last.node.layer, Gaussian) or bool(members_of(model))


def quantiles_of(model: Model, levels: Sequence[float]) -> Model:
    """Return a model that outputs quantiles of the normal distribution that `model` describes.

    Raises ModelMismatchError unless `model` gives one mean and one deviation.
    """
    outputs = model.graph.outputs
    units = [symbol.shape[-1] for symbol in outputs]
    if not gives_moments(model) or units not in ([2], [1, 1]):
        raise ModelMismatchError(
            f"expected a model with one mean and one deviation, received outputs of {units} units. "
            "End it with Gaussian, and train it with the loss gaussian_nll on one column and one "
            "horizon"
        )
    normal = NormalDist()
    with counted_from_the_start():
        moments = outputs[0] if len(outputs) == 1 else Concatenate()(outputs)
        head = Dense(len(levels), use_bias=False, name="quantile")
        quantiles = head(moments)
    head.set_weights([[[1.0] * len(levels), [normal.inv_cdf(level) for level in levels]]])
    return Model(model.graph.inputs, quantiles, name=model.name)


def crossings(values: Floats) -> int:
    """Return how many rows of quantiles (N, U) are not in ascending order.

    >>> crossings(np.array([[1, 2, 2], [1, 3, 2]], np.float32))
    1
    """
    return int((values[:, 1:] < values[:, :-1]).any(axis=1).sum())
