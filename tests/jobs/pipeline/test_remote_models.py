"""Models at URIs of a disk, and URIs that lead nowhere."""

from pathlib import Path

import logs
import numpy as np
import pytest

from streamrnn import load_model
from streamrnn.errors import ConfigError, DataError, MissingFileError, UnsupportedError


def test_a_model_is_read_at_a_uri(tmp_path: Path) -> None:
    """Also its weights alone; the copy is not left behind."""
    model = logs.small_model()
    model.save(tmp_path / "m.safetensors")
    uri = (tmp_path / "m.safetensors").as_uri()
    assert load_model(uri).fingerprint() == model.fingerprint()
    other = logs.small_model()
    other.set_weights([np.zeros_like(weight) for weight in other.get_weights()])
    other.load_weights(uri)
    for weight, expected in zip(other.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("zzz://KEY:SECRET@a/m.onnx", DataError, r"^zzz://a/m\.onnx: .*text is not shown"),
        ("s3://b/m.keras?foo=bar", DataError, "^s3://b/m.keras: .*text is not shown"),
        ("s3://KEY:SE@CR/ET@models/m.h5", ConfigError, "^s3://models/m.h5: .* percent-encoded"),
        ("file://{folder}/gone.keras", MissingFileError, "gone.keras: no such model file"),
        ("file://{folder}", DataError, "not a regular file"),
        ("file://{folder}/m.txt", UnsupportedError, r"^file://.*/m\.txt: unknown suffix '\.txt'"),
        ("file://{folder}/m.keras", DataError, r"^file://.*/m\.keras: damaged"),
    ],
)
def test_an_error_names_the_uri(
    uri: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    """And not the copy that was read, nor a password."""
    for name in ("m.txt", "m.keras"):
        (tmp_path / name).write_text("no model")
    with pytest.raises(error, match=message) as caught:
        load_model(uri.format(folder=tmp_path))
    assert "SECRET" not in str(caught.value)
    assert "/streamrnn-" not in str(caught.value)
