"""Every block of the README runs, and prints what the README says; so do those of other pages."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from readme import PAGES, READERS, ROOT, SPARK, blocks, located, make_clone, run_python, shell

from streamrnn.pipeline import Config

README = (ROOT / "README.md").read_text()
BENCHMARKS = (ROOT / "tests" / "benchmarks" / "README.md").read_text()
TIMES = re.compile(
    r"in [\d.]+ s \([\d,]+ rows/s\)|(?<=updates )in [\d.]+ s$|(?<=, )[\d.]+ s$", re.MULTILINE
)


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs_and_prints_what_it_says(page: str, tmp_path: Path) -> None:
    """Blocks build on one another, so they run in their order; times may differ."""
    clone, ran = make_clone(tmp_path), 0
    for language, block in blocks(page):
        if language == "console":
            for command, said in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
                assert TIMES.sub("", shell(command, clone)) == TIMES.sub("", said), command
                ran += 1
        elif language == "python" and not (READERS.search(block) or SPARK.search(block)):
            run_python(block, clone)
            ran += 1
    assert ran >= 15 or page != "README.md"


def test_the_two_commands_are_those_of_continuous_integration() -> None:
    """`pip install` cannot run here: .ci/run does it, in a fresh environment."""
    script = (ROOT / ".ci" / "run").read_text()
    commands = [block.strip() for language, block in blocks("README.md") if language == "sh"]
    assert commands == [
        "pip install . && streamrnn run pipelines/weather.toml",
        "pip install -e '.[test]' && pytest",
    ]
    for command in commands:
        assert command in script


def test_the_commands_of_the_image_run(tmp_path: Path) -> None:
    """In the folder that it copies; Docker itself is not tested."""
    clone = make_clone(tmp_path)
    (image,) = [block for language, block in blocks("README.md") if language == "dockerfile"]
    (compiled,) = re.findall(r"^RUN (streamrnn .*)", image, re.MULTILINE)
    (command,) = re.findall(r"^CMD (.*)", image, re.MULTILINE)
    assert "kernels ready" in shell(compiled, clone)
    shell(" ".join(json.loads(command)), clone)
    assert (clone / "out" / "weather" / "part-00000.parquet").exists()


def test_the_pipeline_file_is_valid() -> None:
    """Every key stands in what `streamrnn init` writes: tests/config/test_sample.py."""
    (text,) = [block for language, block in blocks("README.md") if language == "toml"]
    config = Config.parse(tomllib.loads(text))
    assert config.sink.path == "out/weather"


def marked(page: str, name: str) -> str:
    """What a benchmark wrote between its marks."""
    return page.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end of {name} -->")[0]


def test_the_table_of_the_readme_is_the_one_of_the_benchmark() -> None:
    assert len(marked(README, "pipeline").splitlines()) > 5
    assert marked(README, "pipeline") == marked(BENCHMARKS, "pipeline")


def test_the_sentence_on_kernels_says_what_their_tables_say() -> None:
    """`bench_kernels.py --markdown tests/benchmarks/README.md README.md` writes both."""
    tables = marked(BENCHMARKS, "kernels")
    means = re.findall(r"geometric mean of the ratios: grid ([\d.]+),", tables)
    least = re.findall(r"least ratio: ([\d.]+) ", tables)
    shapes = len(re.findall(r"^\| (?:LSTM|GRU) \|", tables.partition("**2 threads**")[0], re.M))
    sentence = marked(README, "kernels in short")
    figures = re.findall(r"\d+\.\d+|(?<=all )\d+", sentence)
    assert figures == [*means, str(shapes), *least]
    assert sentence.strip().partition(":")[0] == tables.strip().partition(";")[0]


def test_the_sentence_on_a_whole_job_says_what_its_table_says() -> None:
    ratios = [float(line.split("|")[7]) for line in _lines("pipeline") if "float32" in line]
    assert f"takes {min(ratios):.2f} to {max(ratios):.2f} times as long as" in README


def test_the_sentence_on_integers_says_what_its_table_says() -> None:
    (row,) = [line for line in _lines("precision") if line.startswith("| LSTM | 64, 128, 512, 32 ")]
    int16, int8 = re.findall(r"x([\d.]+)", row)[:2]
    assert f"on 64 lanes is {int16} (int16) and {int8} (int8) times as fast" in README


def test_the_sentence_on_rounding_says_what_its_table_says() -> None:
    worst: dict[str, float] = {}
    for line in _lines("rounding")[2:]:
        stack, library, _, figure, *_ = (cell.strip() for cell in line.strip("|").split("|"))
        name = f"{library}, {stack[-3:]}"
        worst[name] = max(worst.get(name, 0.0), float(figure))
    (sentence,) = re.findall(r"[^.]* draws were at most .*?\)[^)]*\)\.", README)
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
    ) in README


def _lines(name: str) -> list[str]:
    """The lines of the table that a benchmark wrote."""
    return [line for line in marked(BENCHMARKS, name).splitlines() if line.startswith("|")]


@pytest.mark.parametrize("page", [*PAGES, "pipelines/README.md", "data/README.md"])
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    text, folder = located(page).read_text(), Path(page).parent
    links = re.findall(r"\]\(([^):]+)\)", text)
    sections = {
        f"#{title.lower().replace(' ', '-')}" for title in re.findall(r"^##+ (.*)", text, re.M)
    }
    wrong = [link for link in links if not located(folder / link).exists()]
    assert [link for link in wrong if link not in sections] == []
