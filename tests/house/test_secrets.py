"""No command prints, logs or stores the credentials of a URI, however it is misspelled."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import logs
import numpy as np
import pytest
import typer
from pyarrow import fs as arrow_fs
from selection import slow

from streamrnn import errors
from streamrnn.base.storage import remote
from streamrnn.cli import app as cli_app
from streamrnn.cli import main, report
from streamrnn.errors import StreamRNNError, UnsupportedError

SECRET = re.compile("XKEYX|XSEC|RETX")
# What ends the URI keeps a request for the bucket's region away.
REGION = "?region=us-east-1"
WITHIN = [
    *("", "%2F", "/", "@", "?", "#", ":", "&", "=", "%", "+", ";", ",", ")", "'", '"', "\\", "|"),
    *(" ", "\t", "\n", "%20", "%0A", "é", "/@", "@/", "?@", "[", "~", "$"),
]
BEFORE = [
    *("s3:/", "s3:", "s3:///", "s3//", "S3://", " s3://", "\ns3://", "'s3://", "s3a://", "s3:\\\\"),
    *("gs://", "gcs://", "abfss://", "https://", "hdfs://", "foo://", "foo:///"),
    *("s3;//", "s33:/", "r2:", "postgres:", "s3:;//", "//", "", "./s3://", "s3:/ /"),
]
USERS = [
    *("XKEYX:XSECRETX\n@", "XKEYX:\nXSECRETX@", " XKEYX:XSECRETX@", "XKEYX:XSECRETX @"),
    *(":XSECRETX@", "XSECRETX@", "XKEYX:XSECRETX/", "XKEYX:12/XSECRETX@", "XKEYX:/XSECRETX@"),
]
OPTIONS = [
    *("sig=XSECRETX", "X-Amz-Signature=XSECRETX", "external_id=XSECRETX", "secret_key=XSECRETX"),
    *("XSECRETX", "regionn=XSECRETX", "sv=1&sig=XSEC%2FRETX", "endpoint_override=XKEYX:XSEC@RETX"),
    *("scheme=http%26sig=XSECRETX", "scheme=http;sig=XSECRETX", "scheme=http%3Bsig%3DXSECRETX"),
    *("scheme=http%2526sig%253DXSECRETX", "scheme=http&amp;sig=XSECRETX", "scheme=a=XSECRETX"),
]
SPELLINGS = [
    *(f"s3://XKEYX:XSEC{odd}RETX@bucket/{{}}{REGION}" for odd in WITHIN),
    *(f"{start}XKEYX:XSECRETX@bucket/{{}}{REGION}" for start in BEFORE),
    *(f"s3://{user}bucket/{{}}{REGION}" for user in USERS),
    *(f"s3://bucket/{{}}{REGION}&{option}" for option in OPTIONS),
    *(f"{start}XKEYX%3AXSECRETX%40bucket/{{}}{REGION}" for start in ("s3://", "s3;//")),
    f"s3://bucket/{{}}{REGION}#XSECRETX",
]
RUN = ("run", "p.toml", "-v")
PLACES: list[tuple[str, ...]] = [
    ("run", "{}p.toml"),
    *((*RUN, "--set", f"{key}={{}}x") for key in ("source.path", "sink.path", "sink.rejects")),
    *((*RUN, "--set", f"{key}={{}}x.parquet") for key in ("state.init", "state.save")),
    (*RUN, "--set", "alerts.where=score > 0", "--set", "alerts.path={}x"),
    (*RUN, "--set", "source.after.path={}1.parquet"),
    (*RUN, "--set", "model.path={}m.safetensors"),
    (*RUN, "--set", "window.lanes={}x"),
    (*RUN, "--set", "{}x"),
    (*RUN, "--metrics", "{}m.prom"),
    (*RUN, "--reload-file", "{}1.parquet"),
    ("fit", "{}p.toml"),
    *(("fit", "p.toml", "-v", "--set", f"{key}={{}}x") for key in ("source.path", "train.init")),
    ("fit", "p.toml", "-v", "--set", "model.path={}m.safetensors"),
    ("validate", "{}p.toml"),
    ("validate", "p.toml", "-v", "--set", "source.path={}x"),
    ("validate", "p.toml", "-v", "--set", "sink.path={}x"),
    ("explain", "{}p.toml", "--json"),
    ("explain", "p.toml", "--json", "--set", "sink.path={}x"),
    ("explain", "p.toml", "--mermaid", "--set", "source.path={}x"),
    ("compile", "{}p.toml"),
    ("compile", "p.toml", "-v", "--set", "model.path={}m.onnx"),
    ("evaluate", "{}p.toml"),
    ("evaluate", "p.toml", "-v", "-o", "{}x.parquet"),
    ("evaluate", "p.toml", "-v", "--set", "sink.path={}x"),
    ("report", "{}x"),
    ("report", "out", "-v", "-o", "{}r.html"),
    ("serve", "{}p.toml"),
    ("serve", "p.toml", "-v", "--set", "serve.port=0", "--set", "model.path={}m.safetensors"),
    ("summary", "{}m.safetensors", "-v"),
    ("summary", "{}m.safetensors", "--mermaid"),
    ("convert", "{}m.safetensors", "two.safetensors"),
    ("convert", "m.safetensors", "{}m.safetensors"),
    ("convert", "m.safetensors", "two.safetensors", "--check", "{}check.npz"),
    ("convert", "m.safetensors", "two.safetensors", "--layers", "{}layers.toml"),
    ("convert", "m.safetensors", "two.torch.safetensors", "--module", "{}m.py"),
    *(("verify", *rest) for rest in (("{}x", "-v"), ("out", "--rejects", "{}x"))),
    *(("rewind", *rest) for rest in (("{}x", "-v"), ("out", "--before", "{}1.parquet"))),
    ("rewind", "out", "--to", "0", "--rejects", "{}x"),
    *(("publish", *rest) for rest in (("{}x", "-v"), ("out", "--rejects", "{}x"))),
    *(("compact", *rest) for rest in (("{}x", "-v"), ("out", "--rejects", "{}x"))),
    ("init", "{}p.toml"),
    ("init", "q.toml", "--from", "{}x", "--model", "m.safetensors"),
    ("init", "q.toml", "--from", "in", "--model", "{}m.safetensors"),
    ("schema",),
    ("guide", "{}x"),
    ("state", "show", "{}x", "-v"),
    ("state", "show", "{}x.parquet", "--json"),
    ("state", "export", "{}x", "-o", "s.arrow"),
    ("state", "export", "out", "-o", "{}s.arrow"),
    ("state", "import", "{}s.arrow", "out"),
    ("state", "import", "s.arrow", "{}x"),
    ("state", "diff", "{}x", "out"),
    ("state", "diff", "out", "{}x.parquet"),
    ("state", "drop", "{}x", "--key", "s1"),
    ("state", "reset", "{}x", "--key", "s1"),
    ("state", "compact", "{}x", "--idle", "1d"),
    ("state", "gc", "{}x", "-v"),
]


COMMANDS = typer.main.get_command(cli_app.app)


def _command(place: tuple[str, ...]) -> str:
    return " ".join(place[: 2 if place[0] == "state" else 1])


class _Refusing(arrow_fs.FileSystemHandler):
    """A store that refuses all, in the words of pyarrow."""

    def _refuse(self, path: Any, *rest: Any, **options: Any) -> Any:
        raise OSError(f"When reading information for {path}: AWS Error ACCESS_DENIED")

    def get_type_name(self) -> str:
        return "s3"

    def __eq__(self, other: object) -> bool:
        return self is other

    copy_file = create_dir = delete_dir = delete_dir_contents = delete_file = _refuse
    delete_root_dir_contents = get_file_info = get_file_info_selector = move = _refuse
    normalize_path = open_append_stream = open_input_file = open_input_stream = _refuse
    open_output_stream = _refuse


class _Opening:
    """FileSystem of pyarrow, whose URIs it parses, and connects to no server."""

    @staticmethod
    def from_uri(uri: str) -> tuple[arrow_fs.FileSystem, str]:
        _, path = arrow_fs.FileSystem.from_uri(uri)
        return arrow_fs.PyFileSystem(_Refusing()), path


@pytest.fixture
def folder(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a pipeline that has run, its model and its state."""
    stub = SimpleNamespace(**{**vars(arrow_fs), "FileSystem": _Opening})
    monkeypatch.setattr(remote, "arrow_fs", stub)
    monkeypatch.setattr(cli_app, "app", COMMANDS)  # which takes longer than most calls
    for module in (errors, report):  # what messages have, not what is cut out of them
        monkeypatch.setattr(module, "without_credentials", str)
    logs.small_model().save("m.safetensors")
    logs.write(logs.random_log(40), Path("in/1.parquet"))
    np.savez("check.npz", x=np.zeros((1, 2, 2)), y=np.zeros((1, 1)))
    Path("p.toml").write_text(
        '[source]\npath = "in"\nkey = "id"\ntime = "t"\nfeatures = ["a", "b"]\n'
        '[model]\npath = "m.safetensors"\n[sink]\npath = "out"\n'
    )
    _main("run", "p.toml", "-q")
    _main("state", "export", "out", "-o", "s.arrow")
    return workdir


