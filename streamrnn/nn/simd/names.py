"""Names and parameters of the activations. Needs no compiler."""

from math import inf
from typing import TypeAlias

from streamrnn.errors import UnsupportedError

Spec: TypeAlias = str | tuple[str | float, ...]
"""An activation: its name, or (name, parameter, ...) to override its defaults."""

DEFAULTS: dict[str, dict[str, float]] = {
    "linear": {},
    "tanh": {},
    "sigmoid": {},
    "relu": {"negative_slope": 0.0, "threshold": 0.0, "max_value": inf},
    "softplus": {},
    "softsign": {},
    "silu": {},
    "gelu": {"approximate": 0.0},
    "mish": {},
    "exponential": {},
    "log": {},
    "erf": {},
    "softmax": {},
    "log_softmax": {},
    "sparsemax": {},
    "celu": {"alpha": 1.0},
    "hard_shrink": {"threshold": 0.5},
    "hard_silu": {},
    "hard_tanh": {},
    "log_sigmoid": {},
    "soft_shrink": {"threshold": 0.5},
    "sparse_plus": {},
    "sparse_sigmoid": {},
    "squareplus": {"b": 4.0},
    "tanh_shrink": {},
    "threshold": {"threshold": 0.0, "default_value": 0.0},
    "relu6": {"max_value": 6.0},
    "leaky_relu": {"negative_slope": 0.2},
    "elu": {"alpha": 1.0, "scale": 1.0},
    "selu": {"alpha": 1.6732632423543772, "scale": 1.0507009873554805},
    "hard_sigmoid": {"alpha": 1 / 6, "beta": 0.5},
    "hard_sigmoid_02": {"alpha": 0.2, "beta": 0.5},
    "scaled_tanh": {"alpha": 1.0, "beta": 1.0},
    "affine": {"alpha": 1.0, "beta": 0.0},
    "thresholded_relu": {"alpha": 1.0},
}
"""Every activation, with its parameters in order."""


FROM_VALUE = frozenset({
    "linear",
    "tanh",
    "sigmoid",
    "relu",
    "softplus",
    "softsign",
    "exponential",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "hard_sigmoid",
    "hard_sigmoid_02",
    "celu",
    "hard_shrink",
    "hard_tanh",
    "log_sigmoid",
    "soft_shrink",
    "sparse_sigmoid",
    "squareplus",
})  # fmt: skip
"""Activations whose derivative follows from their value (`simd.derivatives`)."""

FROM_INPUT = frozenset({
    "silu",
    "gelu",
    "mish",
    "hard_silu",
    "sparse_plus",
    "tanh_shrink",
    "threshold",
})  # fmt: skip
"""Activations whose derivative needs their input."""

ROW_WISE = frozenset({"softmax", "log_softmax", "sparsemax"})
"""Activations of all units of a row at once. They have no parameters."""

FROM_ROW = frozenset({"softmax", "log_softmax"})
"""Those of them whose derivative is known, from the values of the row."""

CLIPPED = "clipped"


def packed_name(name: str, word: int) -> str:
    """Return the name of a kernel whose 32-bit words hold `word` weights: dense-int16."""
    return name if word == 1 else f"{name}-int{32 // word}"


def clipped(limit: float, spec: Spec) -> Spec:
    """Return the activation with its inputs clipped to -limit..limit."""
    return (CLIPPED, float(limit), *((spec,) if isinstance(spec, str) else spec))


def unclipped(spec: Spec) -> tuple[float | None, Spec]:
    """Return the limit of the inputs, or None, and the activation without it."""
    if isinstance(spec, str) or spec[0] != CLIPPED:
        return None, spec
    return float(spec[1]), spec[2:]


def split_spec(spec: Spec) -> tuple[str, tuple[float, ...]]:
    """Return the name and all parameters of an activation."""
    name, *given = (spec,) if isinstance(spec, str) else spec
    if name not in DEFAULTS:
        known = ", ".join(DEFAULTS)
        raise UnsupportedError(f"unknown activation {name!r}; expected one of: {known}")
    defaults = tuple(DEFAULTS[str(name)].values())
    if len(given) > len(defaults):
        raise UnsupportedError(
            f"activation {name!r} has {len(defaults)} parameters, received {len(given)}"
        )
    return str(name), tuple(float(value) for value in given) + defaults[len(given) :]


def has_derivative(spec: Spec, among: frozenset[str] = FROM_VALUE | FROM_INPUT) -> bool:
    """Return whether the derivative of an activation is known, of those `among`.

    With a negative slope below zero, the value does not determine it.
    """
    name, numbers = split_spec(spec)
    return name in among and (name not in ("leaky_relu", "elu", "relu") or min(numbers) >= 0)


def label(spec: Spec) -> str:
    """Return an activation as part of a file name."""
    limit, spec = unclipped(spec)
    name, numbers = split_spec(spec)
    clip = [] if limit is None else [CLIPPED, repr(limit)]
    return "_".join([*clip, name, *(repr(number) for number in numbers)])
