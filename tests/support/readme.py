"""The blocks of the pages that people read, and a folder to run them in."""

import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, chdir, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import streamrnn
from streamrnn.pipeline import Config, write_demo

ROOT = Path(__file__).parents[2]
PACKAGE = Path(streamrnn.__file__).parent
PAGES = (
    "README.md",
    "streamrnn/README.md",
    "tests/benchmarks/README.md",
    "pipelines/etl/README.md",
)
GUIDE = tuple(f"streamrnn/guide/{path.name}" for path in sorted((PACKAGE / "guide").glob("*.md")))
TIMES = re.compile(
    r"in [\d.]+ s \([\d,]+ rows/s(?:; [\d.]+ s went into compiling kernels)?\)"
    r"|(?<=updates )in [\d.]+ s$|(?<=, )[\d.]+ s$|, [\d.,]+ MB$",
    re.MULTILINE,
)
"""What differs from run to run in the output of a command."""
WEATHER = tomllib.loads((ROOT / "pipelines" / "weather.toml").read_text())
STREAMRNN = f"{shlex.quote(sys.executable)} -c 'from streamrnn.cli import main; main()'"


def located(path: Path | str) -> Path:
    """A path of the repository; the package may be installed, and not stand beside the tests."""
    return (PACKAGE.parent if Path(path).parts[:1] == (PACKAGE.name,) else ROOT) / path


class Block(NamedTuple):
    """A block of a page. Its title says what it needs, or why it is not run."""

    language: str
    title: str
    text: str

    @property
    def needs(self) -> list[str]:
        """Modules beside those of the test extra, without which it does not run."""
        needs = re.fullmatch(r"needs (.+)", self.title)
        return needs[1].split(", ") if needs else []


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in their order."""
    text = located(page).read_text()
    found = re.findall(
        r'^```(\w+)(?: title="([^"\n]*)")?\n(.*?)^```$', text, re.MULTILINE | re.DOTALL
    )
    assert len(found) == text.count("\n```") // 2, f"{page}: a block that is not read here"
    return [Block(*block) for block in found]


def installed(block: Block) -> bool:
    """Whether the modules that it needs are there."""
    return all(find_spec(name) for name in block.needs)


def run_blocks(page: str, clone: Path, can_run: Callable[[Block], bool]) -> int:
    """Run the blocks of a page in a reader's order; return how many commands and blocks ran.

    A block that begins with the comment of a file name is that file. Other blocks of Python run;
    other TOML is part of a pipeline file. Commands print what stands below them.
    """
    ran = 0
    for block in blocks(page):
        name = re.match(r"# ([\w./-]+\.\w+)\n", block.text)
        if block.language == "text" or not can_run(block):
            continue
        if name is not None:
            (clone / name[1]).write_text(block.text)
        elif block.language == "console":
            ran += _run_console(block.text, clone)
        elif block.language == "python":
            run_python(block.text, clone)
            ran += 1
        elif block.language == "toml":
            Config.parse(_merged(WEATHER, tomllib.loads(block.text)))
            ran += 1
    return ran


def _run_console(text: str, clone: Path) -> int:
    """Run the commands of a block; a server that one starts is there until the last has ended."""
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)
    port = 0
    with ExitStack() as stack:
        for command, said in commands:
            if command.startswith("streamrnn serve "):
                port = stack.enter_context(_served(command, clone))
                continue
            printed = shell(command.replace("localhost:8080", f"localhost:{port}"), clone)
            assert TIMES.sub("", printed) == TIMES.sub("", said), command
    return len(commands)


@contextmanager
def _served(command: str, clone: Path) -> Iterator[int]:
    """The port of a server, which is stopped as by `kill %1`."""
    words = shlex.split(command.removeprefix("streamrnn").removesuffix("&"))
    arguments = [*shlex.split(STREAMRNN), *words, "--set", "serve.port=0"]
    with (clone / "serve.log").open("w+") as log:
        process = subprocess.Popen(arguments, cwd=clone, stderr=log)
        try:
            while not re.search("^ready$", said := Path(log.name).read_text(), re.MULTILINE):
                assert process.poll() is None, said
                time.sleep(0.05)
            yield int(re.findall(r"http://\S+:(\d+)", said)[0])
        finally:
            process.terminate()
            assert process.wait(60) == 0, Path(log.name).read_text()


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a pipeline file, with the keys of a part of one."""
    return {**base, **{name: {**base.get(name, {}), **keys} for name, keys in changes.items()}}


def make_clone(base: Path) -> Path:
    """A folder that looks like the repository and may be written to."""
    for name in ("data", "pipelines", "streamrnn", "tests"):
        (base / name).symlink_to(located(name))
    return base


def make_demo(base: Path) -> Path:
    """A folder that has what `streamrnn init --demo` writes, and no clone."""
    with chdir(base):
        write_demo()
    return base


def shell(command: str, clone: Path) -> str:
    """What a command prints; `streamrnn` and `python` are the test's."""
    if command.startswith("streamrnn "):
        command = STREAMRNN + command.removeprefix("streamrnn")
    elif command.startswith("python "):
        command = shlex.quote(sys.executable) + command.removeprefix("python")
    done = subprocess.run(
        command, shell=True, cwd=clone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_python(block: str, clone: Path) -> str:
    """What a block of Python prints."""
    return shell(f"python -c {shlex.quote(block)}", clone)
