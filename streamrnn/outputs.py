"""Work on committed outputs: verify, compact, rewind and publish them, and change their states.

The functions do what `streamrnn verify`, `rewind`, `publish`, `compact` and `streamrnn state` do.
Most take the path of an output folder:

>>> import streamrnn
>>> streamrnn.outputs.verify("out/weather").rows
80
>>> [commit.commit for commit in streamrnn.outputs.history("out/weather")]
[1, 2]
"""

from streamrnn.base.display import show_in as _show_in
from streamrnn.jobs.outputs import (
    CommitInfo,
    Published,
    compact,
    diff_states,
    drop_idle,
    drop_streams,
    export_state,
    history,
    import_state,
    publish,
    read_states,
    reset_streams,
    rewind,
    verify,
)

__all__ = [
    "CommitInfo",
    "Published",
    "compact",
    "diff_states",
    "drop_idle",
    "drop_streams",
    "export_state",
    "history",
    "import_state",
    "publish",
    "read_states",
    "reset_streams",
    "rewind",
    "verify",
]

_show_in(__name__, globals())
