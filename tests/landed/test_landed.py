"""Runs give the bits of the earliest commits; so do outputs in a layout that was stored."""

import json
import shutil
from pathlib import Path

import pytest
from landed import make

from streamrnn.stream.checkpoints import read_manifest

LAYOUTS = sorted(path.name for path in make.HERE.glob("layout-*"))
CASES = make.cases()
RECORDED: dict[str, dict[str, str]] = json.loads((make.HERE / "hashes.json").read_text())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_interrupted_run_that_was_stored_is_resumed(layout: str, case: str) -> None:
    """Rows, rejects and state are those of an undisturbed run."""
    with make.workplace(case, days=2):
        for name, stored in make.FOLDERS.items():
            shutil.copytree(make.HERE / layout / case / stored, name)
        before = [path.read_bytes() for path in sorted(Path("out").glob("*.parquet"))]
        make.run(CASES[case])
        after = [path.read_bytes() for path in sorted(Path("out").glob("*.parquet"))]
        assert make.hashes() == RECORDED[case]
        assert after[: len(before)] == before
        assert len(after) > len(before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_stored_commit_that_was_not_published_is_finished(layout: str) -> None:
    """Killed behind its manifest, a run left parts in staging."""
    case = make.CHAIN
    with make.workplace(case, days=2):
        for name, stored in make.FOLDERS.items():
            shutil.copytree(make.HERE / layout / case / stored, name)
        manifest = read_manifest("out")
        for name, output in (("out", "rows"), ("out.rejects", "rejects")):
            staging = Path(name, "_streamrnn", "staging")
            staging.mkdir(parents=True, exist_ok=True)
            for part in manifest.named(output).parts[1:]:
                Path(name, part.name).rename(staging / part.staged)
            (staging / "_00099-000-0123456789abcdef.parquet.tmp").write_bytes(b"half")
        make.run(CASES[case])
        assert make.hashes() == RECORDED[case]
        assert not list(Path().glob("out*/_streamrnn/staging/*"))


@pytest.mark.parametrize("case", CASES)
def test_a_run_from_scratch_gives_the_bits_of_the_earliest_commit(case: str) -> None:
    """No bit of rows, rejects or states has moved since."""
    assert make.undisturbed(case, CASES[case]) == RECORDED[case]
