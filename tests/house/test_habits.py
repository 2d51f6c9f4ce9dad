"""What developers and users rely on that is no code: versions, systems, documents of the house."""

import re
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import streamrnn
from streamrnn.nn.formats import native
from streamrnn.stream.checkpoints.manifest import LAYOUT
from streamrnn.stream.states.layout import FORMAT_VERSION

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
README = (ROOT / "README.md").read_text()
GUARANTEES = (Path(streamrnn.__file__).parent / "guide" / "guarantees.md").read_text()
CONTRIBUTING = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
FOR_TESTS = {"test", "oracles", "engines"}  # extras


def test_the_version_is_said_once() -> None:
    """In the package, from where the build takes it: a checkout has it without being installed."""
    assert "version" not in PROJECT["project"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    source = Path(PROJECT["tool"]["hatch"]["version"]["path"])
    assert source.parts[-2:] == ("streamrnn", "__init__.py")
    assert re.fullmatch(r"\d+\.\d+\.\d+", streamrnn.__version__)


def test_the_guide_names_the_versions_that_are_read() -> None:
    """Whoever updates reads there whether an output can be resumed."""
    rows = dict(re.findall(r"^\| ([a-z][^|]*) \| ([^|]*) \| refused", GUARANTEES, re.MULTILINE))
    assert rows == {
        "manifest of an output folder": f"{LAYOUT}",
        "state table (in an output, exported, or a `checkpoint`)": FORMAT_VERSION,
        "native model file": f"{native.NATIVE_VERSION}, {native.INTEGERS_VERSION} with integers",
    }


def test_the_readme_names_the_oldest_python() -> None:
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert re.findall(r"Python ([\d.]+) or newer", README + GUARANTEES) == [oldest, oldest]


def test_each_tool_has_one_version() -> None:
    """A newer ruff or mypy finds more: that is a change of its own, not of whoever runs it."""
    tools = [tool for group in PROJECT["dependency-groups"].values() for tool in group]
    assert [tool for tool in tools if not re.fullmatch(r"[\w-]+(\[\w+\])?==[\d.]+", tool)] == []


def versions_in(file: str) -> dict[str, str]:
    listed = (ROOT / ".ci" / file).read_text()
    rows = dict(re.findall(r"^([\w.-]+)==(\S+)$", listed, re.MULTILINE))
    assert len(rows) == len([line for line in listed.splitlines() if line[:1] != "#"])
    return rows


def check_versions(extras: set[str], rows: dict[str, str], others: Sequence[str] = ()) -> None:
    optional = PROJECT["project"]["optional-dependencies"]
    needs = [Requirement(need) for name in sorted(extras) for need in optional[name]]
    needs = [need for need in needs if need.name != "streamrnn"]
    needs += [Requirement(need) for need in others]
    assert len(needs) > 15
    listed = {need.name: rows[canonicalize_name(need.name)] for need in needs}
    assert [str(need) for need in needs if listed[need.name] not in need.specifier] == []


def test_each_dependency_of_users_has_a_tested_version_within_its_bounds() -> None:
    """`.ci/run` installs the versions of the file, and no others."""
    extras = {*PROJECT["project"]["optional-dependencies"]} - {"bench", *FOR_TESTS}
    check_versions(extras, versions_in("constraints.txt"), PROJECT["project"]["dependencies"])


def test_each_framework_of_a_test_has_a_tested_version() -> None:
    """A newer one may warn of what it deprecates: no reason for a change of ours to fail."""
    rows, users = versions_in("frameworks.txt"), versions_in("constraints.txt")
    assert not rows.keys() & users.keys()
    check_versions(FOR_TESTS, rows | users)


def test_every_file_that_contributors_are_sent_to_is_there() -> None:
    """The package may be installed, and not stand beside the tests."""
    package = Path(streamrnn.__file__).parent
    paths = re.findall(r"`((?:\.github|streamrnn|tests)/[\w./-]+)`", CONTRIBUTING)
    assert len(paths) > 10
    root = {path: package.parent if path.startswith("streamrnn/") else ROOT for path in paths}
    assert [path for path in paths if not (root[path] / path).exists()] == []


def test_no_source_asks_arrow_for_a_type_of_pandas() -> None:
    """The oldest pyarrow imports pandas for it, which the command hides and no job has to have."""
    package = Path(streamrnn.__file__).parent
    asked = [path for path in package.rglob("*.py") if ".to_pandas_dtype()" in path.read_text()]
    assert [path.name for path in asked] == ["casts.py"]  # numpy_type, which says why it does not


def test_the_top_level_has_nothing_else() -> None:
    """What a trial leaves in a checkout is not committed with it."""
    if not (ROOT / ".git").exists():
        pytest.skip("the files are not in a checkout")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    shown = {name.partition("/")[0] for name in listed.split() if not name.startswith(".")}
    folders = {"data", "pipelines", "streamrnn", "tests"}
    assert shown == folders | {"LICENSE", "README.md", "pyproject.toml"}
