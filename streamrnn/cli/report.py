"""Output of the command line: results on stdout; logs, errors and progress on stderr.

Progress is a bar on a terminal, elsewhere a line every 30 seconds. A fit also prints a line per
epoch; where a run prints lines, -v prints one per record batch.
"""

import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from streamrnn.base.display import as_text, count, without_credentials

if TYPE_CHECKING:
    import pyarrow as pa

    from streamrnn.jobs.fitting import FitProgress
    from streamrnn.jobs.pipeline import Progress

LOGGER = logging.getLogger("streamrnn")
# Raised for values that Python's types cannot hold: nanoseconds, years beyond 9999, 77 digits.
_BEYOND = (ValueError, ArithmeticError)
SECONDS_BETWEEN_LINES = 30.0
_PAUSE = 0.1
"""Seconds between two updates of the bar: a small model trains thousands of windows a second."""


class _Stderr(logging.Handler):
    """Writes to the current sys.stderr, so that a progress bar stays below the lines."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        sys.stderr.write(f"{level}{without_credentials(record.getMessage())}\n")
        sys.stderr.flush()


def _log_at(level: int) -> None:
    """Send records of streamrnn's loggers at `level` and above to stderr."""
    LOGGER.handlers = [_Stderr()]
    LOGGER.propagate = False
    LOGGER.setLevel(level)


def _quiet(requested: bool) -> bool:
    if requested:
        _log_at(logging.ERROR)
    return requested


def _verbose(requested: bool) -> bool:
    _log_at(logging.DEBUG if requested else logging.INFO)
    return requested


Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key, as in window.lanes=32. Repeatable."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
# Callbacks run in command-line order, defaults last: quiet must come after verbose.
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", callback=_verbose, is_eager=True, help="Log details to stderr."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", callback=_quiet, help="Print errors only.")]


def error(text: str) -> None:
    """Print `error: …` to stderr, in red on a terminal unless NO_COLOR is set."""
    colored = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    head = "\033[1;31merror:\033[0m" if colored else "error:"
    print(head, without_credentials(text), file=sys.stderr, flush=True)


def print_json(result: Mapping[str, Any] | Sequence[Any], file: TextIO | None = None) -> None:
    """Print a result as one line; values without a JSON type are printed as text."""
    text = json.dumps(result, default=as_text, ensure_ascii=False)
    print(text, file=file or sys.stdout, flush=True)


def table(columns: Sequence[str], rows: Iterable[Iterable[Any]], *, widest: int = 40) -> str:
    """Format rows as aligned text: numbers to the right, values cut to `widest` characters.

    >>> print(table(["name", "rows"], [["a", 1], ["bcd", 1200]]))
    name   rows
    a         1
    bcd   1,200
    """
    body = [list(row) for row in rows]
    aligned = []
    for name, *values in zip(columns, *body, strict=True):
        texts = [name, *(_cell(value, widest) for value in values)]
        width = max(map(len, texts))
        right = bool(values) and all(map(_is_number, values))
        aligned.append([text.rjust(width) if right else text.ljust(width) for text in texts])
    return "\n".join("  ".join(line).rstrip() for line in zip(*aligned, strict=True))


def print_table(columns: Sequence[str], rows: Iterable[Iterable[Any]], *, widest: int = 40) -> None:
    """Print rows as aligned text; on a terminal, cut lines to its width."""
    text = table(columns, rows, widest=widest)
    if sys.stdout is not None and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        text = "\n".join(_cut(line, width) for line in text.split("\n"))
    print(text)


def facts(result: Mapping[str, Any]) -> str:
    """Format a result as aligned `name  value` lines; nested results are indented below."""
    width = max((len(name) for name, value in result.items() if not _is_nested(value)), default=0)
    lines = []
    for name, value in result.items():
        label = name.replace("_", " ")
        if not _is_nested(value):
            lines.append(f"{label.ljust(width)}  {_cell(value, 10_000)}".rstrip())
            continue
        lines.append(label)
        items = facts(value).split("\n") if isinstance(value, Mapping) else map(_line, value)
        lines += [f"  {item}" for item in items]
    return "\n".join(lines)


