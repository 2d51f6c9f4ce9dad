"""What pytest collects, selects and resets; doctests are of streamrnn, not of helpers of its tests.

`pytest` runs the quick set: all tests but those marked slow. `pytest --all`, and any path on the
command line, runs all.
"""

import doctest
import gc
import logging
from collections.abc import Iterator
from inspect import isclass, isfunction, unwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import example_output
import pytest

TESTS = Path(__file__).parent

_from_module = doctest.DocTestFinder._from_module  # type: ignore[attr-defined]


def _is_written_in(finder: doctest.DocTestFinder, module: ModuleType | None, value: Any) -> bool:
    """Whether a module has the source of an object, be it shown in another file as its own.

    A function names its file whatever its `__module__` is (`show_in`), a class has its methods.
    """
    candidates = vars(value).values() if isclass(value) else [value]
    functions = [unwrap(each) for each in candidates if isfunction(each)]
    if module is None or not functions:
        return bool(_from_module(finder, module, value))
    return any(function.__globals__ is vars(module) for function in functions)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `--all` run all tests."""
    parser.addoption("--all", action="store_true", help="run the tests marked slow as well")


def pytest_configure(config: pytest.Config) -> None:
    """Let doctests of the package be found, and have the output of their examples."""
    config.pluginmanager.register(example_output)
    doctest.DocTestFinder._from_module = _is_written_in  # type: ignore[attr-defined]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """A few files do not wait for processes to start; None: as many as there are cores."""
    return None if any(Path(argument).is_dir() for argument in config.args) else 0


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave helpers alone: one that makes golden values imports a framework."""
    helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if helper and collection_path.is_relative_to(TESTS) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is slow, and refuse a slow test that does not say what it is for."""
    slow = [item for item in items if item.get_closest_marker("slow")]
    for item in slow:
        documented = isinstance(item, pytest.Function) and (item.obj, item.module)
        if not documented or not any("Slow:" in (each.__doc__ or "") for each in documented):
            raise pytest.UsageError(
                f"{item.nodeid} is marked slow: end its docstring, or the one of its file, with "
                "'Slow:' and what it shows that the quick tests do not"
            )
    paths = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    if not (config.option.all or paths):
        config.hook.pytest_deselected(items=slow)
        deselected = set(slow)
        items[:] = [item for item in items if item not in deselected]


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was collected: 10 % of the CPU of the quick tests."""
    import hypothesis  # noqa: F401 - it warns of a generator of trio's whose referrers are frozen

    gc.collect()
    gc.freeze()


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: an empty folder of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model_dir(workdir: Path) -> Path:
    """The working directory, with a small model: m.safetensors."""
    import logs  # imports what is not there where `streamrnn.nn` is tested alone

    logs.small_model().save("m.safetensors")
    return workdir


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Give each test the logging of a process of its own: the command line replaces handlers."""
    logger = logging.getLogger("streamrnn")
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)
