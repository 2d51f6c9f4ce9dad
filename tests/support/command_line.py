"""The command line, in the process of a test."""

import pytest

from streamrnn.cli import main


def run_command(streams: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    """Return the exit code, and what was printed to stdout and to stderr."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code or 0, *streams.readouterr()
