"""What is carried of each stream beside the model's state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass
class Memory:
    """Arrays over the slots of a state table; `arrange` reads them, `Arranged.remember` writes.

    `steps` (S,) int64: steps since the stream began fresh. `last_time` (S,) int64 ticks, valid
    where `seen` (S,) bool: the stream has had a row. `previous` maps a feature to its last values
    (S,) and a bool array of those that are there.
    """

    steps: npt.NDArray[np.int64]
    last_time: npt.NDArray[np.int64]
    seen: npt.NDArray[np.bool_]
    previous: dict[str, tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]] = field(
        default_factory=dict
    )
