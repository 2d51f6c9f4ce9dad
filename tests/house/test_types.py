"""What a type checker and an editor know of the public names."""

import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from selection import slow

import streamrnn
from streamrnn import layers

ROOT = Path(__file__).parents[2]
PUBLIC = ["streamrnn", "streamrnn.optimizers", "streamrnn.optimizers.schedules"] + [
    f"streamrnn.{module.name}"
    for module in pkgutil.iter_modules(streamrnn.__path__)
    if not module.ispkg and module.name != "__main__"
]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that reveals the type of every public name, a line for each."""
    # `import streamrnn.layers` would define streamrnn.layers, which users do not import so.
    modules = {name: name.replace(".", "_") for name in PUBLIC}
    lines = [f"import {name} as {short}" for name, short in modules.items()]
    lines += [f"reveal_type({modules[of]}.{name})" for of in PUBLIC for name in _names(of)]
    lines.append("reveal_type(streamrnn.Pipeline.from_toml('x').run())")
    path = tmp_path_factory.mktemp("types") / "names.py"
    path.write_text("\n".join(lines) + "\n")
    return path


def _names(module: str) -> list[str]:
    return list(importlib.import_module(module).__all__)


def _run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.stdout


def _by_mypy(file: Path) -> tuple[list[str], list[str]]:
    """Return errors, and the revealed types in the order of the file."""
    output = _run("mypy", str(file))
    return re.findall(r".*: error: .*", output), re.findall(r'Revealed type is "(.*)"\n', output)


def _by_pyright(file: Path) -> tuple[list[str], list[str]]:
    output = _run("pyright", "--outputjson", "--pythonpath", sys.executable, str(file))
    found = json.loads(output)["generalDiagnostics"]
    messages = [one["message"] for one in found if one["severity"] == "information"]
    types = [re.fullmatch(r'Type of ".*" is "(.*)"', text, re.DOTALL) for text in messages]
    errors = [one["message"] for one in found if one["severity"] != "information"]
    return errors, [one[1] for one in types if one]


@slow
@pytest.mark.parametrize("checker", [_by_mypy, _by_pyright], ids=["mypy", "pyright"])
def test_a_type_checker_knows_every_public_name(checker, file: Path) -> None:
    """Slow: a checker reads the whole package."""
    pytest.importorskip("mypy", reason="needs mypy and pyright, of the dev group")
    errors, types = checker(file)
    assert errors == []
    lines = [line for line in file.read_text().splitlines() if line.startswith("reveal_type")]
    assert len(types) == len(lines) > 350
    unknown = ("Any", "Unknown", "builtins.object", "object")
    assert [line for line, kind in zip(lines, types, strict=True) if kind in unknown] == []
    assert types[-1].rpartition(".")[2] == "Summary"


@pytest.mark.parametrize("module", PUBLIC)
def test_completion_shows_public_names_only(module: str) -> None:
    """Of modules, those that Keras has, too."""
    shown = {name for name in dir(importlib.import_module(module)) if name[0] != "_"}
    named = {name for name in _names(module) if name[0] != "_"}
    assert shown - {"schedules"} == named


def test_completion_of_layers_shows_no_modules() -> None:
    assert [name for name in dir(layers) if type(getattr(layers, name)) is type(sys)] == []
