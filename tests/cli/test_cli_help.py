"""Help texts end with an example that works and the exit codes; the shell completes commands."""

import inspect
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import run_command
from fresh import python
from selection import with_plugins

from streamrnn import errors
from streamrnn.cli.app import app
from streamrnn.cli.guide import EXIT_CODES

PAGE = Path(errors.__file__).parent / "guide" / "troubleshooting.md"
ROOT: Any = typer.main.get_command(app)


def _commands(command, words=()):
    """Each command without subcommands: the words that call it, and the command."""
    if not hasattr(command, "list_commands"):
        yield words, command
        return
    for name in command.list_commands(None):
        yield from _commands(command.resolve_command(None, [name])[1], (*words, name))


COMMANDS = dict(_commands(ROOT))


def test_all_commands_are_found():
    assert ("run",) in COMMANDS
    assert ("state", "diff") in COMMANDS
    assert (("report",) in COMMANDS) == (find_spec("streamrnn.plugins") is not None)
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_a_command_shows_an_example_that_parses(words, capsys):
    """On a line of its own; its options and arguments exist."""
    code, out, _ = run_command(capsys, *words, "--help")
    assert code == 0
    (line,) = re.findall(r"\n  Example:\n    streamrnn (.*)\n", out)
    arguments = line.partition(" > ")[0].split()
    assert arguments[: len(words)] == list(words)
    with COMMANDS[words].make_context("streamrnn", arguments[len(words) :]) as context:
        assert context.args == []
    assert max(map(len, out.splitlines())) <= 80


def test_the_help_lists_the_exit_codes_of_the_guide_and_of_the_errors(capsys):
    listed = dict(re.findall(r"^  (\d+) +(.+)$", EXIT_CODES, re.MULTILINE))
    page = dict(re.findall(r"^\| (\d+) \| (.+?) \|", PAGE.read_text(), re.MULTILINE))
    assert listed == page
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    raised = {str(kind.exit_code) for kind in classes if hasattr(kind, "exit_code")}
    assert raised - {"0"} <= set(listed)
    for arguments in (["--help"], ["run", "--help"]):
        _, out, _ = run_command(capsys, *arguments)
        assert all(f"\n    {code:<3}  {text}\n" in out for code, text in listed.items())


def _loaded(arguments=(), **environment):
    """Return what the command prints, and which heavy libraries and plug-ins that loaded."""
    code = (
        "import sys\nfrom streamrnn.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "heavy = {'numba', 'pyarrow', 'numpy', 'h5py', 'rich'}\n"
        "heavy.add('streamrnn.plugins.report.command')\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = python("-c", code, *arguments, **environment)
    return done.stdout, done.stderr.strip()


def _complete(words, index):
    """Return what bash would offer."""
    offered, heavy = _loaded(
        _STREAMRNN_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(index)
    )
    assert heavy == "[]"
    return offered.split()


def test_bash_completes_commands_and_options_without_loading_a_library():
    assert _complete("streamrnn ver", 1) == ["verify"]
    assert _complete("streamrnn state e", 2) == ["export"]
    assert _complete("streamrnn run --fu", 2) == ["--full-refresh"]


@with_plugins
def test_the_list_of_commands_says_what_those_of_plugins_do_and_loads_none():
    assert _complete("streamrnn rep", 1) == ["report"]
    listed, heavy = _loaded(["--help"])
    assert heavy == "[]"
    assert re.search(r"^  report  +Draw on one page what was committed", listed, re.MULTILINE)


def test_the_completion_script_can_be_shown(monkeypatch, capsys):
    """The shell is recognized by its process; here it is set."""
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: ("bash", "/bin/bash"))
    code, out, _ = run_command(capsys, "--show-completion")
    assert (code, "_STREAMRNN_COMPLETE=complete_bash" in out) == (0, True)
