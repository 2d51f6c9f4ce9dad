"""What a report consists of: pictures, each with its numbers and words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Chart = Literal["band", "lines", "stack", "bars", "dots", "reliability"]
MOST_MARKS = 5000
"""Rows, and so marks, of one picture."""
GENERATOR = '<meta name="generator" content="streamrnn report">'
"""The element of a page by which an earlier report is known."""
LONGEST_HEAD = 200
"""Bytes from the start of a page that have `GENERATOR`."""


@dataclass(frozen=True)
class Drawn:
    """A field of the rows that is drawn: its name in words; `low` is the other end of a band."""

    field: str
    label: str
    low: str = ""


@dataclass(frozen=True)
class Panel:
    """One chart: a name, "" for the only one of its picture, and its rows, one per mark.

    `reference`: a mean, and the deviations on both sides of it, that are drawn behind.
    """

    label: str
    rows: Sequence[Mapping[str, Any]]
    reference: tuple[float, float] | None = None


class VerticalRule(NamedTuple):
    """A vertical line at a place on the horizontal axis: a commit, or one of another model."""

    at: str | int
    label: str
    model: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture: `x` and `y` are fields and titles of axes; names in `Panel` are free text.

    With a `clock`, `x_field` has dates as text, else numbers; `step` is the width of a bucket, in
    seconds or in numbers.
    `sentence` says what is seen, `notes` how it was made.
    `shared`: panels have one vertical scale.
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
    def rows(self) -> int:
        """The number of rows of all panels."""
        return sum(len(panel.rows) for panel in self.panels)

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
    """A picture that is not drawn: why, and how to get it, in one sentence."""

    id: str
    title: str
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Return the words, for JSON."""
        return {"id": self.id, "title": self.title, "missing": self.sentence}


def is_report(start: bytes) -> bool:
    """Return whether a file that starts with these bytes is the page of a report."""
    return start.startswith(b"<!DOCTYPE html>") and GENERATOR.encode() in start[:LONGEST_HEAD]


@dataclass(frozen=True)
class ReportPage:
    """A report on an output: `facts` by name, and what is drawn, in order."""

    title: str
    facts: Mapping[str, Any]
    items: Sequence[Picture | Missing] = field(default_factory=list)

    @property
    def pictures(self) -> list[Picture]:
        """What is drawn."""
        return [item for item in self.items if isinstance(item, Picture)]

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers under all pictures, for JSON."""
        return {**self.facts, "pictures": [item.as_dict() for item in self.items]}

    def html(self) -> str:
        """Return one HTML file that needs no network.

        Raises UnsupportedError without vl-convert.
        """
        from streamrnn.plugins.report.pictures.page import page

        return page(self)
