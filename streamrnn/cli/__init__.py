"""The command line: parse, call one public function, print."""

from collections.abc import Sequence

from streamrnn.cli.process import collect_rarely, exit_on_signal, fill_closed_streams

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Always raises SystemExit; its codes are listed in `cli.guide`.

    `arguments` default to sys.argv; the command then handles the signals of the process.
    """
    if arguments is None:
        fill_closed_streams()
        exit_on_signal()  # before the imports, which take most of the startup
        collect_rarely()
    from streamrnn.cli.app import main

    main(arguments)
