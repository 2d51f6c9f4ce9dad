"""The pages of the guide whose blocks need other libraries: needs the oracles extra."""

from pathlib import Path

import pytest
from readme import GUIDE, blocks, installed, make_demo, run_blocks

NEEDED = {page: {name for block in blocks(page) for name in block.needs} for page in GUIDE}
PAGES = [page for page, names in NEEDED.items() if names and names != {"pyspark"}]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: Path(page).stem)
def test_every_block_of_the_page_runs(page: str, tmp_path: Path) -> None:
    for name in sorted(NEEDED[page]):
        pytest.importorskip(name, reason="needs the oracles extra")
    assert all(installed(block) for block in blocks(page))
    run_blocks(page, make_demo(tmp_path), installed)
