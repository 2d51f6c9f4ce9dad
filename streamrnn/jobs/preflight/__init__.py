"""What a job opens and checks before it reads a row: source, output paths, initial state."""

from streamrnn.jobs.preflight.checks import (
    CALIBRATION,
    after_rule,
    check_sink,
    file_source,
    lenient,
    notes_on_calibration,
    open_source,
    plan_first_run,
    refuse_own_output,
    run_config,
    seen_before,
    seen_by_init,
    with_target,
)
from streamrnn.jobs.preflight.initial import IN_MEMORY, ModelFile, logged_table, reader
from streamrnn.jobs.preflight.statistics import features_of, refusals_of, scaling_of, warnings_of

__all__ = [
    "CALIBRATION",
    "IN_MEMORY",
    "ModelFile",
    "after_rule",
    "check_sink",
    "features_of",
    "file_source",
    "lenient",
    "logged_table",
    "notes_on_calibration",
    "open_source",
    "plan_first_run",
    "reader",
    "refusals_of",
    "refuse_own_output",
    "run_config",
    "scaling_of",
    "seen_before",
    "seen_by_init",
    "warnings_of",
    "with_target",
]
