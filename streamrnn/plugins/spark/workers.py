"""Functions that Spark sends to its workers, and errors of workers, which Spark's own errors hide.

Functions are sent as code, not by name, so that a worker can report that it lacks this package.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamrnn import __version__, errors
from streamrnn.plugins.spark.types import pyspark

if TYPE_CHECKING:
    import pyarrow as pa

    from streamrnn.plugins.spark.partition import Task

Mapped = Callable[[Iterator["pa.RecordBatch"]], Iterator["pa.RecordBatch"]]


def scoring(task: "Task") -> Mapped:
    """Return the function with which a worker scores a partition."""
    content: bytes = pyspark().cloudpickle.dumps(task)
    version = __version__

    def score(batches):  # type: ignore[no-untyped-def]
        import sys

        fix = (
            f"This worker's Python is {sys.executable}. Install streamrnn {version} there, or set "
            "PYSPARK_PYTHON to the Python of the driver."
        )
        try:
            import streamrnn
        except ImportError:
            raise RuntimeError(f"a Spark worker cannot import streamrnn. {fix}") from None
        if streamrnn.__version__ != version:
            raise RuntimeError(
                f"a Spark worker has streamrnn {streamrnn.__version__}, the driver has {version}. "
                + fix
            )
        from pyspark import cloudpickle

        from streamrnn.plugins.spark.partition import score_partition

        return score_partition(cloudpickle.loads(content), batches)

    return score


def unpacking() -> Mapped:
    """Return the function with which a worker unpacks record batches from their first column."""

    def unpack(batches):  # type: ignore[no-untyped-def]
        import pyarrow as pa

        for batch in batches:
            for value in batch.column(0):
                with pa.ipc.open_stream(value.as_buffer()) as reader:
                    yield from reader

    return unpack


_RAISED = re.compile(
    r"^(?:streamrnn\.errors\.(\w+)|RuntimeError): (.*?)(?=\n\s*\n|\n\s+at |\s+SQLSTATE: |\s*\Z)",
    re.MULTILINE | re.DOTALL,
)


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise a worker's error in place of Spark's error that contains it as text.

    For actions on the DataFrames of `score`: `with worker_errors(): result.rows.write…`. Raises
    DataError, StateError and so on; UnsupportedError for a worker without this version of
    streamrnn. Other errors of Spark pass through.
    """
    try:
        yield
    except errors.StreamRNNError:
        raise
    except Exception as error:
        for name, message in reversed(_RAISED.findall(str(error))):
            if name:
                kind = getattr(errors, name, errors.DataError)
                if kind is errors.LateRowError:
                    kind = errors.DataError  # a late row's error has more than a text
                raise kind(message.strip()) from error
            if message.startswith("a Spark worker "):
                raise errors.UnsupportedError(message.strip()) from error
        raise
