"""A layer's weights as its kernel reads them, and the kernels compiled for it."""

from collections.abc import Callable

from streamrnn.nn.kernels.activation import Spec
from streamrnn.nn.simd.arguments import Kernel, Weights


class Packed:
    """Packed weights, and the kernels for them by activations.

    `groups`: the number of groups of units, which threads may share. `entry(activations)` returns
    a kernel, compiled on first use. `again()` packs the weights again: unpickling calls it, in
    another process, perhaps on another CPU. `lane_vectors`, `word`: see `simd.recurrent.scratch`.
    """

    __slots__ = ("_again", "_entry", "_kernels", "groups", "lane_vectors", "weights", "word")

    def __init__(
        self,
        weights: Weights,
        groups: int,
        entry: Callable[[tuple[Spec, ...]], Kernel],
        again: Callable[[], "Packed"],
        lane_vectors: int = 0,
        word: int = 1,
    ) -> None:
        self.weights, self.groups, self.lane_vectors = weights, groups, lane_vectors
        self.word = word
        self._entry, self._again = entry, again
        self._kernels: dict[tuple[Spec, ...], Kernel] = {}

    def kernel(self, activations: tuple[Spec, ...]) -> Kernel:
        """Return the kernel for these activations."""
        kernel = self._kernels.get(activations)
        if kernel is None:
            kernel = self._kernels[activations] = self._entry(activations)
        return kernel

    def __reduce__(self) -> tuple[Callable[[], "Packed"], tuple[()]]:
        return self._again, ()
