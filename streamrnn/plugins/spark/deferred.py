"""PySpark, which is imported when it is first used."""

from typing import Any

from streamrnn.errors import UnsupportedError


def pyspark() -> Any:
    """Return the module of PySpark. Raises UnsupportedError, with the extra, if it is missing."""
    try:
        import pyspark as library
        import pyspark.cloudpickle
        import pyspark.errors
        import pyspark.sql.functions
        import pyspark.sql.types
    except ImportError as error:
        raise UnsupportedError(
            f"streamrnn.spark needs pyspark ({error}): pip install 'streamrnn[spark]'"
        ) from error
    return library
