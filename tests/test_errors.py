"""All exceptions are defined in streamrnn/errors.py."""

import importlib
import pkgutil
import re
import signal
from pathlib import Path

import streamrnn
from streamrnn import errors, layers
from streamrnn.cli.process import SIGNALLED
from streamrnn.cli.run import INTERRUPTED

TROUBLESHOOTING = (Path(errors.__file__).parent / "guide" / "troubleshooting.md").read_text()
PRIVATE = {
    "streamrnn.stream.sources.formats.base.UnparsedError",
    "streamrnn.stream.sources.formats.text.UnfitTextError",
    "streamrnn.stream.states.incoming.UnfitValueError",
}
"""Signals within one room, which turns each into a StreamRNNError, or the status of an answer."""
USAGE = 2
"""Typer's exit code for an invalid command line."""
TERMINATED = SIGNALLED + signal.SIGTERM


def defined() -> list[type[BaseException]]:
    """Return all exception classes of the package, by importing each of its modules."""
    for module in pkgutil.walk_packages(streamrnn.__path__, "streamrnn."):
        importlib.import_module(module.name)
    found, unseen = {}, [BaseException]
    while unseen:
        for kind in unseen.pop().__subclasses__():
            unseen.append(kind)
            if kind.__module__.partition(".")[0] == "streamrnn":
                found[f"{kind.__module__}.{kind.__qualname__}"] = kind
    assert found.keys() >= PRIVATE
    return [kind for name, kind in found.items() if name not in PRIVATE]


def test_every_exception_is_a_public_class_with_one_parent() -> None:
    """It is in `errors`; beside one class from there it has at most one builtin base."""
    kinds = defined()
    assert {kind.__module__ for kind in kinds} == {errors.__name__}
    assert {kind.__name__ for kind in kinds} == {*errors.__all__}
    for kind in {*kinds} - {errors.StreamRNNError}:
        parents = [base for base in kind.__bases__ if base in kinds]
        builtin = [base for base in kind.__bases__ if base.__module__ == "builtins"]
        assert len(parents) == 1
        assert len(builtin) <= 1
        assert len(kind.__bases__) == len(parents) + len(builtin)


def test_the_guide_lists_the_exit_code_of_every_exception() -> None:
    """In a table: code, meaning, exceptions. A class is listed unless it has its parent's code."""
    rows = re.findall(r"^\| (\d+) \| [^|]+ \|([^|]*)\|", TROUBLESHOOTING, re.MULTILINE)
    listed = {int(code): set(re.findall(r"`(\w+)`", names)) for code, names in rows}
    expected: dict[int, set[str]] = {0: set(), USAGE: set(), INTERRUPTED: set(), TERMINATED: set()}
    for name in errors.__all__:
        kind = getattr(errors, name)
        parent, code = kind.__bases__[0], kind.exit_code
        if parent in (Exception, errors.StreamRNNError) or code != parent.exit_code:
            expected.setdefault(code, set()).add(name)
    expected[0].discard("PipeClosed")  # no failure
    expected[1].discard(errors.StreamRNNError.__name__)
    assert listed == expected


def test_a_public_module_exports_the_same_class() -> None:
    names = [name for name in layers.__all__ if hasattr(errors, name)]
    assert names
    assert all(getattr(layers, name) is getattr(errors, name) for name in names)
