"""The state of streams: a table with one row per stream, in memory, in Arrow and in files."""

from streamrnn.base.display import show_in as _show_in
from streamrnn.stream.states import (
    Layout,
    StateDiff,
    StateTable,
    diff,
    from_arrow,
    from_layer,
    read_state_file,
    to_arrow,
    to_layer,
    write_state_file,
)

__all__ = [
    "Layout",
    "StateDiff",
    "StateTable",
    "diff",
    "from_arrow",
    "from_layer",
    "read_state_file",
    "to_arrow",
    "to_layer",
    "write_state_file",
]

_show_in(__name__, globals())
