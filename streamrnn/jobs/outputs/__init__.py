"""Work on committed outputs: verify, compact, rewind and publish them, change their states.

`server_log` says whether an output lacks rows that a server has answered.
"""

from streamrnn.jobs.outputs.parts import compact, merge_small_parts, part_batches, verify
from streamrnn.jobs.outputs.publisher import Published, Publisher, publish
from streamrnn.jobs.outputs.rewinding import (
    CommitInfo,
    commit_before,
    files_named,
    history,
    restore_commit,
    rewind,
    rows_of_others,
    used_files,
)
from streamrnn.jobs.outputs.server_log import log_folder, own_log, put_ahead, refuse_behind
from streamrnn.jobs.outputs.streams import (
    clear_leftovers,
    diff_states,
    drop_idle,
    drop_streams,
    export_state,
    import_state,
    read_states,
    reset_streams,
    rows_of,
)
from streamrnn.stream.checkpoints import read_manifest
from streamrnn.stream.states import key_names
