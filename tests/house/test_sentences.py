"""Each sentence for readers that has a number, or says always, never, any, every or exactly, has a
row in sentences.toml, which names what shows it.

A page's sentences are its paragraphs and list items, cut behind `.`, `:` or `?` before a space and
a capital, a backtick, a bracket or an asterisk. Headings, tables, blocks of code and what
benchmarks write between their marks are not sentences; test_readme.py runs and compares those.
Inside `code` and links no word counts, and no number.
"""

import re
import tomllib
from pathlib import Path

import pytest
from guide.generate import PAGES as LOOKED_UP
from readme import GUIDE, ROOT, located

TABLE = tomllib.loads((Path(__file__).parent / "sentences.toml").read_text())
PROOFS: dict[str, str | list[str]] = TABLE["proofs"]
LEFT_OUT = re.compile(
    r"^```.*?^```$|<!-- (?P<mark>[\w -]+) -->.*?<!-- end of (?P=mark) -->|^[|#!].*?$",
    re.MULTILINE | re.DOTALL,
)
CLAIM = re.compile(r"(?<![\w.-])\d|\b(?:always|never|any|every|exactly)\b", re.IGNORECASE)


def sentences(page: str) -> list[str]:
    """The sentences of a page, each in one line."""
    text = LEFT_OUT.sub("\n\n", page)
    paragraphs = re.split(r"\n\s*\n|^(?:-|\d\.) ", text, flags=re.MULTILINE)
    lines = [" ".join(paragraph.split()) for paragraph in paragraphs]
    return [part for line in lines if line for part in re.split(r"(?<=[.:?]) (?=[A-Z`*\[])", line)]


def claims(page: str) -> list[str]:
    """Those that need a row."""
    return [
        sentence
        for sentence in sentences(page)
        if CLAIM.search(re.sub(r"`[^`]*`|\]\([^)]*\)", "", sentence))
    ]


PAGES = [located(page) for page in (*TABLE["pages"], *GUIDE) if Path(page).stem not in LOOKED_UP]
CLAIMS = [claim for page in PAGES for claim in claims(page.read_text())]


def test_what_is_a_sentence_and_which_of_them_claims() -> None:
    page = """# Any title

It takes `3` lanes
of [any](any.md) width: They never meet.

- Uses int16, `every` row, in Conv1D.
- Half. `x` is 2

| any | 4 |

<!-- speed -->
5 times
<!-- end of speed -->
```sh
any
```
"""
    assert sentences(page) == [
        "It takes `3` lanes of [any](any.md) width:",
        "They never meet.",
        "Uses int16, `every` row, in Conv1D.",
        "Half.",
        "`x` is 2",
    ]
    assert claims(page) == [sentences(page)[i] for i in (0, 1, 4)]


def test_each_claim_has_one_row() -> None:
    rows = {claim: [part for part in PROOFS if part in claim] for claim in CLAIMS}
    assert {claim: parts for claim, parts in rows.items() if len(parts) != 1} == {}


def test_each_row_is_of_one_claim() -> None:
    found = {part: [claim for claim in CLAIMS if part in claim] for part in PROOFS}
    assert {part: lines for part, lines in found.items() if len(lines) != 1} == {}


@pytest.mark.parametrize("part", PROOFS)
def test_what_a_row_names_exists(part: str) -> None:
    named = PROOFS[part]
    if named == "not tested":
        assert [claim for claim in CLAIMS if part in claim and "not tested" in claim]
    elif named != "advice":
        for proof in [named] if isinstance(named, str) else named:
            file, _, function = proof.partition("::")
            assert f"\ndef {function}(" in (ROOT / file).read_text(), proof
            assert function.startswith("test_") or Path(file).parent.name == "benchmarks"
