"""The rows of a file in the order of their time, which its writer did not keep."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc


def in_time_order(
    batches: Iterator[pa.RecordBatch], time: str, rows: int, start: int, stop: int | None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of all record batches by `time`, at most `rows` at a time.

    Those from row `start` of this order on, before row `stop` (None: all). Rows of one time keep
    their order, null comes last. Memory holds all rows.
    """
    whole = pa.Table.from_batches(list(batches))
    order = pc.sort_indices(whole[time])  # stable, null last
    for first in range(start, len(order) if stop is None else stop, rows):
        last = min(first + rows, len(order) if stop is None else stop)
        piece = whole.take(order.slice(first, last - first)).combine_chunks()
        yield from piece.to_batches()
