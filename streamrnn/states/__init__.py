"""The state of streams: a table with one row per stream, in memory, in Arrow and in files."""

from streamrnn.states.carrying import (
    FOR_RUNS,
    CarryAdvice,
    carried_states,
    check_origins,
    has_states,
)
from streamrnn.states.changes import OwnLock
from streamrnn.states.checksum import checked, checksum, with_checksum
from streamrnn.states.diff import StateDiff, diff, key_text
from streamrnn.states.files import (
    as_table,
    check_suffix,
    identity_of,
    read_state_bytes,
    read_state_file,
    read_with_identity,
    state_bytes,
    state_digest,
    write_state_file,
)
from streamrnn.states.flat import flat_schema, from_flat, to_flat
from streamrnn.states.held import Held
from streamrnn.states.incoming import key_names, meta
from streamrnn.states.keys import KeyIndex
from streamrnn.states.layer_states import from_layer, to_layer
from streamrnn.states.layout import MATRIX, Layout, waiting_after
from streamrnn.states.opening import from_arrow
from streamrnn.states.reading import check_model
from streamrnn.states.shards import by_shard, key_hashes, shard_of
from streamrnn.states.table import StateTable
from streamrnn.states.writing import to_arrow

__all__ = [
    "FOR_RUNS",
    "MATRIX",
    "CarryAdvice",
    "Held",
    "KeyIndex",
    "Layout",
    "OwnLock",
    "StateDiff",
    "StateTable",
    "as_table",
    "by_shard",
    "carried_states",
    "check_model",
    "check_origins",
    "check_suffix",
    "checked",
    "checksum",
    "diff",
    "flat_schema",
    "from_arrow",
    "from_flat",
    "from_layer",
    "has_states",
    "identity_of",
    "key_hashes",
    "key_names",
    "key_text",
    "meta",
    "read_state_bytes",
    "read_state_file",
    "read_with_identity",
    "shard_of",
    "state_bytes",
    "state_digest",
    "to_arrow",
    "to_flat",
    "to_layer",
    "waiting_after",
    "with_checksum",
    "write_state_file",
]
