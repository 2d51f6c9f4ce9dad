"""A task that is cut off from its cluster, and writes its files much later.

`python zombie.py FILE` is that task: it waits until FILE.go exists.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from plugins.ray import cluster

from streamrnn.jobs.engines.shard import ShardTask, score_shard


def left_behind(context: Any, task: ShardTask, before: Any, state: Any, *chunks: Any) -> Any:
    """Score in place of the engine's own task; one goes to a process that Ray does not know."""
    if (task.commit, task.shard) == (1, 1):
        path = Path(f"{task.place.path}.zombie")
        path.write_bytes(pickle.dumps((context[0], task, before, state, chunks)))
        start = ["sh", "-c", '"$@" &', "sh", sys.executable, __file__, str(path)]
        subprocess.run(
            start, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        time.sleep(3600)
    return score_shard(context[0], task, before, state, chunks)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.with_suffix(".alive").touch()
    cluster.wait_for(path.with_suffix(".go").exists, 300)
    outcome, _ = score_shard(*pickle.loads(path.read_bytes()))
    path.with_suffix(".done").write_text(repr(outcome.facts))
