"""As `server`, for an output with tables: it kills itself before or after a step of publishing.

A request has the config of a pipeline, the number of the step (None: not at all), after how many
seconds to be killed, and which of run, compact and rewind to do.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import deltalake  # noqa: F401 - loaded here, used in children only
import pyiceberg.catalog.sql  # noqa: F401
from kill import case
from kill.server import forked

from streamrnn import outputs
from streamrnn.plugins.lakes import publish_delta, publish_iceberg
from streamrnn.plugins.lakes.publish_delta import DeltaLog
from streamrnn.plugins.lakes.publish_iceberg import IcebergCatalogTable

STEPS: list[tuple[Any, str]] = [(DeltaLog, "read"), (DeltaLog, "commit")]
STEPS += [(IcebergCatalogTable, name) for name in ("read", "_create", "commit")]
STEPS += [(module, "part_footer") for module in (publish_delta, publish_iceberg)]


def kill_at(step: int) -> None:
    """Kill this process at the step: before a call, after it, and so on."""
    passed = 0

    def point() -> None:
        nonlocal passed
        if passed == step:
            os.kill(os.getpid(), signal.SIGKILL)
        passed += 1

    def around(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            point()
            result = call(*arguments)
            point()
            return result

        return wrapped

    for owner, name in STEPS:
        setattr(owner, name, around(getattr(owner, name)))


def act(request: dict[str, Any]) -> None:
    os.environ.update(request["environment"])
    if request["step"] is not None:
        kill_at(request["step"])
    out = request["config"]["sink"]["path"]
    if request["act"] == "run":
        case.run_config(request["config"])
    elif request["act"] == "compact":
        outputs.compact(out)
    else:
        outputs.rewind(out, outputs.history(out)[0].commit)


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(forked(partial(act, request), request.get("seconds"))), flush=True)
