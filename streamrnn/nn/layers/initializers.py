"""Initializers of weights, with the names, arguments and distributions of Keras.

The random numbers are NumPy's, so a seed gives other values than in Keras. Called twice with the
same shape, an initializer with a seed returns the same values.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Array, Floats
from streamrnn.base.display import closest, not_one_of
from streamrnn.errors import ArgumentError, ShapeError, UnsupportedError
from streamrnn.nn.kernels.random import orthonormal
from streamrnn.nn.layers.arguments import check_dtype
from streamrnn.nn.layers.context import set_inside
from streamrnn.nn.layers.declared import Argument
from streamrnn.nn.layers.registry import ConfigDict, snake_case

__all__ = [
    "Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Identity", "Initializer",
    "LecunNormal", "LecunUniform", "Ones", "Orthogonal", "RandomNormal", "RandomUniform",
    "TruncatedNormal", "VarianceScaling", "Zeros", "get", "seeded", "serialize",
]  # fmt: skip

_stand_in: ContextVar[Callable[[tuple[int, ...]], Floats] | None] = ContextVar(
    "stand_in", default=None
)


def replaced_by(make: Callable[[tuple[int, ...]], Floats]) -> AbstractContextManager[None]:
    """Make initializers return make(shape) in a block: for weights that are read from a file."""
    return set_inside(_stand_in, make)


_seeds: ContextVar[Iterator[list[int]] | None] = ContextVar("seeds", default=None)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make initializers, dropout and noise without a seed draw from `seed` inside the block.

    >>> with seeded(1):
    ...     first = GlorotUniform()((2, 2))
    >>> with seeded(1):
    ...     bool((GlorotUniform()((2, 2)) == first).all())
    True
    """
    with set_inside(_seeds, ([seed, number] for number in itertools.count())):
        yield


def set_seed(seed: int) -> None:
    """Make initializers, dropout and noise without a seed draw from `seed` from now on."""
    _seeds.set([seed, number] for number in itertools.count())


def generator_of(seed: int | None) -> np.random.Generator:
    """Return a new generator: from a seed, else from `seeded` or `set_seed`, else unseeded."""
    seeds = _seeds.get()
    return np.random.default_rng(next(seeds) if seed is None and seeds is not None else seed)


class Seeded:
    """The base of layers with an argument `seed`; all calls of a layer draw from one generator."""

    seed: Any

    @cached_property
    def _random(self) -> np.random.Generator:
        return generator_of(self.seed)


# ---- random values: NumPy's, but with the same bits on any CPU

_TAIL = Decimal("3.6541528853610087963519472518")
"""Absolute value beyond which NumPy draws normal values by logarithms."""

_EXACT = Context(prec=40)
_INVERSE = float(_EXACT.divide(1, _TAIL))


def uniform(
    generator: np.random.Generator, low: float, high: float, shape: tuple[int, ...]
) -> Array:
    """Return values that are uniform in [low, high)."""
    return low + (high - low) * generator.random(shape)


def normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return standard normal values.

    They are NumPy's, except for the logarithms of the tail (3 in 10,000 values), which are rounded
    correctly here. NumPy also compares 1 value in 100 with an exponential of the C library, whose
    last bit decides the comparison about once in 10**18 values.
    """
    again = np.random.Generator(type(generator.bit_generator)())
    again.bit_generator.state = generator.bit_generator.state
    values = generator.standard_normal(shape)
    flat = values.reshape(-1)
    drawn = 0
    for place in np.flatnonzero(np.abs(flat) > float(_TAIL)).tolist():
        again.standard_normal(place - drawn)
        flat[place] = np.copysign(_of_tail(again), flat[place])
        drawn = place + 1
    return values


def _of_tail(generator: np.random.Generator) -> float:
    """Draw a value beyond `_TAIL` (Marsaglia 1964), from the same bits as NumPy."""
    while int(generator.bit_generator.random_raw()) & 0xFF:  # 0 chooses the tail
        generator.random()  # the number by which NumPy rejected a value
    while True:
        x, y = _INVERSE * _exponential(generator), _exponential(generator)
        if y + y > x * x:
            return float(_TAIL) + x


def _exponential(generator: np.random.Generator) -> float:
    """Return -log(1 - u) of a uniform u, correctly rounded."""
    return -float(_EXACT.ln(Decimal(1 - generator.random())))


class Initializer:
    """Makes a float32 array of a given shape; subclasses implement `draw`."""

    fields: ClassVar[tuple[str, ...]] = ()

    def __call__(self, shape: Sequence[int], dtype: object = None) -> Floats:
        """Return a new array of this shape, float32. Raises ArgumentError for another dtype."""
        check_dtype(type(self).__name__, dtype)
        make = _stand_in.get()
        if make is not None:
            return make(tuple(shape))
        return np.asarray(self.draw(tuple(shape)), dtype=np.float32)

    def draw(self, shape: tuple[int, ...]) -> Array:
        """Return the values, in any float dtype."""
        raise NotImplementedError

    def get_config(self) -> ConfigDict:
        """Return the constructor's arguments."""
        config = {field: getattr(self, field) for field in self.fields}
        arrays = np.ndarray | np.generic
        return {k: v.tolist() if isinstance(v, arrays) else v for k, v in config.items()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an initializer from what `get_config` returned, here or in Keras."""
        return cls(**config)

    def generator(self) -> np.random.Generator:
        """Return a new generator from the seed, so that a seed gives the same values each time."""
        seed = getattr(self, "seed", None)
        if seed is not None and not isinstance(seed, int | np.integer):
            raise ArgumentError(
                f"{type(self).__name__}: `seed` must be an integer or None, received {seed!r}"
            )
        return generator_of(None if seed is None else int(seed))


class Zeros(Initializer):
    """All 0."""

    def draw(self, shape: tuple[int, ...]) -> Array:
        return np.zeros(shape)


class Ones(Initializer):
    """All 1."""

    def draw(self, shape: tuple[int, ...]) -> Array:
        return np.ones(shape)


@dataclass(eq=False, repr=False)
class Constant(Initializer):
    """All elements are `value`: a number, or an array that is broadcast to the weight's shape."""

    fields = ("value",)
    value: npt.ArrayLike = 0.0

    def draw(self, shape: tuple[int, ...]) -> Array:
        value = np.asarray(self.value, dtype=np.float32)
        try:
            return np.broadcast_to(value, shape).copy()
        except ValueError:
            raise ShapeError(
                f"Constant: Expected `shape` to be {value.shape}, the shape of its value, or a "
                f"shape to which NumPy can broadcast the value, received {shape}"
            ) from None


@dataclass(eq=False, repr=False)
class RandomUniform(Initializer):
    """Uniform in [minval, maxval)."""

    fields = ("minval", "maxval", "seed")
    minval: float = -0.05
    maxval: float = 0.05
    seed: int | None = None

    def draw(self, shape: tuple[int, ...]) -> Array:
        return uniform(self.generator(), self.minval, self.maxval, shape)


@dataclass(eq=False, repr=False)
class RandomNormal(Initializer):
    """Normal with this mean and standard deviation."""

    fields = ("mean", "stddev", "seed")
    mean: float = 0.0
    stddev: float = 0.05
    seed: int | None = None

    def draw(self, shape: tuple[int, ...]) -> Array:
        return self.mean + self.stddev * normal(self.generator(), shape)


class TruncatedNormal(RandomNormal):
    """Normal; values beyond two standard deviations are drawn again."""

    def draw(self, shape: tuple[int, ...]) -> Array:
        return self.mean + self.stddev * _truncated(self.generator(), shape)


def _truncated(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    values = generator.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values = np.where(outside, generator.standard_normal(shape), values)
    return values


_AXES = ("input_axes", "output_axes")
DISTRIBUTIONS = ("normal", "truncated_normal", "uniform", "untruncated_normal")


class VarianceScaling(Initializer):
    """Random values with mean 0 and variance scale / fan (Glorot & Bengio 2010, He et al. 2015).

    input_axes, output_axes (both or neither): the axes whose sizes are multiplied to give fan_in
    and fan_out. By default, fan_in is the product of all sizes but the last, and fan_out the
    product of all but the last but one; for a weight with one axis, both are its size.
    """

    fields: ClassVar[tuple[str, ...]] = ("scale", "mode", "distribution", "seed", *_AXES)

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        if not scale > 0:
            raise ArgumentError(
                f"VarianceScaling: Argument `scale` must be positive float. Received: scale={scale}"
            )
        for argument, value, allowed in (
            ("mode", mode, ("fan_avg", "fan_in", "fan_out")),
            ("distribution", distribution, DISTRIBUTIONS),
        ):
            if value not in allowed:
                near = closest(value, allowed) if isinstance(value, str) else None
                raise ArgumentError(
                    f"VarianceScaling: Invalid `{argument}` argument: {value}. Please use one of "
                    f"{', '.join(allowed)}" + (f"; did you mean {near!r}?" if near else "")
                )
        self.scale, self.mode, self.seed = scale, mode, seed
        # Keras 2's "normal" is what Keras 3 calls "truncated_normal".
        self.distribution = "truncated_normal" if distribution == "normal" else distribution
        self.input_axes = None if input_axes is None else list(input_axes)
        self.output_axes = None if output_axes is None else list(output_axes)

    def get_config(self) -> ConfigDict:
        config = super().get_config().items()
        return {name: value for name, value in config if name not in _AXES or value is not None}

    def _fans(self, shape: tuple[int, ...]) -> tuple[float, float]:
        if self.input_axes is None or self.output_axes is None:
            if len(shape) < 2:
                return float(math.prod(shape)), float(math.prod(shape))
            receptive = math.prod(shape[:-2])
            return float(shape[-2] * receptive), float(shape[-1] * receptive)
        axes = (self.input_axes, self.output_axes)
        if any(not -len(shape) <= axis < len(shape) for axis in [*axes[0], *axes[1]]):
            raise ShapeError(
                f"{type(self).__name__}: input_axes={axes[0]} and output_axes={axes[1]} are out "
                f"of bounds for a weight of shape {shape}"
            )
        fan_in, fan_out = (math.prod(shape[axis] for axis in which) for which in axes)
        return float(fan_in), float(fan_out)

    def draw(self, shape: tuple[int, ...]) -> Array:
        fan_in, fan_out = self._fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return uniform(self.generator(), -limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return math.sqrt(variance) * normal(self.generator(), shape)
        # 0.8796…: the standard deviation of a normal truncated at ±2.
        stddev = math.sqrt(variance) / 0.87962566103423978
        return stddev * _truncated(self.generator(), shape)


class _Preset(VarianceScaling):
    fields = ("seed",)
    preset: ClassVar[tuple[float, str, str]]

    def __init_subclass__(cls, preset: tuple[float, str, str] | None = None, **others: Any) -> None:
        super().__init_subclass__(**others)
        cls.preset = preset or cls.preset

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(*self.preset, seed=seed)


class GlorotUniform(_Preset, preset=(1.0, "fan_avg", "uniform")):
    """Uniform in ±sqrt(6 / (fan_in + fan_out))."""


class GlorotNormal(_Preset, preset=(1.0, "fan_avg", "truncated_normal")):
    """Truncated normal of variance 2 / (fan_in + fan_out)."""


class HeUniform(_Preset, preset=(2.0, "fan_in", "uniform")):
    """Uniform in ±sqrt(6 / fan_in)."""


class HeNormal(_Preset, preset=(2.0, "fan_in", "truncated_normal")):
    """Truncated normal of variance 2 / fan_in."""


class LecunUniform(_Preset, preset=(1.0, "fan_in", "uniform")):
    """Uniform in ±sqrt(3 / fan_in)."""


class LecunNormal(_Preset, preset=(1.0, "fan_in", "truncated_normal")):
    """Truncated normal of variance 1 / fan_in."""


@dataclass(eq=False, repr=False)
class Orthogonal(Initializer):
    """Orthonormal rows or columns, whichever are fewer, times `gain` (Saxe et al. 2014)."""

    fields = ("gain", "seed")
    gain: float = 1.0
    seed: int | None = None

    def draw(self, shape: tuple[int, ...]) -> Array:
        if len(shape) < 2:
            raise ShapeError(
                "Orthogonal: The tensor to initialize must be at least two-dimensional, received "
                f"shape {shape}; use another initializer for this weight"
            )
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = (max(rows, columns), min(rows, columns))
        q = orthonormal(normal(self.generator(), tall))
        values: Array = self.gain * (q if rows >= columns else q.T).reshape(shape)
        return values


@dataclass(eq=False, repr=False)
class Identity(Initializer):
    """The identity matrix times `gain`."""

    fields = ("gain",)
    gain: float = 1.0

    def draw(self, shape: tuple[int, ...]) -> Array:
        if len(shape) != 2:
            raise ShapeError(
                "Identity: Identity matrix initializer can only be used for 2D matrices, received "
                f"shape {shape}; use another initializer for this weight"
            )
        return self.gain * np.eye(*shape)


InitializerLike = Initializer | type[Initializer] | str | Mapping[str, Any] | float | Array | None
"""An initializer, its name, its class, its config, a constant, or None for zeros."""

_ALL: dict[str, type[Initializer]] = {
    name: globals()[name] for name in __all__ if name[0].isupper() and name != "Initializer"
}
_NAMES = {snake_case(name): cls for name, cls in _ALL.items()} | {
    "uniform": RandomUniform,
    "normal": RandomNormal,
    "zero": Zeros,
    "one": Ones,
    "IdentityInitializer": Identity,
    "OrthogonalInitializer": Orthogonal,
}


def get(identifier: object) -> Initializer:
    """Return the initializer for a name, a class or a config of Keras; an initializer as it is.

    None stands for Zeros, a number or an array for Constant. Raises UnsupportedError for other
    values.
    """
    if identifier is None:
        return Zeros()
    if isinstance(identifier, Initializer):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Initializer):
        return identifier()
    if isinstance(identifier, str):
        initializer = _ALL.get(identifier) or _NAMES.get(identifier)
        if initializer is not None:
            return initializer()
    if isinstance(identifier, Mapping):
        name, config = identifier.get("class_name"), identifier.get("config", {})
        if isinstance(name, str) and isinstance(config, Mapping):
            kind = type(get(name))
            return kind(**{key: value for key, value in config.items() if key in kind.fields})
    if isinstance(identifier, int | float | np.ndarray):
        return Constant(identifier)
    raise UnsupportedError(not_one_of(f"initializer {identifier!r}", _NAMES, identifier, "known"))


def serialize(initializer: Initializer) -> ConfigDict:
    """Return the config of an initializer, as Keras writes it."""
    return {"class_name": type(initializer).__name__, "config": initializer.get_config()}


class Initial(Argument[InitializerLike, Initializer]):
    """An initializer, which makes the initial values of a weight."""

    type_name = "InitializerLike"

    def take(self, owner: object, name: str, value: Any) -> Initializer:
        return get(value)
