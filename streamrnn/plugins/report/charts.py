"""Charts as Vega-Lite specifications: https://vega.github.io/vega-lite/docs/spec.html.

Each row is one mark that the pointer finds: a rule over the whole height at its x, a bar or a dot.
Colours are variables of the page's style sheet, so that one chart serves light and dark pages.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from streamrnn.plugins.report.picture import Panel, Picture

ChartSpec = dict[str, Any]
_TALL, _LOW = 260, 150
_DOT = 20
_LONGEST_NAME = 150
_COMMIT_LABEL, _MODEL_LABEL = 66, 84
"""Widths of labels at rules, in pixels."""
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif"
"""The font of the page: widths of labels are measured in it."""
_AT = {"test": "datum.row === at", "value": 0.6}
"""The row chosen with the keyboard."""


def spec_of(picture: Picture, panel: Panel) -> ChartSpec:
    """Return the specification of a panel; the page adds its rows, and the dataset `rules`."""
    return {
        "width": "container",
        "height": _LOW if len(picture.panels) > 1 else _TALL,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "params": [{"name": "at", "value": -1}],
        "config": _CONFIG,
        **_CHARTS[picture.chart](picture, panel),
    }


def tips(picture: Picture, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return field, title and d3 format of each fact shown about a row."""
    labels = {picture.x_field: picture.x_title}
    for series in picture.series:
        if series.low:
            labels[series.low] = f"{series.label}, low"
            labels[series.field] = f"{series.label}, high"
        else:
            labels[series.field] = series.label
    first = rows[0] if rows else {}
    labels |= {name: name for name in first if name not in labels}
    return [(name, title, _format(rows, name)) for name, title in labels.items() if name in first]


