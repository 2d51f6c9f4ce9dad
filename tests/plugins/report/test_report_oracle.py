"""A report in headless Chromium: what is drawn, told, read by keys and loaded; and one on S3."""

import json
import re
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import chromium
import logs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from base.storage.s3_server import empty_bucket, options
from jobs.evaluation.evaluated import config, log, model, write

from streamrnn import Pipeline
from streamrnn.errors import ConfigError
from streamrnn.pipeline import report_output

pytest.importorskip("selenium", reason="needs the oracles extra")
pytest.importorskip("vl_convert", reason="needs the oracles extra")
pytest.importorskip("moto.server", reason="needs the oracles extra")

from selenium.webdriver import Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

NAMES = {"s0": "<b>bold</b>", "s1": "</script>", "s2": "two\nlines \"'", "s3": "\U0001f600 \u05e9"}
WIDTHS = (400, 1400)
HOVER = "[...document.querySelectorAll('#outputs-0 g.role-mark.mark-rule')].pop()"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = chromium.started()
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A page of all kinds of pictures, on streams with names that are no HTML, and its JSON."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        model("sigmoid", 1)
        table = log("rejects")
        keys = pa.array([NAMES[key] for key in table["id"].to_pylist()])
        write(table.set_column(table.column_names.index("id"), "id", keys))
        Path("m.safetensors.fit").mkdir()
        history = {"epoch": [1, 2], "loss": [3.0, 2.0], "val_loss": [4.0, 3.5]}
        pq.write_table(pa.table(history), "m.safetensors.fit/history.parquet")
        pipeline = Pipeline.from_dict(config("rejects", {"column": "flag"}))
        pipeline.run()
        found = pipeline.report("page.html")
        yield folder / "page.html", json.loads(json.dumps(found.as_dict()))


def opened(browser: Any, page: Path, width: int, scheme: str = "light") -> None:
    browser.get_log("browser"), browser.get_log("performance")
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(page.as_uri())
    WebDriverWait(browser, 60).until(
        lambda driver: driver.execute_script("return document.documentElement.dataset.drawn")
    )


def test_names_of_columns_are_no_expressions(browser: Any, workdir: Path) -> None:
    """They are in titles, which Vega-Lite writes into expressions."""
    model("sigmoid", 1)
    names = {"flag": "two\nlines", "a": 'x\\": 1, "', "t": "\u2028"}
    table = log("plain")
    write(table.rename_columns([names.get(name, name) for name in table.column_names]))
    data = config("plain", {"column": names["flag"]})
    data["source"] |= {"features": [names["a"], "b"], "time": names["t"]}
    pipeline = Pipeline.from_dict(data)
    pipeline.run()
    found = pipeline.report("page.html")
    opened(browser, workdir / "page.html", 1400)
    assert browser.get_log("browser") == []
    charts = sum(len(panels) for panels in drawn(json.loads(json.dumps(found.as_dict()))).values())
    assert len(browser.find_elements(By.CSS_SELECTOR, ".chart svg")) == charts > 10


