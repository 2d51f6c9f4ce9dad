"""SIGKILL at random moments of a fit: the same command resumes, with the same bits.

`STREAMRNN_KILLS=100 pytest tests/kill/test_fit_kills.py` kills 100 times; by default 12 times.
"""

import random
import shutil
from pathlib import Path
from typing import Any

import logs
import pytest
from jobs.fitting import fits
from kill import case
from kill.test_kill import KILLS, Server
from selection import first_quick


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Server(case.make(tmp_path_factory.mktemp("kill"))) as server:
        yield server


FITS: dict[str, dict[str, dict[str, Any]]] = {
    "carry": {},
    "independent": {"window": {"kind": "independent", "lanes": 4, "steps": 8, "stride": 3}},
    "plateau": {"train": {"schedule": {"name": "plateau", "patience": 1, "warmup": 0.1}}},
    "seeds": {"train": {"seeds": 3, "keep": "all"}},
}


def tables(folder: Path, name: str, rng: random.Random) -> dict[str, Any]:
    """A fit whose record batches, commits and threads are others at each start."""
    own = FITS[name]
    keys = {"train": {**fits.config(folder)["train"], "validation": {"streams": 0.3}, "epochs": 6}}
    keys["train"] |= own.get("train", {})
    keys |= {table: values for table, values in own.items() if table != "train"}
    keys["source"] = {**fits.config(folder)["source"], "batch_rows": rng.choice([20, 90, 1000])}
    keys["model"] = {**fits.config(folder)["model"], "threads": rng.choice([1, 2])}
    return fits.config(folder, **keys, checkpoint={"every": rng.choice([1, 3])})


@pytest.mark.parametrize(
    ("name", "most"), first_quick([("carry", 1), *((name, KILLS // len(FITS)) for name in FITS)])
)
def test_killed_at_random_moments_again_and_again(
    name: str, most: int, server: Server, tmp_path: Path
) -> None:
    """A fit, and its continuation on new rows, until both are done; then another one's turn. Slow:
    more kills, other windows, a plateau, seeds."""
    seed = random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    folder = tmp_path / "fit"
    days = ({"full_refresh": False}, {"extend": True})
    wanted, usual, kills = [], [], 0
    for killing in (False, *[True] * 1000):
        if killing and kills >= most:
            break
        shutil.rmtree(folder, ignore_errors=True)
        for day, options in enumerate(days):
            logs.write(fits.log().slice(600 * day, 600), folder / "in" / f"{day}.parquet", 100)
            while True:
                how = {"seconds": rng.uniform(0.05, 1.1) * usual[day]} if killing else {}
                command = {"config": tables(folder, name, rng), "options": options, "fit": True}
                answer = server.run(folder, command=command, **how)
                kills += answer["killed"]
                if not answer["killed"]:
                    break
            assert answer["status"] == 0, f"seed {seed}"
            if not killing:
                usual.append(answer["seconds"])
                wanted.append(fits.digest(folder))
            assert fits.digest(folder) == wanted[day], f"seed {seed}, {kills} kills"
