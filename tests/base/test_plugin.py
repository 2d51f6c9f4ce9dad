"""Plug-ins are found by their entry points, and a message says which one is not there."""

import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer
from selection import with_plugins

from streamrnn import callbacks, layers
from streamrnn.base import plugin
from streamrnn.cli.app import app
from streamrnn.errors import UnsupportedError


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the entry points of plug-ins of another distribution: some load."""
    points = tmp_path / "other-1.0.dist-info" / "entry_points.txt"
    points.parent.mkdir()
    points.write_text(
        "[console_scripts]\nother = other:main\n\n[streamrnn.plugins]\nengine.of_other = "
        "other:Tasks\nengine.gone = gone.away\nengine.broken = broken:Tasks\n"
        "engine.empty = other:Gone\ncommand.of_other = other\ncommand.run = other\n"
        "layer.Forgotten = other\n\n[zzz]\nengine.b = b:B\n"
    )
    (tmp_path / "other.py").write_text('"""Others."""\n\nclass Tasks: ...\n')
    (tmp_path / "broken.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "other", raising=False)
    plugin._targets.cache_clear()
    yield tmp_path
    plugin._targets.cache_clear()


def test_all_entry_points_of_the_group_are_read() -> None:
    """As by importlib.metadata."""
    points = {
        point.name: {point.dist.name: point.value}
        for point in entry_points(group="streamrnn.plugins")
        if point.dist is not None
    }
    assert plugin._targets() == points
    assert "callback.TensorBoard" in points


def test_another_distribution_may_have_plugins(installed: Path) -> None:
    assert {"gone", "of_other"} <= set(plugin.plugin_names("engine"))
    assert "b" not in plugin.plugin_names("engine")
    assert "other" not in sys.modules
    assert plugin.load_plugin("engine", "of_other").__name__ == "Tasks"
    assert plugin.load_plugin("command", "of_other") is sys.modules["other"]


def test_a_command_of_a_plugin_replaces_none(installed: Path) -> None:
    commands: Any = typer.main.get_command(app)
    listed = commands.list_commands(None)
    assert (listed.count("run"), listed.count("of_other")) == (1, 1)
    assert commands.resolve_command(None, ["run"])[1].params
    assert plugin.plugin_summary("engine", "gone") is None
    assert plugin.plugin_summary("command", "of_other") == "Others."


def test_a_plugin_that_is_not_installed_is_named(installed: Path) -> None:
    with pytest.raises(
        UnsupportedError,
        match=r"^engine 'gone': its plug-in is not installed \(No module named 'gone'\)\. Plug-ins",
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


@with_plugins
def test_a_public_file_loads_what_a_plugin_has() -> None:
    assert callbacks.TensorBoard.__init__.__globals__["__name__"] == "streamrnn.plugins.tensorboard"
    assert repr(callbacks.TensorBoard) == "<class 'streamrnn.callbacks.TensorBoard'>"
    with pytest.raises(AttributeError, match=r"'streamrnn\.callbacks' has no attribute 'Nothing'"):
        _ = callbacks.Nothing  # type: ignore[attr-defined]


def _add_distribution(folder: Path, name: str, target: str) -> None:
    points = folder / f"{name}.dist-info" / "entry_points.txt"
    points.parent.mkdir(parents=True)
    points.write_text(f"[streamrnn.plugins]\nengine.of_other = {target}\n")


def test_a_layer_that_its_plugin_does_not_register_is_named(installed: Path) -> None:
    with pytest.raises(
        UnsupportedError,
        match=r"^layer 'Forgotten': its plug-in registers no .*register_layer\('Forgotten', cls\)",
    ):
        layers.get("Forgotten")


def test_two_plugins_of_one_name_are_refused(installed: Path) -> None:
    """Not the first on sys.path, which nobody sees; one that nobody asks for stops no other."""
    _add_distribution(installed, "third-2.0", "third:Tasks")
    with pytest.raises(
        UnsupportedError,
        match=r"^engine 'of_other': expected one plug-in, received (other:Tasks of other and "
        r"third:Tasks of third|third:Tasks of third and other:Tasks of other)\. Uninstall all but",
    ):
        plugin.load_plugin("engine", "of_other")
    assert plugin.load_plugin("command", "of_other") is sys.modules["other"]


def test_a_plugin_that_is_seen_twice_is_one(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one distribution, the first on sys.path counts; another may name the same object."""
    _add_distribution(installed / "older", "other-0.9", "other:Gone")
    _add_distribution(installed / "older", "renamed-1.0", "other:Tasks")
    monkeypatch.setattr(sys, "path", [*sys.path, str(installed / "older")])
    assert plugin.load_plugin("engine", "of_other").__name__ == "Tasks"
