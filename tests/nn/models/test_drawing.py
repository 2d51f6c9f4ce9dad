"""`summary --svg`: the graph of a model as a picture."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from streamrnn import Input, Model, Sequential, layers
from streamrnn.models import calls_of, model_svg

SVG = "{http://www.w3.org/2000/svg}"


def straight() -> Model:
    return Sequential(
        [Input((None, 2), name="x"), layers.GRU(3, name="gru"), layers.Dense(1, name="y")]
    )


def branched() -> Model:
    """Two inputs, two outputs, a state handed over, an arrow past three rows."""
    source, target = Input((None, 8), name="source"), Input((None, 3), name="target")
    encoded, h, c = layers.LSTM(4, return_state=True, name="encoder")(source)
    decoded = layers.LSTM(4, return_sequences=True, name="decoder")(target, initial_state=[h, c])
    a = layers.Dense(3, name="a")(decoded)
    both = layers.Add(name="sum")([a, target])
    return Model([source, target], [both, layers.Dense(1, name="b")(encoded)])


def shared() -> Model:
    x = Input((None, 2), name="x")
    twice = layers.Dense(2, name="shared")
    return Model(x, layers.Concatenate(name="all")([twice(twice(x)), x, x]))


def wide() -> Model:
    """Many rows, and arrows from each to all below."""
    made = [Input((None, 2), name=f"x{i}") for i in range(3)]
    for i in range(6):
        made.append(layers.Concatenate(name=f"c{i}")(list(made)))
    return Model(made[:3], made[-1])


MODELS: list[Callable[[], Model]] = [straight, branched, shared, wide]


def drawn(model: Model) -> Any:
    return ElementTree.fromstring(model_svg(model))


def texts(box: Any) -> list[str]:
    return [text.text for text in box.findall(f"{SVG}text")]


def boxes(svg: Any) -> list[Any]:
    return [group for group in svg.iter(f"{SVG}g") if group.get("class") == "box"]


def corners(box: Any) -> tuple[float, float, float, float]:
    rect = box.find(f"{SVG}rect")
    x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def test_a_box_says_name_class_shape_and_parameters() -> None:
    assert [texts(box) for box in boxes(drawn(straight()))] == [
        ["x", "InputLayer", "(None, None, 2)", "0 parameters"],
        ["gru", "GRU", "(None, 3)", "63 parameters"],
        ["y", "Dense", "(None, 1)", "4 parameters"],
    ]


@pytest.mark.parametrize("make", MODELS)
def test_there_is_a_box_for_each_call(make: Callable[[], Model]) -> None:
    model = make()
    names = [texts(box)[0] for box in boxes(drawn(model))]
    assert len(set(names)) == len(names) == len(model.graph.nodes)
    assert {name.partition(" (call")[0] for name in names} == {
        node.layer.name for node in model.graph.nodes
    }


def test_arrows_are_the_edges_of_the_graph() -> None:
    for make, edges in [
        (straight, "x>gru gru>y"),
        (branched, "source>encoder target>decoder encoder>decoder decoder>a a>sum target>sum "
         "encoder>b"),
        (shared, "x>shared (call 1) shared (call 1)>shared (call 2) shared (call 2)>all x>all"),
    ]:  # fmt: skip
        svg = drawn(make())
        names = {box.get("id"): texts(box)[0] for box in boxes(svg)}
        arrows = [path for path in svg.iter(f"{SVG}path") if path.get("class") == "edge"]
        found = [f"{names[p.get('data-from')]}>{names[p.get('data-to')]}" for p in arrows]
        name = r"\w+(?: \(call \d\))?"
        assert sorted(found) == sorted(re.findall(f"{name}>{name}", edges))


@pytest.mark.parametrize("make", MODELS)
def test_no_box_overlaps_another_and_all_are_inside(make: Callable[[], Model]) -> None:
    svg = drawn(make())
    _, _, width, height = map(float, svg.get("viewBox").split())
    for left, top, right, bottom in map(corners, boxes(svg)):
        assert 0 < left < right < width
        assert 0 < top < bottom < height
    for a, b in itertools.combinations(map(corners, boxes(svg)), 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def points(path: str) -> list[tuple[float, float]]:
    """Points along a path of lines and cubic curves."""
    found: list[tuple[float, float]] = []
    for kind, text in re.findall(r"([MLC])([-\d. e]+)", path):
        numbers = list(map(float, text.split()))
        ends = list(itertools.batched(numbers, 2)) if hasattr(itertools, "batched") else [
            (numbers[i], numbers[i + 1]) for i in range(0, len(numbers), 2)
        ]  # fmt: skip
        if kind == "M":
            found += ends
            continue
        p = [found[-1], *ends] if kind == "C" else [found[-1], found[-1], ends[0], ends[0]]
        for step in range(1, 21):
            t = step / 20
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            found.append(
                tuple(sum(w * q[axis] for w, q in zip(weights, p, strict=True)) for axis in (0, 1))
            )
    return found


@pytest.mark.parametrize("make", MODELS)
def test_an_arrow_leads_from_box_to_box_through_no_other(make: Callable[[], Model]) -> None:
    """It leaves the bottom of one and ends at the top of the other."""
    svg = drawn(make())
    places = {box.get("id"): corners(box) for box in boxes(svg)}
    for path in (p for p in svg.iter(f"{SVG}path") if p.get("class") == "edge"):
        along = points(path.get("d"))
        first, last = places[path.get("data-from")], places[path.get("data-to")]
        assert first[0] < along[0][0] < first[2]
        assert last[0] < along[-1][0] < last[2]
        assert (along[0][1], along[-1][1]) == (first[3], last[1])
        for x, y in along:
            assert not any(a < x < c and b < y < d for a, b, c, d in places.values())


def test_readers_of_screens_are_told_what_is_drawn() -> None:
    svg = drawn(branched())
    title, told = svg.find(f"{SVG}title"), svg.find(f"{SVG}desc")
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby").split() == [title.get("id"), told.get("id")]
    assert re.fullmatch(r"Model model\w*: [\d,]+ parameters", title.text)
    assert "decoder, LSTM, (None, None, 4), reads target, encoder" in told.text


def test_the_picture_is_light_or_dark_and_needs_nothing_else() -> None:
    text = model_svg(straight())
    assert "@media (prefers-color-scheme: dark)" in text
    assert set(re.findall(r"https?://[^\"]+", text)) == {"http://www.w3.org/2000/svg"}
    colors = re.findall(r"--(\w+): (#\w{6})", text)
    light, dark = dict(colors[:4]), dict(colors[4:])
    assert light.keys() == dark.keys() == {"page", "box", "line", "text"}
    for scheme in (light, dark):
        assert contrast(scheme["text"], scheme["box"]) > 7
        assert contrast(scheme["line"], scheme["page"]) > 3


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_names_are_escaped_and_cut_to_the_width_of_a_box() -> None:
    name = '<a & "b">\x07' + "ä" * 60
    x = Input((None, 2), name="x")
    svg = drawn(Model(x, layers.Dense(2, name=name)(x)))
    shown = texts(boxes(svg)[1])[0]
    assert shown.startswith('<a & "b"> ä')
    assert (len(shown), shown[-1]) == (44, "…")
    assert name.replace("\x07", " ") in boxes(svg)[1].find(f"{SVG}title").text


def test_the_command_writes_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = pytest.importorskip("streamrnn.cli", reason="the command line").main
    monkeypatch.chdir(tmp_path)
    model = branched()
    model.save("m.safetensors")
    assert len(calls_of(model.graph)) == 7
    with pytest.raises(SystemExit) as end:
        main(["summary", "m.safetensors", "--svg", "m.svg"])
    assert end.value.code == 0
    assert capsys.readouterr().out.endswith("\nwrote m.svg\n")
    assert len(boxes(ElementTree.parse("m.svg"))) == 7
    with pytest.raises(SystemExit) as end:
        main(["summary", "m.safetensors", "--svg", "no/m.svg"])
    assert end.value.code == 1
    assert "no/m.svg: No such file or directory" in capsys.readouterr().err
