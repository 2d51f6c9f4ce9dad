"""The HTML file of a report: its text, its numbers, and the script that draws them.

Vega-Lite draws: its script is in the wheel of vl-convert-python, which bundles it without a
network. Measured with the charts of a report, the file has 0.9 MB (with Plotly 4.8 MB, with Bokeh
1.3 MB) and is written in 1 s. Vega-Lite draws SVG in the colours of the style sheet, so that one
page is both light and dark (Bokeh draws on a canvas, and neither Plotly nor Bokeh reads variables
of a style sheet).

By its Content-Security-Policy, the page runs only the scripts of Vega-Lite and page.js, and loads
nothing.
"""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html import escape
from importlib.resources import files
from typing import Any

from streamrnn.errors import UnsupportedError
from streamrnn.plugins.report.charts import hue, spec_of, tips
from streamrnn.plugins.report.picture import GENERATOR, Missing, Picture, ReportPage

_CODE = re.compile("`([^`]*)`")
# White space is not hidden; nor are the joiners of emoji and scripts, U+200C and U+200D.
_HIDDEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
)
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)T([\d:]+)(Z?)")


def page(report: ReportPage) -> str:
    """Return the file as text. Raises UnsupportedError if vl-convert, an extra, is missing."""
    scripts = [_library(), _read("page.js")]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()) for text in scripts]
    hashes = " ".join(f"'sha256-{digest.decode()}'" for digest in digests)
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'"
    body = "\n".join(map(_section, report.pictures)) + _not_drawn(report)
    drawn = json.dumps(list(map(_picture, report.pictures)), separators=(",", ":"), allow_nan=False)
    for sign in "<>&":  # so that no HTML parser takes the data for a tag
        drawn = drawn.replace(sign, f"\\u{ord(sign):04x}")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{GENERATOR}
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_attribute(report.title)}</title>
<style>{_read("page.css")}</style>
</head>
<body>
<a class="skip" href="#pictures">Skip to the pictures</a>
<header>
<h1>{_text(report.title)}</h1>
{_facts(report)}
</header>
<nav aria-label="Pictures">
<ol>{_entries(report)}</ol>
</nav>
<main id="pictures">
<noscript><p>The pictures are drawn by the script in this file, which your browser does not
run.</p></noscript>
{body}
</main>
<script type="application/json" id="report-data">{drawn}</script>
{"".join(f'<script type="module">{script}</script>' for script in scripts)}
</body>
</html>
"""


def _library() -> str:
    try:
        import vl_convert

        script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    except ImportError as error:
        raise UnsupportedError(
            f"the page of a report needs vl-convert ({error}): pip install 'streamrnn[report]'. "
            "The numbers alone, --json, do not need it"
        ) from error
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _read(name: str) -> str:
    return (files(__package__) / name).read_text("utf-8")


def _prose(text: str) -> str:
    """Return a sentence as HTML; text between backticks is code."""
    return _CODE.sub(r"<code>\1</code>", _text(text))


def _text(value: object) -> str:
    """Return text that is inert in HTML; each piece keeps its own direction of writing."""
    text = escape(_visible(str(value)))
    return text if text.isascii() else f"<bdi>{text}</bdi>"


def _visible(text: str) -> str:
    """Return text with invisible characters, and characters that reverse others, as codes."""
    return _HIDDEN.sub(lambda hidden: f"\\u{ord(hidden[0]):04x}", text)


def _attribute(text: str) -> str:
    return escape(_visible(text))


def _facts(report: ReportPage) -> str:
    rows = "".join(
        f"<div><dt>{_text(name.replace('_', ' '))}</dt><dd>{_text(_shown(value))}</dd></div>"
        for name, value in report.facts.items()
        if value is not None
    )
    return f'<dl class="facts">{rows}</dl>'


def _shown(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    moment = _MOMENT.fullmatch(str(value))
    return f"{moment[1]} {moment[2]}{' UTC' if moment[3] else ''}" if moment else str(value)


def _entries(report: ReportPage) -> str:
    entries = [f'<li><a href="#{item.id}">{_text(item.title)}</a></li>' for item in report.pictures]
    missing = len(report.items) - len(entries)
    if missing:
        entries.append(f'<li class="none"><a href="#not-drawn">Not drawn</a> ({missing})</li>')
    return "".join(entries)


def _not_drawn(report: ReportPage) -> str:
    reasons: dict[str, list[Missing]] = {}
    for item in report.items:
        if isinstance(item, Missing):
            reasons.setdefault(item.sentence, []).append(item)
    if not reasons:
        return ""
    rows = "".join(
        "<div>"
        + "".join(f'<dt id="{item.id}">{_text(item.title)}</dt>' for item in items)
        + f"<dd>{_prose(sentence[:1].upper() + sentence[1:])}</dd></div>"
        for sentence, items in reasons.items()
    )
    return (
        '\n<section id="not-drawn" aria-labelledby="not-drawn-title">'
        f'<h2 id="not-drawn-title">Not drawn</h2><dl class="missing">{rows}</dl></section>'
    )


def _section(item: Picture) -> str:
    head = f'<section id="{item.id}" aria-labelledby="{item.id}-title">'
    title = f'<h2 id="{item.id}-title">{_text(item.title)}</h2>'
    notes = f"<p>{_prose(' '.join(item.notes))}</p>" if item.notes else ""
    figures = "".join(_figure(item, index) for index in range(len(item.panels)))
    kind = "" if len(item.panels) > 1 else " narrow" if item.chart == "reliability" else " one"
    return (
        f"{head}{title}<p>{_text(item.sentence)}</p>{_key(item)}"
        f'<div class="panels{kind}">{figures}</div>'
        f'<div class="notes">{notes}</div>'
        '<details><summary>Numbers of this picture</summary><div class="scroll" tabindex="0" '
        f'role="region" aria-label="Numbers: {_attribute(item.title)}"></div></details>'
        "</section>"
    )


def _key(item: Picture) -> str:
    """Return the title of the y axis, with the names of series in their colours."""
    if [series.label for series in item.series] == [item.y_title.lower()]:
        return f'<p class="lead">{_text(item.y_title)}</p>'
    names = ", ".join(
        f'<b class="s{hue(item, index) + 1}{" band" * bool(series.low)}">{_text(series.label)}</b>'
        for index, series in enumerate(item.series)
    )
    return f'<p class="lead key">{_text(item.y_title)}: {names}</p>'


def _figure(item: Picture, index: int) -> str:
    panel = item.panels[index]
    label = f"{item.title}: {panel.label}. {item.sentence}" if panel.label else item.sentence
    label += " Arrow keys read the rows."
    head = f'<h3 title="{_attribute(panel.label)}">{_text(panel.label)}</h3>' if panel.label else ""
    return (
        f'<figure id="{item.id}-{index}">{head}'
        '<div class="chart" role="img" tabindex="0" '
        f'aria-label="{_attribute(label)}"><div aria-hidden="true"></div></div>'
        '<p class="told" role="status"></p></figure>'
    )


def _picture(item: Picture) -> dict[str, Any]:
    """Return a picture as data of the script, with names as the page shows them."""
    panels = [
        replace(
            panel,
            label=_visible(panel.label),
            rows=[
                {n: _visible(v) if isinstance(v, str) else v for n, v in row.items()}
                for row in panel.rows
            ],
        )
        for panel in item.panels
    ]
    series = [replace(drawn, label=_visible(drawn.label)) for drawn in item.series]
    item = replace(item, panels=panels, series=series)
    return {
        "id": item.id,
        "chart": item.chart,
        "clock": item.clock,
        "step": item.step,
        "shared": item.shared,
        "x_field": item.x_field,
        "rules": [list(rule) for rule in item.rules],
        "tips": [[name, title] for name, title, _ in tips(item, item.rows)],
        "panels": [
            {"label": p.label, "rows": list(p.rows), "spec": spec_of(item, p)} for p in item.panels
        ],
    }
