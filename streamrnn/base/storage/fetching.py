"""Copy a file from anywhere to a disk."""

import pyarrow as pa

from streamrnn.base.display import location
from streamrnn.base.storage.advice import advice_on
from streamrnn.base.storage.store import open_store
from streamrnn.errors import DataError, MissingFileError, StreamRNNError

_PIECE = 4 << 20


def fetch(source: str, target: str, description: str) -> None:
    """Copy the file at a path or URI to a local path. `description` says what it is, for messages.

    Raises MissingFileError if there is no such file, DataError if it cannot be read.
    """
    try:
        store, place = open_store(source)
        with store.open(place) as file, open(target, "wb") as copy:
            while piece := file.read_buffer(_PIECE):
                copy.write(piece)
    except StreamRNNError:
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"{location(source)}: no such {description}") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{location(source)}: the {description} cannot be read: {error}. {advice_on(error)} "
            "and rerun."
        ) from error
