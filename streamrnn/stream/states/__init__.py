"""The state of streams: a table with one row per stream, in memory, in Arrow and in files."""

from streamrnn.stream.states.arrays import OwnLock
from streamrnn.stream.states.arrow import check_model, rows_held, to_arrow
from streamrnn.stream.states.files import (
    StateDiff,
    as_table,
    check_suffix,
    checked,
    checksum,
    diff,
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
from streamrnn.stream.states.layout import (
    FOR_RUNS,
    MATRIX,
    CarryAdvice,
    Held,
    Layout,
    carried_states,
    check_origins,
    has_states,
    waiting_after,
)
from streamrnn.stream.states.table import Copying, StateTable, from_arrow
