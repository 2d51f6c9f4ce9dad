"""The rule that keeps functions of the C library out of what is promised to the bit."""

import json
import math
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
EXACT = {
    *("ceil", "comb", "copysign", "degrees", "fabs", "factorial", "floor", "fma", "fmod", "frexp"),
    *("fsum", "gcd", "isclose", "isfinite", "isinf", "isnan", "isqrt", "lcm", "ldexp", "modf"),
    *("nextafter", "perm", "prod", "radians", "remainder", "sqrt", "sumprod", "trunc", "ulp"),
}


def banned() -> list[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    return list(settings["flake8-tidy-imports"]["banned-api"])


def lines_with_findings(code: str, file: str) -> list[int]:
    """Lines in which ruff, with this repository's settings, finds a banned name."""
    pytest.importorskip("ruff", reason="needs ruff, of the dev group")
    command = ["check", "--select=TID251", "--output-format=json", "--stdin-filename", file, "-"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command],
        input=code,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return [finding["location"]["row"] for finding in json.loads(done.stdout)]


def test_each_banned_function_is_found_in_the_package() -> None:
    """As an attribute of the module, whatever that is called."""
    names = [name.replace("numpy", "np") for name in banned() if "." in name]
    code = "\n".join(["import math", "import numpy as np", *(f"{name}(1.0)" for name in names)])
    wanted = list(range(3, 3 + len(names)))
    assert len(wanted) > 50
    assert lines_with_findings(code, "streamrnn/nn/layers/new.py") == wanted
    assert lines_with_findings(code, "tests/nn/layers/test_new.py") == []


def test_an_import_by_name_is_found_and_exact_functions_are_not() -> None:
    code = "from math import exp, floor\nimport math\nmath.sqrt(2)\nmath.isnan(2)\nimport cmath\n"
    assert lines_with_findings(code, "streamrnn/stream/sources/new.py") == [1, 5]


def test_every_function_of_math_is_banned_or_exact() -> None:
    """One that a later Python adds is looked at before it is used."""
    functions = {name for name in dir(math) if callable(getattr(math, name)) and name[0] != "_"}
    names = {name.removeprefix("math.") for name in banned() if name.startswith("math.")}
    assert functions - EXACT == names & functions
    assert not names & EXACT


def test_every_banned_function_of_numpy_has_its_aliases_banned() -> None:
    names = {name.removeprefix("numpy.") for name in banned() if name.startswith("numpy.")}
    ours = {getattr(np, name) for name in names if hasattr(np, name)}
    ufuncs = {name for name in dir(np) if isinstance(getattr(np, name), np.ufunc)}
    assert {name for name in ufuncs if getattr(np, name) in ours} <= names
