"""The site has the pages of the guide, in the order of their list; .ci/run builds it strictly."""

import re
from pathlib import Path

from readme import GUIDE, ROOT, located

CONFIG = (ROOT / ".github" / "mkdocs.yml").read_text()


def test_the_site_lists_the_pages_as_the_guide_does() -> None:
    (index,) = [page for page in GUIDE if Path(page).stem == "index"]
    listed = re.findall(r"^- \[[\w-]+\]\(([\w-]+\.md)\)", located(index).read_text(), re.MULTILINE)
    navigation = re.findall(r"[\w-]+\.md", CONFIG.partition("\nnav:")[2])
    assert navigation == ["index.md", *listed]
