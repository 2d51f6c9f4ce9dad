"""`process`: rows of a caller, and the checkpoint that carries their state to another process."""

from streamrnn.jobs.session.checkpoint import (
    CheckpointHeader,
    LastCheckpoint,
    Readable,
    Writable,
    check_arguments,
    resume_scorer,
    resumed_config,
)
from streamrnn.jobs.session.data import (
    BATCH,
    CheckedSchema,
    apply_renames,
    batches_of,
    rejects_of,
    table_of_dicts,
)
from streamrnn.jobs.session.starting import (
    Start,
    first_scorer,
    require_output,
    start_of,
    warn_of_output,
)

__all__ = [
    "BATCH",
    "CheckedSchema",
    "CheckpointHeader",
    "LastCheckpoint",
    "Readable",
    "Start",
    "Writable",
    "apply_renames",
    "batches_of",
    "check_arguments",
    "first_scorer",
    "rejects_of",
    "require_output",
    "resume_scorer",
    "resumed_config",
    "start_of",
    "table_of_dicts",
    "warn_of_output",
]
