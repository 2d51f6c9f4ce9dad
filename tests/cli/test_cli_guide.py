"""`streamrnn guide` shows the pages; help and errors name theirs."""

import inspect
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli.test_cli_help import COMMANDS

import streamrnn
from streamrnn import errors
from streamrnn.cli import main
from streamrnn.cli.guide import page_on

FOLDER = Path(streamrnn.__file__).parent / "guide"


def _call(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    return caught.value.code


def test_a_page_is_printed_as_it_is_if_piped(capsys: pytest.CaptureFixture[str]) -> None:
    assert _call("guide", "state") == 0
    assert capsys.readouterr().out == (FOLDER / "state.md").read_text()
    assert _call("guide") == 0
    assert capsys.readouterr().out == (FOLDER / "index.md").read_text()


def test_a_terminal_shows_headings_and_tables_without_marks() -> None:
    """As a person sees it, in 70 columns."""
    parent, child = pty.openpty()
    code = "from streamrnn.cli import main; main(['guide', 'state'])"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=child,
        env={**os.environ, "COLUMNS": "70", "TERM": "xterm"},
    ) as process:
        os.close(child)
        shown = b""
        try:
            while piece := os.read(parent, 65536):
                shown += piece
        except OSError:  # the end, on Linux
            pass
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[\d;]*m", "", shown.decode())
    assert "State is a table" in text
    assert "# State" not in text
    assert "```" not in text
    assert max(map(len, text.splitlines())) <= 70


def test_a_page_that_is_not_there_is_a_usage_error_with_the_nearest_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _call("guide", "kerasmodel") == 2
    assert "Did you mean 'keras-model'?" in capsys.readouterr().err
    assert _call("guide", "../../secrets") == 2
    assert "lists the pages" in capsys.readouterr().err


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_a_command_names_its_page(words: tuple[str, ...]) -> None:
    (page,) = re.findall(r"More:\n  streamrnn guide ([\w-]+)", COMMANDS[words].epilog)
    assert (FOLDER / f"{page}.md").exists()


def test_an_error_names_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert _call("run", "missing.toml") == 66
    assert capsys.readouterr().err.endswith("\nmore: streamrnn guide keys\n")
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.StreamRNNError):
            assert (FOLDER / f"{page_on(kind)}.md").exists()
