"""Model files in and out. `load_model` goes by the file's ending."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from streamrnn.errors import MissingFileError, UnsupportedError
from streamrnn.models import Model

_READERS = {".safetensors": "native"}
_PICKLES = (".pt", ".pth", ".pkl", ".bin")


def load_model(path: str | Path, **options: Any) -> Model:
    """The model in a file: native .safetensors.

    Raises MissingFileError, UnsupportedError (ending, layer) or ModelFileError (damaged).
    """
    model: Model = _reader(path, "load")(path, **options)
    return model


def load_weights(model: Model, path: str | Path) -> None:
    """Set a model's weights from a file. Raises ModelFileError where they do not fit."""
    _reader(path, "load_weights")(model, path)


def _reader(path: str | Path, function: str) -> Callable[..., Any]:
    path = Path(path)
    module = _READERS.get(path.suffix.lower())
    if module is None:
        pickled = path.suffix.lower() in _PICKLES
        raise UnsupportedError(
            f"{path}: "
            + ("a pickle can run code and is never opened" if pickled else "unknown ending")
            + f"; known are {', '.join(_READERS)}"
        )
    if not path.is_file():
        raise MissingFileError(f"{path}: there is no such model file")
    found: Callable[..., Any] = getattr(import_module(f"streamrnn.formats.{module}"), function)
    return found


__all__ = ["load_model", "load_weights"]
