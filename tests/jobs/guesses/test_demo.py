"""`streamrnn init --demo`: pipelines that run in an empty folder.

What a wheel has inside is read here if the package is installed from one, as .ci/run does.
"""

import errno
import shutil
import tomllib
from pathlib import Path

import pytest
from command_line import run_command
from readme import ROOT

from streamrnn import errors
from streamrnn.pipeline import write_demo

FOLDERS = ["data", "pipelines", "pipelines/origins", "pipelines/weather"]


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_it_writes_all_that_a_run_needs_and_says_the_next_command(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run_command(capsys, "init", "--demo")
    assert code == 0
    assert out == (
        "wrote 8 files in data and pipelines; run: streamrnn run pipelines/weather.toml\n"
    )
    code, out, _ = run_command(capsys, *out.split("run: streamrnn ")[1].split())
    assert (code, "output   out/weather (26,115 rows written" in out) == (0, True)


def test_its_files_are_those_of_the_repository_and_of_the_wheel(workdir: Path) -> None:
    """Under the same names; nothing in the pipelines speaks of a clone."""
    files = write_demo()
    assert written(workdir) == sorted(files + FOLDERS)
    for name in files:
        assert Path(name).read_bytes() == (ROOT / name).read_bytes()
    texts = [Path(name).read_text() for name in files if name.endswith(".toml")]
    assert [text for text in texts if "repository" in text or "clone" in text] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert wheel == {name: f"streamrnn/demo/{name}" for name in files}


@pytest.mark.parametrize("name", ["data", "pipelines"])
def test_what_exists_stays_as_it_is(
    workdir: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Path(name).write_text("mine")
    code, _, err = run_command(capsys, "init", "--demo")
    assert (code, f"error: {name} already exists; remove it, or use" in err) == (78, True)
    assert (written(workdir), Path(name).read_text()) == ([name], "mine")


def test_a_second_one_is_refused(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(capsys, "init", "--demo")[0] == 0
    code, _, err = run_command(capsys, "init", "--demo")
    assert (code, "error: data already exists" in err) == (78, True)


@pytest.mark.parametrize(
    "more", [["mine.toml"], ["-"], ["--from", "in", "--model", "m.keras"], ["--model", "m.keras"]]
)
def test_other_arguments_of_init_do_not_go_with_it(
    workdir: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    code, _, err = run_command(capsys, "init", "--demo", *more)
    assert (code, written(workdir)) == (2, [])
    assert "--demo goes alone; leave out PATH, --from and --model" in " ".join(err.split())


def test_a_folder_that_cannot_be_written_to_is_said(
    workdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:  # a mode does not stop root
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert run_command(capsys, "init", "--demo") == (1, "", "error: data: Permission denied\n")


def test_a_disk_that_fills_up_leaves_nothing_behind(
    workdir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(source: Path, target: str) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(shutil, "copyfile", fill)
        code, _, err = run_command(capsys, "init", "--demo")
    assert (code, "no space left on the device" in err) == (1, True)
    assert written(workdir) == []
    assert run_command(capsys, "init", "--demo")[0] == 0


def test_an_installation_without_it_says_so(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamrnn.jobs.guesses.demo.errors.__file__", str(workdir / "a" / "e.py"))
    with pytest.raises(errors.MissingFileError, match="installed without its demo; install its"):
        write_demo()
    assert written(workdir) == []
