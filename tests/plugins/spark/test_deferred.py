"""Without PySpark: the package can be imported, and its use names the extra."""

import sys

import pytest

from streamrnn.errors import UnsupportedError
from streamrnn.plugins.spark.frames import pyspark


def test_without_pyspark_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("pyspark")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'streamrnn\[spark\]'"):
        pyspark()
