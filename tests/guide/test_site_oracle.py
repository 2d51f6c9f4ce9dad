"""The site is built strictly; in Chromium, axe finds nothing on it that breaks WCAG 2.2 AA."""

import re
import subprocess
import sys
from pathlib import Path

import chromium
import pytest
from readme import ROOT

pytest.importorskip("mkdocs", reason="needs the oracles extra, and the group site")
pytest.importorskip("selenium", reason="needs the oracles extra")

ARTICLE = re.compile(r"<article.*?>(.*?)</article>", re.DOTALL)
FEWER = """
document.head.insertAdjacentHTML('beforeend', '<style>* { transition: none !important }</style>');
document.querySelectorAll('tbody tr:nth-child(n + 4)').forEach(row => row.remove());
const kinds = new Set();
for (const token of document.querySelectorAll('pre span[class]')) {
  if (kinds.has(token.className)) token.remove();
  kinds.add(token.className);
}
"""


def test_all_pages_are_for_everyone(tmp_path: Path) -> None:
    """The texts of all pages on one, with three rows of a table and a token of each kind."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "-d", str(tmp_path)]
    subprocess.run([*command, "-f", str(ROOT / ".github" / "mkdocs.yml")], check=True)
    frame = (tmp_path / "index.html").read_text()
    pages = [ARTICLE.search(page.read_text()) for page in sorted(tmp_path.glob("*/index.html"))]
    texts = "".join(page[1] for page in pages if page is not None)
    assert len(texts) > 200_000
    (tmp_path / "index.html").write_text(frame.replace("</article>", texts + "</article>"))
    browser = chromium.started()
    try:
        browser.get((tmp_path / "index.html").as_uri())
        browser.execute_script(FEWER)
        for scheme in ("default", "slate"):
            browser.execute_script("document.body.dataset.mdColorScheme = arguments[0]", scheme)
            assert (scheme, chromium.violations(browser)) == (scheme, [])
    finally:
        browser.quit()
