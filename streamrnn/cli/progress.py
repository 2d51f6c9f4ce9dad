"""The progress of a run or a fit: a bar on a terminal, elsewhere a line every 30 seconds.

A fit also has a line per epoch; where a run has lines, -v gives one per record batch.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from streamrnn.cli.report import LOGGER, count

if TYPE_CHECKING:
    from streamrnn.jobs.fitting import FitProgress
    from streamrnn.jobs.pipeline import Progress

SECONDS_BETWEEN_LINES = 30.0
_PAUSE = 0.1
"""Seconds between two updates of the bar: a small model trains thousands of windows a second."""
T = TypeVar("T")


def progress(quiet: bool) -> "AbstractContextManager[Callable[[Progress], None] | None]":
    """Yield the callback for `Pipeline.run`, or None to show nothing."""
    return shown(quiet, _bar, _lines)


@contextmanager
def shown(
    quiet: bool,
    bar: Callable[[], AbstractContextManager[Callable[[T], None]]],
    lines: Callable[[], Callable[[T], None]],
) -> Iterator[Callable[[T], None] | None]:
    """Yield the callback of a bar on a terminal, of lines elsewhere; None to show nothing."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        with bar() as show:
            yield show
    else:
        yield lines()


def _lines() -> "Callable[[Progress], None]":
    last = time.monotonic()
    pause = 0.0 if LOGGER.isEnabledFor(logging.DEBUG) else SECONDS_BETWEEN_LINES

    def show(now: "Progress") -> None:
        nonlocal last
        if now.message:
            LOGGER.info(now.message)
        if time.monotonic() - last >= pause:
            last = time.monotonic()
            of = f" of {now.total_rows:,}" if now.total_rows is not None else ""
            LOGGER.info(f"{now.rows:,}{of} rows, {_pace(now)}")

    return show


@contextmanager
def _rich_bar(before: str, after: str, *, remaining: bool) -> Iterator[Callable[..., None]]:
    """Yield the call that updates a bar between two texts; `remaining`: show the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = [TextColumn("{task.fields[before]}"), BarColumn(), TextColumn("{task.fields[after]}")]
    if remaining:
        columns.append(TimeRemainingColumn(compact=True))
    # Transient: the summary replaces the bar.
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, before=before, after=after)
        yield partial(bar.update, task)


@contextmanager
def _bar() -> "Iterator[Callable[[Progress], None]]":
    with _rich_bar("starting", "", remaining=True) as update:

        def show(now: "Progress") -> None:
            if now.message:
                LOGGER.info(now.message)
            of = f"/{now.total_rows:,}" if now.total_rows is not None else ""
            rows = f"{now.rows:,}{of} rows"
            update(total=now.total_rows, completed=now.rows, before=rows, after=_pace(now))

        yield show


def _pace(now: "Progress") -> str:
    note = f", {now.note}" if now.note else ""
    return f"{_rate(now.rows, now.seconds)}, {count(now.streams, 'stream')}{note}"


def _rate(rows: int, seconds: float) -> str:
    return f"{rows / seconds:,.0f} rows/s" if seconds > 0 else "- rows/s"


def fit_progress(quiet: bool) -> "AbstractContextManager[Callable[[FitProgress], None] | None]":
    """Yield the callback for `Pipeline.fit`, or None to show nothing."""
    return shown(quiet, _fit_bar, _fit_lines)


def _fit_lines() -> "Callable[[FitProgress], None]":
    last = time.monotonic()

    def show(now: "FitProgress") -> None:
        nonlocal last
        if now.message:
            LOGGER.info(now.message)
        elif time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            LOGGER.info(
                f"epoch {now.epoch}/{now.epochs}: {now.steps:,} of {now.total_steps:,} rows, "
                f"{_rate(now.steps, now.seconds)}"
            )
        else:
            return
        last = time.monotonic()

    return show


@contextmanager
def _fit_bar() -> "Iterator[Callable[[FitProgress], None]]":
    with _rich_bar("reading", "", remaining=False) as update:
        last = 0.0

        def show(now: "FitProgress") -> None:
            nonlocal last
            if now.message:
                LOGGER.info(now.message)
            elif time.monotonic() - last < _PAUSE:
                return
            last = time.monotonic()
            epoch, rate = f"epoch {now.epoch}/{now.epochs}", _rate(now.steps, now.seconds)
            update(total=now.total_steps, completed=now.steps, before=epoch, after=rate)

        yield show
