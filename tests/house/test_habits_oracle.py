"""The hooks and the workflow are valid: what YAML reads, and what is there to be run."""

import os
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

yaml: Any = pytest.importorskip("yaml", reason="needs the oracles extra")

ROOT = Path(__file__).parents[2]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCAL = [hook for repo in HOOKS["repos"] for hook in repo["hooks"]]
TOOLS = {re.split("==", tool)[0] for tool in PROJECT["dependency-groups"]["dev"]}


def test_all_hooks_are_local() -> None:
    """A commit downloads nothing, and runs the tools that pyproject.toml pins."""
    assert [repo["repo"] for repo in HOOKS["repos"]] == ["local"]
    assert len({hook["id"] for hook in LOCAL}) == len(LOCAL) >= 6


@pytest.mark.parametrize(
    "hook", [h for h in LOCAL if h["language"] == "system"], ids=lambda h: h["id"]
)
def test_the_entry_of_a_hook_exists(hook: dict[str, Any]) -> None:
    """Its command is a tool of the dev group or Python, and the files that it names are there."""
    command, *arguments = shlex.split(hook["entry"])
    assert command in TOOLS or (command == "python" and shutil.which("python"))
    named = [each for each in arguments if re.search(r"/|\.ini$", each)]
    assert [each for each in named if not (ROOT / each).exists()] == []


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        ("Refuse a file whose rows changed\n\nThey would be scored twice.\n", True),
        (f"{'x' * 72}\n", True),
        (f"{'x' * 73}\n", False),
        ("Refuse a file\nbecause its rows changed\n", False),
        ("Refuse a file\n# What git writes below\n", True),
    ],
)
def test_the_hook_for_commit_messages_finds_long_subjects(message: str, passes: bool) -> None:
    """By its expression, as pygrep searches a whole file with --multiline."""
    (hook,) = [each for each in LOCAL if each["language"] == "pygrep"]
    assert (hook["args"], hook["stages"]) == (["--multiline"], ["commit-msg"])
    found = re.search(hook["entry"].encode(), message.encode(), re.MULTILINE | re.DOTALL)
    assert (found is None) == passes


def test_the_workflow_runs_what_is_supported() -> None:
    """`.ci/run` on Linux and macOS, with the Pythons of the classifiers, the oldest first."""
    (job,) = WORKFLOW["jobs"].values()
    assert job["strategy"]["matrix"]["os"] == ["ubuntu-latest", "macos-latest"]
    *_, setup, last = job["steps"]
    assert last["run"] == ".ci/run"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    pythons = setup["with"]["python-version"].split()
    names = PROJECT["project"]["classifiers"]
    versions = [name.rpartition(" ")[2] for name in names if re.search(r"Python :: 3\.\d+$", name)]
    assert sorted(pythons) == versions
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"
    assert pythons[-1] == versions[0]
