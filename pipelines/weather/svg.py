"""A few shapes as SVG text. Equal calls give equal bytes, on any machine.

Colours have a contrast of about 4 to 1 with white and with the dark background of code hosts, so
that a picture can be read on both.
"""

from collections.abc import Iterable
from html import escape

INK, FAINT = "#747c86", "#747c8659"
BLUE, ORANGE, GREEN = "#3f7fc1", "#cc6420", "#2a8c62"

Point = tuple[float, float]


class Picture:
    """A picture of `width` x `height` pixels, y downwards. `title` is for screen readers."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" '
            'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
            f"<title>{escape(title)}</title>",
        ]

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: int = 12,
        anchor: str = "start",
        fill: str = INK,
        bold: bool = False,
    ) -> None:
        """Add text whose baseline is at y; x is its start, middle or end."""
        weight = ' font-weight="600"' if bold else ""
        self._lines.append(
            f'<text x="{_number(x)}" y="{_number(y)}" font-size="{size}" text-anchor="{anchor}" '
            f'fill="{fill}"{weight}>{escape(text)}</text>'
        )

    def line(self, points: Iterable[Point], stroke: str, width: float = 1) -> None:
        """Add a line through points."""
        path = " L".join(f"{_number(x)} {_number(y)}" for x, y in points)
        self._lines.append(
            f'<path d="M{path}" fill="none" stroke="{stroke}" stroke-width="{_number(width)}" '
            'stroke-linejoin="round"/>'
        )

    def arrow(self, points: Iterable[Point], stroke: str = INK) -> None:
        """Add a line through points; the last piece, vertical or horizontal, ends in a head."""
        *before, (x, y) = points
        last_x, last_y = before[-1]
        along = ((x > last_x) - (x < last_x), (y > last_y) - (y < last_y))
        back = (x - 7 * along[0], y - 7 * along[1])
        side = (4 * along[1], 4 * along[0])
        self.line([*before, back], stroke, 1.5)
        head = [
            (x, y),
            (back[0] + side[0], back[1] + side[1]),
            (back[0] - side[0], back[1] - side[1]),
        ]
        corners = " ".join(f"{_number(a)},{_number(b)}" for a, b in head)
        self._lines.append(f'<polygon points="{corners}" fill="{stroke}"/>')

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str = "none",
        stroke: str = "none",
        dashed: bool = False,
    ) -> None:
        """Add a rectangle with slightly rounded corners."""
        dashes = ' stroke-dasharray="3 3"' if dashed else ""
        self._lines.append(
            f'<rect x="{_number(x)}" y="{_number(y)}" width="{_number(width)}" '
            f'height="{_number(height)}" rx="3" fill="{fill}" stroke="{stroke}"{dashes}/>'
        )

    def svg(self) -> str:
        """Return the whole file."""
        return "\n".join([*self._lines, "</svg>", ""])


def _number(value: float) -> str:
    """Format a number to a tenth of a pixel, `-0` as 0."""
    return f"{round(float(value), 1) + 0:g}"