def drawn(report: dict[str, Any]) -> dict[str, list[list[dict[str, Any]]]]:
    items = [item for item in report["pictures"] if "panels" in item]
    return {item["id"]: [panel["rows"] for panel in item["panels"]] for item in items}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_whole_in_both_widths_and_schemes(
    browser: Any, report: tuple[Path, dict[str, Any]], width: int, scheme: str
) -> None:
    """No message, no request beyond the file, nothing wider than the window or against WCAG."""
    page, numbers = report
    opened(browser, page, width, scheme)
    assert browser.get_log("browser") == []
    messages = [json.loads(item["message"])["message"] for item in browser.get_log("performance")]
    asked = [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]
    assert set(asked) <= {page.as_uri()}
    charts = sum(len(panels) for panels in drawn(numbers).values())
    assert len(browser.find_elements(By.CSS_SELECTOR, ".chart svg")) == charts > 14
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    wide = browser.execute_script(
        "return [...document.querySelectorAll('svg, p, h1, h2, dd, figure')].filter("
        "e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert contrasts(browser) > 4.5
    browser.execute_script("document.querySelector('#rows details').open = true")
    assert chromium.violations(browser) == []


def contrasts(browser: Any) -> float:
    """The least contrast (WCAG 2.2) of text with the page: of HTML, and in the charts."""
    colors = browser.execute_script(
        "const seen = new Set();"
        "for (const e of document.querySelectorAll('h1, p, dt, dd, a, b, summary')) "
        "seen.add(getComputedStyle(e).color);"
        "for (const e of document.querySelectorAll('svg text')) seen.add(getComputedStyle(e).fill);"
        "return [getComputedStyle(document.body).backgroundColor, ...seen];"
    )
    behind, *texts = (luminance(color) for color in colors if "rgba" not in color)
    assert len(texts) >= 3
    return min((max(a, behind) + 0.05) / (min(a, behind) + 0.05) for a in texts)


def luminance(color: str) -> float:
    parts = [int(x) / 255 for x in re.findall(r"\d+", color)[:3]]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_each_row_is_one_mark(browser: Any, report: tuple[Path, dict[str, Any]]) -> None:
    """A rule over its place, a bar or a dot: as many as rows of --json, at most 5,000 a picture."""
    page, numbers = report
    opened(browser, page, 1400)
    for name, panels in drawn(numbers).items():
        assert sum(map(len, panels)) <= 5000
        for index, rows in enumerate(panels):
            marks = browser.execute_script(
                "const one = document.querySelector(arguments[0]);"
                "const count = (kind) => Math.max(0, ...[...one.querySelectorAll("
                "`g.role-mark.mark-${kind}`)].map(g => g.childElementCount));"
                "return Math.max(count('rule'), count('rect'), count('symbol'));",
                f"#{name}-{index}",
            )
            assert marks == len(rows), name


def test_marks_are_spread_over_the_width(browser: Any, report: tuple[Path, dict[str, Any]]) -> None:
    """Also in panels with one axis: the rules of rows are apart, and inside the chart."""
    page, numbers = report
    opened(browser, page, 1400)
    for name in ("outputs", "each-stream", "error-time", "features", "streams", "rows"):
        for index, rows in enumerate(drawn(numbers)[name]):
            lefts = browser.execute_script(
                "const all = document.querySelectorAll(arguments[0] + ' g.role-mark.mark-rule');"
                "return [...[...all].pop().children].map(e => e.getBoundingClientRect().left)",
                f"#{name}-{index}",
            )
            assert len(set(lefts)) == len(rows)
            assert max(lefts) - min(lefts) > 150


@pytest.mark.parametrize("width", WIDTHS)
def test_labels_of_commits_are_apart_and_models_are_marked(
    browser: Any, workdir: Path, width: int
) -> None:
    """Of daily runs over a long log the last commits are pixels apart, at the right edge."""
    table = logs.random_log(3000)
    ends = [0, 1500, 2500, 2800, 2900, 2950, 2980, 3000]
    data = logs.config("in", "m.safetensors", "out")
    for run, (start, end) in enumerate(pairwise(ends)):
        if run in (0, 5):
            net = logs.small_model()
            net.set_weights([weight / (run + 1) for weight in net.get_weights()])
            net.save("m.safetensors")
        logs.write(table.slice(start, end - start), Path("in") / f"{run}.parquet")
        Pipeline.from_dict(data).run(new_model="carry" if run == 5 else None)
    pipeline = Pipeline.from_dict(data)
    pipeline.report("page.html")
    opened(browser, workdir / "page.html", width)
    texts = browser.execute_script(
        "return [...document.querySelectorAll('#outputs-0 g.role-mark.mark-text text')]"
        ".filter(e => getComputedStyle(e).opacity !== '0')"
        ".map(e => [e.textContent, e.getBoundingClientRect().toJSON()])"
    )
    assert [text for text, _ in texts if text.startswith("model")] == [
        f"model {pipeline.loaded.fingerprint[:6]}"
    ]
    assert any(text.startswith("commit") for text, _ in texts)
    svg = browser.find_element(By.CSS_SELECTOR, "#outputs-0 .chart svg").rect
    for text, box in texts:
        assert svg["x"] <= box["left"] < box["right"] <= svg["x"] + svg["width"], text
    for (one, a), (other, b) in combinations(texts, 2):
        apart = a["right"] <= b["left"] or b["right"] <= a["left"]
        assert apart or a["bottom"] <= b["top"] or b["bottom"] <= a["top"], (one, other)


def test_the_pointer_tells_the_numbers_of_a_row(
    browser: Any, report: tuple[Path, dict[str, Any]]
) -> None:
    page, numbers = report
    opened(browser, page, 1400)
    row = drawn(numbers)["outputs"][0][20]
    chart = browser.find_element(By.CSS_SELECTOR, "#outputs-0 .chart")
    scroll = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})"
    browser.execute_script(scroll, chart)
    rule = browser.execute_script(
        f"const g = {HOVER};"
        "const at = g.children[20].getBoundingClientRect();"
        "return [at.left, at.top + at.height / 2];"
    )
    browser.execute_cdp_cmd(
        "Input.dispatchMouseEvent", {"type": "mouseMoved", "x": rule[0], "y": rule[1]}
    )
    tip = WebDriverWait(browser, 10).until(
        lambda driver: driver.find_element(By.CSS_SELECTOR, "#vg-tooltip-element.visible")
    )
    text = " ".join(tip.text.split())
    assert str(row["time"]) in text
    assert f"{row['median']:.4g}" in text
    assert f"rows {row['rows']}" in text


