"""The progress of a run: a bar on a terminal, elsewhere a line every 30 seconds.

With -v, a line per record batch.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, TypeVar

from streamrnn.cli.report import LOGGER, count

if TYPE_CHECKING:
    from streamrnn.jobs.pipeline import Progress

SECONDS_BETWEEN_LINES = 30.0
T = TypeVar("T")


@contextmanager
def progress(quiet: bool) -> Iterator["Callable[[Progress], None] | None"]:
    """Yield the callback for `Pipeline.run`, or None to show nothing."""
    with shown(quiet, _bar, _lines) as show:
        yield show


@contextmanager
def shown(
    quiet: bool,
    bar: Callable[[], AbstractContextManager[Callable[[T], None]]],
    lines: Callable[[], Callable[[T], None]],
) -> Iterator[Callable[[T], None] | None]:
    """Yield the callback of a bar on a terminal, elsewhere of lines; None to show nothing."""
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
def _bar() -> "Iterator[Callable[[Progress], None]]":
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.fields[rows]}"),
        BarColumn(),
        TextColumn("{task.fields[pace]}"),
        TimeRemainingColumn(compact=True),
    )
    # Transient: the summary replaces the bar.
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, rows="starting", pace="")

        def show(now: "Progress") -> None:
            if now.message:
                LOGGER.info(now.message)
            of = f"/{now.total_rows:,}" if now.total_rows is not None else ""
            bar.update(
                task,
                total=now.total_rows,
                completed=now.rows,
                rows=f"{now.rows:,}{of} rows",
                pace=_pace(now),
            )

        yield show


def _pace(now: "Progress") -> str:
    note = f", {now.note}" if now.note else ""
    return f"{_rate(now)}, {count(now.streams, 'stream')}{note}"


def _rate(now: "Progress") -> str:
    return f"{now.rows / now.seconds:,.0f} rows/s" if now.seconds > 0 else "- rows/s"