def _format(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [row[name] for row in rows if row[name] is not None]
    if all(isinstance(value, str) for value in values):
        return ""
    return "," if all(isinstance(value, int) for value in values) else ".4~g"


def _tooltip(picture: Picture, panel: Panel) -> list[ChartSpec]:
    # Titles contain names of columns, and become strings of expressions. A newline in a title would
    # end the expression, and a backslash before a quote would end the string: Vega-Lite escapes
    # only quotes.
    return [
        {"title": json.dumps(title)[1:-1].replace('\\"', '"')}
        | (_number(name, format=form) if form else {"field": name, "type": "nominal"})
        for name, title, form in tips(picture, panel.rows)
    ]


def _number(field: str, **options: Any) -> ChartSpec:
    return {"field": field, "type": "quantitative", **options}


def _x(picture: Picture, field: str = "x") -> ChartSpec:
    if not picture.clock:
        axis: ChartSpec = {"title": picture.x_title, "tickCount": {"signal": "ceil(width / 60)"}}
        if all(isinstance(row[picture.x_field], int) for row in picture.rows):
            axis["tickMinStep"] = 1
        return _number(field, axis=axis, scale={"nice": False, "zero": False})
    axis = {"title": None, "labelOverlap": True, "tickCount": {"signal": "ceil(width / 90)"}}
    return {"field": field, "type": "temporal", "axis": axis, "scale": {"type": "utc"}}


def _y(picture: Picture, panel: Panel, field: str) -> ChartSpec:
    scale: ChartSpec = {"zero": picture.from_zero, "nice": True}
    ends = _ends(picture, picture.panels if picture.shared else [panel])
    # Only one layer sets the domain: if several do, Vega-Lite treats their union as data.
    if picture.shared and field == picture.series[0].field and ends:
        scale["domain"] = ends
    if ends and ends[0] == ends[1]:  # a single number would be written as an integer
        scale["domain"] = _around(ends[0], from_zero=picture.from_zero)
    axis: ChartSpec = {"title": None, "tickCount": 4}
    if all(isinstance(row[series.field], int) for series in picture.series for row in picture.rows):
        axis["tickMinStep"] = 1
        whole = sum if picture.chart == "stack" else max
        tops = (whole(row[series.field] for series in picture.series) for row in panel.rows)
        top = max(tops, default=0)
        if picture.from_zero and top < axis["tickCount"]:  # otherwise ticks are half a unit apart
            axis |= {"values": list(range(max(1, top) + 1)), "format": "d"}
    return _number(field, axis=axis, scale=scale)


def _around(value: float, *, from_zero: bool = False) -> list[float]:
    if from_zero and value == 0:
        return [0, 1]
    return [value - (abs(value) / 10 or 1), value + (abs(value) / 10 or 1)]


def _ends(picture: Picture, panels: Sequence[Panel]) -> list[float]:
    """Return the least and greatest value drawn in some panels; [] without a value."""
    names = [name for series in picture.series for name in (series.field, series.low) if name]
    values = [
        row[name] for panel in panels for row in panel.rows for name in names
        if row[name] is not None
    ]  # fmt: skip
    for panel in panels:
        if panel.reference is not None and values:
            mean, deviation = panel.reference
            values += [mean - deviation, mean + deviation]
    return [0 if picture.from_zero else min(values), max(values)] if values else []


def _hover(picture: Picture, panel: Panel) -> ChartSpec:
    """Return a rule for each row.

    Only the rule at the pointer, or at the row chosen with the keyboard, is visible.
    """
    hover = {"param": "hover", "empty": False, "value": 0.6}
    nearest = {"on": "pointerover", "clear": "pointerout", "nearest": True}
    select = {"type": "point", "encodings": ["x"], **nearest}
    return {
        "mark": {"type": "rule", "color": "var(--muted)", "strokeWidth": 1},
        "params": [{"name": "hover", "select": select}],
        "encoding": {
            "x": _x(picture, "middle_x"),
            "opacity": {"condition": [hover, _AT], "value": 0},
            "tooltip": _tooltip(picture, panel),
        },
    }


def _color(index: int) -> str:
    return f"var(--series-{index + 1})"


def hue(picture: Picture, index: int) -> int:
    """Return the number of a series' colour: a line and its band share a colour."""
    return index - sum(bool(series.low) for series in picture.series[:index])


def _lines(picture: Picture, panel: Panel) -> ChartSpec:
    layers: list[ChartSpec] = []
    if panel.reference is not None:
        mean, deviation = panel.reference
        ends: ChartSpec = {"y": {"datum": mean - deviation}, "y2": {"datum": mean + deviation}}
        layers.append({"mark": {"type": "rect", "color": "var(--reference)"}, "encoding": ends})
        line: ChartSpec = {"type": "rule", "color": "var(--muted)", "strokeDash": [4, 3]}
        layers.append({"mark": line, "encoding": {"y": {"datum": mean}}})
    for index, series in reversed(list(enumerate(picture.series))):
        y, color = _y(picture, panel, series.field), _color(hue(picture, index))
        if series.low:
            mark: ChartSpec = {"type": "area", "color": color, "opacity": 0.25}
            ends = {"x": _x(picture), "y": y, "y2": {"field": series.low}}
        else:
            mark = {"type": "line", "color": color, "strokeWidth": 1.5}
            if picture.shared and index:  # the outcome is drawn behind the forecast
                mark |= {"strokeWidth": 4, "opacity": 0.4, "strokeJoin": "round"}
            elif len(panel.rows) < 40 and not picture.shared:
                mark["point"] = {"size": 14, "color": color, "filled": True}
            ends = {"x": _x(picture), "y": y}
        mark["invalid"] = "break-paths-show-path-domains"
        layers.append({"mark": mark, "encoding": ends})
    layers += _rules(picture)
    return {"layer": [*layers, _hover(picture, panel)]}


def _rules(picture: Picture) -> list[ChartSpec]:
    """Return the rules. Models and commits differ in colour; labels of models are a line lower.

    A label that would reach the next one of its kind, or the edge, is left out; only the last
    label of the models moves to the other side of its rule instead.
    """
    layers: list[ChartSpec] = []
    for model in (False, True):
        if not any(rule.model == model for rule in picture.rules):
            continue
        color = "var(--series-2)" if model else "var(--muted)"
        chosen: ChartSpec = {
            "data": {"name": "rules"},
            "transform": [
                {"filter": f"datum.model === {json.dumps(model)}"},
                {"window": [{"op": "lead", "field": "x", "as": "next"}], "sort": [{"field": "x"}]},
            ],
        }
        dash = {} if model else {"strokeDash": [2, 3]}
        mark = {"type": "rule", "color": color, "clip": True, **dash}
        layers.append({**chosen, "mark": mark, "encoding": {"x": _x(picture)}})
        end = "(isValid(datum.next) ? scale('x', datum.next) : width)"
        has_room = f"{end} - scale('x', datum.x) >= {_MODEL_LABEL if model else _COMMIT_LABEL}"
        flips = f"!isValid(datum.next) && !({has_room})" if model else "false"
        text = {
            "type": "text", "baseline": "top", "dy": 14 if model else 0, "color": color,
            "clip": True, "align": {"expr": f"{flips} ? 'right' : 'left'"},
            "dx": {"expr": f"{flips} ? -3 : 3"},
        }  # fmt: skip
        label = {
            "x": _x(picture),
            "y": {"value": 0},
            "text": {"field": "label"},
            "opacity": {"condition": {"test": f"{has_room} || {flips}", "value": 1}, "value": 0},
        }
        layers.append({**chosen, "mark": text, "encoding": label})
    return layers


def _stack(picture: Picture, panel: Panel) -> ChartSpec:
    layers: list[ChartSpec] = []
    below = "0"
    transforms = []
    for index, series in enumerate(picture.series):
        above = f"{below} + datum['{series.field}']"
        transforms += [
            {"calculate": below, "as": f"below{index}"},
            {"calculate": above, "as": f"above{index}"},
        ]
        below = above
        mark = {"type": "rect", "color": _color(index), "strokeWidth": 0}
        y, y2 = _y(picture, panel, f"above{index}"), {"field": f"below{index}"}
        encoding = {"x": _x(picture), "x2": {"field": "x2"}, "y": y, "y2": y2}
        layers.append({"mark": mark, "encoding": encoding})
    return {"transform": transforms, "layer": [*layers, *_rules(picture), _hover(picture, panel)]}


def _bars(picture: Picture, panel: Panel) -> ChartSpec:
    width = {"expr": "min(56, bandwidth('x') * 0.9)"}
    mark = {"type": "bar", "color": _color(0), "cornerRadiusEnd": 2, "width": width}
    axis = {"title": picture.x_title, "labelAngle": 0, "labelOverlap": True}
    encoding = {
        "x": {"field": picture.x_field, "type": "ordinal", "sort": None, "axis": axis},
        "y": {**_y(picture, panel, picture.series[0].field), "stack": None},
        "opacity": {"condition": _AT, "value": 1},
        "tooltip": _tooltip(picture, panel),
    }
    return {"layer": [{"mark": mark, "encoding": encoding}]}


def _dots(picture: Picture, panel: Panel) -> ChartSpec:
    """Return dots on a line for each row; the line joins the first two series."""
    names = json.dumps([row[picture.x_field] for row in panel.rows])
    axis = {"title": None, "labelLimit": _LONGEST_NAME, "labelExpr": f"{names}[datum.value]"}
    y = {"field": "row", "type": "ordinal", "axis": axis}  # two rows may have the same name
    ends = _ends(picture, [panel])
    scale: ChartSpec = {"zero": False}
    if ends and ends[0] == ends[1]:
        scale["domain"] = _around(ends[0])
    layers: list[ChartSpec] = []
    fields = [series.field for series in picture.series]
    if len(fields) > 1:
        line = {"type": "rule", "color": "var(--grid)", "strokeWidth": 3}
        between = {"y": y, "x": _number(fields[0], scale=scale), "x2": {"field": fields[1]}}
        layers.append({"mark": line, "encoding": between})
    for index, field in reversed(list(enumerate(fields))):
        steps = {"title": None, "tickCount": {"signal": "ceil(width / 90)"}}
        x = _number(field, axis=steps, scale=scale)
        mark: ChartSpec = {"type": "circle", "opacity": 1, "color": _color(index)}
        encoding: ChartSpec = {"y": y, "x": x, "size": {"value": 60}}
        if index == 0:
            encoding["tooltip"] = _tooltip(picture, panel)
            encoding["size"] = {"condition": {**_AT, "value": 160}, "value": 60}
        layers.append({"mark": mark, "encoding": encoding})
    return {"height": _DOT * max(3, len(panel.rows)), "layer": layers}


def _reliability(picture: Picture, panel: Panel) -> ChartSpec:
    shares = {"format": ".0%", "tickCount": 5}
    ends = {"domain": [0, 1]}
    x = _number(picture.x_field, scale=ends, axis={"title": picture.x_title, **shares})
    y = _number(picture.series[0].field, scale=ends, axis={"title": None, **shares})
    diagonal = {
        "data": {"values": [{"a": 0, "b": 0}, {"a": 1, "b": 1}]},
        "mark": {"type": "line", "color": "var(--muted)", "strokeDash": [4, 3]},
        "encoding": {"x": _number("a"), "y": _number("b")},
    }
    line = {"mark": {"type": "line", "color": _color(0)}, "encoding": {"x": x, "y": y}}
    size = {"condition": {**_AT, "value": 200}, "value": 70}
    dots = {
        "mark": {"type": "circle", "color": _color(0), "opacity": 1},
        "encoding": {"x": x, "y": y, "size": size, "tooltip": _tooltip(picture, panel)},
    }
    return {"layer": [diagonal, line, dots]}


_CHARTS = {
    "band": _lines,
    "lines": _lines,
    "stack": _stack,
    "bars": _bars,
    "dots": _dots,
    "reliability": _reliability,
}
_CONFIG: ChartSpec = {
    "background": "transparent",
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "gridColor": "var(--grid)",
        "domain": False,
        "ticks": False,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelPadding": 6,
    },
    "axisX": {"grid": False, "domain": True, "domainColor": "var(--grid)"},
    "text": {"fontSize": 11},
    "aria": False,
}
