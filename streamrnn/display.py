"""Helpers for the display of objects: a line in a console, a small table in a notebook.

Text in, text out. Nothing is read, and no credentials are shown.
"""

from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import urlsplit, urlunsplit

__all__ = [
    "count",
    "first_of",
    "html_table",
    "listed",
    "location",
]

_SHOWN = 6


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "row"), count(26115, "row")
    ('1 row', '26,115 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Iterable[str]) -> str:
    """Join names with commas; of many, the first ones and the last.

    >>> listed(["a", "b"])
    'a, b'
    >>> listed("abcdefgh")
    'a, b, c, d, e, …, h'
    """
    items = list(names)
    return ", ".join(items if len(items) <= _SHOWN else [*items[: _SHOWN - 1], "…", items[-1]])


def first_of(names: Sequence[str], number: int = 3) -> str:
    """Join the first names with commas, and count the others.

    >>> first_of(["a", "b", "c"]), first_of(["a", "b", "c", "d"])
    ('a, b, c', 'a, b, c and 1 more')
    """
    more = len(names) - number
    return ", ".join(names[:number]) + (f" and {more:,} more" if more > 0 else "")


def location(path: str) -> str:
    """Return a path unchanged, a URI without user, password and query: they may hold credentials.

    >>> location("out/weather"), location("s3://key:secret@logs/2013?access_token=x#part")
    ('out/weather', 's3://logs/2013')
    """
    if "://" not in path:
        return path
    parts = urlsplit(path)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def html_table(title: str, rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> str:
    """Return an HTML table with a caption; the first cell of a row is its heading. Text is escaped.

    >>> html_table("A & B", [("rows", 3)])
    '<table><caption>A &amp; B</caption><tbody><tr><th>rows</th><td>3</td></tr></tbody></table>'
    """
    head = "".join(f"<th>{escape(text)}</th>" for text in header)
    body = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    return (
        f"<table><caption>{escape(title)}</caption>"
        + (f"<thead><tr>{head}</tr></thead>" if head else "")
        + f"<tbody>{body}</tbody></table>"
    )


def _cells(row: Sequence[object]) -> str:
    first, *others = (escape(str(value)) for value in row)
    return f"<th>{first}</th>" + "".join(f"<td>{text}</td>" for text in others)
