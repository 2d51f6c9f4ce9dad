"""Weights as integers with a scale: sums in the product of rows and weights are exact.

A weight of input k and column g (a unit and a gate) is

    integer[k, g] * scale[g] * factor[k]

Inputs are multiplied by their factor; then each row is scaled so that its largest absolute value
becomes `top`, and rounded to integers (`simd.tile`). The rules here choose scales, factors and
top from the weights alone; nothing depends on the rows, so bits depend neither on their order nor
on other rows:

- A sum of products must not exceed 32 bits: top * sum of |integer[:, g]| < 2**31.
- `top` is 127 for int8. For int16 it is the power of two with the smallest expected error from
  rounding both rows and weights: a larger one leaves less room for the weights.
- `factor[k]` is a power of two near the largest weight of input k, relative to the largest weight
  of all inputs. So a row is rounded relative to its largest contribution, not to its largest input:
  a feature in a small unit (pascals beside metres) has small weights, and does not take precision
  from the others. A state needs no factors.
"""

import math
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Floats, Ints

FLOAT32 = "float32"

PRECISIONS = (FLOAT32, "int16", "int8")
"""Precisions of the products in packed layers. Biases, gates and states are always float32."""

LEAST_INPUTS, LEAST_UNITS = 128, 64
"""Smallest sizes at which integers speed up a layer without a state, which uses a row only once."""

_TOPS = {"int16": (16384, 8192, 4096, 2048), "int8": (127,)}
_LARGEST = {"int16": 32767, "int8": 127}

_LEAST_EXPONENT = -24
"""Smallest exponent of a factor: inputs with smaller weights get it, too."""

_NONE = -128
"""The exponent of an input whose weights are all zero: its factor is zero, so that it does not take
precision from the others."""

_LEAST_SCALE = 2.0**-120
"""Smallest scale: with smaller ones, float32 would lose bits."""


