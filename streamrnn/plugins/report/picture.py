"""The contents of a report: pictures, each with its numbers and words."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Literal, NamedTuple

Chart = Literal["band", "lines", "stack", "bars", "dots", "reliability"]
GENERATOR = '<meta name="generator" content="streamrnn report">'
"""The element of a page that shows that it is a report."""
_LONGEST_HEAD = 200
"""Number of bytes at the start of a page that contain `GENERATOR`."""


@dataclass(frozen=True)
class Drawn:
    """A field of the rows to draw, its name in words, and `low`, the field of a band's low end."""

    field: str
    label: str
    low: str = ""


@dataclass(frozen=True)
class Panel:
    """One chart: its name ("" if it needs none), and its rows, one per mark.

    `reference`: a mean, and the deviation on both sides of it, drawn behind the rows.
    """

    label: str
    rows: Sequence[Mapping[str, Any]]
    reference: tuple[float, float] | None = None


class VerticalRule(NamedTuple):
    """A vertical line at a place on the horizontal axis: a commit, perhaps by another model."""

    at: str | int
    label: str
    model: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture with its panels, whose labels are free text, and the titles of its axes.

    With a `clock`, `x_field` has dates or times as text, and `step`, the width of a bucket, is in
    seconds; otherwise `x_field` has numbers or names, and `step` is in the unit of the numbers.
    `sentence` says what the picture shows, `notes` how it was made. `shared`: panels have the same
    vertical scale.
    """

    id: str
    title: str
    sentence: str
    chart: Chart
    panels: Sequence[Panel]
    series: Sequence[Drawn]
    x_field: str
    x_title: str
    y_title: str
    clock: bool = False
    step: int = 0
    rules: Sequence[VerticalRule] = ()
    notes: Sequence[str] = ()
    shared: bool = False
    from_zero: bool = False

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        """The rows of all panels."""
        return [row for panel in self.panels for row in panel.rows]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers and words, for JSON."""
        return {
            "id": self.id,
            "title": self.title,
            "sentence": self.sentence,
            "notes": list(self.notes),
            "rules": [{"at": rule.at, "label": rule.label} for rule in self.rules],
            "panels": [{"label": p.label, "rows": list(p.rows)} for p in self.panels],
        }


@dataclass(frozen=True)
class Missing:
    """A picture that is not drawn; `sentence` says why, and how to get it if there is a way."""

    id: str
    title: str
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Return the words, for JSON."""
        return {"id": self.id, "title": self.title, "missing": self.sentence}


def is_report(file: BinaryIO) -> bool:
    """Return whether a file, read from its start, is the page of a report."""
    start = file.read(_LONGEST_HEAD)
    return start.startswith(b"<!DOCTYPE html>") and GENERATOR.encode() in start


@dataclass(frozen=True)
class ReportPage:
    """A report on an output: `facts` by name, and the pictures, in order."""

    title: str
    facts: Mapping[str, Any]
    items: Sequence[Picture | Missing] = field(default_factory=list)

    @property
    def pictures(self) -> list[Picture]:
        """The pictures that are drawn."""
        return [item for item in self.items if isinstance(item, Picture)]

    def as_dict(self) -> dict[str, Any]:
        """Return the facts, and the numbers and words of all pictures, for JSON."""
        return {**self.facts, "pictures": [item.as_dict() for item in self.items]}

    def html(self) -> str:
        """Return one HTML file that needs no network.

        Raises UnsupportedError without vl-convert.
        """
        from streamrnn.plugins.report.page import page

        return page(self)


Row = dict[str, Any]
_MOST_DIGITS = 17
_LONGEST = 40
_LARGEST = 1e15
"""From here on, numbers are shown with an exponent."""


def rows_of_columns(columns: Mapping[str, Iterable[Any]]) -> list[Row]:
    """Return rows from columns of equal length; floats have six digits, None if not finite."""
    return [
        dict(zip(columns, map(_plain, row), strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def without_name(panels: Sequence[Panel]) -> Sequence[Panel]:
    """Return the panels; if there is only one, without its name."""
    return panels if len(panels) > 1 else [replace(panel, label="") for panel in panels]


def short(value: float | None) -> str:
    """Return a number as people read it.

    >>> short(0.123456), short(26115), short(1.5e37), short(None)
    ('0.123', '26,115', '1.5e+37', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, int) or 1000 <= abs(value) < _LARGEST:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def distinct(values: Sequence[float]) -> list[str]:
    """Return numbers as texts, with as many digits as it takes to tell distinct numbers apart.

    >>> distinct([1.5, 1.5103, 1.5108]), distinct([1, 1023])
    (['1.500', '1.510', '1.511'], ['1', '1,023'])
    """
    texts = [short(value) for value in values]
    digits = 3
    while len(set(texts)) < len(values) and digits < _MOST_DIGITS:
        digits += 1
        texts = [f"{value:#,.{digits}g}".rstrip(".") for value in values]
    return texts


def span(rows: Sequence[Mapping[str, Any]], field: str) -> tuple[float, float] | None:
    """Return the least and the greatest value of a field; None if no row has a value."""
    values = [row[field] for row in rows if row[field] is not None]
    return (min(values), max(values)) if values else None


def between(ends: tuple[float, float] | None) -> str:
    """Return the least and the greatest value in words.

    >>> between((1, 2)), between((0.19, 0.19)), between(None)
    ('between 1 and 2', '0.19 throughout', 'never finite')
    """
    if ends is None:
        return "never finite"
    if ends[0] == ends[1]:
        return f"{short(ends[0])} throughout"
    return "between {} and {}".format(*distinct(ends))


def brief(name: str) -> str:
    """Return a name for a sentence; a long one is cut to its start and end.

    >>> brief("JFK"), brief("abcdefghij" * 20)
    ('JFK', 'abcdefghijabcdefghijabcd…ijabcdefghij')
    """
    return name if len(name) <= _LONGEST else f"{name[:24]}…{name[-12:]}"
