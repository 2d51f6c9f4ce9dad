"""The only room that knows numba. Layers call these; see each module's `pack` and `run`."""

from streamrnn.kernels.threads import get_threads, one_thread, set_threads

__all__ = ["get_threads", "one_thread", "set_threads"]
