"""On which line of a TOML text each key stands: tomllib parses values, and forgets where."""

import re
import tomllib
from bisect import bisect_left
from collections.abc import Callable

from streamrnn.config.problems import Path

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_SCALAR = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}'
    r'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|[^,\]}\s#](?:[^,\]}\n#]*[^,\]}\s#])?',
    re.DOTALL,
)


def key_lines(text: str) -> dict[Path, int]:
    """Line numbers, from 1, of every table, key and array element of a valid TOML document.

    Array elements count as keys with a number: ("source", "features", 2, "valid").
    """
    return _Scanner(text).scan()


class _Scanner:
    """Walks over a document that tomllib has accepted, so it checks nothing."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.array_tables: dict[Path, int] = {}
        self.breaks = [match.start() for match in re.finditer("\n", text)]

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        while self.skip(_BLANK) < len(self.text):
            if self.text.startswith("[", self.at):
                table = self.header()
            else:
                self.pair(table)
        return self.lines

    def header(self) -> Path:
        array = self.text.startswith("[[", self.at)
        start = self.at
        self.at += 2 if array else 1
        path = self.resolve(self.dotted_key())
        if array:
            index = self.array_tables[path] = self.array_tables.get(path, -1) + 1
            path = (*path, index)
        self.mark(path, start)
        self.at += 2 if array else 1
        return path

    def resolve(self, parts: tuple[str, ...]) -> Path:
        """Headers below an array of tables mean that array's last table."""
        path: Path = ()
        for depth, part in enumerate(parts, start=1):
            path = (*path, part)
            self.mark(path, self.at)
            if depth < len(parts) and path in self.array_tables:
                path = (*path, self.array_tables[path])
        return path

    def pair(self, table: Path) -> None:
        start = self.at
        path = table
        for part in self.dotted_key():
            path = (*path, part)
            self.mark(path, start)
        self.at += 1  # the equals sign
        self.skip(_SPACE)
        self.value(path)

    def value(self, path: Path) -> None:
        self.mark(path, self.at)
        opening = self.text[self.at]
        if opening == "[":
            self.items("]", lambda index: self.value((*path, index)))
        elif opening == "{":
            self.items("}", lambda _: self.pair(path))
        else:
            self.skip(_SCALAR)

    def items(self, closing: str, item: Callable[[int], None]) -> None:
        self.at += 1
        index = 0
        while not self.text.startswith(closing, self.skip(_BLANK)):
            item(index)
            index += 1
            if self.text.startswith(",", self.skip(_BLANK)):
                self.at += 1
        self.at += 1

    def dotted_key(self) -> tuple[str, ...]:
        parts = []
        while True:
            self.skip(_SPACE)
            start = self.at
            part = self.text[start : self.skip(_KEY_PART)]
            if part[:1] in ('"', "'"):
                part = tomllib.loads(f"value = {part}")["value"]
            parts.append(part)
            if not self.text.startswith(".", self.skip(_SPACE)):
                return tuple(parts)
            self.at += 1

    def skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self.text, self.at)
        if match:
            self.at = match.end()
        return self.at

    def mark(self, path: Path, at: int) -> None:
        self.lines.setdefault(path, bisect_left(self.breaks, at) + 1)
