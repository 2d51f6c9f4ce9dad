"""The names below a folder that a source path matches: a pattern, or all files of a format."""

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

from streamrnn.errors import ConfigError

MAGIC = frozenset("*?[")


@dataclass(frozen=True)
class AllFiles:
    """The files with one of `suffixes` at any depth, except names that begin with "." or "_"."""

    suffixes: tuple[str, ...]

    def below(self, folder: str) -> "AllFiles | None":
        """Return the pattern of the names in a folder, None if none can match."""
        return None if folder[0] in "._" else self

    def takes(self, file: str) -> bool:
        """Return whether a file of this name matches."""
        return file[0] not in "._" and file.endswith(self.suffixes)


@dataclass(frozen=True)
class Pattern:
    """The unmatched part of a pattern: several `rests`, as `**` may match any number of folders.

    `*`, `?` and `[]` match within one name, and no name that begins with ".".
    """

    rests: frozenset[tuple[str, ...]]

    @classmethod
    def of(cls, text: str) -> "Pattern":
        """Parse a pattern: empty parts are ignored, a final `**` matches all files.

        Raises ConfigError for `..`: with links, its meaning would depend on the matches.
        """
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise ConfigError(
                f'[source] path: ".." is not allowed after a pattern, as in {text}. Remove it.'
            )
        return cls(frozenset([(*parts, *["*"] * (parts[-1] == "**"))]))

    def below(self, folder: str) -> "Pattern | None":
        """Return the pattern of the names in a folder, None if none can match."""
        rests = set()
        for rest in self._open():
            if rest[0] == "**" and not folder.startswith("."):
                rests.add(rest)
            elif len(rest) > 1 and _fits(folder, rest[0]):
                rests.add(rest[1:])
        return Pattern(frozenset(rests)) if rests else None

    def takes(self, file: str) -> bool:
        """Return whether a file of this name matches."""
        return any(len(rest) == 1 and _fits(file, rest[0]) for rest in self._open())

    def _open(self) -> Iterator[tuple[str, ...]]:
        """Yield the rests, also with `**` matching no folder."""
        for rest in self.rests:
            yield rest
            while rest[0] == "**" and len(rest) > 1:
                rest = rest[1:]
                yield rest


def fixed_part(path: str) -> str:
    """Return the folders before the first part with a wildcard."""
    parts: list[str] = []
    for part in path.split("/"):
        if MAGIC.intersection(part):
            break
        parts.append(part)
    return "/".join(parts)


def _fits(name: str, part: str) -> bool:
    if part == "**" or (name.startswith(".") and not part.startswith(".")):
        return False
    return fnmatch.fnmatchcase(name, part)
