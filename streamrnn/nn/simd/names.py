"""What an activation is, and how it is named with its parameters. Needs no compiler."""

import inspect
from collections.abc import Callable
from math import inf
from typing import Any, ClassVar, Generic, Literal, ParamSpec, TypeAlias

import numpy as np

from streamrnn.base.arrays import Floats
from streamrnn.errors import ArgumentError, UnsupportedError
from streamrnn.nn.simd.functions import Inline, Inlined, inline

P = ParamSpec("P")
Spec: TypeAlias = str | tuple[str | float, ...]
"""An activation: its name, or (name, parameter, ...) to override its defaults."""
_Source: TypeAlias = Literal["value", "input", "row"]
"""What a derivative is computed from: the value, the input, or the values of the row."""

CLIPPED = "clipped"
ROW_WISE = frozenset({"softmax", "log_softmax", "sparsemax"})
"""Activations of all units of a row at once. They have no parameters."""
FROM_ROW = frozenset({"softmax", "log_softmax"})
"""Members of `ROW_WISE` whose derivative is computed from the values of the row."""


class ActivationFunction(Inline, Generic[P]):
    """An activation: function(x, *parameters) of vectors; the defaults are in its signature.

    It is called on arrays with the first `arguments` parameters (None: with all), and on vectors
    inside kernels. bounds: the values that its first parameter may have.
    """

    on_arrays: ClassVar[Callable[[Spec, Floats], Floats]]
    """Applies a spec to an array; `kernels.activation` sets this function."""

    def __init__(
        self,
        function: Callable[P, Any],
        arguments: int | None = None,
        bounds: Literal["", "0 or more", "greater than 0"] = "",
    ) -> None:
        super().__init__(function)
        self.__name__ = self.__qualname__ = function.__name__
        self.__doc__ = function.__doc__
        x, *parameters = inspect.signature(function).parameters.values()
        self.__signature__ = inspect.Signature([x, *parameters[:arguments]])
        self.defaults = {parameter.name: float(parameter.default) for parameter in parameters}
        self.bounds = bounds
        self.source: _Source | None = None
        self.slope: Inlined | None = None
        self.least = -inf
        ACTIVATIONS[self.__name__] = self

    def derivative(self, of: _Source, least: float = -inf) -> Callable[[Inlined], None]:
        """Declare the derivative, a function of the value or the input, and of the parameters.

        least: the derivative is known only if no parameter is smaller than this.
        """

        def declare(slope: Inlined) -> None:
            self.source, self.slope, self.least = of, inline(slope), least

        return declare

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Floats:
        """Return the activation of each element of x, in a new float32 array."""
        bound = self.__signature__.bind(*args, **kwargs)
        bound.apply_defaults()
        x, *numbers = bound.arguments.values()
        return ActivationFunction.on_arrays(self.spec(*numbers), np.asarray(x, np.float32))

    def spec(self, *numbers: float) -> Spec:
        """Return the spec with parameters. Raises ArgumentError if the first is out of range."""
        if self.bounds and numbers:
            first = numbers[0]
            if first < 0 or (first == 0 and self.bounds == "greater than 0"):
                raise ArgumentError(
                    f"{self.__name__}: {next(iter(self.defaults))} must be {self.bounds}, "
                    f"received {float(first)}"
                )
        return (self.__name__, *map(float, numbers)) if numbers else self.__name__

    def __repr__(self) -> str:
        return f"<activation {self.__name__}{self.__signature__}>"


ACTIVATIONS: dict[str, ActivationFunction[Any]] = {}
"""Every activation of single numbers, by its name."""


def activation(
    *, arguments: int | None = None, bounds: Literal["", "0 or more", "greater than 0"] = ""
) -> Callable[[Callable[P, Any]], ActivationFunction[P]]:
    """Declare an activation; see ActivationFunction."""
    return lambda function: ActivationFunction(function, arguments, bounds)


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
    name, *values = (spec,) if isinstance(spec, str) else spec
    if name not in ACTIVATIONS and name not in ROW_WISE:
        names = ", ".join([*ACTIVATIONS, *sorted(ROW_WISE)])
        raise UnsupportedError(f"unknown activation {name!r}; expected one of: {names}")
    defaults = tuple(parameters_of(str(name)).values())
    if len(values) > len(defaults):
        raise UnsupportedError(
            f"activation {name!r} has {len(defaults)} parameters, received {len(values)}"
        )
    return str(name), tuple(float(value) for value in values) + defaults[len(values) :]


def parameters_of(name: str) -> dict[str, float]:
    """Return the parameters of an activation with their defaults, in order."""
    return {} if name in ROW_WISE else ACTIVATIONS[name].defaults


def derivative_source(spec: Spec) -> _Source | None:
    """Return what the derivative of an activation is computed from; None if it is not known.

    The value does not determine the derivative if a parameter such as `negative_slope` is negative.
    """
    name, numbers = split_spec(spec)
    if name in ROW_WISE:
        return "row" if name in FROM_ROW else None
    record = ACTIVATIONS[name]
    return record.source if min(numbers, default=inf) >= record.least else None


def label(spec: Spec) -> str:
    """Return an activation as part of a file name."""
    limit, spec = unclipped(spec)
    name, numbers = split_spec(spec)
    clip = [] if limit is None else [CLIPPED, repr(limit)]
    return "_".join([*clip, name, *(repr(number) for number in numbers)])
