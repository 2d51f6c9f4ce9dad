"""The progress of a run or a fit: a bar on a terminal, elsewhere a line every 30 seconds.

A fit also has a line per epoch; where a run has lines, -v gives one per record batch.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from streamrnn.base.display import count
from streamrnn.cli.report import LOGGER

if TYPE_CHECKING:
    from streamrnn.jobs.fitting import FitProgress
    from streamrnn.jobs.pipeline import Progress

SECONDS_BETWEEN_LINES = 30.0
_PAUSE = 0.1
"""Seconds between two updates of the bar: a small model trains thousands of windows a second."""


class _Shown(NamedTuple):
    """What shows the progress of a run or fit: a bar with a text on each side, or a line."""

    total: int | None
    completed: int
    before: str
    after: str
    line: str


def progress(quiet: bool) -> "AbstractContextManager[Callable[[Progress], None] | None]":
    """Yield the callback for `Pipeline.run`, or None to show nothing."""
    return _showing(quiet, "starting", _of_run, of_run=True)


def fit_progress(quiet: bool) -> "AbstractContextManager[Callable[[FitProgress], None] | None]":
    """Yield the callback for `Pipeline.fit`, or None to show nothing."""
    return _showing(quiet, "reading", _of_fit, of_run=False)


def _of_run(now: "Progress") -> _Shown:
    rows, total, note = f"{now.rows:,}", now.total_rows, f", {now.note}" if now.note else ""
    pace = f"{_rate(now.rows, now.seconds)}, {count(now.streams, 'stream')}{note}"
    before, line = ("", "") if total is None else (f"/{total:,}", f" of {total:,}")
    return _Shown(total, now.rows, f"{rows}{before} rows", pace, f"{rows}{line} rows, {pace}")


def _of_fit(now: "FitProgress") -> _Shown:
    epoch, rate = f"epoch {now.epoch}/{now.epochs}", _rate(now.steps, now.seconds)
    line = f"{epoch}: {now.steps:,} of {now.total_steps:,} rows, {rate}"
    return _Shown(now.total_steps, now.steps, epoch, rate, line)


def _rate(rows: int, seconds: float) -> str:
    return f"{rows / seconds:,.0f} rows/s" if seconds > 0 else "- rows/s"


@contextmanager
def _showing(
    quiet: bool, start: str, describe: Callable[[Any], _Shown], *, of_run: bool
) -> Iterator[Callable[[Any], None] | None]:
    """Yield the callback; in a fit, a message takes the place of a line."""
    if quiet:
        yield None
        return
    on_terminal, last = sys.stderr.isatty(), time.monotonic()
    pause = _PAUSE if on_terminal else SECONDS_BETWEEN_LINES
    if of_run and (on_terminal or LOGGER.isEnabledFor(logging.DEBUG)):
        pause = 0.0
    with _bar(start, remaining=of_run) if on_terminal else nullcontext() as update:

        def show(now: Any) -> None:
            nonlocal last
            if now.message:
                LOGGER.info(now.message)
            instead = bool(now.message) and not of_run
            if not instead and time.monotonic() - last < pause:
                return
            last, shown = time.monotonic(), describe(now)
            if update is not None:
                total, completed, before, after, _ = shown
                update(total=total, completed=completed, before=before, after=after)
            elif not instead:
                LOGGER.info(shown.line)

        yield show


@contextmanager
def _bar(start: str, *, remaining: bool) -> Iterator[Callable[..., None]]:
    """Yield the call that updates a bar between two texts; `remaining`: show the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.fields[before]}"), BarColumn(), TextColumn("{task.fields[after]}")]
    if remaining:
        columns.append(TimeRemainingColumn(compact=True))
    # Transient: the summary replaces the bar.
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, before=start, after="")
        yield partial(bar.update, task)
