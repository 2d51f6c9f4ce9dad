"""Advice for a file of torch.save: what it holds, how to convert it, the tables of its layers.

Such a file is a pickle, which can run code when it is opened. It is not opened here: its names and
shapes are read as inert data.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamrnn.nn.formats.inert_pickle import Global, Made, Pickled, read_values
from streamrnn.nn.formats.torch_tables import TensorShape, tables_of

MAX_BYTES = 64 << 20
"""Limit of a pickle without its arrays; that of a thousand layers has some two megabytes."""
MAX_VISITS = 100_000
"""Limit of values to visit: what is stored once may be referred to from many places."""
_MAGIC = 0x1950A86A20F9469CFC6C
"""The first number in a file of torch.save before version 1.6."""

_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_HALF = ("torch.HalfStorage", "torch.BFloat16Storage")
# Names that torch.load(weights_only=True) accepts (in protocol 2 only); no module is among them.
_SAFE = re.compile(r"collections\.OrderedDict|torch\.\w+|torch\._utils\.\w+")
_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,  # including RecursionError; zipfile raises it for encrypted files
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class _Array:
    """The shape of a tensor, and whether it is stored in 16 bits."""

    shape: TensorShape
    half: bool


Arrays = dict[str, _Array]


@dataclass(frozen=True)
class _Found:
    """What a file holds: in words, the expression of its state_dict in PyTorch, and its arrays."""

    what: str
    expression: str
    arrays: Arrays
    note: str = ""


def conversion_advice(path: Path) -> str:
    """Return how to convert a pickle to a .safetensors file, as precisely as its names allow."""
    try:
        found = _inspect(path)
    except _UNREADABLE:
        found = None
    if found is None:
        return _FROM_PICKLE.format(name=path.name, stem=path.stem)
    if not found.arrays:
        return f"{_NEVER_OPENED} It holds {found.what}. Save model.state_dict() as .safetensors."
    copied = "tensor.contiguous().clone()"
    if any(array.half for array in found.arrays.values()):
        copied = "tensor.float().contiguous().clone()"
    return _FROM_TORCH.format(
        what=found.what,
        note=found.note,
        expression=found.expression,
        copied=copied,
        target=json.dumps(f"{path.stem}.safetensors"),
        tables=tables_of({name: array.shape for name, array in found.arrays.items()}),
    )


_NEVER_OPENED = "a pickle can run code and is never opened."
_FROM_PICKLE = f"""{_NEVER_OPENED} Convert it once in PyTorch:
    import torch
    from safetensors.torch import save_file
    save_file(torch.load("{{name}}", weights_only=True), "{{stem}}.safetensors")
(save_file takes a state_dict; call .contiguous() on tensors that it rejects)"""
_FROM_TORCH = f"""{_NEVER_OPENED} It holds {{what}}. {{note}}Convert it once in PyTorch:
    import torch
    from safetensors.torch import save_file
    weights = {{expression}}
    weights = {{{{name: {{copied}} for name, tensor in weights.items()}}}}
    save_file(weights, {{target}})
