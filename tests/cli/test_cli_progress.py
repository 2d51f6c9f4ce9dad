"""Progress: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""

import io
import logging
import re
import sys

import pytest

from streamrnn.cli import report as module
from streamrnn.cli.report import _log_at, progress
from streamrnn.pipeline import Progress


def now(rows, total_rows=None, message=None):
    return Progress(rows, total_rows, streams=3, seconds=2.0, message=message)


@pytest.fixture(autouse=True)
def _logging():
    _log_at(logging.INFO)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def shown(monkeypatch):
    """What a terminal shows of some progress."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")

    def shown(*reports):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", terminal := Terminal())
            with progress(quiet=False) as show:
                for report in reports:
                    show(report)
        return terminal.getvalue()

    return shown


def test_a_terminal_shows_a_bar_and_messages_above_it(shown):
    text = shown(
        now(rows=1000, total_rows=2000, message="resumed at row 1,000"),
        now(rows=1500, total_rows=2000),
    )
    assert "resumed at row 1,000" in text
    assert "1,500/2,000 rows" in text
    assert "750 rows/s, 3 streams" in text


@pytest.mark.parametrize("no_color", [False, True])
def test_no_color_is_honoured(shown, monkeypatch, no_color):
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    colors = re.search(r"\033\[(\d;)?3\d", shown(now(rows=1000, total_rows=2000)))
    assert (colors is None) == no_color


def test_elsewhere_a_line_is_written_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0)
    with progress(quiet=False) as show:
        show(now(rows=1000, total_rows=20000, message="resumed"))
        show(now(rows=2000))
    assert capsys.readouterr().err == (
        "resumed\n"
        "1,000 of 20,000 rows, 500 rows/s, 3 streams\n"
        "2,000 rows, 1,000 rows/s, 3 streams\n"
    )


def test_between_two_lines_is_silence(capsys, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 1e9)
    with progress(quiet=False) as show:
        for rows in range(100):
            show(now(rows))
    assert capsys.readouterr().err == ""


def test_verbose_writes_a_line_a_batch(capsys):
    _log_at(logging.DEBUG)
    with progress(quiet=False) as show:
        show(now(rows=1))
        show(now(rows=2))
    assert capsys.readouterr().err.count("\n") == 2


def test_quiet_shows_nothing():
    with progress(quiet=True) as show:
        assert show is None
