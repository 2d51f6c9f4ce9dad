"""The pages of the guide: each runs as it is read, after `init --demo` in an empty folder."""

import re
from pathlib import Path

import pytest
from guide.generate import PAGES
from readme import GUIDE, blocks, installed, located, make_demo, run_blocks
from selection import first_quick

BYTES = 8192


def _name(page: str) -> str:
    return Path(page).stem


@pytest.mark.parametrize("page", first_quick(GUIDE), ids=_name)
def test_every_block_runs_and_prints_what_the_page_says(page: str, tmp_path: Path) -> None:
    """Blocks that need a framework run in test_pages_oracle.py. Slow: pages but the first; the
    quick tests run the README."""
    run_blocks(page, make_demo(tmp_path), installed)


@pytest.mark.parametrize("page", GUIDE, ids=_name)
def test_a_block_that_is_not_run_says_why(page: str) -> None:
    unexplained = [block.text for block in blocks(page) if block.language == "text"]
    reasons = [block.title for block in blocks(page) if block.language == "text"]
    assert all(reasons), unexplained
    assert {block.language for block in blocks(page)} <= {"console", "python", "text", "toml"}


@pytest.mark.parametrize("page", [*GUIDE, "README.md", "pipelines/README.md"])
def test_a_page_imports_public_modules_alone(page: str) -> None:
    private = r"\bstreamrnn\.(?:base|nn|stream|jobs|plugins)\b.*"
    assert re.findall(private, located(page).read_text()) == []


@pytest.mark.parametrize("page", GUIDE, ids=_name)
def test_a_page_is_short(page: str) -> None:
    if _name(page) not in PAGES:
        assert len(located(page).read_bytes()) <= BYTES


def test_the_list_of_pages_names_each_page_once() -> None:
    (index,) = [page for page in GUIDE if _name(page) == "index"]
    listed = re.findall(r"^- \[([\w-]+)\]\(\1\.md\): ", located(index).read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(_name(page) for page in GUIDE if page != index)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_to_look_up_is_the_one_that_the_command_makes(name: str) -> None:
    """After a change to a key, an option or a docstring: `python tests/guide/generate.py`."""
    (page,) = [page for page in GUIDE if _name(page) == name]
    assert located(page).read_text() == PAGES[name]()
