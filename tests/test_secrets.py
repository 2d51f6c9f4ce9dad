"""No command and no error prints the credentials of a URI, however it is misspelled."""

import os
import re
from pathlib import Path

import logs
import numpy as np
import pytest

from streamrnn.cli import main
from streamrnn.display import without_credentials
from streamrnn.errors import StreamRNNError, UnsupportedError

SECRETS = ("SECRET", "SEC%2FRET", "SE/C@RET", "SEC@RE/T", "S@E/C@RET", "SE?CRET")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a pipeline that has run, and its model."""
    monkeypatch.chdir(tmp_path)
    logs.small_model().save("m.safetensors")
    logs.write(logs.random_log(40), Path("in/1.parquet"))
    np.savez("check.npz", x=np.zeros((1, 2, 2)), y=np.zeros((1, 1)))
    Path("p.toml").write_text(
        '[source]\npath = "in"\nkey = "id"\ntime = "t"\nfeatures = ["a", "b"]\n'
        '[model]\npath = "m.safetensors"\n[sink]\npath = "out"\n'
    )
    _main("run", "p.toml", "-q")
    return tmp_path


def _main(*arguments: str) -> None:
    with pytest.raises(SystemExit):
        main(arguments)


@pytest.mark.parametrize("slashes", ["//", "/"])
@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "arguments",
    [
        ("init", "{}/p.toml"),
        ("convert", "m.safetensors", "{}/m.safetensors"),
        ("convert", "m.safetensors", "two.safetensors", "--check", "{}/check.npz"),
        ("summary", "{}/m.safetensors"),
        ("run", "p.toml", "--set", "window.lanes={}/x"),
        ("rewind", "out", "--before", "{}/1.parquet"),
        ("state", "export", "out", "-o", "{}/state.txt"),
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[-2]}",
)
def test_a_command_prints_no_secret(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], secret: str, slashes: str
) -> None:
    """And names what it was given without it."""
    capsys.readouterr()
    _main(*(part.format(f"s3:{slashes}KEY:{secret}@bucket") for part in arguments))
    shown = "".join(capsys.readouterr())
    assert "s3:" in shown
    assert "bucket/" in shown
    words = {"KEY", *re.split(r"@|/|%2F|\?", secret)}
    assert [word for word in words if len(word) > 1 and word in shown] == []
    assert "@" not in shown


@pytest.mark.parametrize("key", ["source.path", "sink.path", "model.path"])
def test_a_uri_with_one_slash_is_no_path(capsys: pytest.CaptureFixture[str], key: str) -> None:
    _main("run", "p.toml", "--set", f"{key}=s3:/KEY:SECRET@bucket/x")
    shown = capsys.readouterr().err
    assert f"{key}: expected two slashes in a URI: s3://…" in shown
    assert '"s3:/bucket/x"' in shown
    assert "SECRET" not in shown


def test_a_model_is_not_saved_to_a_uri() -> None:
    with pytest.raises(UnsupportedError, match=r"^s3://bucket/m\.safetensors: a model is written"):
        logs.small_model().save("s3://KEY:SECRET@bucket/m.safetensors")
    with pytest.raises(StreamRNNError) as caught:
        logs.small_model().save(Path("s3://KEY:SECRET@bucket/m.safetensors"))
    assert "SECRET" not in str(caught.value)
    assert not os.path.exists("s3:")


@pytest.mark.parametrize("secret", SECRETS)
def test_other_words_stay(secret: str) -> None:
    text = "--set a='s3:/KEY:{}bucket/1@b': expected a number. Ask me@example.org"
    assert without_credentials(text.format(f"{secret}@")) == text.format("").replace("KEY:", "")
