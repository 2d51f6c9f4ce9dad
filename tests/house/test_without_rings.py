"""Without plug-ins the rest works, and says what is not there; `nn` works on `base` alone.

The tests of `base`, `cli`, `stream` and `jobs` run without plug-ins in `.ci/run` (the job `wheel`),
but for fits, measures and explanations, which are collected there: what they compute does not
depend on a plug-in, and an import of one is refused by `test_architecture.py`.
"""

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


def copied(tree: Path, *deleted: str) -> Path:
    """A copy of the repository in which folders of the package, and their tests, were deleted."""
    no_cache = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, tree / "streamrnn", ignore=no_cache)
    for name in ("data", "pipelines", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=no_cache)
    shutil.copy(ROOT / "pyproject.toml", tree)
    for name in deleted:
        shutil.rmtree(tree / "streamrnn" / name)
        shutil.rmtree(tree / "tests" / name)
    return tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("without plug-ins"), "plugins")


def _run(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    return subprocess.run(
        arguments, cwd=tree, env=environment, capture_output=True, text=True, timeout=1800
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


PYTEST = (
    sys.executable,
    "-m",
    "pytest",
    "-n",
    "0",
    "-q",
    "-p",
    "no:cacheprovider",
    "-m",
    "not slow",
)


@pytest.mark.slow
def test_layers_models_and_training_need_no_other_ring(tmp_path: Path) -> None:
    """Slow: the tests of `nn` (without those of kernels and gradients, which need no more).

    What is compared with other frameworks, where they are installed, may use the command line.
    """
    tree = copied(tmp_path, "stream", "jobs", "plugins", "cli")
    alone = (*PYTEST, "--ignore-glob=*_oracle.py")
    done = _run(tree, *alone, "tests/nn", "--collect-only")
    assert done.returncode == 0, done.stdout[-3000:]
    rooms = ("models", "formats", "layers/test_keras_call.py", "training/test_fit.py")
    done = _run(tree, *alone, *(f"tests/nn/{room}" for room in rooms))
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
