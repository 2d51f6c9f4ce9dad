"""What every reader of model files keeps to: they come from outside, and may be damaged or hostile.

Whatever goes wrong inside `reading` leaves as an error of ours that names the file.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from streamrnn.errors import MissingFileError, ModelFileError, StreamRNNError, UnsupportedError
from streamrnn.layers import initializers, registry

MAX_JSON_BYTES = 32 << 20
"""A config of a thousand layers has some two megabytes."""
MAX_LAYERS = 500
MAX_FREE_SIZE = 1 << 20
"""A dimension may always be so large; beyond that only if the file holds so many values."""

_SIZES = ("units", "filters", "input_dim", "output_dim", "vocabulary_size", "num_tokens")
_SHAPES = ("batch_shape", "batch_input_shape", "input_shape", "build_input_shape")
_WHAT_DAMAGE_RAISES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,  # RecursionError among them
    TypeError,
    ValueError,
)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Errors of ours get the file's name in front; any other one becomes a ModelFileError."""
    try:
        yield
    except StreamRNNError as error:
        if not str(error).startswith(str(path)):
            error.args = (f"{path}: {error}",)
        raise
    except _WHAT_DAMAGE_RAISES as error:
        if isinstance(error, RecursionError):
            raise ModelFileError(f"{path}: nested too deeply to be a model") from None
        said = " ".join(str(error).split()) or type(error).__name__
        raise ModelFileError(
            f"{path}: damaged, or not what its ending says ({said:.200}). Write it again from the "
            "framework it comes from"
        ) from error


def require_file(path: str | Path, what: str = "model file") -> Path:
    """The path, if there is a file. Raises MissingFileError."""
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path}: there is no such {what}")
    return path


def require_extra(module: str, extra: str, path: str | Path) -> Any:
    """Import h5py or onnx, which are extras. Raises UnsupportedError that says what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        raise UnsupportedError(
            f"{path}: reading this file needs {module}: pip install 'streamrnn[{extra}]'"
        ) from error


def parse_json(text: str | bytes, what: str) -> Any:
    """JSON of bounded size. Raises ModelFileError, saying `what` it was to be."""
    if len(text) > MAX_JSON_BYTES:
        raise ModelFileError(
            f"{what} has {len(text):,} bytes, and more than {MAX_JSON_BYTES:,} are refused"
        )
    try:
        return json.loads(text)
    except ValueError as error:
        raise ModelFileError(f"{what} is no JSON ({error})") from None


class Budget:
    """How many values the weights of a config may have: as many as are stored.

    A config can ask for a layer of any size, and layers make their weights when they are built.
    """

    def __init__(self, stored: int) -> None:
        self.stored = stored
        self.left = 2 * stored + MAX_FREE_SIZE // 16  # some weights are made from another one

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """A weight to be set later. Raises ModelFileError where the file cannot hold it."""
        size = 1
        for n in shape:
            size *= int(n)
        self.left -= size
        if self.left < 0:
            raise ModelFileError(
                f"the config asks for a weight of shape {tuple(shape)}, more than is stored: the "
                f"file holds {self.stored:,} values in all"
            )
        return np.zeros(shape, np.float32)

    def check(self, config: Any) -> None:
        """Raise ModelFileError where a config names sizes that cannot come with such a file."""
        if isinstance(config, list):
            for item in config:
                self.check(item)
        elif isinstance(config, Mapping):
            for key, value in config.items():
                if key in _SIZES or key in _SHAPES:
                    self._check_sizes(key, value)
                else:
                    self.check(value)

    def _check_sizes(self, key: str, value: Any) -> None:
        limit = max(self.stored, MAX_FREE_SIZE)
        for n in value if isinstance(value, list) else [value]:
            if isinstance(n, int | float) and not -1 <= n <= limit:
                raise ModelFileError(
                    f"the config says {key} = {value}, but the file holds {self.stored:,} values"
                )


def build(config: Mapping[str, Any], stored: int) -> Any:
    """The layer or model of a config, with zeros for weights, in the size of what is stored.

    stored: the number of values in the file.
    """
    budget = Budget(stored)
    budget.check(config)
    with initializers.replaced_by(budget.zeros):
        return registry.deserialize(config)
