"""TensorBoard without its package, and arguments that it refuses."""

import sys

import pytest

from streamrnn import callbacks
from streamrnn.errors import ArgumentError, UnsupportedError


def test_tensorboard_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'streamrnn\[tensorboard\]'"):
        callbacks.TensorBoard()
    with pytest.raises(ArgumentError, match="histogram_freq=1 is not supported"):
        callbacks.TensorBoard(histogram_freq=1)
    with pytest.raises(ArgumentError, match="update_freq must be"):
        callbacks.TensorBoard(update_freq="step")
