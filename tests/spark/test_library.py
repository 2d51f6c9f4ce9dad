"""Without PySpark: the package can be imported, and its use names the extra."""

import sys

import pytest

from streamrnn import spark
from streamrnn.errors import UnsupportedError


def test_without_pyspark_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'streamrnn\[spark\]'"):
        spark.state_from_arrow(None, spark_state())


def spark_state() -> object:
    import pyarrow as pa

    from streamrnn.states import Layout, StateTable

    return StateTable(Layout((pa.field("id", pa.string()),), None, {"rnn/h": 2}))