def verdict(better: float, baseline: str) -> str:
    """Describe how errors compare with the best baseline's; see `better` of `evaluate`.

    >>> verdict(0.294, "persistence")
    '29% better than the best baseline, persistence'
    """
    named = f"the best baseline, {baseline}"
    if abs(better) < 0.005:
        return f"as good as {named}"
    if better > 0:
        return f"{better:.0%} better than {named}"
    if better > -1:
        return f"{-better:.0%} worse than {named}"
    if better == -math.inf:
        return f"worse than {named}, which is never wrong"
    return f"worse, with {1 - better:,.1f} times the error of {named}"


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(item, 200)}" for name, item in value.items())
    return _cell(value, 10_000)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple) and bool(value)


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {10: " "}
"""Characters that a terminal would obey, and what is shown instead."""


def _cell(value: Any, widest: int) -> str:
    match value:
        case None:
            text = "-"
        case bool():
            text = "yes" if value else "no"
        case float():
            text = f"{value:.6g}"
        case int():
            text = f"{value:,}"
        case list() | tuple():
            text = ", ".join(str(item) for item in value) or "-"
        case _:
            text = as_text(value)
    return _cut(text.translate(_CONTROLS), widest)


def _cut(text: str, widest: int) -> str:
    return text if len(text) <= widest else f"{text[: widest - 1]}…"


def values(column: "pa.ChunkedArray") -> list[Any]:
    """Return a column's values in Python, as Arrow's text where Python has no such value."""
    try:
        return list(column.to_pylist())
    except _BEYOND:
        return [_value(scalar) for scalar in column]


def rows(table: "pa.Table") -> list[dict[str, Any]]:
    """Return the rows of a table, each as name -> value."""
    columns = [values(column) for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _value(scalar: "pa.Scalar") -> Any:
    import pyarrow as pa

    try:
        return scalar.as_py()
    except _BEYOND:
        if isinstance(scalar, pa.StructScalar):
            return {name: _value(field) for name, field in scalar.items()}
        if isinstance(scalar, pa.ListScalar):
            return [_value(item) for item in scalar]
        return scalar.cast(pa.string()).as_py()


def _of_run(now: "Progress") -> tuple[dict[str, Any], str]:
    rows, total, note = f"{now.rows:,}", now.total_rows, f", {now.note}" if now.note else ""
    pace = f"{_rate(now.rows, now.seconds)}, {count(now.streams, 'stream')}{note}"
    before, line = ("", "") if total is None else (f"/{total:,}", f" of {total:,}")
    bar = {"total": total, "completed": now.rows, "before": f"{rows}{before} rows", "after": pace}
    return bar, f"{rows}{line} rows, {pace}"


def _of_fit(now: "FitProgress") -> tuple[dict[str, Any], str]:
    epoch, rate = f"epoch {now.epoch}/{now.epochs}", _rate(now.steps, now.seconds)
    bar = {"total": now.total_steps, "completed": now.steps, "before": epoch, "after": rate}
    return bar, f"{epoch}: {now.steps:,} of {now.total_steps:,} rows, {rate}"


def _rate(rows: int, seconds: float) -> str:
    return f"{rows / seconds:,.0f} rows/s" if seconds > 0 else "- rows/s"


@contextmanager
def progress(quiet: bool, *, of_fit: bool = False) -> Iterator[Callable[[Any], None] | None]:
    """Yield the callback for `Pipeline.run` or `fit`, or None to show nothing.

    In a fit, a message takes the place of a line.
    """
    if quiet:
        yield None
        return
    on_terminal, last = sys.stderr.isatty(), time.monotonic()
    pause = _PAUSE if on_terminal else SECONDS_BETWEEN_LINES
    if not of_fit and (on_terminal or LOGGER.isEnabledFor(logging.DEBUG)):
        pause = 0.0
    with _bar(of_fit) if on_terminal else nullcontext() as update:

        def show(now: Any) -> None:
            nonlocal last
            if now.message:
                LOGGER.info(now.message)
            instead = bool(now.message) and of_fit
            if not instead and time.monotonic() - last < pause:
                return
            last, (bar, line) = time.monotonic(), _of_fit(now) if of_fit else _of_run(now)
            if update is not None:
                update(**bar)
            elif not instead:
                LOGGER.info(line)

        yield show


@contextmanager
def _bar(of_fit: bool) -> Iterator[Callable[..., None]]:
    """Yield the call that updates a bar between two texts; a run also shows the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.fields[before]}"), BarColumn(), TextColumn("{task.fields[after]}")]
    if not of_fit:
        columns.append(TimeRemainingColumn(compact=True))
    # Transient: the summary replaces the bar.
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, before="reading" if of_fit else "starting", after="")
        yield partial(bar.update, task)
