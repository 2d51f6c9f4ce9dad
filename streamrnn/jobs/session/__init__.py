"""Rows of a caller, from call to call: through `process`, or into an output that a session owns.

- `calls`       the data of each call through one scorer; `data` makes record batches of it
- `session`     calls into an output, in the commits of a run
- `checkpoint`  the state of `process` in a file, for another process
- `starting`    the state that the first call starts from
"""

from streamrnn.jobs.session.calls import Calls
from streamrnn.jobs.session.checkpoint import (
    CheckpointHeader,
    LastCheckpoint,
    Readable,
    Writable,
    check_arguments,
    resume_scorer,
    resumed_config,
)
from streamrnn.jobs.session.data import rejects_of
from streamrnn.jobs.session.session import Session, open_session
from streamrnn.jobs.session.starting import (
    Start,
    first_scorer,
    require_output,
    start_of,
    warn_of_output,
)

__all__ = [
    "Calls",
    "CheckpointHeader",
    "LastCheckpoint",
    "Readable",
    "Session",
    "Start",
    "Writable",
    "check_arguments",
    "first_scorer",
    "open_session",
    "rejects_of",
    "require_output",
    "resume_scorer",
    "resumed_config",
    "start_of",
    "warn_of_output",
]