and list its layers in the pipeline file, in the order of their calls, with those that have no
weights (activations) in between:
{{tables}}"""


def _inspect(path: Path) -> _Found | None:
    """Return what the file holds, or None if it was not written by torch.save."""
    if not zipfile.is_zipfile(path):
        return _classify(path.name, _read_old(path))
    with zipfile.ZipFile(path) as archive:
        members = archive.namelist()
        pickle = next((member for member in members if member.endswith("data.pkl")), None)
        if pickle is None:
            return None
        with archive.open(pickle) as file:
            pickled = read_values(io.BytesIO(file.read(MAX_BYTES)))
    if any(member.endswith("constants.pkl") for member in members):
        expression = f'torch.jit.load({json.dumps(path.name)}, map_location="cpu").state_dict()'
        return _Found("a TorchScript module", expression, dict(_module(pickled.value, _Visits())))
    return _classify(path.name, pickled)


def _read_old(path: Path) -> Pickled:
    """Read the value in a file of torch.save before 1.6, after magic number, version, system."""
    with path.open("rb") as file:
        data = io.BytesIO(file.read(MAX_BYTES))
    magic, _, _ = (read_values(data).value for _ in range(3))
    if magic != _MAGIC:
        raise ValueError("not written by torch.save")
    return read_values(data)


def _classify(name: str, pickled: Pickled) -> _Found:
    """Find the arrays of a model in the value of a file: the largest group of named ones."""
    candidates = _candidates(pickled.value, _Visits())
    keys, value, arrays = max(candidates, key=lambda item: len(item[2]), default=("", None, {}))
    safe = pickled.protocol == 2 and all(map(_SAFE.fullmatch, pickled.globals))
    expression = f'torch.load({json.dumps(name)}, map_location="cpu", weights_only={safe}){keys}'
    note = "" if safe else "weights_only=False runs code of the file: only if you trust it. "
    if not arrays:
        return _Found("no model: no tensor in it has a name", expression, arrays)
    what = "a state_dict"
    if isinstance(value, Made):
        expression += ".state_dict()"
        owner = _printable(value.function)
        what = f"a whole module of class {owner}"
        place = "defined in the script" if owner.startswith("__main__.") else "importable"
        note += f"The class must be {place}. "
    if keys:
        what = f"a checkpoint with {what} under {keys}"
    return _Found(what, expression, arrays, note)


def _printable(name: str) -> str:
    return name if re.fullmatch(r"[\w.]{1,200}", name) else "of another name"


class _Visits:
    """Counts visited values. Raises ValueError beyond MAX_VISITS."""

    def __init__(self) -> None:
        self.left = MAX_VISITS

    def count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ValueError("too many values")


def _candidates(value: Any, visits: _Visits, keys: str = "") -> Iterator[tuple[str, Any, Arrays]]:
    """Yield each group of named arrays with the subscripts that lead to it, three levels deep."""
    visits.count()
    if isinstance(value, Made):
        yield keys, value, dict(_module(value, visits))
    elif isinstance(value, dict):
        arrays = {name: _array(item) for name, item in value.items() if isinstance(name, str)}
        yield keys, value, {name: array for name, array in arrays.items() if array is not None}
        for name, item in value.items():
            if isinstance(name, str) and keys.count("[") < 3:
                yield from _candidates(item, visits, f"{keys}[{name!r}]")


def _module(value: Any, visits: _Visits, prefix: str = "") -> Iterator[tuple[str, _Array]]:
    """Yield the arrays of a pickled module under the names of its state_dict."""
    if not isinstance(value, Made):
        return
    state = value.state
    members = state  # TorchScript: parameters, buffers and modules in one table
    if isinstance(state.get("_modules"), dict):
        hidden = _set_members(state.get("_non_persistent_buffers_set"))
        buffers = {n: b for n, b in (state.get("_buffers") or {}).items() if n not in hidden}
        members = {**(state.get("_parameters") or {}), **buffers, **state["_modules"]}
    for name, item in members.items():
        visits.count()
        array = _array(item)
        if array is not None:
            yield f"{prefix}{name}", array
        else:
            yield from _module(item, visits, f"{prefix}{name}.")


def _set_members(value: Any) -> list[Any]:
    members = value.arguments[0] if isinstance(value, Made) and value.arguments else []
    return members if isinstance(members, list) else []


def _array(value: Any) -> _Array | None:
    """Return the shape of a pickled tensor or parameter, None if the value is neither."""
    if not isinstance(value, Made) or not value.arguments:
        return None
    if value.function in _PARAMETERS:
        return _array(value.arguments[0])
    if value.function not in _TENSORS:
        return None
    storage, _, shape = value.arguments[:3]
    half = any(isinstance(item, Global) and item.name in _HALF for item in storage)
    return _Array(tuple(int(n) for n in shape), half)
