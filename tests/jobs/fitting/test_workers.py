"""Processes that run fits, with stand-ins for fits."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from jobs.fitting import fits
from selection import slow

import __main__
from streamrnn import Pipeline
from streamrnn.errors import EngineError
from streamrnn.jobs.fitting import FitOptions, seeds
from streamrnn.jobs.fitting.seeds import fit_all
from streamrnn.jobs.fitting.summary import FitProgress, FitSummary

ReportProgress = Callable[[FitProgress], None]


@dataclass(frozen=True)
class Request:
    """Ends as it is told, once all have begun: with a summary, an error, or killed."""

    folder: Path
    number: int
    ending: str = "commit"

    def run(self, stop: threading.Event, report: ReportProgress) -> FitSummary | None:
        (self.folder / f"began {self.number}").touch()
        while len(list(self.folder.glob("began *"))) < 2:
            stop.wait(0.01)
        if self.ending == "commit":
            while not stop.wait(0.01):
                report(FitProgress(1, 1, 1, 1, 0.0))
            (self.folder / f"committed {self.number}").touch()
        elif self.ending == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.ending == "full disk":
            raise OSError(28, "No space left on device", "/data/a")
        elif self.ending == "two arguments":
            raise TwoArgumentsError("this", "that")
        return FitSummary(model=str(self.number))


class TwoArgumentsError(Exception):
    """An error that is pickled, but not read again."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def run(folder: Path, *endings: str, **options: Any) -> list[FitSummary | None]:
    requests: Any = [Request(folder, *of) for of in enumerate(endings)]
    stop = options.get("stop", threading.Event())
    return fit_all(requests, 2, options.get("report", lambda *_: None), stop)


@slow
@pytest.mark.parametrize(
    ("ending", "error", "text"),
    [
        ("kill", EngineError, "ended with code -9; rerun the same command to resume"),
        ("full disk", OSError, "No space left on device: '/data/a'"),
        ("two arguments", EngineError, r"(?s)Traceback.*TwoArgumentsError: this and that"),
    ],
)
def test_if_one_fails_the_others_commit(
    ending: str, error: type[Exception], text: str, tmp_path: Path
) -> None:
    """Slow: processes, of which one fails."""
    with pytest.raises(error, match=text):
        run(tmp_path, "commit", ending, "commit")
    assert (tmp_path / "committed 0").exists()
    assert not (tmp_path / "began 2").exists()


@slow
def test_the_error_of_a_process_says_where_it_was_raised(tmp_path: Path) -> None:
    """Slow: processes, of which one fails."""
    with pytest.raises(OSError) as caught:
        run(tmp_path, "commit", "full disk")
    assert 'raise OSError(28, "No space left on device"' in caught.value.__notes__[0]


@slow
def test_if_a_process_cannot_start_the_others_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow: a process beside one that cannot start."""
    processes: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        if processes:
            raise BlockingIOError("Resource temporarily unavailable")
        processes.append(popen(*arguments, **options))
        (tmp_path / "began 1").touch()
        return processes[0]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(BlockingIOError):
        run(tmp_path, "commit", "commit")
    assert processes[0].returncode == 0
    assert (tmp_path / "committed 0").exists()


@slow
def test_once_stopped_none_begins(tmp_path: Path) -> None:
    """Slow: processes that are stopped."""
    stop = threading.Event()
    results = run(tmp_path, *3 * ["commit"], stop=stop, report=lambda *_: stop.set())
    assert [of and of.model for of in results] == ["0", "1", None]


@slow
def test_two_threads_fit_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leave the script as it is. Slow: four processes."""
    monkeypatch.setattr(__main__, "__spec__", ModuleSpec("script", None))
    before, after = dict(vars(__main__)), []

    def fit(name: str) -> None:
        (tmp_path / name).mkdir()
        after.append(run(tmp_path / name, "end", "end"))

    threads = [threading.Thread(target=fit, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[of and of.model for of in results] for results in after] == [["0", "1"]] * 2
    assert vars(__main__) == before


def test_in_a_daemon_each_member_has_all_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They run there one after another."""
    seen: list[Any] = []
    monkeypatch.setattr(seeds, "fit_all", lambda *arguments: seen.append(arguments))
    config: Any = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    monkeypatch.setitem(config, "daemon", True)
    tables = {**fits.validated(), "model": {**fits.config(tmp_path)["model"], "threads": 2}}
    tables["train"]["seeds"] = 2
    pipeline = Pipeline.from_dict(fits.config(tmp_path, **tables))
    seeds.SeedsJob(pipeline.config, None, FitOptions())._fit_members()
    ((requests, workers, *_),) = seen
    assert workers == 1
    assert [request.config.model.threads for request in requests] == [2, 2]
