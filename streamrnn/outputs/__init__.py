"""What can be done with a committed output: verify, compact, rewind; its streams and states."""

from streamrnn.checkpoints import read_manifest
from streamrnn.outputs.parts import compact, history, merge_small_parts, rewind, verify
from streamrnn.outputs.streams import clear_leftovers, drop_idle, drop_streams, reset_streams
from streamrnn.outputs.transfer import diff_states, export_state, import_state, read_states

__all__ = [
    "clear_leftovers",
    "compact",
    "diff_states",
    "drop_idle",
    "drop_streams",
    "export_state",
    "history",
    "import_state",
    "merge_small_parts",
    "read_manifest",
    "read_states",
    "reset_streams",
    "rewind",
    "verify",
]
