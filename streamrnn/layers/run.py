"""What one pass over a layer or a model carries beside its inputs."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

Kind = Literal["call", "stream", "whole"]


class Run:
    """One pass.

    kind       "call": a call from Python; layers with stateful=True carry their state.
               "stream": one step a row, states are the caller's (`states`, changed in place).
               "whole": each row is a complete sequence, from a fresh state.
    In the last two no attribute of a layer is touched, so threads may share a model.
    lengths    steps of each row, int64 (B,), or None where all rows have all steps. Only for
               "stream" and "whole": a call turns lengths into a mask.
    path       names of the models around the layer, each with a slash after it.
    """

    __slots__ = ("kind", "lengths", "path", "states", "training")

    def __init__(
        self,
        *,
        training: bool = False,
        kind: Kind = "call",
        lengths: npt.NDArray[np.int64] | None = None,
        states: Mapping[str, Floats] | None = None,
        path: str = "",
    ) -> None:
        self.training = training
        self.kind = kind
        self.lengths = lengths
        self.states = states
        self.path = path

    def at(self, name: str) -> "Run":
        """The same pass, one name deeper."""
        return Run(
            training=self.training,
            kind=self.kind,
            lengths=self.lengths,
            states=self.states,
            path=f"{self.path}{name}/",
        )

    def with_training(self, training: bool) -> "Run":
        """The same pass with training switched."""
        if training == self.training:
            return self
        return Run(
            training=training,
            kind=self.kind,
            lengths=self.lengths,
            states=self.states,
            path=self.path,
        )

    def state(self, name: str, shape: tuple[int, ...]) -> Floats | None:
        """The caller's state of the layer at `path`, as (B, *shape), or None if it keeps none.

        A view: what is written into it is written into the caller's array.
        """
        assert self.states is not None
        flat = self.states.get(self.path + name)
        return None if flat is None else flat.reshape(len(flat), *shape)
