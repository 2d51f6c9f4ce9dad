"""Public names exist, say what they are, and live in files that can be read in one sitting."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import typing
from functools import cached_property
from operator import attrgetter
from pathlib import Path

import pytest

import streamrnn

PACKAGE = Path(streamrnn.__file__).parent
ROOMS = sorted({m.name for m in pkgutil.iter_modules([str(PACKAGE)])} - {"__main__"})


def test_the_package_lists_exactly_what_it_loads() -> None:
    """`__all__`, `dir()` and attribute access agree; another name is an AttributeError."""
    assert dir(streamrnn) == streamrnn.__all__ == sorted(set(streamrnn.__all__))
    for name in streamrnn.__all__:
        assert getattr(streamrnn, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'Lambda'"):
        _ = attrgetter("Lambda")(streamrnn)
    with pytest.raises(AttributeError, match=r"'load_models': did you mean 'load_model'\?$"):
        _ = attrgetter("load_models")(streamrnn)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_is(room: str) -> None:
    """One sentence at the top of each room, and of each file in it."""
    module = importlib.import_module(f"streamrnn.{room}")
    assert module.__doc__
    for path in (PACKAGE / room).rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


@pytest.mark.parametrize("room", ROOMS)
def test_the_public_names_of_a_room_exist_and_are_documented(room: str) -> None:
    """Modules and constants are documented where they are defined."""
    module = importlib.import_module(f"streamrnn.{room}")
    public = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    assert [
        name for name, value in public.items() if callable(value) and not inspect.getdoc(value)
    ] == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_public_name_is_shown_in_a_public_file(room: str) -> None:
    """By `help` and `repr`, also what is loaded on first use; types of fields are found there."""
    if (PACKAGE / room).is_dir() and room != "optimizers":
        return
    module = importlib.import_module(f"streamrnn.{room}")
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__.removeprefix("streamrnn.") in {*ROOMS, "optimizers.schedules"}
        if inspect.isclass(value):
            typing.get_type_hints(value)


def test_a_name_of_the_package_is_shown_in_a_public_file() -> None:
    for name in streamrnn.__all__:
        value = getattr(streamrnn, name)
        if callable(value):
            assert value.__module__.removeprefix("streamrnn.") in {*ROOMS, "streamrnn"}, name


@pytest.mark.parametrize("room", ["callbacks", "utils"])
def test_python_adds_a_similar_name_to_an_unknown_one(room: str) -> None:
    """From `dir` of the module, if the error leaves it to Python to name both."""
    module = importlib.import_module(f"streamrnn.{room}")
    with pytest.raises(AttributeError, match=r"has no attribute 'to_categorica'$") as error:
        _ = attrgetter("to_categorica")(module)
    assert (error.value.name, error.value.obj) == ("to_categorica", module)


def test_the_page_of_what_is_public_lists_the_public_files() -> None:
    row = next(
        row for row in (PACKAGE / "guide/public.md").read_text().split("\n") if "help(" in row
    )
    listed = re.findall(r"`(\w+)`", row)
    public = {room for room in ROOMS if (PACKAGE / f"{room}.py").exists()} | {"optimizers"}
    assert listed == ["streamrnn", *sorted(public)]


def _examples(docstring: str | None) -> list[str]:
    return [example.source for example in doctest.DocTestParser().get_examples(docstring or "")]


def test_every_example_is_run() -> None:
    """Also those of methods of a class that is shown in a public file."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    written, collected = [], []
    for module in pkgutil.walk_packages(streamrnn.__path__, "streamrnn."):
        loaded = importlib.import_module(module.name)
        for node in ast.walk(ast.parse(inspect.getsource(loaded))):
            if isinstance(node, kinds):
                written += _examples(ast.get_docstring(node))
        for test in doctest.DocTestFinder().find(loaded):
            collected += [example.source for example in test.examples]
    assert len(written) > 100
    assert sorted(collected) == sorted(written)


def _undocumented(kind: type) -> list[str]:
    """The public methods and properties of a class without a docstring, inherited or not."""
    return [
        f"{kind.__module__}.{kind.__name__}.{name}"
        for name, value in vars(kind).items()
        if not name.startswith("_")
        if inspect.isfunction(value)
        or isinstance(value, property | cached_property | classmethod | staticmethod)
        if name not in inspect.get_annotations(kind)  # a field: documented with its class
        if not inspect.getdoc(getattr(kind, name))
    ]


def test_every_public_member_is_documented() -> None:
    """Of the public classes of all files; an overriding method may inherit its docstring."""
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(streamrnn.__path__, "streamrnn.")
    ]
    classes = [
        kind
        for module in modules
        for name, kind in vars(module).items()
        if inspect.isclass(kind) and kind.__module__ == module.__name__ and name[0] != "_"
    ]
    assert len(classes) > 300
    assert [member for kind in classes for member in _undocumented(kind)] == []


def test_a_member_without_a_docstring_is_found() -> None:
    class Kind:
        @property
        def size(self) -> int:
            return 0

        @classmethod
        def make(cls) -> None: ...

        def run(self) -> None: ...

    assert [member.rpartition(".")[2] for member in _undocumented(Kind)] == ["size", "make", "run"]


def _group(name: str) -> int:
    """Constants, then classes, then functions."""
    return 0 if name.isupper() else 1 if name[0].isupper() else 2


@pytest.mark.parametrize("room", ROOMS)
def test_the_names_of_a_room_are_sorted_and_not_repeated(room: str) -> None:
    """So that a merge cannot lose one."""
    names = importlib.import_module(f"streamrnn.{room}").__all__
    assert list(names) == sorted(set(names), key=lambda name: (_group(name), name))
