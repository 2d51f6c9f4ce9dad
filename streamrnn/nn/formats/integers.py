"""Integer weights in the native format: the arrays that the file has for them.

The weight "lstm/cell/kernel" is stored as its integers (int8 or int16) under that name, with
"lstm/cell/kernel.scales" (float32, one per column) and "lstm/cell/kernel.exponents" (int8, one per
row; see `kernels.integers`). The metadata `integers` is JSON: the name of each such weight ->
`top`, or [`top`, "inputs last"].
"""

import json
from collections.abc import Mapping

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.errors import ModelFileError
from streamrnn.nn.formats.guard import parse_json
from streamrnn.nn.kernels.integers import Integers, why_invalid

_PARTS = ("scales", "exponents")
_LAST = "inputs last"


def stored(weights: Mapping[str, Integers]) -> tuple[dict[str, Array], str]:
    """Return the form in which a file stores these weights: arrays by name, and metadata."""
    arrays: dict[str, Array] = {}
    for name, integers in weights.items():
        arrays[name] = integers.values
        arrays |= {f"{name}.{part}": getattr(integers, part) for part in _PARTS}
    tops = {
        name: [integers.top, _LAST] if integers.inputs_last else integers.top
        for name, integers in weights.items()
    }
    return arrays, json.dumps(tops, separators=(",", ":"))


def joined(
    metadata: Mapping[str, str], arrays: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Integers]]:
    """Return all weights as floats, by name, and the integer ones as stored.

    Raises ModelFileError for parts that are missing or do not fit each other.
    """
    floats, packed = dict(arrays), {}
    tops = parse_json(metadata.get("integers", "{}"), "integers")
    if not isinstance(tops, dict):
        raise ModelFileError(f"integers is not an object: {tops!r:.60}")
    for name, top in tops.items():
        if missing := [key for key in _names(name) if key not in floats]:
            raise ModelFileError(f"the file lacks {', '.join(missing)}, a part of {name}")
        values, scales, exponents = (np.ascontiguousarray(floats.pop(key)) for key in _names(name))
        last = isinstance(top, list) and top[1:] == [_LAST]
        integers = Integers(values, scales, exponents, top[0] if last else top, last)
        if why := why_invalid(integers):
            raise ModelFileError(f"{name} is not valid as integer weights: {why}")
        floats[name], packed[name] = integers.floats(), integers
    return floats, packed


def _names(name: str) -> list[str]:
    return [name, *(f"{name}.{part}" for part in _PARTS)]
