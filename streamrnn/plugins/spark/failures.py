"""Errors of workers, which Spark hides in the text of its own."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from streamrnn import errors

_RAISED = re.compile(
    r"^(?:streamrnn\.errors\.(\w+)|RuntimeError): (.*?)(?=\n\s*\n|\n\s+at |\s+SQLSTATE: |\s*\Z)",
    re.MULTILINE | re.DOTALL,
)


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise the error of a worker in place of the one of Spark that has it in its text.

    For actions on the DataFrames of `score`: `with worker_errors(): result.rows.write…`. Raises
    DataError, StateError and so on; UnsupportedError for a worker without this version of
    streamrnn. Other errors of Spark pass through.
    """
    try:
        yield
    except errors.StreamRNNError:
        raise
    except Exception as error:
        found = _error_in(str(error))
        if found is None:
            raise
        raise found from error


def _error_in(text: str) -> errors.StreamRNNError | None:
    """Return the last error of streamrnn in a text; None if there is none."""
    for name, message in reversed(_RAISED.findall(text)):
        if name:
            kind = getattr(errors, name, None)
            if name == errors.LateRowError.__name__ or kind is None:
                kind = errors.DataError  # a late row's error has more than a text
            return kind(message.strip())
        if message.startswith("a Spark worker "):
            return errors.UnsupportedError(message.strip())
    return None
