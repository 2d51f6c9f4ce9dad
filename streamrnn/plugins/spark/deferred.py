"""PySpark, which is imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from streamrnn.errors import UnsupportedError


def pyspark(module: str) -> ModuleType:
    """Return a module of PySpark. Raises UnsupportedError, with the extra, if it is missing."""
    try:
        return import_module(f"pyspark.{module}" if module else "pyspark")
    except ImportError as error:
        raise UnsupportedError(
            f"streamrnn.spark needs pyspark ({error}): pip install 'streamrnn[spark]'"
        ) from error
