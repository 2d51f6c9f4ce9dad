"""The progress of a fit: a line per epoch, and on a terminal a bar within it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from streamrnn.cli.progress import SECONDS_BETWEEN_LINES, shown
from streamrnn.cli.report import LOGGER

if TYPE_CHECKING:
    from streamrnn.jobs.fitting import FitProgress

_PAUSE = 0.1
"""Seconds between two updates of the bar: a small model trains thousands of windows a second."""


@contextmanager
def fit_progress(quiet: bool) -> Iterator["Callable[[FitProgress], None] | None"]:
    """Yield the callback for `Pipeline.fit`, or None to show nothing."""
    with shown(quiet, _bar, _lines) as show:
        yield show


def _lines() -> "Callable[[FitProgress], None]":
    last = time.monotonic()

    def show(now: "FitProgress") -> None:
        nonlocal last
        if now.message:
            LOGGER.info(now.message)
        elif time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            LOGGER.info(
                f"epoch {now.epoch}/{now.epochs}: {now.steps:,} of {now.total_steps:,} rows, "
                f"{_rate(now)}"
            )
        else:
            return
        last = time.monotonic()

    return show


@contextmanager
def _bar() -> "Iterator[Callable[[FitProgress], None]]":
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.fields[epoch]}"), BarColumn(), TextColumn("{task.fields[rate]}")
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, epoch="reading", rate="")
        last = 0.0

        def show(now: "FitProgress") -> None:
            nonlocal last
            if now.message:
                LOGGER.info(now.message)
            elif time.monotonic() - last < _PAUSE:
                return
            last = time.monotonic()
            bar.update(
                task,
                total=now.total_steps,
                completed=now.steps,
                epoch=f"epoch {now.epoch}/{now.epochs}",
                rate=_rate(now),
            )

        yield show


def _rate(now: "FitProgress") -> str:
    return f"{now.steps / now.seconds:,.0f} rows/s" if now.seconds > 0 else "- rows/s"
