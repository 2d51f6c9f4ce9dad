"""Damaged bytes, tried in child processes: there a crash is a finding, and not the end of pytest.

A test file calls `survive(__file__, cases)`, and `child(attempt)` where it is run as a script.
"""

import os
import random
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

CASES = int(os.environ.get("STREAMRNN_FUZZ", "60"))
TESTS = Path(__file__).parents[1]


def damaged(data: bytes, seed: object) -> bytes:
    """1 to 4 bytes changed, or some cut off, inserted or left out."""
    rng = random.Random(str(seed))
    made = bytearray(data)
    at = rng.randrange(len(made))
    match rng.randrange(6):
        case 0:
            del made[at:]
        case 1:
            made[at:at] = rng.randbytes(rng.randrange(1, 17))
        case 2:
            del made[at : at + rng.randrange(1, 17)]
        case _:
            for _ in range(rng.randrange(1, 5)):
                made[rng.randrange(len(made))] = rng.choice((0, 127, 128, 255, rng.randrange(256)))
    return bytes(made)


def survive(script: str, cases: int) -> Counter[str]:
    """What the attempts 0 to `cases` came to; raises for one that ends its process or leaks."""
    found: Counter[str] = Counter()
    first = 0
    while first < cases:
        done = subprocess.run(
            [sys.executable, script, str(first), str(cases)],
            capture_output=True,
            text=True,
            check=False,
            timeout=600 + cases,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
            },
        )
        lines = done.stdout.splitlines()
        found.update(line for line in lines if not line.isdigit())
        if done.returncode == 0:
            break
        last = next((int(line) for line in reversed(lines) if line.isdigit()), None)
        assert last is not None, done.stderr[-2000:]
        found[f"case {last}: ended with {done.returncode}: {done.stderr[-300:]}"] += 1
        first = last + 1
    wrong = [what for what in found if what not in ("refused", "taken")]
    assert not wrong, "\n".join(wrong[:5])
    return found


def child(attempt: Callable[[int], bool]) -> None:
    """Try the cases of the command line; `attempt` says whether one was taken or refused."""
    first, last = map(int, sys.argv[1:])
    results = sys.stdout  # an attempt may put something else in its place
    for case in range(first, last):
        print(case, file=results, flush=True)
        try:
            print("taken" if attempt(case) else "refused", file=results, flush=True)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it has leaked
            sys.stderr.write(traceback.format_exc())
            print(f"case {case}: {error!r}".replace("\n", " "), file=results, flush=True)
