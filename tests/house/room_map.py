"""The map of rooms in streamrnn/README.md, made from the table of the architecture test.

    PYTHONPATH=tests:tests/support python -m house.room_map

An arrow leads from a room to one that it may import; `a & b` are two rooms. It is left out where
a longer way leads to the same room, or to one in `base`, so that the map can be read; the table
has them all.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from house.test_architecture import MAY_IMPORT, RINGS

PAGE = Path(__file__).parents[2] / "streamrnn" / "README.md"
BEGIN, END = "<!-- rooms: tests/house/room_map.py -->\n", "<!-- end of rooms -->\n"


def room_map(may_import: Mapping[str, str]) -> str:
    """The table as a Mermaid flowchart: who imports others stands above them."""
    below = {room: rooms.split() for room, rooms in may_import.items()}

    @cache
    def reached(room: str) -> frozenset[str]:
        return frozenset(below[room]).union(*map(reached, below[room]))

    alike: dict[str, list[str]] = {}
    for room in reversed(below):
        arrows = [
            other
            for other in below[room]
            if other not in RINGS["base"].split()
            if not any(other in reached(between) for between in below[room])
        ]
        if arrows:
            alike.setdefault(" & ".join(arrows), []).append(room)
    lines = [f"    {' & '.join(rooms)} --> {others}" for others, rooms in alike.items()]
    rings = [f"    subgraph {r}; {'; '.join(rooms.split())}; end" for r, rooms in RINGS.items()]
    return "\n".join(["```mermaid", "flowchart TD", *lines, *rings, "```", ""])


def with_map(page: str) -> str:
    """The page with the map between its marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{room_map(MAY_IMPORT)}\n{END}{tail}"


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text()))
