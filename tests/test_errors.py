"""All exceptions are defined in streamrnn/errors.py, whose docstring draws their tree."""

import builtins
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
LINE = re.compile(r"^    ((?:[│ ]   )*(?:[├└]── )?)(\w+)(?: \((\w+)\))? +(\d+)  \S", re.MULTILINE)

Entry = tuple[str, str | None, str | None, int]
"""Name, name of the parent in the tree, builtin base beyond the parent, exit code."""


def drawn(text: str) -> list[Entry]:
    """Return the entries of a drawn tree."""
    entries: list[Entry] = []
    above: list[str] = []
    for indent, name, base, code in LINE.findall(text):
        depth = len(indent) // 4
        assert depth <= len(above), f"{name} is nested too deep"
        above[depth:] = [name]
        entries.append((name, above[depth - 1] if depth else None, base or None, int(code)))
    return entries


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


def entry(kind: type[errors.StreamRNNError]) -> Entry:
    """Return what the tree must show of a class."""
    parents = [base.__name__ for base in kind.__bases__ if base.__module__ == errors.__name__]
    bases = [base.__name__ for base in kind.__bases__ if base.__module__ == "builtins"]
    if kind is errors.StreamRNNError:
        assert (parents, bases) == ([], ["Exception"])
        return kind.__name__, None, None, kind.exit_code
    assert len(parents) == 1
    assert len(bases) <= 1
    return kind.__name__, parents[0], next(iter(bases), None), kind.exit_code


def test_the_tree_shows_every_exception_with_its_bases_and_exit_code() -> None:
    """Compare names, nesting, builtin bases and exit codes with the classes."""
    kinds = defined()
    assert {kind.__module__ for kind in kinds} == {errors.__name__}
    tree = drawn(errors.__doc__ or "")
    assert len(tree) == len(set(tree))
    assert set(tree) == {entry(kind) for kind in kinds}
    assert all(hasattr(builtins, base) for _, _, base, _ in tree if base)


def test_a_drawn_tree_is_read_with_its_nesting() -> None:
    """Check the reader itself: a line out of place changes what is compared."""
    text = (
        "    Root                 1  all\n"
        "    ├── A (ValueError)   2  one\n"
        "    │   └── B            3  two\n"
        "    └── C (OSError)      4  three\n"
    )
    assert drawn(text) == [
        ("Root", None, None, 1),
        ("A", "Root", "ValueError", 2),
        ("B", "A", None, 3),
        ("C", "Root", "OSError", 4),
    ]
    moved = text.replace("│   └── B    ", "├── B        ")
    assert drawn(moved)[2] == ("B", "Root", None, 3)


def test_the_guide_lists_the_exit_code_of_every_exception() -> None:
    """In a table: code, meaning, exceptions. A class is listed unless it has its parent's code."""
    rows = re.findall(r"^\| (\d+) \| [^|]+ \|([^|]*)\|", TROUBLESHOOTING, re.MULTILINE)
    listed = {int(code): set(re.findall(r"`(\w+)`", names)) for code, names in rows}
    expected: dict[int, set[str]] = {0: set(), USAGE: set(), INTERRUPTED: set(), TERMINATED: set()}
    for name, parent, _, code in drawn(errors.__doc__ or ""):
        inherited = parent and getattr(errors, parent).exit_code
        if parent in (None, errors.StreamRNNError.__name__) or code != inherited:
            expected.setdefault(code, set()).add(name)
    expected[0].discard("PipeClosed")  # no failure
    expected[1].discard(errors.StreamRNNError.__name__)
    assert listed == expected


def test_a_public_module_exports_the_same_class() -> None:
    names = [name for name in layers.__all__ if hasattr(errors, name)]
    assert names
    assert all(getattr(layers, name) is getattr(errors, name) for name in names)
