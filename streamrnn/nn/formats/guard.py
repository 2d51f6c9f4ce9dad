"""What all readers and writers of model files use.

A file may be damaged or hostile: there are limits, and exceptions inside `reading` are raised as
errors of streamrnn that name the file. Each weight gets a stored array, or the load fails. Files
are written next to their places and moved there when they are complete.
"""

import errno
import json
import math
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.base.display import location, uri_fault
from streamrnn.errors import (
    MissingFileError,
    ModelFileError,
    SinkError,
    StreamRNNError,
    UnsupportedError,
)
from streamrnn.nn.kernels.integers import FLOAT32
from streamrnn.nn.layers import initializers, registry
from streamrnn.nn.layers.layer import Layer
from streamrnn.nn.layers.precision import precision_of
from streamrnn.nn.models import Model

TORCH_SUFFIX = ".torch.safetensors"
"""The ending of a state_dict of PyTorch."""
MAX_JSON_BYTES = 32 << 20
"""Largest size of a config, in bytes: a thousand layers take about two megabytes."""
MAX_LAYERS = 500
MAX_FREE_SIZE = 1 << 20
"""The largest dimension that is always allowed; a larger one needs as many values in the file."""

_SIZES = ("units", "filters", "input_dim", "output_dim", "vocabulary_size", "num_tokens")
_SHAPES = ("batch_shape", "batch_input_shape", "input_shape", "build_input_shape")
_RAISED_BY_DAMAGE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, ImportError, LookupError,
    MemoryError, OSError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""RecursionError and NotImplementedError are RuntimeErrors."""
_RAISED_BY_LIMITS = {errno.EMFILE, errno.ENFILE}


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Prefix StreamRNNErrors with the file's name; turn errors from damage into ModelFileErrors."""
    try:
        yield
    except StreamRNNError as error:
        if not str(error).startswith(str(path)):
            error.args = (f"{path}: {error}",)
        raise
    except _RAISED_BY_DAMAGE as error:
        if isinstance(error, OSError) and error.errno in _RAISED_BY_LIMITS:
            raise  # a limit of this process: nothing is wrong with the file
        if isinstance(error, RecursionError):
            raise ModelFileError(f"{path}: nested too deeply to be a model") from None
        if isinstance(error, PermissionError):
            raise ModelFileError(
                f"{path}: cannot be read: permission denied. Let this user read the file"
            ) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelFileError(
            f"{path}: damaged, or its suffix does not match its contents ({reason:.200}). Save it "
            "again from its framework"
        ) from error


def require_file(path: str | Path, description: str = "model file") -> Path:
    """Return the path of a file.

    Raises MissingFileError if it does not exist, UnsupportedError for a URI.
    """
    refuse_uri(
        path, f"the {description} is read from a disk, not from a URI: copy it to a disk first"
    )
    path = Path(path)
    if not path.is_file():
        instead = ", but a folder, device or pipe of this name" if path.exists() else ""
        raise MissingFileError(f"{path}: no such {description}{instead}")
    return path


def refuse_uri(path: str | Path, advice: str) -> None:
    """Raise UnsupportedError, with `advice`, if the path is a URI (pathlib would drop a slash)."""
    text = os.fspath(path)
    if "://" in text or uri_fault(text):
        raise UnsupportedError(f"{location(text)}: {advice}")


@contextmanager
def extra_needed(module: str, extra: str, path: str | Path, use: str = "reading") -> Iterator[None]:
    """Raise UnsupportedError with the pip command if the block cannot import h5py or onnx."""
    try:
        yield
    except ImportError as error:
        raise UnsupportedError(
            f"{path}: {use} this file needs {module}: pip install 'streamrnn[{extra}]'"
        ) from error


def parse_json(text: str | bytes, name: str) -> object:
    """Parse JSON of bounded size. Raises ModelFileError that contains `name`."""
    if len(text) > MAX_JSON_BYTES:
        raise ModelFileError(f"{name} has {len(text):,} bytes; the maximum is {MAX_JSON_BYTES:,}")
    try:
        parsed: object = json.loads(text)
    except ValueError as error:
        raise ModelFileError(f"{name} is not valid JSON ({error})") from None
    return parsed


class Budget:
    """How many values a config's weights may have, given the number of values in the file.

    A config can declare a layer of any size, and layers allocate their weights when built.
    """

    def __init__(self, stored: int) -> None:
        self.stored = stored
        self.left = 2 * stored + MAX_FREE_SIZE // 16  # some weights are derived from others

    def zeros(self, shape: tuple[int, ...]) -> Floats:
        """Make a weight, to be set later. Raises ModelFileError if it exceeds the budget."""
        self.left -= math.prod(map(int, shape))
        if self.left < 0:
            raise ModelFileError(
                f"the config declares a weight of shape {tuple(shape)}, but the file contains only "
                f"{self.stored:,} values in all"
            )
        return np.zeros(shape, np.float32)

    def check(self, config: object) -> None:
        """Raise ModelFileError if a config declares sizes that exceed the budget."""
        if isinstance(config, list):
            for item in config:
                self.check(item)
        items = config.items() if isinstance(config, Mapping) else ()
        for key, value in items:
            if key not in _SIZES and key not in _SHAPES:
                self.check(value)
                continue
            for n in value if isinstance(value, list) else [value]:
                if isinstance(n, int | float) and not -1 <= n <= max(self.stored, MAX_FREE_SIZE):
                    raise ModelFileError(
                        f"the config has {key} = {value}, which is out of range for a file with "
                        f"{self.stored:,} values"
                    )


