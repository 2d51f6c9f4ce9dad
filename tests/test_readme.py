"""Every block of the README runs, and prints what the README says."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from streamrnn.pipeline import Config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
TIMES = re.compile(r"in [\d.]+ s \([\d,]+ rows/s\)")
STREAMRNN = f"{shlex.quote(sys.executable)} -c 'from streamrnn.cli import main; main()'"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the repository and may be written to."""
    base = tmp_path_factory.mktemp("clone")
    for name in ("data", "pipelines", "streamrnn", "tests"):
        (base / name).symlink_to(ROOT / name)
    return base


def _shell(command: str, clone: Path) -> str:
    if command.startswith("streamrnn "):
        command = STREAMRNN + command.removeprefix("streamrnn")
    elif command.startswith("python "):
        command = shlex.quote(sys.executable) + command.removeprefix("python")
    done = subprocess.run(
        command, shell=True, cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_runs_and_prints_what_it_says(clone: Path) -> None:
    """Blocks build on one another, so they run in their order; times may differ."""
    ran = 0
    for language, block in BLOCKS:
        if language == "console":
            for command, said in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
                assert TIMES.sub("", _shell(command, clone)) == TIMES.sub("", said), command
                ran += 1
        elif language == "python":
            _shell(f"python -c {shlex.quote(block)}", clone)
            ran += 1
    assert ran >= 6


def test_the_two_commands_are_those_of_continuous_integration() -> None:
    """`pip install` cannot run here: .ci/run does it, in a fresh environment."""
    script = (ROOT / ".ci" / "run").read_text()
    commands = [block.strip() for language, block in BLOCKS if language == "sh"][:2]
    assert commands == [
        "pip install . && streamrnn run pipelines/weather.toml",
        "pip install -e '.[test]' && pytest",
    ]
    for command in commands:
        assert command in script


def test_the_pipeline_file_is_valid_and_has_every_key() -> None:
    """Commented keys count: they stand there to be seen."""
    text = next(block for language, block in BLOCKS if language == "toml")
    data = tomllib.loads(text)
    Config.parse(data)
    full = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    for name, field in Config.model_fields.items():
        assert field.annotation is not None
        assert set(full[name]) == set(field.annotation.model_fields), name