def _main(*arguments: str) -> None:
    with pytest.raises(SystemExit):
        main(arguments)


def _spell(argument: str, spelling: str) -> str:
    before, marked, path = argument.partition("{}")
    return before + spelling.format(path) if marked else argument


def test_every_command_is_in_the_table() -> None:
    def names(command: Any, name: str = "") -> Iterator[str]:
        if hasattr(command, "commands"):
            context = command.context_class(command)
            for part in command.list_commands(context):
                yield from names(command.resolve_command(context, [part])[1], f"{name} {part}")
        else:
            yield name.strip()

    assert set(names(COMMANDS)) == {_command(place) for place in PLACES}
    assert len(SPELLINGS) >= 60


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, marks=slow if before and _command(place) == _command(before) else ())
        for before, place in zip([(), *PLACES], PLACES, strict=False)
    ],
    ids=" ".join,
)
def test_a_command_keeps_a_secret_to_itself(
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    place: tuple[str, ...],
) -> None:
    """Printed are one message and no secret, in no spelling; nothing that is written has one.

    Slow: all places of a command but the first.
    """
    caplog.set_level(logging.DEBUG)
    capfd.readouterr()
    leaks = []
    for spelling in SPELLINGS:
        _main(*(_spell(part, spelling) for part in place))
        shown = "".join(capfd.readouterr()) + caplog.text
        caplog.clear()
        if SECRET.search(shown) or "bug in streamrnn" in shown:
            leaks.append(f"{spelling!r}: {shown}")
    assert not leaks, leaks[0]
    for path in folder.rglob("*"):
        assert not SECRET.search(str(path))
        assert path.is_dir() or not SECRET.search(path.read_bytes().decode("latin-1")), path


