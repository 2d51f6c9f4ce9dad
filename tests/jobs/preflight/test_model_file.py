"""A model file in memory, written to a disk to be loaded."""

from pathlib import Path

import pytest

from streamrnn.errors import SinkError
from streamrnn.jobs.preflight import ModelFile


def test_a_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write)
    expected = r"cannot write .*a\.safetensors: No space left on device\. "
    with pytest.raises(SinkError, match=expected), ModelFile("a.safetensors", b"").on_disk():
        pass
