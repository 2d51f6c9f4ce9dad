"""What a release is compared with: the pages that say what is public."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("keys", "commands", "errors", "counters", "formulas")
PROMISED = {
    "keys": ["[source] `path` ", '[source] `format` = `"auto"`'],
    "commands": ["streamrnn run `PIPELINE` "],
    "errors": ["Exceptions `ConfigError` 78"],
    "counters": [
        "In the summary of a run `rows_out`",
        "In the summary of a run `seconds_by_phase`",
    ],
    "formulas": ["Activations `tanh` "],
}


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script; the library that compares signatures is not needed here."""
    monkeypatch.setitem(sys.modules, "griffe", MagicMock())
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_loses_is_reported(
    release: ModuleType, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(commit: str, file: str) -> str:
        text = (ROOT / file).read_text()
        if commit == "v0.1.0" or not file.endswith(f"/{page}.md"):
            return text
        return "\n".join(line for line in text.splitlines() if line not in lost)

    text = (ROOT / "streamrnn" / "guide" / f"{page}.md").read_text()
    rows = release._rows(text)
    assert [row for row in PROMISED[page] if row not in rows] == []
    monkeypatch.setattr(release, "_shown", shown)
    lost: list[str] = []
    assert release.missing_rows("v0.1.0") == []
    lost += [line for line in text.splitlines() if line.startswith(("| `", "Fields:", "`streams"))]
    missing = release.missing_rows("v0.1.0")
    assert len(missing) > 5
    assert all(row.startswith(f"streamrnn/guide/{page}.md: ") for row in missing)
