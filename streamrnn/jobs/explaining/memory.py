"""The memory that a run needs: the process, its record batches, and the state of its streams.

The factors are measured (peak resident memory of runs with 2 to 64 features, 20 to 500,000 streams
and batches of 10,000 to 1,000,000 rows); tests/jobs/explaining/test_memory.py compares them with
runs.
"""

import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from streamrnn.stream.scoring.bind import BoundPipeline
from streamrnn.stream.sources import FileSource, SourceFile
from streamrnn.stream.sources.formats import Footer

_KERNELS = 95 << 20
"""Bytes of Numba, LLVM and the compiled kernels, all loaded when the first batch is scored."""
_BUFFERS, _BUFFERED_ROWS = 85 << 20, 131072
"""Bytes of the buffers of readers, writers and threads, and the number of rows that fill them."""
_BATCHES = 4.2
"""Record batches held at a time: one is read, one sorted, one scored, and some wait."""
_COPIES = 2
"""Copies of a batch's columns and features: as read, and sorted by stream."""
_ROW = 24
"""Bytes of a row's slot, time and position."""
_STREAM = 200
"""Bytes of a stream besides its state: its key, again in the index, and copies for a commit."""
_LOADING = 2.7
"""Copies of a state while it is read from an output."""
_GROUP = 0.6
"""Share of a decoded row group that is held while batches are cut from it."""
_OFFSET = 4
"""Bytes of a row's offset in its row range."""
_TEXT = 18
"""Bytes of a text or another value without a fixed width."""


def stream_bytes(bound: BoundPipeline) -> int:
    """Return the number of bytes of one stream in the state table."""
    layout = bound.layout
    waiting = layout.waiting_rows * len(bound.loaded.contract.feature_names())
    return 4 * (sum(layout.states.values()) + waiting) + 24


def memory_of(
    bound: BoundPipeline, source: FileSource, files: Sequence[SourceFile], streams: int
) -> dict[str, int]:
    """Estimate the peak memory, in bytes, of a run over `files` that loads `streams` streams.

    Returns its total and its parts: `process` (libraries and model), `batches`, `state` of the
    `streams`, and `per_stream`, the bytes that each new stream adds.
    """
    process = _resident() + 4 * bound.loaded.model.count_params()
    process += 0 if "llvmlite" in sys.modules else _KERNELS
    batches = _batch_bytes(bound, [source.footer(file) for file in files])
    per_stream = stream_bytes(bound) + _STREAM
    state = streams * max(per_stream, int(_LOADING * stream_bytes(bound)))
    return {
        "total": process + batches + state,
        "process": process,
        "batches": batches,
        "state": state,
        "streams": streams,
        "per_stream": per_stream,
    }


def row_bytes(bound: BoundPipeline) -> float:
    """Return the number of bytes of a row that one worker hands to another."""
    return sum(_width(field.type) for field in bound.schema) + _OFFSET


def _batch_bytes(bound: BoundPipeline, footers: Sequence[Footer]) -> int:
    loaded, rows = bound.loaded, sum(footer.rows for footer in footers)
    group = max((rows for footer in footers for rows in footer.groups), default=0)
    features = len(loaded.contract.feature_names())
    stored = sum(_width(field.type) for field in bound.schema)
    row = _COPIES * (stored + 4 * features) + 4 * len(loaded.names) + _ROW
    held = min(rows, _BATCHES * loaded.config.source.batch_rows)
    if loaded.kind.needs_end:
        held = rows
    buffers = _BUFFERS * min(1.0, rows / _BUFFERED_ROWS)
    return int(held * row + _GROUP * stored * group + buffers)


def _width(kind: pa.DataType) -> float:
    try:
        return float(kind.bit_width) / 8
    except ValueError:
        return _TEXT


def _resident() -> int:
    """Return the resident memory of this process, in bytes."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # macOS: the peak so far, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * os.sysconf("SC_PAGE_SIZE")
