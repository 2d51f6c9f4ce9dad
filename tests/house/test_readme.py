"""Every block of the README runs, and prints what the README says; so do those of other pages."""

import json
import re
from pathlib import Path

import pytest
from readme import GUIDE, PAGES, ROOT, blocks, installed, located, make_clone, run_blocks, shell
from selection import first_quick, slow

README = (ROOT / "README.md").read_text()
PERFORMANCE, PRECISION, TORCH, KERAS = (
    located(f"streamrnn/guide/{name}.md").read_text()
    for name in ("performance", "precision", "torch-onnx-model", "keras-code")
)
BENCHMARKS = (ROOT / "tests" / "benchmarks" / "README.md").read_text()


@pytest.mark.parametrize("page", first_quick(PAGES))
def test_every_block_runs_and_prints_what_it_says(page: str, tmp_path: Path) -> None:
    """Blocks build on one another, so they run in their order; times may differ.

    Slow: pages other than the README of the project.
    """
    ran = run_blocks(page, make_clone(tmp_path), installed)
    assert ran >= 8 or page != "README.md"


def test_the_readme_is_read_in_two_screens() -> None:
    """What is said at length stands in the guide."""
    assert len(README.encode()) <= 10_000


def test_the_two_commands_are_those_of_continuous_integration() -> None:
    """`pip install` cannot run here: .ci/run does it, in a fresh environment."""
    script = (ROOT / ".ci" / "run").read_text()
    commands = [block.text.strip() for block in blocks("README.md") if block.language == "sh"]
    assert commands == [
        "pip install . && streamrnn run pipelines/weather.toml",
        "pip install -e '.[test]' && pytest",
    ]
    for command in commands:
        assert command in script


@slow
def test_the_commands_of_the_image_run(tmp_path: Path) -> None:
    """In the folder that it copies; Docker itself is not tested.

    Slow: an installation by the commands of the image.
    """
    clone = make_clone(tmp_path)
    (image,) = [
        block.text
        for block in blocks("streamrnn/guide/daily-job.md")
        if block.text.startswith("FROM ")
    ]
    (compiled,) = re.findall(r"^RUN (streamrnn .*)", image, re.MULTILINE)
    (command,) = re.findall(r"^CMD (.*)", image, re.MULTILINE)
    assert "kernels ready" in shell(compiled, clone)
    shell(" ".join(json.loads(command)), clone)
    assert (clone / "out" / "weather" / "part-00000.parquet").exists()


def marked(page: str, name: str) -> str:
    """What a benchmark wrote between its marks."""
    return page.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end of {name} -->")[0]


def test_the_table_of_the_guide_is_the_one_of_the_benchmark() -> None:
    assert len(marked(PERFORMANCE, "pipeline").splitlines()) > 5
    assert marked(PERFORMANCE, "pipeline") == marked(BENCHMARKS, "pipeline")
    assert marked(PERFORMANCE, "kernels in short") == marked(README, "kernels in short")


def test_the_table_of_the_readme_says_what_the_one_of_the_benchmark_says() -> None:
    """Of 100,000 streams: ONNX Runtime, called carefully and in a loop."""
    (row,) = [line for line in _lines("pipeline") if "| 100,000 | float32 |" in line]
    careful, loop = (float(ratio) for ratio in re.findall(r"\(([\d.]+)x\)", row))
    cells = f"float32 | fewest | not measured | {careful:.1f} to {loop:.0f} times as many |"
    assert f"| seconds of a whole job on 100,000 streams, {cells}" in README
    (row,) = [line for line in _lines("live") if line.startswith("| 100,000 | 1 |")]
    cells = f"{row.split('|')[5].strip()} | not measured | 1 |"
    assert f"| CPU of a call with one row, 100,000 streams | {cells}" in README


def test_the_sentence_on_kernels_says_what_their_tables_say() -> None:
    """`bench_kernels.py --markdown` with the three pages writes them."""
    tables = marked(BENCHMARKS, "kernels")
    means = re.findall(r"geometric mean of the ratios: grid ([\d.]+),", tables)
    least = re.findall(r"least ratio: ([\d.]+) ", tables)
    shapes = len(re.findall(r"^\| (?:LSTM|GRU) \|", tables.partition("**2 threads**")[0], re.M))
    sentence = marked(README, "kernels in short")
    figures = re.findall(r"\d+\.\d+|(?<=all )\d+", sentence)
    assert figures == [*means, str(shapes), *least]
    ((cpu, day),) = re.findall(r"^(.+, \d+ cores); .*; ([\d-]{10})\. One core", tables, re.M)
    assert sentence.strip().partition(":")[0] == f"{cpu}; {day}"


def test_the_sentence_on_a_whole_job_says_what_its_table_says() -> None:
    ratios = [float(line.split("|")[7]) for line in _lines("pipeline") if "float32" in line]
    assert f"takes {min(ratios):.2f} to {max(ratios):.2f} times as long as" in PERFORMANCE


def test_the_sentence_on_integers_says_what_its_table_says() -> None:
    (row,) = [line for line in _lines("precision") if line.startswith("| LSTM | 64, 128, 512, 32 ")]
    int16, int8 = re.findall(r"x([\d.]+)", row)[:2]
    assert f"on 64 lanes is {int16} (int16) and {int8} (int8) times as fast" in PRECISION


def test_the_sentence_on_rounding_says_what_its_table_says() -> None:
    worst: dict[str, float] = {}
    for line in _lines("rounding")[2:]:
        stack, library, _, figure, *_ = (cell.strip() for cell in line.strip("|").split("|"))
        name = f"{library}, {stack[-3:]}"
        worst[name] = max(worst.get(name, 0.0), float(figure))
    (sentence,) = re.findall(r"[^.]* draws were at most .*?\)[^)]*\)\.", TORCH)
    figures = [float(figure) for figure in re.findall(r"\d\.\de-\d", sentence)]
    assert figures == [
        worst[f"{library}, x {scale}"]
        for scale in "16"
        for library in ("streamrnn", "PyTorch", "ONNX Runtime")
    ]


def test_the_sentence_on_the_tests_of_keras_says_what_their_table_says() -> None:
    suites = (ROOT / "tests" / "suites" / "README.md").read_text()
    (row,) = re.findall(r"^\| \*\*sum\*\* \| \d+ → (.*) \|$", suites, re.MULTILINE)
    passed, not_claimed, refused, words, different = row.split(" | ")
    assert (
        f"{passed} pass, {refused} need what is refused by name, {words} expect other words in an "
        f"error, {different} differ, and {not_claimed} are of what is not claimed"
    ) in KERAS


def _lines(name: str) -> list[str]:
    """The lines of the table that a benchmark wrote."""
    return [line for line in marked(BENCHMARKS, name).splitlines() if line.startswith("|")]


@pytest.mark.parametrize("page", [*PAGES, *GUIDE, "pipelines/README.md", "data/README.md"])
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    text, folder = located(page).read_text(), Path(page).parent
    links = re.findall(r"\]\(([^):]+)\)", text)
    sections = {
        f"#{title.lower().replace(' ', '-')}" for title in re.findall(r"^##+ (.*)", text, re.M)
    }
    wrong = [link for link in links if not located(folder / link).exists()]
    assert [link for link in wrong if link not in sections] == []
