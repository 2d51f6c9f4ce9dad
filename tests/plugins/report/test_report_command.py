"""`streamrnn report`: files, JSON, messages; a page in which names are inert."""

import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from command_line import run_command
from jobs.evaluation.evaluated import PIPELINE, log, model, write
from selection import first_quick

from streamrnn import Pipeline
from streamrnn.plugins.report import page
from streamrnn.plugins.report.charts import spec_of
from streamrnn.plugins.report.page import page as page_of
from streamrnn.plugins.report.picture import (
    Drawn,
    Missing,
    Panel,
    Picture,
    ReportPage,
    is_report,
)

LIBRARY = page._library
EVIL = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"'`&amp;<!--",
    "two\nlines",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    "\U0001f600 emoji",
]


@pytest.fixture(autouse=True)
def base(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model("linear", 1)
    Path("p.toml").write_text(PIPELINE)
    # The script of the library is no part of these tests, nor of the packages that they need.
    monkeypatch.setattr(page, "_library", lambda: "window.vegaEmbed = 0;")
    return workdir


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    return run_command(capsys, "report", *arguments)


def run(table: pa.Table) -> None:
    write(table)
    Pipeline.from_toml("p.toml").run()


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A file, another file, stdout, JSON with and without a file; a file is replaced."""
    assert command(capsys, "p.toml")[0] == 66
    assert command(capsys, "nowhere.toml")[0] == 66
    assert command(capsys, "nowhere")[0] == 66
    run(log())
    assert command(capsys, "p.toml") == (0, "wrote report.html: 11 pictures\n", "")
    text = Path("report.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert command(capsys, "p.toml", "-o", "other.html", "--quiet") == (0, "", "")
    assert Path("other.html").read_text() == text
    assert command(capsys, "p.toml", "-o", "-") == (0, text, "")
    code, out, _ = command(capsys, "out", "--json", "-o", "other.html")
    found = json.loads(out)
    assert (code, found["rows"], found["pipeline"]) == (0, len(log()), None)
    assert "Report on out" in Path("other.html").read_text()
    Path("report.html").unlink()
    code, out, _ = command(capsys, "p.toml", "--json", "--key", "s1", "--set", "target.horizon=6m")
    (each,) = [item for item in json.loads(out)["pictures"] if item["id"] == "each-stream"]
    assert [panel["label"] for panel in each["panels"]] == ["s1"]
    assert not Path("report.html").exists()


def test_arguments_that_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    run(log())
    assert command(capsys, "p.toml", "-o", "-", "--json")[0] == 2
    code, _, err = command(capsys, "out", "--set", "window.lanes=3")
    assert (
        code,
        "--set overrides a key of a pipeline file; out is not a pipeline file" in err,
    ) == (78, True)
    code, _, err = command(capsys, "p.toml", "--key", "nobody")
    assert (code, "no such stream in out" in err) == (78, True)
    code, _, err = command(capsys, "p.toml", "-o", "m.safetensors/r.html")
    assert code != 0
    assert "cannot write the report" in err


@pytest.mark.parametrize("subject", first_quick(["p.toml", "out"]))
def test_only_an_earlier_report_is_replaced(
    subject: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file of the pipeline, no other file; and nothing is added to its folders.

    Slow: a report of an output alone.
    """
    run(log())
    Path("notes.html").write_text("<!DOCTYPE html>\n<p>mine</p>")
    Path("link.html").symlink_to("p.toml")
    part = next(Path("out").glob("*.parquet"))
    files = ["p.toml", "m.safetensors", "in/0.parquet", str(part), "notes.html", "link.html"]
    before = {name: Path(name).read_bytes() for name in files}
    for name in [*files, f"file://{Path('p.toml').resolve()}"]:
        code, _, err = command(capsys, subject, "-o", name)
        assert (code, "report:" in err, "Choose" in err) == (78, True, True), name
    assert {name: Path(name).read_bytes() for name in files} == before
    for name in ("out/r.html", "out/_streamrnn/r.html", "out.new/../out/r.html", "in/r.html"):
        code, _, err = command(capsys, subject, "-o", name, "--json")
        assert (code, "Choose a path" in err) == (78, True), name
        assert not Path(name).exists()
    for _ in range(2):
        assert command(capsys, subject, "-o", "new/r.html")[0] == 0
    text = Path("new/r.html").read_text()
    assert is_report(io.BytesIO(text.encode()))
    Path("m.safetensors").rename("m2.safetensors")
    code, _, err = command(capsys, subject, "-o", "m.safetensors")
    assert (code, "[model] path" in err) == (78, True)
    assert not Path("m.safetensors").exists()


def test_a_path_that_is_no_file_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    run(log())
    Path("folder").mkdir()
    code, _, err = command(capsys, "p.toml", "-o", "folder")
    assert (code, "is a folder: add the name of a file, such as folder/report" in err) == (78, True)
    code, _, err = command(capsys, "p.toml", "-o", "")
    assert (code, "expected the path of a file" in err) == (78, True)


def test_since_must_be_before_until(capsys: pytest.CaptureFixture[str]) -> None:
    run(log())
    code, _, err = command(capsys, "p.toml", "--since", "2030-01-02", "--until", "2030-01-01")
    assert (code, "since 2030-01-02 is not before until 2030-01-01" in err) == (78, True)
    assert not Path("report.html").exists()


def test_without_the_library_there_are_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_library", LIBRARY)
    run(log())
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    code, _, err = command(capsys, "p.toml")
    assert (code, "pip install 'streamrnn[report]'" in err) == (78, True)
    assert not Path("report.html").exists()
    assert command(capsys, "p.toml", "--json")[0] == 0


class Tags(HTMLParser):
    """Collects the tags of a page, and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += "".join(f" {value}" for name, value in attrs if name == "aria-label")
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    return tags


@pytest.mark.parametrize("name", EVIL)
def test_names_are_inert_and_shown(name: str) -> None:
    """In titles, sentences, labels, attributes and the data of the script."""
    panel = Panel(name, [{"stream": name, "error": 1.0}])
    drawn = Picture(
        "a", name, name, "dots", [panel], [Drawn("error", name)], "stream", name, name, notes=[name]
    )
    report = ReportPage(name, {"pipeline": name}, [drawn, Missing("b", name, name)])
    plain = parsed(page_of(ReportPage("t", {"pipeline": "x"}, [])))
    found = parsed(page_of(report))
    assert found.tags.count("script") == plain.tags.count("script")
    assert "img" not in found.tags
    shown = name.replace("`", "").replace("\u202e", "\\u202e")
    assert found.text.replace("`", "").count(shown) >= 8
    assert "\u202e" not in page_of(report)
    data = re.search(r'id="report-data">(.*?)</script>', page_of(report), re.DOTALL)
    assert data is not None
    (picture,) = json.loads(data[1])
    assert picture["panels"][0]["label"] == name.replace("\u202e", "\\u202e")


def test_what_is_missing_is_one_list_by_reason() -> None:
    panel = Panel("", [{"commit": 1, "x": 2}])
    drawn = Picture("a", "t", "s", "lines", [panel], [Drawn("x", "x")], "commit", "c", "y")
    missing = [
        Missing(id, id.upper(), why) for id, why in (("b", "one."), ("c", "2."), ("d", "one."))
    ]
    text = page_of(ReportPage("t", {}, [missing[0], drawn, *missing[1:]]))
    assert text.count("<section") == 2
    assert '<a href="#not-drawn">Not drawn</a> (3)' in text
    assert '<div><dt id="b">B</dt><dt id="d">D</dt><dd>One.</dd></div><div><dt id="c">' in text
    assert "not-drawn" not in page_of(ReportPage("t", {}, [drawn]))


def test_a_blank_key_has_a_title(capsys: pytest.CaptureFixture[str]) -> None:
    """In quotes, with which --key finds it."""
    table = log()
    keys = pa.array([{"s0": " ", "s1": ""}.get(key, key) for key in table["id"].to_pylist()])
    run(table.set_column(table.column_names.index("id"), "id", keys))
    found = json.loads(command(capsys, "out", "--json", "--key", '" "', "--key", '""')[1])
    (each,) = [item for item in found["pictures"] if item["id"] == "each-stream"]
    assert {panel["label"] for panel in each["panels"]} == {'" "', '""'}


def test_streams_with_such_names_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    table = log()
    names = dict(zip(["s0", "s1", "s2", "s3"], EVIL, strict=False))
    keys = pa.array([names[key] for key in table["id"].to_pylist()])
    run(table.set_column(table.column_names.index("id"), "id", keys))
    assert command(capsys, "p.toml")[0] == 0
    text = Path("report.html").read_text()
    assert "<script>alert" not in text
    assert "img" not in parsed(text).tags
    found = json.loads(command(capsys, "p.toml", "--json")[1])
    (each,) = [item for item in found["pictures"] if item["id"] == "each-stream"]
    assert {panel["label"] for panel in each["panels"]} == set(EVIL[:4])


def test_zeros_alone_stand_at_the_bottom() -> None:
    panel = Panel("", [{"commit": 1, "share": 0.0}, {"commit": 2, "share": None}])
    words = ("a", "t", "s")
    picture = Picture(
        *words, "lines", [panel], [Drawn("share", "x")], "commit", "c", "y", from_zero=True
    )
    line = spec_of(picture, panel)["layer"][0]
    assert line["encoding"]["y"]["scale"]["domain"] == [0, 1]


def axis_of(rows: list[dict[str, Any]], **words: Any) -> tuple[Any, Any]:
    """The domain and the ticks of the vertical axis of lines over `rows`."""
    panel = Panel("", rows, words.pop("reference", None))
    fields = [name for name in rows[0] if name != "commit"]
    series = [Drawn(name, name) for name in fields]
    picture = Picture("a", "t", "s", "lines", [panel], series, "commit", "c", "y", **words)
    y = spec_of(picture, panel)["layer"][-2]["encoding"]["y"]
    return y["scale"].get("domain"), y["axis"].get("values")


@pytest.mark.parametrize(("value", "domain"), [(0.5, [0.45, 0.55]), (-20.0, [-22, -18])])
def test_a_constant_has_room_on_its_axis(value: float, domain: list[float]) -> None:
    """Vega writes the only number of a domain as an integer: 0.4 as 0."""
    rows = [{"commit": 1, "x": value}, {"commit": 2, "x": value}]
    assert axis_of(rows)[0] == pytest.approx(domain)
    assert axis_of(rows, shared=True)[0] == pytest.approx(domain)
    assert axis_of([{"commit": 1, "x": 0.0}])[0] == [-1, 1]
    assert axis_of([*rows, {"commit": 3, "x": 7.0}])[0] is None
    assert axis_of(rows, reference=(3.0, 1.0))[0] is None
    panel = Panel("", [{"stream": "a", "error": value}, {"stream": "a", "error": value}])
    picture = Picture("a", "t", "s", "dots", [panel], [Drawn("error", "e")], "stream", "c", "y")
    dots = spec_of(picture, panel)["layer"][0]["encoding"]
    assert dots["x"]["scale"]["domain"] == pytest.approx(domain)
    assert (dots["y"]["field"], dots["y"]["axis"]["labelExpr"]) == (
        "row",
        '["a", "a"][datum.value]',
    )


@pytest.mark.parametrize("top", [1, 2, 3])
def test_few_of_something_have_whole_ticks(top: int) -> None:
    rows = [{"commit": 1, "n": 0}, {"commit": 2, "n": top}]
    assert axis_of(rows, from_zero=True)[1] == list(range(top + 1))
    assert axis_of([*rows, {"commit": 3, "n": 9}], from_zero=True)[1] is None


def test_the_page_loads_nothing() -> None:
    """Its policy allows its own scripts only, by their digests; no attribute names another file."""
    text = page_of(ReportPage("t", {}, []))
    assert "default-src 'none'" in text
    assert len(re.findall(r"'sha256-[\w+/=]+'", text)) == 2
    assert re.findall(r'(?:src|href)="(?!#)', text) == []


def test_no_credentials_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    run(log())
    secret = (
        "s3://key:hunter2@bucket/in?secret_key=hunter2&endpoint_override=127.0.0.1:1&scheme=http"
    )
    code, out, err = command(capsys, "p.toml", "--set", f"source.path={secret}", "--json")
    assert "hunter2" not in out + err
    assert code == 0
