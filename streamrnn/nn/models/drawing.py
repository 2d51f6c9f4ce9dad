"""The graph of a model as an SVG: a box for each call of a layer, arrows from what it reads.

Calls stand below all that they read. An arrow that passes other calls has a lane of its own between
them, so no arrow crosses a box, and no box another.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING
from unicodedata import east_asian_width

from streamrnn.base.display import count
from streamrnn.nn.models.calls import Call, calls_of

if TYPE_CHECKING:
    from streamrnn.nn.models.model import Model

_LETTER, _LINE, _PADDING = 7.8, 18, 12
_HEIGHT = 4 * _LINE + _PADDING
_GAP, _BETWEEN_ROWS, _LANE, _MARGIN, _TITLE = 28, 46, 12, 20, 34
_WIDEST = 44
"""Pixels; letters are monospaced, of 13 pixels. The widest line, in letters."""
_SWEEPS = 4
_NAME, _FACT = "name", "fact"
_STYLE = """
svg { color-scheme: light dark; --page: #ffffff; --box: #eef3fa; --line: #44566c; --text: #17212e; }
@media (prefers-color-scheme: dark) {
  svg { --page: #12171e; --box: #1f2a38; --line: #9fb3cb; --text: #e8eef6; }
}
.page { fill: var(--page); }
.box rect { fill: var(--box); stroke: var(--line); }
.edge { fill: none; stroke: var(--line); stroke-width: 1.5; }
.head { fill: var(--line); }
text { fill: var(--text); font: 13px ui-monospace, Menlo, Consolas, monospace; }
text { text-anchor: middle; }
.name { font-weight: bold; }
"""


@dataclass(eq=False)
class _Slot:
    """A place in a row: a box, or the lane of an arrow, which has no lines."""

    row: int
    lines: Sequence[str] = ()
    above: list["_Slot"] = field(default_factory=list)
    below: list["_Slot"] = field(default_factory=list)
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        if not self.lines:
            return _LANE
        return max(map(_columns, self.lines)) * _LETTER + 2 * _PADDING


def model_svg(model: "Model") -> str:
    """Draw the graph of a built model: name, class, output shape and parameters of each call.

    Returns the text of an SVG, light or dark as the reader prefers, which needs no other file.
    Raises ConfigError if the model has no graph yet.
    """
    calls = calls_of(model.graph)
    boxes, rows, arrows = _laid_out(calls)
    width, height = _placed(rows, _columns(model.name) * _LETTER)
    parameters = count(model.count_params(), "parameter")
    told = "; ".join(_told(call, calls) for call in calls)
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-labelledby="title description">',
        f'<title id="title">Model {_text(model.name)}: {parameters}</title>',
        f'<desc id="description">{_text(told)}.</desc>',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path class="head" d="M0 0 8 4 0 8z"/></marker></defs>',
        f'<rect class="page" width="{width:g}" height="{height:g}"/>',
        f'<text class="name" x="{width / 2:g}" y="{_MARGIN + _PADDING}">{_text(model.name)}</text>',
        *(_arrow(read, made, path) for (read, made), path in arrows.items()),
        *(_box(index, calls[index], box) for index, box in enumerate(boxes)),
        "</svg>",
    ]
    return "\n".join(body) + "\n"


def _laid_out(
    calls: Sequence[Call],
) -> tuple[list[_Slot], list[list[_Slot]], dict[tuple[int, int], list[_Slot]]]:
    """Return a slot for each call, the slots of each row, and those on the way of each arrow."""
    boxes: list[_Slot] = []
    for call in calls:
        row = max((boxes[read].row + 1 for read in call.inputs), default=0)
        boxes.append(_Slot(row, _lines(call)))
    rows: list[list[_Slot]] = [[] for _ in range(max((box.row for box in boxes), default=0) + 1)]
    for box in boxes:
        rows[box.row].append(box)
    arrows = {}
    for made, call in enumerate(calls):
        for read in call.inputs:
            lanes = [_Slot(row) for row in range(boxes[read].row + 1, boxes[made].row)]
            for lane in lanes:
                rows[lane.row].append(lane)
            arrows[read, made] = [boxes[read], *lanes, boxes[made]]
            for upper, lower in pairwise(arrows[read, made]):
                upper.below.append(lower)
                lower.above.append(upper)
    return boxes, rows, arrows


def _placed(rows: list[list[_Slot]], title: float) -> tuple[float, float]:
    """Order the slots of each row by those that they are connected to, and place them in it.

    Each slot moves to the mean of its neighbors, row by row, down and up. Returns the size of the
    picture.
    """
    for row in rows:
        _center(row)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            wished = {id(slot): _wish(slot, down) for slot in row}
            row.sort(key=lambda slot: wished[id(slot)])
            _center(row)
    left = min(slot.x - slot.width / 2 for row in rows for slot in row)
    right = max(slot.x + slot.width / 2 for row in rows for slot in row)
    width = max(right - left, title) + 2 * _MARGIN
    for number, row in enumerate(rows):
        for slot in row:
            slot.x += width / 2 - (left + right) / 2
            slot.y = _MARGIN + _TITLE + number * (_HEIGHT + _BETWEEN_ROWS) + _HEIGHT / 2
    return width, rows[-1][0].y + _HEIGHT / 2 + _MARGIN


def _wish(slot: _Slot, down: bool) -> float:
    near = slot.above if down else slot.below
    return sum(other.x for other in near) / len(near) if near else slot.x


def _center(row: list[_Slot]) -> None:
    """Place the slots of a row side by side, around 0."""
    x = -(sum(slot.width for slot in row) + _GAP * (len(row) - 1)) / 2
    for slot in row:
        slot.x = x + slot.width / 2
        x += slot.width + _GAP


def _lines(call: Call) -> list[str]:
    """Return the lines of a box, each cut to the widest that is drawn."""
    facts = [
        call.name,
        type(call.layer).__name__,
        call.shape,
        count(call.layer.count_params(), "parameter"),
    ]
    return [fact if len(fact) <= _WIDEST else f"{fact[: _WIDEST - 1]}…" for fact in facts]


def _told(call: Call, calls: Sequence[Call]) -> str:
    """Say in words what a box and its arrows show."""
    read = ", ".join(calls[index].name for index in call.inputs)
    facts = f"{call.name}, {type(call.layer).__name__}, {call.shape}"
    return f"{facts}, reads {read}" if read else facts


def _box(index: int, call: Call, box: _Slot) -> str:
    left, top = box.x - box.width / 2, box.y - _HEIGHT / 2
    texts = "".join(
        f'<text class="{_FACT if line else _NAME}" x="{box.x:g}" '
        f'y="{top + (line + 1) * _LINE:g}">{_text(text)}</text>'
        for line, text in enumerate(box.lines)
    )
    return (
        f'<g class="box" id="call-{index}"><title>{_text(call.name)}, {call.shape}</title>'
        f'<rect x="{left:g}" y="{top:g}" width="{box.width:g}" height="{_HEIGHT}" rx="6"/>'
        f"{texts}</g>"
    )


def _arrow(read: int, made: int, path: Sequence[_Slot]) -> str:
    """Draw an arrow from one box to another, straight through its lanes."""
    steps: list[str] = []
    for upper, lower in pairwise(path):
        bottom, top = upper.y + _HEIGHT / 2, lower.y - _HEIGHT / 2
        middle = (bottom + top) / 2
        steps.append(f"L{upper.x:g} {bottom:g}" if steps else f"M{upper.x:g} {bottom:g}")
        steps.append(f"C{upper.x:g} {middle:g} {lower.x:g} {middle:g} {lower.x:g} {top:g}")
    return (
        f'<path class="edge" data-from="call-{read}" data-to="call-{made}" d="{" ".join(steps)}" '
        'marker-end="url(#head)"/>'
    )


def _columns(text: str) -> int:
    """Return the columns that a text takes: two for a wide character."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _text(text: str) -> str:
    """Escape a text for XML, which has no place for control characters."""
    return escape("".join(letter if letter.isprintable() else " " for letter in text))
