"""The state of streams: a table with one row per stream, in memory, in Arrow and in files."""

from streamrnn.stream.states.arrow import check_model, rows_held, to_arrow
from streamrnn.stream.states.carrying import (
    FOR_RUNS,
    CarryAdvice,
    carried_states,
    check_origins,
    has_states,
)
from streamrnn.stream.states.copying import OwnLock
from streamrnn.stream.states.diff import StateDiff, diff
from streamrnn.stream.states.files import (
    as_table,
    check_suffix,
    checked,
    checksum,
    identity_of,
    read_state_bytes,
    read_state_file,
    read_with_identity,
    state_bytes,
    state_digest,
    with_checksum,
    write_state_file,
)
from streamrnn.stream.states.flat import flat_schema, from_flat, to_flat
from streamrnn.stream.states.incoming import key_names, meta
from streamrnn.stream.states.keys import KeyIndex, by_shard, key_hashes, shard_of
from streamrnn.stream.states.layer_states import from_layer, to_layer
from streamrnn.stream.states.layout import MATRIX, Held, Layout, waiting_after
from streamrnn.stream.states.table import Copying, StateTable, from_arrow

__all__ = [
    "FOR_RUNS",
    "MATRIX",
    "CarryAdvice",
    "Copying",
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
    "meta",
    "read_state_bytes",
    "read_state_file",
    "read_with_identity",
    "rows_held",
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
