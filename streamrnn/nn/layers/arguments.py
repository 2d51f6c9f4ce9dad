"""Checks of constructors' arguments, their form in configs, and casts of input arrays."""

import inspect
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from operator import index
from typing import Any, SupportsIndex

import numpy as np

from streamrnn.base.arrays import Array, Floats, Ints
from streamrnn.base.display import closest
from streamrnn.errors import ArgumentError, DataError, DTypeError, ShapeError, UnsupportedError
from streamrnn.nn.layers.declared import Argument
from streamrnn.nn.layers.structure import Shape

_REFUSED_ARGUMENTS = {
    "time_major": "arrays are (batch, time, features); transpose them first",
    "weights": "call set_weights on the built layer",
    "lora_rank": "merge the LoRA weights into the kernel first",
    "quantization_config": "weights are float32",
    "use_cudnn": "there is no GPU",
    "autocast": "everything is float32",
    "sparse": "inputs are dense arrays",
    "ragged": "give a padded array and lengths=",
    "constants": "pass constants as features",
    "num_constants": "pass constants as features",
}
FOR_TRAINING = ("_regularizer", "_constraint")
_EVERY_LAYER = ("name", "trainable", "dtype", "input_shape", "batch_input_shape")


def check_dtype(owner: object, dtype: object) -> None:
    """Raise ArgumentError unless a dtype, or the dtype of a Keras policy, is float32 or None."""
    if isinstance(dtype, Mapping):
        dtype = dtype.get("config", {}).get("name")
    if dtype not in (None, "float32", np.float32):
        raise ArgumentError(
            f"{owner}: dtype must be 'float32', received {dtype!r}; all layers compute in float32"
        )


def check_unknown(owner: object, unknown: Mapping[str, object]) -> None:
    """Raise ArgumentError for unknown arguments, unless they only affect training or do nothing."""
    for argument, value in unknown.items():
        if argument.endswith(FOR_TRAINING):
            continue
        if argument in _REFUSED_ARGUMENTS:
            if value is None or (isinstance(value, int | str) and value in (0, "auto")):
                continue
            shown = repr(value)
            if isinstance(value, np.ndarray):
                shown = f"<array {value.shape}>"
            elif isinstance(value, list | tuple):
                shown = f"<{len(value)} values>"
            raise ArgumentError(
                f"{owner}: the Keras argument {argument}={shown} is refused: "
                f"{_REFUSED_ARGUMENTS[argument]}"
            )
        parameters = inspect.signature(type(owner)).parameters.values()
        named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        names = [
            name
            for name in dict.fromkeys([*named, *_EVERY_LAYER])
            if not name.endswith(FOR_TRAINING) and name not in _REFUSED_ARGUMENTS
        ]
        near = closest(argument, names)
        hint = f"; did you mean {near!r}?" if near else ""
        raise ArgumentError(
            f"{owner}: unknown argument {argument!r}{hint} (known here: {', '.join(names)})"
        )


def without_training(config: Any) -> Any:
    """Return a config without the arguments that only affect training, at any depth."""
    if isinstance(config, Mapping):
        return {
            key: without_training(value)
            for key, value in config.items()
            if not str(key).endswith(FOR_TRAINING)
        }
    return [without_training(value) for value in config] if isinstance(config, list) else config


def _integer(value: object) -> int | None:
    """Return a Python or NumPy integer as an int; None for anything else."""
    if isinstance(value, SupportsIndex):
        with suppress(TypeError):  # an array with several values
            return index(value)
    return None


def positive_integer(owner: object, argument: str, value: object) -> int:
    """Return an integer of 1 or more, Python's or NumPy's, as an int. Raises ArgumentError."""
    number = None if isinstance(value, bool) else _integer(value)
    if number is None or number < 1:
        raise ArgumentError(f"{owner}: `{argument}` must be a positive integer, received {value!r}")
    return number


def passed_arguments(layer: Any) -> dict[str, object]:
    """Return the arguments that a layer was made with, by name."""
    args, kwargs = layer._made_with
    bound = inspect.signature(type(layer)).bind(*args, **kwargs)
    named: dict[str, object] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        named |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return named


def given_arguments(layer: Any, without: Collection[str]) -> dict[str, object]:
    """Return the arguments that a layer was made with, by name, for its config.

    Regularizers, constraints, arguments that every layer has and the names in `without` are left
    out. Raises UnsupportedError, which names the argument, for a value that JSON cannot hold.
    """
    config: dict[str, object] = {}
    for name, value in passed_arguments(layer).items():
        if name in _EVERY_LAYER or name in without or name.endswith(FOR_TRAINING):
            continue
        config[name] = value.item() if isinstance(value, np.generic) else value
        try:
            json.dumps(config[name], allow_nan=False)
        except (TypeError, ValueError):
            raise UnsupportedError(
                f"{layer}: a config cannot hold its argument {name}={config[name]!r:.60}; give "
                f"{type(layer).__name__} a get_config that returns only numbers, strings and lists "
                "(and a from_config that reads them)"
            ) from None
    return config


