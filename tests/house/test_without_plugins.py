"""Without `streamrnn/plugins` the rest works, and says what is not there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import streamrnn

PACKAGE = Path(streamrnn.__file__).parent
ROOT = Path(__file__).parents[2]
MAIN = [sys.executable, "-c", "from streamrnn.cli import main; main()"]
WEATHER = ("run", "pipelines/weather.toml", "--set")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which the folder of plug-ins was deleted."""
    tree = tmp_path_factory.mktemp("tree")
    left_out = shutil.ignore_patterns("plugins", "__pycache__")
    shutil.copytree(PACKAGE, tree / "streamrnn", ignore=left_out)
    for name in ("data", "pipelines", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=left_out)
    shutil.copy(ROOT / "pyproject.toml", tree)
    return tree


def _run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    return subprocess.run(
        arguments, cwd=tree, env=environment, capture_output=True, text=True, timeout=600
    )


@pytest.mark.slow
def test_the_pipeline_of_the_readme_runs(tree: Path) -> None:
    """Slow: a run in a process of its own. The help lists no command that is not there."""
    done = _run(tree, *MAIN, *WEATHER, "sink.path=out")
    assert (done.returncode, "rows" in done.stdout) == (0, True), done.stderr
    assert (tree / "out" / "part-00000.parquet").exists()
    shown = _run(tree, *MAIN, "--help").stdout
    assert "\n  evaluate " in shown
    assert "\n  report " not in shown


@pytest.mark.slow
def test_the_tests_of_core_rooms_pass(tree: Path) -> None:
    """Slow: the pipeline file, stores, states and windows need no plug-in."""
    rooms = [f"tests/{room}" for room in ("config", "storage", "states", "windows")]
    plain = ("-m", "pytest", "-n", "0", "-q", "-p", "no:cacheprovider")
    done = _run(tree, sys.executable, *plain, *rooms)
    assert done.returncode == 0, done.stdout[-3000:]


MISSING = {
    ("report", "out"): "command 'report'",
    (
        *WEATHER,
        "model.path=pipelines/origins/weather.onnx",
        "--set",
        "model.layers=[]",
    ): "pipelines/origins/weather.onnx: format 'onnx'",
    (*WEATHER, "engine.type=ray"): "engine 'ray'",
    (*WEATHER, "publish.delta=true"): "publish 'delta'",
    (*WEATHER, "source.format=delta"): "table 'delta'",
    (*WEATHER, "source.path=iceberg:catalog/n.table"): "table 'iceberg'",
}


@pytest.mark.slow
@pytest.mark.parametrize("arguments", MISSING)
def test_a_message_names_what_is_not_there(tree: Path, arguments: tuple[str, ...]) -> None:
    """Slow: each in a process of its own, as a user sees it."""
    sink = ("--set", "sink.path=not-made") if arguments[0] == "run" else ()
    done = _run(tree, *MAIN, *arguments, *sink)
    assert done.returncode == 78
    assert done.stderr.startswith(
        f"error: {MISSING[arguments]}: its plug-in is not installed (No module named 'streamrnn.plu"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("from streamrnn.spark import score", "module 'spark'"),
        ("from streamrnn.callbacks import TensorBoard", "callback 'TensorBoard'"),
        ("from streamrnn.pipeline import report_output", "report 'output'"),
    ],
)
def test_a_name_of_a_plugin_says_what_is_not_there(tree: Path, code: str, what: str) -> None:
    """Slow: each in a process of its own."""
    done = _run(tree, sys.executable, "-c", code)
    assert f"streamrnn.errors.UnsupportedError: {what}: its plug-in is not inst" in done.stderr
