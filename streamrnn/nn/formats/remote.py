"""Model files in object stores: read from a copy on a disk."""

import os
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from streamrnn.base.display import location, uri_fault
from streamrnn.errors import ConfigError, DTypeError, StreamRNNError


@contextmanager
def on_disk(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a model file on a disk: the file itself, or a copy of a URI's object.

    The copy lies in its own folder, under the object's name, and is removed afterwards. Errors
    raised meanwhile name the URI, without credentials. Raises MissingFileError, and DataError if
    the object cannot be read.
    """
    if not isinstance(path, str | os.PathLike):
        raise DTypeError(f"expected the path of a model file, received {path!r:.80}")
    text = os.fspath(path)
    if fault := uri_fault(text):
        raise ConfigError(f"{location(text)}: {fault}")
    if "://" not in text:
        yield Path(text)
        return
    from streamrnn.base.storage import fetch  # loads Arrow, which model files on a disk do not need

    with tempfile.TemporaryDirectory(prefix="streamrnn-") as folder:
        copy = os.path.join(folder, file_name(text))
        fetch(text, copy, "model file")
        try:
            yield Path(copy)
        except StreamRNNError as error:
            error.args = (str(error).replace(copy, location(text)),)
            raise


def file_name(path: str) -> str:
    """Return the name of a file; options of a URI are left out.

    >>> file_name("s3://models/weather.onnx?region=eu-west-3"), file_name("m/weather.keras")
    ('weather.onnx', 'weather.keras')
    """
    return os.path.basename(path) if "://" not in path else posixpath.basename(urlsplit(path).path)
