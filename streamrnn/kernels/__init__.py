"""The host side of the kernels: weights packed for them, calls, threads. `simd` is what runs.

- `packing`     weights in the order in which a sweep reads them; `packed`: they and their kernels
- `lstm`, `gru`, `simple_rnn`, `dense`, `conv1d`   `pack`: weights in Keras's layout to packed ones
- `recurrent`   the one `run` of all recurrent operators; `stepwise`: the slow way, for softmax
                inside a cell; `cell`: cells of the user's
- `embedding`, `activation`, `normalization`       on whole arrays
- `keys`        from keys of streams to numbers, for the state table; `digest`: of rows
- `threads`, `team`   lanes to threads; `cache`: kernels kept on disk

A kernel for another cell: write it as a function of vectors in `simd` (see `simd.lstm`), say which
sum each gate adds to (`sweep.Shape`), give both to `recurrent.window` with the number of its
states; then pack its weights gate by gate here, and each unit's own weights (peepholes, say) behind
the sums that it starts from.
"""

from streamrnn.kernels.cache import Compiled, fill
from streamrnn.kernels.threads import get_threads, one_thread, set_threads

__all__ = ["Compiled", "fill", "get_threads", "one_thread", "set_threads"]
