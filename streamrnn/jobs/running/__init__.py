"""Runs: what is new in a source is scored, committed to an output, published and measured.

- `run`               one run, from the options to the summary
- `destination`       an output folder or a stream; what earlier runs committed there
- `follow`            files that arrive during a run
- `reloading`         checks used files that changed, and rewinds to before they were read
- `replay`, `replay_plan`   earlier rows, read by a new model into a state of its own
- `lateness`          which files cause late rows and gaps
- `publishing`        the tables of [publish], after each commit
- `metrics`           what Prometheus reads of a run, and of `process`
"""

from streamrnn.jobs.running.destination import FolderDestination, open_folder
from streamrnn.jobs.running.lateness import note_on_order
from streamrnn.jobs.running.metrics import (
    MetricsFile,
    ProcessMetrics,
    Series,
    record_failure,
    recorded,
)
from streamrnn.jobs.running.publishing import RunPublisher
from streamrnn.jobs.running.replay import discard_replay
from streamrnn.jobs.running.replay_plan import ReplayPlan, needs_replay, plan_replay
from streamrnn.jobs.running.run import RunJob
