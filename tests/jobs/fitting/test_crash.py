"""A fit that is stopped at every change of the disk, by an exception or by the power."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import logs
import pytest
from jobs.fitting import fits
from selection import first_quick
from stream.checkpoints.disks import ForgetfulDisk, HastyDisk, Stopped, StoppingDisk, TracingDisk

from streamrnn.base.storage.local import LocalFiles

OFTEN = {"source": {**fits.config(Path())["source"], "batch_rows": 80}, "checkpoint": {"every": 1}}
KEPT = {"commit", "history.parquet", "state.parquet", "initial.safetensors", "lock", ".gitignore"}


def tables(folder: Path) -> dict[str, Any]:
    """A fit of three commits; paths are those of the folder."""
    return {
        **OFTEN,
        "source": {**OFTEN["source"], "path": str(folder / "in")},
        "train": {**fits.config(Path())["train"], "epochs": 1},
    }


def prepared(folder: Path) -> None:
    logs.write(fits.log(160), folder / "in" / "a.parquet")


def first(folder: Path) -> None:
    fits.fit(folder, tables(folder))


def fitted(folder: Path) -> None:
    prepared(folder)
    first(folder)
    logs.write(fits.log(260).slice(160), folder / "in" / "b.parquet")


def extended(folder: Path) -> None:
    fits.fit(folder, tables(folder), extend=True)


def anew(folder: Path) -> None:
    fits.fit(folder, tables(folder), full_refresh=True)


SCENES = {
    "first": (prepared, first, first),
    "continue": (fitted, extended, extended),
    "full refresh": (fitted, anew, anew),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time for syncs."""
    monkeypatch.setattr(LocalFiles, "disk", HastyDisk())


def points_of(folder: Path, act: Callable[[Path], None], patch: pytest.MonkeyPatch) -> list[str]:
    points: list[str] = []
    with patch.context() as within:
        within.setattr(LocalFiles, "disk", TracingDisk(str(folder), points.append))
        act(folder)
    return points


@pytest.mark.parametrize(
    ("scene", "power", "every"),
    first_quick([("first", False, 3), *itertools.product(SCENES, [False, True], [1])]),
)
def test_stopped_at_every_point(
    scene: str, power: bool, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command resumes; model, history and state are those of an undisturbed fit. Slow:
    each point instead of every third, loss of power, later fits in the same folder."""
    before, act, again = SCENES[scene]
    folder, start = tmp_path / "fit", tmp_path / "start"
    before(folder)
    shutil.copytree(folder, start)
    points = points_of(folder, act, monkeypatch)
    wanted = fits.digest(folder)
    assert sum("rename to model.safetensors.fit/commit" in point for point in points) >= 4
    for number, point in itertools.islice(chosen(points), 0, None, every):
        shutil.rmtree(folder)
        shutil.copytree(start, folder)
        disk = (ForgetfulDisk if power else StoppingDisk)(str(folder), number)
        with monkeypatch.context() as within:
            within.setattr(LocalFiles, "disk", disk)
            with pytest.raises(Stopped):
                act(folder)
        if isinstance(disk, ForgetfulDisk):
            disk.lose(but_renames=bool(number % 2))
        again(folder)
        assert fits.digest(folder) == wanted, point
        assert {path.name for path in (folder / "model.safetensors.fit").iterdir()} == KEPT, point
        assert {path.name for path in folder.iterdir()} == {
            "in",
            "model.safetensors",
            "model.safetensors.fit",
        }
        shutil.rmtree(f"{folder}.spare", ignore_errors=True)


def chosen(points: list[str]) -> Iterator[tuple[int, str]]:
    """What is true after a system call is true before the next one; writes are many."""
    for number, point in enumerate(points):
        if point.startswith("after") and "write" not in point:
            yield number, point