class Size(Argument[int, int]):
    """A whole number, 1 or more."""

    def take(self, owner: object, name: str, value: Any) -> int:
        return positive_integer(owner, name, value)


class Filters(Argument[int, int]):
    """Like Size, but the error for an int below 1 has Keras's words."""

    def take(self, owner: object, name: str, value: Any) -> int:
        if isinstance(value, int) and value < 1:
            raise ArgumentError(
                f"{owner}: Invalid value for argument `{name}`. Expected a strictly positive "
                f"value. Received {name}={value}."
            )
        return positive_integer(owner, name, value)


class Rate(Argument[float, float]):
    """A dropout rate, or the standard deviation of noise: a number from 0 to 1."""

    def take(self, owner: object, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ArgumentError(
                f"{owner}: Invalid value received for argument `{name}`. Expected a float value "
                f"between 0 and 1. Received: {name}={value!r}"
            )
        return float(value)


class Seed(Argument[int | None, int | None]):
    """A seed of dropout or noise: None or an integer, 0 or more."""

    def take(self, owner: object, name: str, value: Any) -> int | None:
        number = _integer(value)
        if value is not None and (number is None or number < 0):
            raise ArgumentError(
                f"{owner}: seed must be a whole number, 0 or more, received {value!r}"
            )
        return number


def cast_floats(owner: object, x: object) -> Floats:
    """Return x as a C-contiguous float32 array.

    Raises DTypeError for values that are not floats, integers or booleans, DataError if a number
    is too large for float32.
    """
    if type(x) is np.ndarray and x.dtype == np.float32:
        return x if x.flags.c_contiguous else np.ascontiguousarray(x)
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise DTypeError(
            f"{owner}: expected numbers (float32; other floats, integers and booleans are cast), "
            f"received {array.dtype}"
        )
    try:
        with np.errstate(over="raise"):
            return np.ascontiguousarray(array, dtype=np.float32)
    except FloatingPointError:
        largest = np.abs(array[np.isfinite(array)]).max()
        raise DataError(
            f"{owner}: received numbers of up to {largest:.3g}, too large for float32 (3.4e38)"
        ) from None


def cast_ids(owner: object, x: object) -> Array:
    """Return x as a C-contiguous int64 array.

    Raises DTypeError unless all values are whole numbers (or booleans), DataError if a value is
    outside the range of int64.
    """
    array = np.asarray(x)
    if array.dtype.kind == "f":
        if not (np.isfinite(array).all() and (array == np.floor(array)).all()):
            raise DTypeError(
                f"{owner}: token ids must be whole numbers, but some have a fraction or are not "
                f"finite; received {array.dtype}"
            )
    elif array.dtype.kind not in "iub":
        raise DTypeError(f"{owner}: token ids must be integers, received {array.dtype}")
    if array.dtype.kind == "f" or array.dtype == np.uint64:
        outside = array >= 2**63 if array.dtype.kind == "u" else np.abs(array) >= 2.0**63
        if outside.any():
            first = tuple(int(i) for i in np.argwhere(outside)[0])
            raise DataError(
                f"{owner}: token id {array[first]} at {first} is outside the range of int64"
            )
    return np.ascontiguousarray(array, dtype=np.int64)


def first_outside(ids: Array, size: int, lengths: Ints | None) -> tuple[int, ...] | None:
    """Return the index of the first id outside 0…size - 1, or None.

    lengths: the number of steps of each row, or None; ids past the end of a row are not checked.
    For ids (B,), which have no steps, lengths are ignored.
    """
    outside = (ids < 0) | (ids >= size)
    if lengths is not None and ids.ndim > 1:
        within = np.arange(ids.shape[1]) < lengths[:, None]
        outside &= within.reshape(within.shape + (1,) * (ids.ndim - 2))
    places = np.argwhere(outside)
    return tuple(places[0].tolist()) if len(places) else None


def cast_strings(owner: object, x: object) -> Array:
    """Return x as an array. Raises DTypeError for a dtype other than strings, bytes and objects."""
    array = np.asarray(x)
    if array.dtype.kind not in "USOT":
        raise DTypeError(f"{owner}: expected strings, received {array.dtype}")
    return array


CASTS = {"float32": cast_floats, "int64": cast_ids, "string": cast_strings}
"""Input dtype of a layer or model -> the cast of a caller's values."""


def cast_input(owner: object, shape: Shape, dtype: str, x: object) -> Array:
    """Return the values `x` of a model's input, cast to the input's dtype.

    shape: the input's shape without the batch. Raises ShapeError unless the values have it, or an
    error of the cast.
    """
    array: Array = CASTS[dtype](owner, x)
    received = array.shape[1:]
    fits = len(received) == len(shape) and all(
        n is None or n == m for n, m in zip(shape, received, strict=True)
    )
    if not fits:
        axes = ", ".join(["batch", *map(str, shape)])
        raise ShapeError(f"{owner}: expected shape ({axes}), received {array.shape}")
    return array
