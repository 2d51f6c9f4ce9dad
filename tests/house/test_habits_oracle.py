"""The hooks and the workflows are valid: what YAML reads, and what is there to be run."""

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
WORKFLOW_FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {
    name: yaml.safe_load((WORKFLOW_FOLDER / f"{name}.yml").read_text())
    for name in ("ci", "release")
}
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
    """`.ci/run` on Linux and the tests on macOS, with each Python of the classifiers, the oldest
    first."""
    (job,) = WORKFLOWS["ci"]["jobs"].values()
    names = PROJECT["project"]["classifiers"]
    versions = [name.rpartition(" ")[2] for name in names if re.search(r"Python :: 3\.\d+$", name)]
    assert job["strategy"]["matrix"] == {
        "os": ["ubuntu-latest", "macos-latest"],
        "python": versions,
    }
    *_, setup, linux, macos = job["steps"]
    assert setup["with"] == {"python-version": "${{ matrix.python }}"}
    assert (linux["if"], linux["run"]) == ("runner.os == 'Linux'", ".ci/run")
    assert (macos["if"], macos["run"].split(" && ")[-1]) == ("runner.os == 'macOS'", "pytest --all")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"


def test_an_action_is_pinned_by_its_commit() -> None:
    """A tag can be moved to other code."""
    texts = "\n".join((WORKFLOW_FOLDER / f"{name}.yml").read_text() for name in WORKFLOWS)
    used = re.findall(r"uses: (\S+)(?: # (.*))?", texts)
    actions = [(name, tag) for name, tag in used if name != "./.github/workflows/ci.yml"]
    assert len(actions) == 8
    for name, tag in actions:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name), name
        assert re.fullmatch(r"v\d+\.\d+\.\d+", tag), name
    assert len({name.partition("@")[0] for name, _ in actions}) == len(set(actions))


def test_only_the_job_that_publishes_may_do_so() -> None:
    """And it runs no code of the repository; no job has a password."""
    jobs = WORKFLOWS["release"]["jobs"]
    assert WORKFLOWS["release"]["permissions"] == {}
    assert jobs["publish"]["permissions"] == {
        "id-token": "write",
        "attestations": "write",
        "contents": "read",
    }
    assert {name for name, job in jobs.items() if "write" in job["permissions"].values()} == {
        "publish"
    }
    assert [job.get("needs") for job in jobs.values()] == [None, "ci", "build"]
    assert [step["run"] for step in jobs["publish"]["steps"] if "run" in step] == ["mv dist/sbom ."]
    assert "secrets." not in (WORKFLOW_FOLDER / "release.yml").read_text()
