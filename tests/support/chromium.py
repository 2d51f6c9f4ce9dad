"""Headless Chromium, and what axe finds on the page that it shows."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


def started() -> Any:
    """A driver, which the caller ends."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver import Chrome, ChromeOptions

    options = ChromeOptions()
    for argument in ("headless=new", "no-sandbox", "hide-scrollbars", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        driver = Chrome(options)
    except WebDriverException as error:  # Debian: chromium, chromium-driver
        pytest.fail(f"Chromium does not start: {error}")
    driver.set_script_timeout(300)
    return driver


def violations(browser: Any) -> list[tuple[str, list[str]]]:
    """The rules of WCAG 2.2 AA that the page breaks, each with what breaks it.

    axe does not look into drawings, which are images with a text.
    """
    wheel = find_spec("axe_playwright_python")  # of it axe alone: its code needs Playwright
    if wheel is None or wheel.origin is None:
        pytest.skip("needs .ci/programs.txt")
    browser.execute_script(Path(wheel.origin).with_name("axe.min.js").read_text())
    found = browser.execute_async_script(
        "const [tags, done] = arguments;"
        "const options = {runOnly: tags, resultTypes: ['violations']};"
        "axe.run({exclude: 'svg *'}, options).then(done, done)",
        WCAG,
    )
    rules = found["violations"]
    return [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in rules]
