"""Draw streams.svg: how rows become streams, windows and a commit.

python pipelines/weather/draw_streams.py
"""

import argparse
from pathlib import Path

from svg import BLUE, FAINT, GREEN, INK, ORANGE, Picture

HERE = Path(__file__).parent
ROWS = ("A1", "B1", "C1", "A2", "C2", "B2", "A3", "C3", "A4", "C4", "A5", "B3")
COLORS = {"A": BLUE, "B": ORANGE, "C": GREEN}
STREAMS = {name: [row for row in ROWS if row[0] == name] for name in COLORS}
STEPS = 4
CELL, ROW, PITCH = 30, 18, 22
TOP = 76
BATCH, SORTED, WINDOWS, OUTPUT, COMMIT = 16, 134, 396, 744, 850
TABLE = 240
COLUMNS = (("key", 0), ("steps", 46), ("last time", 98), ("gru/h", 172))


def draw() -> str:
    """Draw the stages of one record batch of three streams."""
    picture = Picture(1008, 356, "Rows to streams, windows of lanes and steps, state, and a commit")
    _column(picture, BATCH, "record batch", "rows by time")
    _arrow(picture, BATCH + CELL + 8, SORTED - 26, "sort")
    _sorted(picture)
    _arrow(picture, SORTED + 5 * (CELL + 2) + 8, WINDOWS - 58, "cut")
    _window(picture, WINDOWS, 0)
    _window(picture, WINDOWS + 168, STEPS)
    _state(picture)
    _arrow(picture, WINDOWS + 304, OUTPUT - 8, "emit")
    _column(picture, OUTPUT, "output", "in input order")
    _arrow(picture, OUTPUT + CELL + 8, COMMIT - 14, "write")
    _commit(picture)
    return picture.svg()


def _heading(picture: Picture, x: float, title: str, note: str) -> None:
    picture.text(x, 22, title, 14, bold=True)
    picture.text(x, 40, note)


def _arrow(picture: Picture, start: float, end: float, label: str) -> None:
    picture.text((start + end) / 2, TOP + 26, label, anchor="middle")
    picture.arrow([(start, TOP + 34), (end, TOP + 34)])


def _cell(picture: Picture, x: float, y: float, row: str) -> None:
    picture.box(x, y, CELL, ROW, COLORS[row[0]])
    picture.text(x + CELL / 2, y + 13, row, anchor="middle", fill="#ffffff", bold=True)


def _column(picture: Picture, x: float, title: str, note: str) -> None:
    """Draw the rows of the file, in order."""
    _heading(picture, x, title, note)
    for i, row in enumerate(ROWS):
        _cell(picture, x, TOP + i * PITCH, row)


def _sorted(picture: Picture) -> None:
    _heading(picture, SORTED, "streams", "one per key, in its own order")
    for i, (name, rows) in enumerate(STREAMS.items()):
        picture.text(SORTED - 18, TOP + i * 30 + 13, name, 13, bold=True, fill=COLORS[name])
        for k, row in enumerate(rows):
            _cell(picture, SORTED + k * (CELL + 2), TOP + i * 30, row)


def _window(picture: Picture, x: float, first: int) -> None:
    """Draw steps `first` to `first` + STEPS of every stream, each in its lane."""
    if first == 0:
        _heading(picture, x, "windows", "lanes x steps; lane i continues where lane i stopped")
    picture.box(x - 6, TOP - 8, STEPS * (CELL + 2) + 10, 98, stroke=INK)
    for i, rows in enumerate(STREAMS.values()):
        y = TOP + i * 30
        if first == 0:
            picture.text(x - 10, y + 13, f"lane {i}", 11, "end")
        for k in range(STEPS):
            cut = rows[first + k : first + k + 1]
            if cut:
                _cell(picture, x + k * (CELL + 2), y, cut[0])
            else:
                picture.box(x + k * (CELL + 2), y, CELL, ROW, stroke=FAINT, dashed=True)


def _state(picture: Picture) -> None:
    """Draw the state table below the windows, which read from it and write to it."""
    left, right = WINDOWS - 6, WINDOWS + 300
    picture.arrow([(left + 60, TABLE - 26), (left + 60, TOP + 94)])
    picture.text(left + 68, TABLE - 42, "states before")
    picture.arrow([(right - 60, TOP + 92), (right - 60, TABLE - 24)])
    picture.text(right - 68, TABLE - 42, "states after", anchor="end")
    picture.box(left, TABLE - 22, right - left, 106, stroke=INK)
    for name, x in COLUMNS:
        picture.text(left + 12 + x, TABLE - 4, name, bold=True)
    for i, (name, rows) in enumerate(STREAMS.items()):
        y = TABLE + 18 + i * 24
        values = (name, str(len(rows)), f"of {rows[-1]}")
        for (_, x), value in zip(COLUMNS, values, strict=False):
            picture.text(left + 12 + x, y, value, fill=COLORS[name], bold=x == 0)
        for k in range(5):
            picture.box(left + 12 + COLUMNS[-1][1] + k * 22, y - 11, 18, 13, COLORS[name])
    picture.text(left, TABLE + 104, "state table", 14, bold=True)
    picture.text(left + 96, TABLE + 104, "one row per stream, in Arrow")


def _commit(picture: Picture) -> None:
    """Draw what one manifest names."""
    _heading(picture, COMMIT, "commit", "all of it, or nothing")
    picture.box(COMMIT - 8, TOP - 12, 160, 276, stroke=INK, dashed=True)
    things = (
        ("part-00000.parquet", "the output rows"),
        ("state", "rows that changed"),
        ("position", "first row not read"),
    )
    for i, (name, note) in enumerate(things):
        y = TOP + 2 + i * 58
        picture.box(COMMIT, y, 144, 44, stroke=INK)
        picture.text(COMMIT + 8, y + 18, name, bold=True)
        picture.text(COMMIT + 8, y + 35, note, 11)
    picture.arrow([(COMMIT + 72, TOP + 166), (COMMIT + 72, TOP + 198)])
    picture.box(COMMIT, TOP + 200, 144, 52, INK)
    picture.text(COMMIT + 72, TOP + 222, "manifest", 13, "middle", "#ffffff", bold=True)
    picture.text(COMMIT + 72, TOP + 240, "names them", 11, "middle", "#ffffff")


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw streams, windows, state and commit.")
    parser.add_argument("--to", type=Path, default=HERE / "streams.svg")
    parser.parse_args().to.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
