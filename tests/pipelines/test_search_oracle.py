"""The search with Optuna: trials are fits, and a search that was stopped continues."""

from pathlib import Path

import pytest
from fresh import python

optuna = pytest.importorskip("optuna", reason="needs the oracles extra")

ROOT = Path(__file__).parents[2]


def search(folder: Path, trials: int) -> str:
    """What the script prints at the end."""
    if not (folder / "data").exists():
        (folder / "data").symlink_to(ROOT / "data")
    script = ROOT / "pipelines" / "weather" / "search.py"
    return python(script, "--trials", trials, cwd=folder).stdout


def test_a_search_finds_a_model_and_resumes(tmp_path: Path) -> None:
    assert search(tmp_path, 2).startswith("best of 2: ")
    found = search(tmp_path, 4)
    assert found.startswith("best of 4: ")
    assert search(tmp_path, 4) == found
    study = optuna.load_study(
        study_name="weather", storage=f"sqlite:///{tmp_path}/out/search/search.db"
    )
    tried = {tuple(trial.params.values()) for trial in study.trials}
    assert len(tried) == 4
    assert (tmp_path / "out" / "search" / f"trial-{study.best_trial.number}.safetensors").exists()
