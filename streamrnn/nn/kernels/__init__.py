"""The host side of the kernels: packed weights, calls, threads. The compiled side is `simd`.

- `packing`     weights in the order in which a sweep reads them, and their kernels; `integers`:
                weights rounded to int16 or int8
- `swept`       recurrent cells, described by the gates in their sums; their `pack` takes weights in
                Keras's layout; `bptt`: these cells in training
- `dense`, `conv1d`, `layer_norm_lstm`   these have a `pack`, too
- `recurrent`   the one `run` of all recurrent operators; the slow path, for softmax inside a cell
- `cell`        custom cells, including those in training
- `activation`, `normalization`   on whole arrays; `activations`: what layers take
- `gradients`, `losses`   also updates of weights; `random`: random and orthonormal numbers
- `rows`        from keys of streams to numbers, for the state table; whether nothing has to be
                decided about rows; their hash
- `threads`, `team`   lanes divided among threads; `cache`: kernels kept on disk

To add a kernel for another cell, write it as functions of vectors in `simd.swept` (SimpleRNN
is the shortest), declare which sum each gate is added to (`sweep.TileShape`), and pass both to
`recurrent.window` with the number of its states; then describe it in a `SweptKind` here, by the
letters of its gates. Each unit's own weights (peepholes, say) are packed after its initial sums.
"""

from streamrnn.nn.kernels.cache import Compiled, fill, seconds_compiling
from streamrnn.nn.kernels.threads import MIN_PRODUCTS, get_threads, one_thread, set_threads

__all__ = [
    "MIN_PRODUCTS", "Compiled", "fill", "get_threads", "one_thread", "seconds_compiling",
    "set_threads",
]  # fmt: skip
