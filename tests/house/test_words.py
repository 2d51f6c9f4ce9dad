"""A name says what it holds, and a sentence names what it is about."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamrnn

PACKAGE = Path(streamrnn.__file__).parent
NAMES = {"found", "given", "known", "made"}
PHRASE = re.compile(
    r"\b(?:that|those) of \S+|(?<!\bthere )\b(?:is|are) no (?!better\b|longer\b)\S+", re.IGNORECASE
)

MARKS = re.compile(r"""(?:\b[rbf]{1,2}(?=["']))?["'#\s]+""")


def is_suspect(source: str) -> bool:
    """Whether a source may have one of either. Only then is it parsed: 5 s for all of them."""
    named = re.search(rf"\b_*(?:{'|'.join(NAMES)})_*\b", source)
    return bool(named or PHRASE.search(" ".join(MARKS.sub(" ", source).split())))


def names_in(source: str) -> Iterator[str]:
    """The names of `NAMES` that a source binds, private or not."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case (
                ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, ctx=ast.Store())
                | ast.arg(arg=name)
                | ast.FunctionDef(name=name)
                | ast.MatchAs(name=str(name))
            ) if name.strip("_") in NAMES:
                yield name


def phrases_in(source: str) -> Iterator[str]:
    """The phrases in docstrings, messages and comments of a source, without line breaks."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    texts = [" ".join(t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT)]
    constants = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    texts += [constant.value for constant in constants if isinstance(constant.value, str)]
    for text in texts:
        yield from PHRASE.findall(" ".join(text.split()))


def test_no_name_or_phrase_says_nothing() -> None:
    """Name the thing in place of the pronoun."""
    places = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        source = path.read_text()
        if is_suspect(source):
            places |= {f"{file}: {part}" for part in (*names_in(source), *phrases_in(source))}
    assert places == set()


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("found = [known for known in ()]", ["found", "known"]),
        ("def _made(given): self._known = 1", ["_made", "given", "_known"]),
        ("match x:\n    case int() as found: pass", ["found"]),
        ("print(found, known.given, made())", []),
    ],
)
def test_a_name_is_seen_where_it_is_bound(source: str, parts: list[str]) -> None:
    assert sorted(names_in(source)) == sorted(parts)
    assert is_suspect(source)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ('"""Those of\n    the window."""', ["Those of the"]),
        ('raise ValueError(f"{x} is " "no layer")', ["is no layer"]),
        ('raise ValueError("it is " f"no layer: {x}")', ["is no layer:"]),
        ("x = 1  # as that\n# of y", ["that of y"]),
        ("# There are no rows, and there is no longer one.", []),
        ("# It is no longer kept.", []),
    ],
)
def test_a_phrase_is_seen_across_lines_and_parts(source: str, parts: list[str]) -> None:
    assert list(phrases_in(source)) == parts
    assert is_suspect(source) or not parts
