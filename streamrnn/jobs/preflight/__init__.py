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
from streamrnn.jobs.preflight.results import refuse_result
from streamrnn.jobs.preflight.statistics import features_of, refusals_of, scaling_of, warnings_of
