"""Outputs that earlier commits left unfinished are resumed by this one, with the same bits."""

import json
import shutil
from pathlib import Path

import pytest
from landed import make

from streamrnn.checkpoints import read_manifest
from streamrnn.outputs import export_state, import_state

COMMITS = sorted(path.parent.name for path in make.HERE.glob("*/hashes.json"))
CASES = make.cases()


def _recorded(commit: str, case: str) -> dict[str, str]:
    found: dict[str, dict[str, str]] = json.loads((make.HERE / commit / "hashes.json").read_text())
    return found[case]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("commit", COMMITS)
def test_an_interrupted_run_of_an_earlier_commit_is_resumed(commit: str, case: str) -> None:
    """Rows, rejects and state are those of that commit's own undisturbed run."""
    with make.workplace(case, days=2):
        for name, stored in make.FOLDERS.items():
            shutil.copytree(make.HERE / commit / case / stored, name)
        before = [path.read_bytes() for path in sorted(Path("out").glob("*.parquet"))]
        make.run(CASES[case])
        after = [path.read_bytes() for path in sorted(Path("out").glob("*.parquet"))]
        assert make.hashes() == _recorded(commit, case)
        assert after[: len(before)] == before
        assert len(after) > len(before)


@pytest.mark.parametrize("case", [case for case in CASES if case.startswith("fixed")])
@pytest.mark.parametrize("commit", COMMITS)
def test_a_kind_that_was_renamed_resumes_under_either_name(commit: str, case: str) -> None:
    """Kind "fixed" is "independent" now: its folders, written under the one, go by both in turn."""
    pipeline = {**CASES[case], "window": {**CASES[case]["window"], "kind": "independent"}}
    with make.workplace(case, days=2):
        for name, stored in make.FOLDERS.items():
            shutil.copytree(make.HERE / commit / case / stored, name)
        export_state("out", "state.parquet")
        import_state("state.parquet", "out")
        make.run(pipeline, stop_after=1)
        make.run(CASES[case])
        assert make.hashes() == _recorded(commit, case)


@pytest.mark.parametrize("commit", COMMITS)
def test_a_commit_that_an_earlier_one_did_not_publish_is_finished(commit: str) -> None:
    """Killed behind its manifest, it left parts in staging. Before version 3 their names there were
    made of their own."""
    case = make.CHAIN
    with make.workplace(case, days=2):
        for name, stored in make.FOLDERS.items():
            shutil.copytree(make.HERE / commit / case / stored, name)
        (file,) = Path("out/_streamrnn").glob("*manifest.json")
        version, found = json.loads(file.read_text())["version"], read_manifest("out")
        for name, parts in (("out", found.parts), ("out.rejects", found.rejects)):
            staging = Path(name, "_streamrnn", "staging")
            staging.mkdir(parents=True, exist_ok=True)
            for part in parts[1:]:
                assert version > 2 or part.staged == f"{part.commit:05d}-{part.name}.tmp"
                Path(name, part.name).rename(staging / part.staged)
            (staging / "00099-part-00099.parquet.tmp").write_bytes(b"half")
        make.run(CASES[case])
        assert make.hashes() == _recorded(commit, case)
        assert not list(Path().glob("out*/_streamrnn/staging/*"))


@pytest.mark.parametrize("case", CASES)
def test_a_run_from_scratch_gives_the_bits_of_the_earliest_commit(case: str) -> None:
    """No bit of rows, rejects or states has moved since."""
    recorded = {json.dumps(_recorded(commit, case)) for commit in COMMITS}
    assert recorded == {json.dumps(make.undisturbed(case, CASES[case]))}
