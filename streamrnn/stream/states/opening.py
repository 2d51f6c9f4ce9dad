"""A state table with a known layout, from an Arrow table."""

from collections.abc import Mapping

import pyarrow as pa

from streamrnn.base.arrays import Floats
from streamrnn.stream.states.arrow import load_streams
from streamrnn.stream.states.layout import Layout
from streamrnn.stream.states.table import StateTable


def from_arrow(
    source: pa.Table,
    layout: Layout,
    initial: Mapping[str, Floats] | None,
    label: str,
    mapping: Mapping[str, str] | None = None,
    *,
    same_pipeline: bool = False,
    before: StateTable | None = None,
    notes: list[str] | None = None,
) -> StateTable:
    """Build a state table with this layout from an Arrow table.

    `mapping` (layer of this model -> layer of the table) reads the state of another model: it gives
    the origin of each layer's state; everything else of a stream (steps, last time, previous
    values, waiting rows) is read as without `mapping`. A stream may have steps but no last time, if
    its first state came without times; this is noted unless this pipeline wrote the table
    (`same_pipeline`). `before` is the state that the table replaces: no stream may lose its last
    time. A sentence is added to `notes` for each thing that is not read.

    Raises StateError, with `label`, for the table of another model if there is no mapping; for a
    column that is missing, duplicate, or of another type or size; and for invalid values, with the
    row and the stream.
    """
    table = StateTable(layout, initial)
    load_streams(
        table, source, label, mapping, same_pipeline=same_pipeline, before=before, notes=notes
    )
    return table
