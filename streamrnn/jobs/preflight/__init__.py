"""What a job opens and checks before it reads a row: source, output paths, initial state."""

from streamrnn.jobs.preflight.checks import (
    CALIBRATION,
    IN_MEMORY,
    ModelFile,
    after_rule,
    check_sink,
    file_source,
    lenient,
    logged_table,
    notes_on_model,
    open_source,
    plan_first_run,
    reader,
    refuse_own_output,
    refuse_result,
    run_config,
    seen_before,
    seen_by_init,
    with_target,
)
from streamrnn.jobs.preflight.statistics import features_of, refusals_of, scaling_of, warnings_of
