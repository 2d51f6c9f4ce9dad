"""The only room that knows numba. Layers call each module's `pack` and `run`.

From the inside out:

- `vector`      a vector of float32 as a Numba type; `functions`: activations on it
- `tile`        rows x vectors of sums in registers, fed with inputs times weights
- `sweep`       all rows times all weights, tile by tile, and a cell for what follows
- `recurrent`   the loop over steps and lanes: masks, lengths, states; `meeting`: several threads
                on a few large lanes
- `lstm`, `gru`, `simple_rnn`, `dense`, `conv1d`   a few lines of vector code each: the cell
- `embedding`, `activation`, `normalization`       on whole arrays
- `packing`     weights in the order in which a sweep reads them
- `keys`        from keys of streams to numbers, for the state table
- `call`, `threads`, `team`, `jit`   thin Python around them: lanes to threads, compiling, keeping
                on disk
- `stepwise`    the slow way, for softmax inside a cell; `cell`: cells of the user's

Two promises. Kernels write into given arrays and never look at shapes: layers do. And each lane's
arithmetic has one order (what it starts from, then input by input, then state by state, each
product added by an exact fma), so no bit depends on B, T, the cut, the thread, the tile or the CPU.
(Unless the host process lets some of its threads round subnormal numbers to zero.)

A kernel for another cell: `pack` its weights gate by gate, write the cell as a function of vectors
(see `lstm`), say which sum each gate adds to (`sweep.Shape`), and give both to `recurrent.window`.
"""

from streamrnn.kernels.threads import get_threads, one_thread, set_threads

__all__ = ["get_threads", "one_thread", "set_threads"]
