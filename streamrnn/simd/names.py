"""Names and parameters of the activations. Needs no compiler."""

from typing import TypeAlias

from streamrnn.errors import UnsupportedError

Spec: TypeAlias = str | tuple[str | float, ...]
"""An activation: its name, or (name, parameter, ...) to override its defaults."""

DEFAULTS: dict[str, dict[str, float]] = {
    "linear": {},
    "tanh": {},
    "sigmoid": {},
    "relu": {},
    "softplus": {},
    "softsign": {},
    "silu": {},
    "gelu": {},
    "mish": {},
    "exponential": {},
    "softmax": {},
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
})  # fmt: skip
"""Activations whose derivative follows from their value (`simd.derivatives`)."""

FROM_INPUT = frozenset({"silu", "gelu", "mish"})
"""Activations whose derivative needs their input."""

CLIPPED = "clipped"


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
    return name in among and (name not in ("leaky_relu", "elu") or min(numbers) >= 0)


def label(spec: Spec) -> str:
    """Return an activation as part of a file name."""
    limit, spec = unclipped(spec)
    name, numbers = split_spec(spec)
    clip = [] if limit is None else [CLIPPED, repr(limit)]
    return "_".join([*clip, name, *(repr(number) for number in numbers)])
