"""Conversion of any model file to the native format, Keras, PyTorch or ONNX, with a check.

The check compares the model's outputs with outputs that were recorded in the original framework. An
.npz file holds the recorded inputs and outputs: `x` and `y`, or `x_0`, `x_1`, … and `y_0`, `y_1`, …
in the model's order, or under the model's own names. The guide's pages keras-model and
torch-onnx-model show the code that records them.
"""

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamrnn.base.arrays import Array
from streamrnn.base.display import location, without_options
from streamrnn.base.plugin import load_plugin
from streamrnn.errors import ConfigError, DataError, UnsupportedError
from streamrnn.nn.formats.dispatch import read
from streamrnn.nn.formats.guard import TORCH_SUFFIX, Loaded, reading, require_file
from streamrnn.nn.formats.keras.write import save_keras
from streamrnn.nn.formats.tables import Tables
from streamrnn.nn.formats.torch_write import save_torch
from streamrnn.nn.layers.precision import precision_of, set_precision
from streamrnn.nn.models import Model
from streamrnn.nn.models.rounding import RoundingError


@dataclass(frozen=True)
class Difference:
    """The largest difference of an output from its recorded values.

    absolute: the largest difference. relative: the same, divided by the largest recorded value.
    """

    output: str
    shape: tuple[int, ...]
    absolute: float
    relative: float

    def __str__(self) -> str:
        return (
            f"{self.output} {self.shape}: largest difference {self.absolute:.3g}, relative to the "
            f"largest value {self.relative:.3g}"
        )


def convert(
    source: str | Path,
    target: str | Path,
    *,
    layers: Tables | None = None,
    node: str | None = None,
    strict: bool = False,
    state: Mapping[str, str] | None = None,
    check: str | Path | None = None,
    precision: str = "auto",
    module: str | Path | None = None,
) -> tuple[Loaded, list[Difference | RoundingError]]:
    """Read `source`, round it to `precision`, compare it with the outputs in `check`, and write it.

    target: .safetensors (the native format), .torch.safetensors (a state_dict of PyTorch), .keras,
    or .onnx (`plugins.onnx.export`). module: the .py file to write, with PyTorch's module for that
    state_dict. Other arguments and errors: see load_model. Raises DataError if the arrays in
    `check` do not fit the model, UnsupportedError for a layer that the target's format does not
    have, ConfigError for a module with another target, or if a model is rounded and `target` is
    the same file as `source`. After an error, nothing is written, or only the state_dict without
    its module.
    """
    if not without_options(os.fspath(target)).lower().endswith((".safetensors", ".keras", ".onnx")):
        raise UnsupportedError(
            f"{location(os.fspath(target))}: expected the suffix .safetensors (the native format), "
            ".torch.safetensors, .keras or .onnx"
        )
    if module is not None and not _is_state_dict(target):
        raise ConfigError(
            f"module: a module loads a file that ends in {TORCH_SUFFIX}. Give OUT this ending, or "
            "leave module out"
        )
    loaded = read(source, layers=layers, node=node, strict=strict, state=state)
    model = loaded.model
    checked = [] if check is None else _with_recorded(model, check)
    before = precision_of(model)
    with reading(source):
        set_precision(model, precision)
    differences: list[Difference | RoundingError] = []
    is_rounded = precision_of(model) != before
    both_exist = os.path.exists(source) and os.path.exists(target)
    if is_rounded and both_exist and os.path.samefile(source, target):
        raise ConfigError(
            f"{target} is both IN and OUT. Name another OUT: weights in {precision} cannot "
            "become float32 again"
        )
    if check is not None and is_rounded:
        model.reset_state()
        exact, checked = checked, _with_recorded(model, check)
        for (name, one, _), (_, other, _) in zip(exact, checked, strict=True):
            steps = 1 if one.ndim > 2 else None
            differences.append(RoundingError.of(name, precision, one, other, steps))
    differences += [_difference(*output) for output in checked]
    if is_onnx(target):
        load_plugin("export", "onnx").save_onnx(model, target)
    elif _is_state_dict(target):
        save_torch(model, target, module)
    elif Path(target).suffix.lower() == ".keras":
        save_keras(model, target)
    else:
        model.save(target)
    return loaded, differences


def _is_state_dict(target: str | Path) -> bool:
    return os.fspath(target).lower().endswith(TORCH_SUFFIX)


def is_onnx(target: str | Path) -> bool:
    """Return whether a file to write is an ONNX graph, by its suffix."""
    return Path(target).suffix.lower() == ".onnx"


def _with_recorded(model: Model, path: str | Path) -> list[tuple[str, Array, Array]]:
    """Return name, computed value and recorded value of each output in an .npz file."""
    path = require_file(path, "file of recorded outputs (check)")
    with reading(path):
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except zipfile.BadZipFile as error:
            raise DataError(f"not an .npz file, or damaged ({error})") from None
        inputs, left = _inputs(model, arrays)
        outputs = model(inputs if len(inputs) > 1 else next(iter(inputs.values())))
        if not isinstance(outputs, Mapping):
            flat = outputs if isinstance(outputs, list) else [outputs]
            names = [symbol.layer.name for symbol in model.outputs]
            unique = [f"{n}_{i}" if names.count(n) > 1 else n for i, n in enumerate(names)]
            outputs = dict(zip(unique, flat, strict=True))
        recorded = {n: left.pop(n) for n in outputs if n in left}
        for i, name in enumerate(outputs):
            for key in (f"y_{i}", "y" if i == 0 else f"y_{i}"):
                if name not in recorded and key in left:
                    recorded[name] = left.pop(key)
        if left or not recorded:
            raise DataError(
                f"expected recorded outputs as y, y_0, y_1, … or {', '.join(outputs)}; the file "
                f"contains {', '.join(arrays)}"
            )
    return [(name, outputs[name], array) for name, array in recorded.items()]


def _inputs(model: Model, arrays: Mapping[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the inputs by name (including states and lengths of a graph), and the other arrays."""
    left = dict(arrays)
    names = getattr(model, "call_names", None) or [name for name, _, _ in model.input_specs]
    inputs: dict[str, Array] = {}
    for i, name in enumerate(names):
        for key in (name, f"x_{i}", "x" if i == 0 else name):
            if key in left and name not in inputs:
                inputs[name] = left.pop(key)
    if missing := [name for name in names if name not in inputs]:
        raise DataError(
            f"the input {missing[0]!r} is not recorded: expected x, x_0, x_1, … or "
            f"{', '.join(names)}; the file contains {', '.join(arrays)}"
        )
    return inputs, left


def _difference(name: str, output: Array, recorded: Array) -> Difference:
    if recorded.dtype.kind not in "fiu" or output.shape != recorded.shape:
        raise DataError(
            f"output {name!r} is {output.dtype} {output.shape}, but the recorded one is "
            f"{recorded.dtype} {recorded.shape}"
        )
    if not output.size:
        return Difference(name, output.shape, 0.0, 0.0)
    largest = float(np.abs(output.astype(np.float64) - recorded).max())
    scale = max(float(np.abs(recorded).max()), 1e-30)
    return Difference(name, output.shape, largest, largest / scale)