def test_a_path_that_only_a_server_uses_is_recorded_without_secrets(folder: Path) -> None:
    log = "serve.log=s3://KEY:SECRET@bucket/log"
    _main("run", "p.toml", "-q", "--set", "sink.path=new", "--set", log)
    manifest = Path("new/_streamrnn/_manifest.json").read_text()
    assert "bucket/log" in manifest
    assert "SECRET" not in manifest


@pytest.mark.parametrize("key", ["source.path", "sink.path", "model.path"])
def test_a_uri_with_one_slash_is_no_path(
    folder: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    _main("run", "p.toml", "--set", f"{key}=s3:/KEY:SECRET@bucket/x")
    shown = capsys.readouterr().err
    assert f"{key}: expected two slashes in a URI: s3://…" in shown
    assert '"s3:/bucket/x"' in shown


def test_a_secret_with_a_line_break_is_refused_by_the_name_of_its_variable(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file that echo wrote has it."""
    monkeypatch.setenv("PASSWORD_OF_STORE", "XSECRETX\n")
    _main("run", "p.toml", "--set", "source.path=s3://XKEYX:${PASSWORD_OF_STORE}@bucket/x")
    shown = capsys.readouterr().err
    assert "environment variable PASSWORD_OF_STORE begins or ends with white space" in shown
    assert not SECRET.search(shown)


def test_messages_show_scheme_host_path_and_options(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that they stay useful; why a store refuses is in them too."""
    _main("verify", f"s3://XKEYX:XSECRETX@bucket/in/x{REGION}&scheme=http")
    shown = capsys.readouterr().err
    assert "s3://bucket/in/x" in shown
    assert "ACCESS_DENIED. Check the credentials" in shown
    _main("verify", "s3://XKEYX:XSECRETX@bucket/x?regionn=eu")
    shown = capsys.readouterr().err
    assert "'s3://bucket/x' cannot be opened: the library's text is not shown" in shown
    _main("verify", "foo://bucket/x")
    assert "Unrecognized filesystem type in URI: foo://bucket/x" in capsys.readouterr().err


def test_explain_shows_no_user_of_a_model(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = arrow_fs.LocalFileSystem()
    opened = SimpleNamespace(from_uri=lambda uri: (store, str(folder / "m.safetensors")))
    monkeypatch.setattr(remote.arrow_fs, "FileSystem", opened)
    model = f"s3://XKEYX:XSECRETX@bucket/m.safetensors{REGION}"
    _main("explain", "p.toml", "--json", "--set", f"model.path={model}")
    shown = capsys.readouterr().out
    assert f'"model": "s3://bucket/m.safetensors{REGION}"' in shown


def test_a_model_is_not_saved_to_a_uri() -> None:
    with pytest.raises(UnsupportedError, match=r"^s3://bucket/m\.safetensors: a model is written"):
        logs.small_model().save("s3://KEY:SECRET@bucket/m.safetensors")
    with pytest.raises(StreamRNNError) as caught:
        logs.small_model().save(Path("s3://KEY:SECRET@bucket/m.safetensors"))
    assert "SECRET" not in str(caught.value)
    assert not Path("s3:").exists()


@pytest.mark.parametrize("secret", ["SECRET", "SEC%2FRET", "S'E,C)RET"])
def test_what_a_message_was_not_meant_to_have_is_cut_out(secret: str) -> None:
    """Of the URIs in it; other words stay."""
    text = "--set a='s3://{}bucket/1?region=x{}': expected a number. Ask me@example.org"
    shown = str(StreamRNNError(text.format(f"KEY:{secret}@", f"&sig={secret}")))
    assert shown == text.format("", "")