class Integers(NamedTuple):
    """Weights (K, G) as integers: `values`, `scales` (G,), exponents (K,) of the factors, `top`.

    `values` has the shape of the weights: of a convolution (taps, F, G), with K = taps * F.
    `inputs_last`: the shape is (…, K), with G the product of the other axes, as in ONNX.
    """

    values: Array
    scales: Floats
    exponents: Array
    top: int
    inputs_last: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weights."""
        return self.values.shape

    @property
    def precision(self) -> str:
        """The name of the integers' type, such as int16."""
        return self.values.dtype.name

    @property
    def word(self) -> int:
        """Number of integers in 32 bits."""
        return 4 // self.values.itemsize

    def factors(self) -> Floats:
        """Return the factors (K,)."""
        return _powers(self.exponents).astype(np.float32)

    def floats(self) -> Floats:
        """Return the weights as float32, rounded once."""
        products = self.rows().astype(np.float64) * self.scales.astype(np.float64)
        floats = (products * _powers(self.exponents)[:, None]).astype(np.float32)
        return _shaped(floats, self.shape, self.inputs_last)

    def rows(self) -> Array:
        """Return the values as (K, G)."""
        return _rows(self.values, self.inputs_last)

    def columns(self, chosen: Ints) -> "Integers":
        """Return some of the columns, (K, chosen)."""
        return Integers(self.rows()[:, chosen], self.scales[chosen], self.exponents, self.top)

    def words(self) -> Array:
        """Return words (steps, G) int32 as a kernel reads them.

        After the last one come the starts of the sums, for int8, and the scales (`simd.tile`).
        """
        values = self.rows()
        rows, columns = values.shape
        steps = -(-rows // self.word)
        padded = np.zeros((steps * self.word, columns), values.dtype)
        padded[:rows] = values
        together = padded.reshape(steps, self.word, columns).swapaxes(1, 2)
        words = np.ascontiguousarray(together).view(np.int32).reshape(steps, columns)
        rest = [self.scales.view(np.int32)[None]]
        if self.word == 4:
            rest.insert(0, -128 * values.sum(axis=0, dtype=np.int32)[None])
        return np.concatenate([words, *rest])


def rounded(
    weights: Floats, precision: str, *, factors: bool, inputs_last: bool = False
) -> Integers:
    """Round weights to integers; `factors`: with a factor per input, for inputs in different units.

    Raises ValueError for so many inputs (two million for int16) that sums would exceed 32 bits.
    """
    weights_KG = np.array(_rows(weights, inputs_last), np.float64)
    inputs = len(weights_KG)
    exponents = _exponents(weights_KG) if factors else np.zeros(inputs, np.int8)
    some = exponents != _NONE
    weights_KG[some] /= _powers(exponents[some])[:, None]
    squares = _total(weights_KG * weights_KG)
    tops = [top for top in _TOPS[precision] if _room(top, inputs) > 0]
    if not tops:
        raise ValueError(f"expected fewer inputs for {precision}, received {inputs}")
    scales = {top: _scales(weights_KG, top, _LARGEST[precision]) for top in tops}
    top = min(tops, key=lambda top: _error(squares, inputs, scales[top], top))
    values = np.rint(weights_KG / scales[top].astype(np.float64)).astype(precision)
    values = _shaped(values, weights.shape, inputs_last)
    return Integers(values, scales[top], exponents, top, inputs_last)


def integers_pay(inputs: int, units: int) -> bool:
    """Return whether integers make the product of rows and weights (inputs, units) faster.

    With AVX-512 VNNI, on 4,096 rows, int16 is 1.2 times as fast as float32 at (128, 64) and 0.9
    times at (128, 32), where rounding the rows takes longer than the product saves. The rule must
    not depend on the rows, the threads or the CPU, because then the bits would depend on them, too.
    """
    return inputs >= LEAST_INPUTS and units >= LEAST_UNITS


def why_invalid(integers: Integers) -> str:
    """Return why integers read from a file cannot be weights; "" if they can."""
    values, scales, exponents, top, _ = integers
    precision = values.dtype.name
    if precision not in _TOPS:
        return f"they are {precision}, expected one of {', '.join(_TOPS)}"
    if values.ndim < 2 or not values.shape[-1]:
        return f"expected two axes or more, the last one not empty, received values {values.shape}"
    if exponents.shape + scales.shape != integers.rows().shape:
        return (
            f"shapes do not fit: values {values.shape}, scales {scales.shape} and exponents "
            f"{exponents.shape}"
        )
    if scales.dtype != np.float32 or exponents.dtype != np.int8 or top not in _TOPS[precision]:
        return (
            "expected scales in float32, exponents in int8 and a top that suits the precision, "
            f"received scales {scales.dtype}, exponents {exponents.dtype}, top {top!r}"
        )
    if not ((scales >= _LEAST_SCALE) & np.isfinite(scales)).all():
        return "a scale is below 2**-120 or not finite"
    small = (exponents < _LEAST_EXPONENT) & (exponents != _NONE)
    if ((exponents > 0) | small).any():
        return f"an exponent is neither in {_LEAST_EXPONENT}…0 nor {_NONE}"
    if (np.abs(integers.rows().astype(np.int64)).sum(axis=0) * top >= 2**31).any():
        return "a sum of products would exceed 32 bits"
    return ""


def _rows(weights: Array, inputs_last: bool) -> Array:
    """Return weights (…, G), or (…, K), as (K, G)."""
    rows = np.reshape(weights, (-1, weights.shape[-1]))
    return rows.T if inputs_last else rows


def _shaped(rows: Array, shape: tuple[int, ...], inputs_last: bool) -> Array:
    """Return (K, G) in the shape that `_rows` received."""
    return np.ascontiguousarray(rows.T if inputs_last else rows).reshape(shape)


def _room(top: int, rows: int) -> int:
    """Return the largest sum of |weight| / scale that leaves room to round each by up to a half."""
    return (2**31 - 1) // top - rows // 2 - 2


def _scales(weights: Array, top: int, largest: int) -> Floats:
    by_largest = np.abs(weights).max(axis=0, initial=0) / largest
    by_sum = _total(np.abs(weights)) / _room(top, len(weights))
    scales: Array = np.maximum(np.maximum(by_largest, by_sum), _LEAST_SCALE)
    return scales.astype(np.float32)


def _error(squares: Array, rows: int, scales: Floats, top: int) -> float:
    """Return 12 times the expected squared error, for rows whose rms is half their largest value.

    The error of a rounded input is 1 / top, of a rounded weight its scale, each multiplied by a
    uniform random number between -1/2 and 1/2.
    """
    of_rows = squares / top**2
    of_weights = 0.25 * rows * scales.astype(np.float64) ** 2
    return math.fsum((of_rows + of_weights).tolist())


def _exponents(weights: Array) -> Array:
    """Return the exponent (K,) int8 of each input's largest weight, relative to the highest."""
    largest = np.abs(weights).max(axis=1, initial=0)
    _, exponents = np.frexp(np.where(largest > 0, largest, 1))
    highest = exponents[largest > 0].max(initial=-(2**15))
    relative = np.maximum(exponents - highest, _LEAST_EXPONENT)
    return np.where(largest > 0, relative, _NONE).astype(np.int8)


def _powers(exponents: Array) -> Array:
    """Return the powers of two (K,), exactly; zero for inputs whose weights are all zero."""
    return np.array([0.0 if each == _NONE else 2.0**each for each in exponents.tolist()])


def _total(weights: Array) -> Array:
    """Return the sums of columns, added row by row: NumPy's order depends on the CPU."""
    total = np.zeros(weights.shape[1])
    for row in weights:
        total += row
    return total
