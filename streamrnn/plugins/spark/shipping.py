"""Functions that Spark sends to its workers.

They are sent as code, not by name, so that a worker without this package can report it.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from streamrnn import __version__
from streamrnn.plugins.spark.deferred import pyspark

if TYPE_CHECKING:
    import pyarrow as pa

    from streamrnn.plugins.spark.partition import Task

Mapped = Callable[[Iterator["pa.RecordBatch"]], Iterator["pa.RecordBatch"]]


def scoring(task: "Task") -> Mapped:
    """Return the function of a worker that scores a partition."""
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
    """Return the function of a worker that unpacks record batches from their first column."""

    def unpack(batches):  # type: ignore[no-untyped-def]
        import pyarrow as pa

        for batch in batches:
            for value in batch.column(0):
                with pa.ipc.open_stream(value.as_buffer()) as reader:
                    yield from reader

    return unpack
