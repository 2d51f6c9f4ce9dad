"""Line numbers of the keys of a TOML text, which tomllib does not keep."""

import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable

from streamrnn.stream.config.problems import Path

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_SCALAR = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}'
    r'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|[^,\]}\s#](?:[^,\]}\n#]*[^,\]}\s#])?',
    re.DOTALL,
)


def key_lines(text: str) -> dict[Path, int]:
    """Return the line, from 1, of every table, key and array element of a valid TOML document.

    Array elements are keys with a number: ("source", "features", 2, "valid").
    """
    return _Scanner(text).scan()


class _Scanner:
    """Scans a document that tomllib has accepted, so it checks nothing."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.offset = 0
        self.lines: dict[Path, int] = {}
        self.array_tables: dict[Path, int] = {}
        self.breaks = [match.start() for match in re.finditer("\n", text)]

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self.skip(_BLANK) < len(self.text):
            if self.text.startswith("[", self.offset):
                table = self.header()
            else:
                self.pair(table)
        return self.lines

    def header(self) -> Path:
        array = self.text.startswith("[[", self.offset)
        start = self.offset
        self.offset += 2 if array else 1
        path = self.resolve(self.dotted_key())
        if array:
            index = self.array_tables[path] = self.array_tables.get(path, -1) + 1
            path = (*path, index)
        self.mark(path, start)
        self.offset += 2 if array else 1
        return path

    def resolve(self, parts: tuple[str, ...]) -> Path:
        """Return the path of a header; below an array of tables, it is below the last table."""
        path: Path = ()
        for depth, part in enumerate(parts, start=1):
            path = (*path, part)
            self.mark(path, self.offset)
            if depth < len(parts) and path in self.array_tables:
                path = (*path, self.array_tables[path])
        return path

    def pair(self, table: Path) -> None:
        start = self.offset
        path = table
        for part in self.dotted_key():
            path = (*path, part)
            self.mark(path, start)
        self.offset += 1  # the equals sign
        self.skip(_SPACE)
        self.value(path)

    def value(self, path: Path) -> None:
        self.mark(path, self.offset)
        opening = self.text[self.offset]
        if opening == "[":
            self.items("]", lambda index: self.value((*path, index)))
        elif opening == "{":
            self.items("}", lambda _: self.pair(path))
        else:
            self.skip(_SCALAR)

    def items(self, closing: str, item: Callable[[int], None]) -> None:
        self.offset += 1
        index = 0
        while not self.text.startswith(closing, self.skip(_BLANK)):
            item(index)
            index += 1
            if self.text.startswith(",", self.skip(_BLANK)):
                self.offset += 1
        self.offset += 1

    def dotted_key(self) -> tuple[str, ...]:
        parts = []
        while True:
            self.skip(_SPACE)
            start = self.offset
            part = self.text[start : self.skip(_KEY_PART)]
            if part[:1] in ('"', "'"):
                part = tomllib.loads(f"value = {part}")["value"]
            parts.append(part)
            if not self.text.startswith(".", self.skip(_SPACE)):
                return tuple(parts)
            self.offset += 1

    def skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.offset)
        if match:
            self.offset = match.end()
        return self.offset

    def mark(self, path: Path, offset: int) -> None:
        self.lines.setdefault(path, bisect_left(self.breaks, offset) + 1)