def test_the_keyboard_reads_the_rows(browser: Any, report: tuple[Path, dict[str, Any]]) -> None:
    """Tab reaches each chart; arrows, Home and End tell a row, as a status."""
    page, numbers = report
    opened(browser, page, 400)
    rows = drawn(numbers)["outputs"][0]
    chart = browser.find_element(By.CSS_SELECTOR, "#outputs-0 .chart")
    told = browser.find_element(By.CSS_SELECTOR, "#outputs-0 .told")
    assert (chart.get_attribute("tabindex"), told.get_attribute("role")) == ("0", "status")
    chart.send_keys(Keys.ARROW_RIGHT)
    assert str(rows[0]["time"]) in told.text
    chart.send_keys(Keys.END)
    assert str(rows[-1]["time"]) in told.text
    chart.send_keys(Keys.ARROW_LEFT)
    assert str(rows[-2]["time"]) in told.text
    seen = browser.execute_script(
        f"return [...{HOVER}.children].map(e => getComputedStyle(e).opacity)"
    )
    assert [i for i, opacity in enumerate(seen) if float(opacity) > 0] == [len(rows) - 2]
    labels = [
        (element.get_attribute("role"), element.get_attribute("aria-label"))
        for element in browser.find_elements(By.CSS_SELECTOR, ".chart")
    ]
    assert all(role == "img" and re.search(r"\d", label) for role, label in labels)
    sentence = next(i["sentence"] for i in numbers["pictures"] if i["id"] == "outputs")
    assert re.fullmatch(r"Median score between 0\.\d+ and 0\.\d+\.", sentence)
    assert labels[0][1].startswith(sentence)


def test_the_table_has_the_numbers(browser: Any, report: tuple[Path, dict[str, Any]]) -> None:
    page, numbers = report
    opened(browser, page, 400)
    details = browser.find_element(By.CSS_SELECTOR, "#rows details")
    browser.execute_script("arguments[0].open = true", details)
    rows = drawn(numbers)["rows"][0]
    WebDriverWait(browser, 10).until(
        lambda driver: len(driver.find_elements(By.CSS_SELECTOR, "#rows tbody tr")) == len(rows)
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") == 400


def test_names_are_shown_and_run_nothing(browser: Any, report: tuple[Path, dict[str, Any]]) -> None:
    page, _ = report
    opened(browser, page, 1400)
    titles = [
        e.get_attribute("textContent")
        for e in browser.find_elements(By.CSS_SELECTOR, "#each-stream h3")
    ]
    assert set(titles) == set(NAMES.values())
    text = browser.execute_script("return document.querySelector('#error-stream svg').textContent")
    assert "<b>bold</b>" in text
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 3


def test_an_output_on_s3(workdir: Path) -> None:
    """The page is written there too; its text has no credentials."""
    model("linear", 1)
    write(log())
    with empty_bucket() as (fs, port):
        uri = f"s3://any:hunter2@bucket/{{}}?{options(port)}"
        data = logs.config("in", "m.safetensors", uri.format("reported"), source={"nulls": 0.0})
        Pipeline.from_dict(data).run()
        with pytest.raises(ConfigError, match="lies inside the output"):
            report_output(uri.format("reported"), uri.format("reported/report.html"))
        for _ in range(2):  # the second one replaces the first
            found = report_output(uri.format("reported"), uri.format("report.html"))
        with fs.open_input_stream("bucket/report.html") as file:
            text = file.read().decode()
    assert found.facts["rows"] == len(log())
    assert "hunter2" not in text
    assert "s3://bucket/reported" in text
