"""Imports of a Keras test file, answered by streamrnn where it has the name, else by Keras.

Nothing of Keras is changed or copied: a test file is executed with an `__import__` of its own.
"""

import builtins
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import streamrnn

REAL = ("backend", "constraints", "dtype_policies", "export", "quantizers", "random", "tree")
"""Rooms of Keras that the tests use as tools."""
PLACES = ("layers", "models", "initializers", "activations", "regularizers", "ops", "losses")


ABSENT = ("tensorflow", "grain", "conftest")
"""What tests import for other backends only."""


class NotHere(Exception):  # noqa: N818 - not a failure
    """A test uses a class or function that streamrnn does not have."""


class Lacking:
    """Stands for a name of Keras that streamrnn does not have; any use of it says so."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: object, **kwargs: object) -> Any:
        raise NotHere(self.name)

    def __getattr__(self, name: str) -> Any:
        raise NotHere(f"{self.name}.{name}")

    def __mro_entries__(self, bases: object) -> Any:
        raise NotHere(self.name)


class Absent(ModuleType):
    """A package that only tests of other backends call."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("skip_if"):  # of Keras's conftest: decorators for other backends
            return lambda *args, **kwargs: lambda test: test
        return Lacking(f"{self.__name__}.{name}")


class _SymbolClass(type):
    def __instancecheck__(cls, value: object) -> bool:
        from streamrnn.nn.layers.symbol import Symbol

        return isinstance(value, Symbol)


class KerasTensor(metaclass=_SymbolClass):
    """Makes an Input of streamrnn; an instance of it is any symbol."""

    def __new__(cls, shape: Any, dtype: Any = "float32", **kwargs: Any) -> Any:
        if kwargs.pop("sparse", False) or kwargs.pop("ragged", False):
            raise NotHere("sparse and ragged tensors")
        return streamrnn.Input(batch_shape=tuple(shape), dtype=dtype)


class Shim(ModuleType):
    """A module `keras.src…`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return resolve(self.__name__, name)


def resolve(module: str, name: str) -> Any:
    """Return what `from module import name` gives a test."""
    if name == "KerasTensor":
        return KerasTensor
    if name in ("Input", "Sequential"):
        return getattr(streamrnn, name)
    if name in ("Model", "Functional"):
        return streamrnn.Model
    if module.startswith("keras.src.testing") or name == "testing":
        return _testing(module, name)
    parts = module.split(".")[2:]
    place = parts[0] if parts else name
    if not parts and place == "ops":
        return _ops()
    if not parts and place in PLACES:
        return Shim(f"keras.src.{place}")
    if not parts and place == "backend":
        return _backend()
    if place in ("layers", "models", "initializers", "activations", "regularizers"):
        return _of_room(module, place, name)
    if place == "saving" and name == "load_model":
        return streamrnn.load_model
    return _real(module, name)


def _of_room(module: str, place: str, name: str) -> Any:
    room = importlib.import_module(f"streamrnn.{place}")
    if hasattr(room, name):
        return getattr(room, name)
    if name.islower():  # a submodule: what is looked up in it decides
        return Shim(f"{module}.{name}")
    return Lacking(name)


def _testing(module: str, name: str) -> Any:
    """Return Keras's tools for tests, with the TestCase that judges streamrnn."""
    from keras_case import Case

    if name == "TestCase":
        return Case
    if name in ("testing", "test_case"):
        made = ModuleType(name)
        vars(made).update(vars(importlib.import_module(f"{module}.{name}")))
        vars(made)["TestCase"] = Case
        return made
    return _real(module, name)


def _real(module: str, name: str) -> Any:
    found = importlib.import_module(module)
    if hasattr(found, name):
        return getattr(found, name)
    return importlib.import_module(f"{module}.{name}")


def _backend() -> ModuleType:
    import keras.src.backend as real

    made = ModuleType("keras.src.backend")
    vars(made).update(vars(real))
    vars(made)["KerasTensor"] = KerasTensor
    return made


def _ops() -> Any:
    import keras.src.ops as real

    made = ModuleType("keras.src.ops")
    vars(made).update(vars(real))
    own = getattr(streamrnn, "ops", None)
    for name in getattr(own, "__all__", ()):
        vars(made)[name] = _choosing(getattr(real, name, None), getattr(own, name))
    return made


def _choosing(real: Any, own: Any) -> Any:
    """Return streamrnn's function for symbols, and Keras's for the arrays of the tests."""

    def call(*args: Any, **kwargs: Any) -> Any:
        from streamrnn.nn.layers.symbol import symbols_in

        return (own if real is None or symbols_in([args, kwargs]) else real)(*args, **kwargs)

    return call


def load_test_file(path: Path) -> dict[str, Any]:
    """Execute a test file of Keras with these imports."""

    def importer(
        name: str, globals_: Any = None, locals_: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if name.startswith("keras.src") and name.endswith("_test"):
            other = path.parents[len(path.parts) - path.parts.index("src") - 2]
            return _as_module(
                load_test_file(other / (name.split(".", 2)[2].replace(".", "/") + ".py"))
            )
        if name.startswith("keras.src"):
            return Shim(name)
        if name.partition(".")[0] in ABSENT:
            return Absent(name)
        return builtins.__import__(name, globals_, locals_, fromlist, level)

    own = {**vars(builtins), "__import__": importer}
    names: dict[str, Any] = {"__builtins__": own, "__name__": path.stem, "__file__": str(path)}
    exec(compile(path.read_text(), str(path), "exec"), names)
    return names


def _as_module(names: dict[str, Any]) -> ModuleType:
    made = ModuleType(names["__name__"])
    vars(made).update({k: v for k, v in names.items() if k != "__builtins__"})
    return made
