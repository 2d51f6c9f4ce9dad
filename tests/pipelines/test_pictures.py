"""The pictures of the README are those that the commands draw, and can be read on any page."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from streamrnn import Pipeline

ROOT = Path(__file__).parents[2]
WEATHER = ROOT / "pipelines" / "weather"
LIGHT, DARK = "#ffffff", "#0d1117"
PICTURES = sorted(WEATHER.glob("*.svg"))


def drawn(command: str, tmp_path: Path, *arguments: Path) -> str:
    """What a command of pipelines/weather draws."""
    target = tmp_path / "drawn.svg"
    subprocess.run(
        [sys.executable, WEATHER / command, *arguments, "--to", target], check=True, timeout=300
    )
    return target.read_text()


def test_the_forecast_is_drawn_from_what_the_pipeline_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, on any CPU: outputs are the same bits, and places are rounded to a tenth."""
    monkeypatch.chdir(ROOT)
    out = tmp_path / "out"
    Pipeline.from_toml("pipelines/weather.toml", [f"sink.path={out}"]).run()
    picture = (WEATHER / "forecast.svg").read_text()
    assert drawn("draw_forecast.py", tmp_path, out) == picture
    assert "RMSE 2.81 °F, persistence 4.22 °F" in picture


def test_streams_and_commit_are_drawn_by_their_command(tmp_path: Path) -> None:
    assert drawn("draw_streams.py", tmp_path) == (WEATHER / "streams.svg").read_text()


def test_the_readme_shows_both_pictures() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in PICTURES:
        assert f"]({path.relative_to(ROOT)})" in readme
    assert len(PICTURES) == 2


def luminance(color: str) -> float:
    """Of #rrggbb, by the definition of WCAG 2."""
    values = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_can_be_read_on_light_and_dark(path: Path) -> None:
    """3.5 to 1 at least with either background; white text lies on boxes. Faint lines excepted."""
    colors = set(re.findall(r'"(#[0-9a-f]{6})"', path.read_text())) - {LIGHT}
    assert len(colors) >= 2
    for color in colors:
        assert min(contrast(color, LIGHT), contrast(color, DARK)) >= 3.5, color


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_a_picture_has_a_title_and_runs_nothing(path: Path) -> None:
    picture = ElementTree.parse(path).getroot()
    names = {element.tag.partition("}")[2] for element in picture.iter()}
    assert names <= {"svg", "title", "text", "path", "polygon", "rect"}
    assert picture[0].text