def build(config: Mapping[str, object], stored: int) -> Layer:
    """Build the layer or model of a config, with weights of zeros.

    Raises ModelFileError if it has far more weights than the file has values (`stored`).
    """
    budget = Budget(stored)
    budget.check(config)
    with initializers.replaced_by(budget.zeros):
        layer: Layer = registry.deserialize(config)
        return layer


@dataclass(frozen=True)
class Assignment:
    """One stored array (or several, joined), and the weight that it is assigned to."""

    source: str
    target: str
    array: Array


@dataclass
class Loaded:
    """A model read from a file, the source of each weight, and the unused stored arrays."""

    model: Model
    assignments: list[Assignment]
    left: list[str] = field(default_factory=list)

    def table(self) -> list[str]:
        """Return lines with layer, source, shape and target of every weight, and unused arrays."""
        rows = [("layer", "source", "shape", "target")]
        for assignment in self.assignments:
            layer, _, weight = assignment.target.partition("/")
            rows.append((layer, assignment.source, str(np.shape(assignment.array)), weight))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
        return [line.rstrip() for line in lines] + [f"not used: {name}" for name in self.left]


class ModelFormat(NamedTuple):
    """How files of one format are read.

    `read(path, …)` has parameters for the options of `load_model` that the format takes.
    `load_weights(model, path)` sets the weights of a model; or it is a sentence that says why the
    format does not do this.
    """

    read: Callable[..., Loaded]
    load_weights: Callable[[Model, Path], object] | str


def assign_weights(
    model: Layer, assignments: Iterable[Assignment], left: Iterable[str] = ()
) -> list[Assignment]:
    """Set the weights of `model` from the arrays assigned to their names.

    left: stored arrays that are not used. Raises ModelFileError, which lists all missing weights,
    unused arrays and shapes that do not fit; in that case no weight is set.
    """
    by_target: dict[str, Assignment] = {}
    problems = []
    for assignment in assignments:
        target, source = assignment.target, assignment.source
        if target in by_target:
            problems.append(f"{target} is stored twice, as {by_target[target].source} and {source}")
        by_target[target] = assignment
    weights = model.named_weights()
    if missing := [f"{name} {w.shape}" for name, w in weights.items() if name not in by_target]:
        problems.append(f"weights missing from the file: {', '.join(missing)}")
    extra = [assignment.source for name, assignment in by_target.items() if name not in weights]
    if unused := [*extra, *left]:
        problems.append(f"arrays that no layer uses: {', '.join(unused)}")
    for name, assignment in by_target.items():
        source, array = assignment.source, np.asarray(assignment.array)
        if name in weights and array.shape != weights[name].shape:
            problems.append(
                f"{source} has shape {array.shape}, but {name} needs {weights[name].shape}"
            )
        if array.dtype.kind not in "fiu":
            problems.append(f"{source} is not numeric ({array.dtype})")
    if problems:
        raise ModelFileError("the weights do not fit the layers\n  " + "\n  ".join(problems))
    assigned = [by_target[name] for name in weights]
    require_finite({assignment.source: assignment.array for assignment in assigned})
    model.set_weights([assignment.array for assignment in assigned])
    return assigned


def require_finite(arrays: Mapping[str, Array]) -> None:
    """Raise ModelFileError, naming the array, if a value is NaN or infinite as float32."""
    for name, array in arrays.items():
        with np.errstate(over="ignore"):
            if not np.isfinite(np.asarray(array, dtype=np.float32)).all():
                raise ModelFileError(f"{name} contains NaN or infinity (as float32)")


def checked_target(path: str | Path, suffix: str, form: str) -> Path:
    """Return the path of a model file to write. Raises UnsupportedError, SinkError."""
    refuse_uri(path, "a model is written to a file, not to a URI: write it to a disk, then copy it")
    path = Path(path)
    if path.suffix.lower() != suffix:
        raise UnsupportedError(f"{path}: expected the suffix {suffix} ({form})")
    if not path.parent.is_dir():
        raise SinkError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir():
        raise SinkError(f"{path}: this is a folder, not a file; set another path")
    if path.exists() and not path.is_file():
        raise SinkError(f"{path}: this is a device or pipe, not a file; set another path")
    return path


def refuse_integers(model: Model, form: str) -> None:
    """Raise UnsupportedError for a model of lower precision, which only native files can hold."""
    if (precision := precision_of(model)) != FLOAT32:
        raise UnsupportedError(
            f"{model} has weights in {precision}, and would give other values as {form}: "
            "convert the float32 file that it was made from"
        )


def write_atomically(files: Mapping[Path, bytes]) -> None:
    """Write and sync files next to their places, then move them there. Raises OSError."""
    end = f".{secrets.token_hex(4)}.tmp"
    temporary = {path: path.with_name(f".{path.name}{end}") for path in files}
    try:
        for path, data in files.items():
            with temporary[path].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path in files:
            temporary[path].replace(path)
    finally:
        for path in files:
            temporary[path].unlink(missing_ok=True)
