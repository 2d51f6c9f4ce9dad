"""One row of contracts for every activation."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import naive
from contracts.declared import HOLDS, Contract, Row

Vector = list[float]


@dataclass(frozen=True)
class ActivationRow(Row):
    """oracle(vector, *parameters): in plain Python, called with and without `parameters`.

    parameters: all that it has, none of them its default. named: layers take it by name, and
    configs and native files keep it. inside: a layer that ends in it gives the bits of the function
    on arrays. cut: the bits do not depend on where a value stands in an array. apart: NaN in one
    value (softmax: vector) changes no other. trained: its derivative is the oracle's. onnx: a model
    that has it is written as ONNX.
    """

    oracle: Contract
    parameters: tuple[float, ...] = ()
    named: Contract = HOLDS
    inside: Contract = HOLDS
    cut: Contract = HOLDS
    apart: Contract = HOLDS
    trained: Contract = HOLDS
    onnx: Contract = HOLDS


def known(name: str) -> ActivationRow:
    """One without parameters that naive.py has."""
    return ActivationRow(lambda x: naive.activate(name, x))


def of_numbers(
    function: Callable[..., float], *parameters: float, named: Contract = HOLDS
) -> ActivationRow:
    """function(value, *parameters), value by value; its defaults are the activation's."""
    return ActivationRow(
        lambda x, *p: [function(v, *p) for v in x], parameters, named, trained=named
    )


def selu(x: float, alpha: float = naive.SELU_ALPHA, scale: float = naive.SELU_SCALE) -> float:
    return scale * naive.ELEMENTWISE["elu"](x, alpha)


def elu(x: float, alpha: float = 1.0, scale: float = 1.0) -> float:
    return selu(x, alpha, scale)


def hard_sigmoid(x: float, alpha: float = 1 / 6, beta: float = 0.5) -> float:
    return min(max(alpha * x + beta, 0.0), 1.0)


def hard_sigmoid_02(x: float, alpha: float = 0.2, beta: float = 0.5) -> float:
    return hard_sigmoid(x, alpha, beta)


def capped(x: float, largest: float = 6.0) -> float:
    return min(max(x, 0.0), largest)


NO_OPERATOR = "The exporter has no operator for it."
ONNX_ALONE = "Only graphs of ONNX name it: no layer takes it, and no Keras file has it."

ACTIVATIONS = {
    **{
        name: known(name)
        for name in (
            *("linear", "tanh", "sigmoid", "softplus", "softsign", "silu", "mish"),
            *("exponential", "softmax", "hard_silu"),
        )
    },
    **{
        name: replace(known(name), onnx=NO_OPERATOR)
        for name in (
            *("hard_tanh", "log_sigmoid", "sparse_plus", "sparse_sigmoid", "tanh_shrink"),
            "log_softmax",
        )
    },
    "sparsemax": ActivationRow(
        lambda x: naive.activate("sparsemax", x),
        trained="Keras's gradient needs the order of the inputs, which no layer keeps.",
        onnx=NO_OPERATOR,
    ),
    "relu": of_numbers(naive.ELEMENTWISE["relu"], 0.15, 0.45, 2.5),
    "gelu": of_numbers(naive.ELEMENTWISE["gelu"], 1.0),
    "celu": of_numbers(naive.ELEMENTWISE["celu"], 0.7),
    "hard_shrink": replace(of_numbers(naive.ELEMENTWISE["hard_shrink"], 1.2), onnx=NO_OPERATOR),
    "soft_shrink": replace(of_numbers(naive.ELEMENTWISE["soft_shrink"], 1.2), onnx=NO_OPERATOR),
    "squareplus": replace(of_numbers(naive.ELEMENTWISE["squareplus"], 1.5), onnx=NO_OPERATOR),
    "threshold": replace(
        of_numbers(naive.ELEMENTWISE["threshold"], 0.5, -0.7),
        named="Keras gives it no defaults, so its name alone says nothing.",
    ),
    "relu6": of_numbers(capped, 2.5),
    "leaky_relu": of_numbers(naive.ELEMENTWISE["leaky_relu"], 0.35),
    "elu": of_numbers(elu, 0.7, 1.3),
    "selu": of_numbers(selu, 1.5, 1.25),
    "hard_sigmoid": of_numbers(hard_sigmoid, 0.3, 0.4),
    "hard_sigmoid_02": of_numbers(hard_sigmoid_02, 0.3, 0.4),
    "scaled_tanh": of_numbers(naive.ELEMENTWISE["scaled_tanh"], 1.7, 0.6, named=ONNX_ALONE),
    "affine": of_numbers(naive.ELEMENTWISE["affine"], 2.0, -0.5, named=ONNX_ALONE),
    "erf": of_numbers(naive.ELEMENTWISE["erf"], named=ONNX_ALONE),
    "log": of_numbers(naive.ELEMENTWISE["log"], named=ONNX_ALONE),
    "thresholded_relu": of_numbers(naive.ELEMENTWISE["thresholded_relu"], 0.5, named=ONNX_ALONE),
}
