"""The command line: parse, call one public function, print."""

from streamrnn.cli.app import app, main

__all__ = ["app", "main"]
