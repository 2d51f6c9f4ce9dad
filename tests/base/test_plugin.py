"""Plug-ins are found by their entry points, and a message says which one is not there."""

import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from streamrnn import callbacks
from streamrnn.base import plugin
from streamrnn.errors import UnsupportedError


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the entry points of three plug-ins: one loads, and two do not."""
    points = tmp_path / "other-1.0.dist-info" / "entry_points.txt"
    points.parent.mkdir()
    points.write_text(
        "[console_scripts]\nother = other:main\n\n[streamrnn.plugins]\nengine.of_other = "
        "other:Tasks\nengine.gone = gone.away\nengine.broken = broken:Tasks\n"
        "engine.empty = other:Gone\ncommand.of_other = other\n\n[zzz]\nengine.b = b:B\n"
    )
    (tmp_path / "other.py").write_text("class Tasks: ...\n")
    (tmp_path / "broken.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "other", raising=False)
    plugin._objects.cache_clear()
    yield tmp_path
    plugin._objects.cache_clear()


def test_all_entry_points_of_the_group_are_read() -> None:
    """As by importlib.metadata."""
    points = {point.name: point.value for point in entry_points(group="streamrnn.plugins")}
    assert plugin._objects() == points
    assert "callback.TensorBoard" in points


def test_another_distribution_may_have_plugins(installed: Path) -> None:
    assert {"gone", "of_other"} <= set(plugin.plugin_names("engine"))
    assert "b" not in plugin.plugin_names("engine")
    assert "other" not in sys.modules
    assert plugin.load_plugin("engine", "of_other").__name__ == "Tasks"
    assert plugin.load_plugin("command", "of_other") is sys.modules["other"]


def test_a_plugin_that_is_not_installed_is_named(installed: Path) -> None:
    with pytest.raises(
        UnsupportedError,
        match=r"^engine 'gone': its plug-in is not installed \(No module named 'gone'\)\. Install",
    ):
        plugin.load_plugin("engine", "gone")
    with pytest.raises(UnsupportedError, match=r"no entry point engine\.none of streamrnn\.plu"):
        plugin.load_plugin("engine", "none")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("broken", "broken:Tasks cannot be loaded: ModuleNotFoundError: No module named 'what_it"),
        ("empty", "other:Gone cannot be loaded: AttributeError: module 'other' has no attribute"),
    ],
)
def test_a_plugin_that_does_not_load_says_why(installed: Path, name: str, why: str) -> None:
    with pytest.raises(UnsupportedError, match=f"engine '{name}': its plug-in {why}"):
        plugin.load_plugin("engine", name)


def test_a_public_file_loads_what_a_plugin_has() -> None:
    assert callbacks.TensorBoard.__module__ == "streamrnn.plugins.tensorboard"
    with pytest.raises(AttributeError, match=r"'streamrnn\.callbacks' has no attribute 'Nothing'"):
        _ = callbacks.Nothing
