"""Rows that violate the contract."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamrnn.base.arrays import Bools, Ints


@dataclass
class Faults:
    """Rows that violate the contract, with the first reason for each, and advice on it."""

    codes: npt.NDArray[np.int32]
    reasons: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    @classmethod
    def of_rows(cls, rows: int) -> "Faults":
        """Return a value without faults for `rows` rows."""
        return cls(np.zeros(rows, np.int32))

    def add(self, rows: Bools, reason: str, advice: str = "") -> None:
        """Set the reason of the rows that have none yet.

        `advice` is what the user could set, such as "set `nulls` for the column"; "" for no advice.
        """
        if not rows.any():
            return
        self.reasons.append(reason)
        self.advice.append(advice)
        self.codes[rows & (self.codes == 0)] = len(self.reasons)

    def add_each(self, rows: Ints, which: Ints, reasons: Sequence[str], advice: str) -> None:
        """Set `reasons[which[i]]` for each row `rows[i]` that has no reason yet."""
        codes = which + len(self.reasons) + 1
        self.codes[rows] = np.where(self.codes[rows] == 0, codes, self.codes[rows])
        self.reasons += reasons
        self.advice += [advice] * len(reasons)

    def replace(self, reasons: Mapping[int, str]) -> None:
        """Set the reason of some rows, even if they have one already."""
        for row, reason in reasons.items():
            self.reasons.append(reason)
            self.advice.append("")
            self.codes[row] = len(self.reasons)

    def reason(self, row: int) -> str:
        """Return the reason of a row whose code is not 0."""
        return self.reasons[int(self.codes[row]) - 1]

    def how_to_fix(self, row: int) -> str:
        """Return how to fix the row, as the start of a list of choices."""
        advice = self.advice[int(self.codes[row]) - 1]
        return f"Fix the data, {advice}," if advice else "Fix the data"
