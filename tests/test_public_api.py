"""Public names exist, say what they are, and live in files that can be read in one sitting."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import streamrnn

PACKAGE = Path(streamrnn.__file__).parent
ROOMS = sorted(m.name for m in pkgutil.iter_modules([str(PACKAGE)]))
PUBLIC = [
    (room, name)
    for room in ROOMS
    for name in getattr(importlib.import_module(f"streamrnn.{room}"), "__all__", ())
]


def test_the_package_lists_exactly_what_it_loads() -> None:
    """`__all__`, `dir()` and attribute access agree; another name is an AttributeError."""
    assert dir(streamrnn) == streamrnn.__all__ == sorted(set(streamrnn.__all__))
    for name in streamrnn.__all__:
        assert getattr(streamrnn, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Lambda'"):
        _ = streamrnn.Lambda


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is(room: str) -> None:
    """One sentence at the top of each room, and of each file in it."""
    module = importlib.import_module(f"streamrnn.{room}")
    assert module.__doc__
    for path in (PACKAGE / room).rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


@pytest.mark.parametrize(("room", "name"), PUBLIC, ids=lambda v: str(v))
def test_a_public_name_is_there_and_documented(room: str, name: str) -> None:
    """With a docstring of its own, and public methods with theirs."""
    found = getattr(importlib.import_module(f"streamrnn.{room}"), name)
    if isinstance(found, ModuleType) or not callable(found):
        return
    assert inspect.getdoc(found), f"streamrnn.{room}.{name} has no docstring"
    if inspect.isclass(found):
        bare = [
            method
            for method, value in vars(found).items()
            if not method.startswith("_")
            and method not in inspect.get_annotations(found)
            and inspect.isfunction(value)
            and not inspect.getdoc(getattr(found, method))
        ]
        assert not bare, f"streamrnn.{room}.{name}: no docstring: {', '.join(bare)}"


@pytest.mark.parametrize("room", [r for r in ROOMS if (PACKAGE / r).is_dir()])
def test_the_names_of_a_room_are_sorted_and_not_repeated(room: str) -> None:
    """So that a merge cannot lose one."""
    names = getattr(importlib.import_module(f"streamrnn.{room}"), "__all__", [])
    assert len(names) == len(set(names))


def test_no_file_is_long() -> None:
    """500 lines at most; what grows beyond that is two things."""
    lines = {p: len(p.read_text().splitlines()) for p in PACKAGE.rglob("*.py")}
    assert {str(p): n for p, n in lines.items() if n > 500} == {}
