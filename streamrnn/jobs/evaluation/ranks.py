"""The area under the ROC curve of scores, exact or with a bound, in bounded memory."""

import numpy as np

from streamrnn.base.arrays import Bools, Doubles, Floats, Ints

_LIMIT = 1 << 22
_BITS = 32
_SIGN = np.uint32(1 << 31)


class Ranks:
    """Weights of positive and negative rows, by group and score.

    Equal scores count as one. If there are more than `limit` different ones, over all groups, the
    lowest bit of each is dropped, so that near ones become equal, until there are fewer: then `auc`
    has an error bound.

    >>> ranks = Ranks()
    >>> score = np.array([0.1, 0.4, 0.35, 0.8], np.float32)
    >>> ranks.add(np.zeros(4, np.int64), score, np.array([False, False, True, True]), np.ones(4))
    >>> area, bound = ranks.auc(1)
    >>> area.tolist(), bound.tolist()
    ([0.75], [0.0])
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._dropped = 0
        self._code = np.zeros(0, np.int64)
        self._weight = np.zeros((0, 2))
        self._new: list[tuple[Ints, Doubles]] = []
        self._waiting = 0

    def add(self, group_N: Ints, score_N: Floats, positive_N: Bools, weight_N: Doubles) -> None:
        """Add N rows, each of a group (from 0), with a finite score."""
        weight = np.zeros((len(group_N), 2))
        weight[np.arange(len(group_N)), positive_N.astype(np.int64)] = weight_N
        code = (group_N << _BITS | _in_order(score_N)) >> self._dropped << self._dropped
        self._new.append((code, weight))
        self._waiting += len(code)
        if self._waiting > max(self._limit // 4, len(self._code)):
            self._merge()

    def _merge(self) -> None:
        codes, weights = zip((self._code, self._weight), *self._new, strict=True)
        self._new, self._waiting = [], 0
        self._sum(np.concatenate(codes), np.concatenate(weights))
        while len(self._code) > self._limit and self._dropped < _BITS - 1:
            self._dropped += 1
            self._sum(self._code >> self._dropped << self._dropped, self._weight)

    def _sum(self, code: Ints, weight: Doubles) -> None:
        self._code, index = np.unique(code, return_inverse=True)
        sums = [_sums(index, column, len(self._code)) for column in weight.T]
        self._weight = np.stack(sums, axis=1)

    def auc(self, groups: int) -> tuple[Doubles, Doubles]:
        """Return the area and a bound of its error (groups,); NaN without rows of both kinds."""
        self._merge()
        group = self._code >> _BITS
        negative, positive = self._weight.T
        sums = [_sums(group, values, groups) for values in (negative, positive)]
        start = np.searchsorted(group, np.arange(groups))
        below = np.cumsum(negative) - negative
        below -= np.append(below, 0)[start][group]
        with np.errstate(invalid="ignore", divide="ignore"):
            pairs = sums[0] * sums[1]
            pairs[pairs == 0] = np.nan
            ties = _sums(group, positive * negative / 2, groups) / pairs
            area = _sums(group, positive * below, groups) / pairs + ties
        return area, ties if self._dropped else np.where(np.isnan(area), np.nan, 0.0)


def _sums(group: Ints, values: Doubles, groups: int) -> Doubles:
    """Return sums (groups,), also of no values, for which NumPy counts in integers."""
    return np.bincount(group, values, groups).astype(np.float64)


def _in_order(score: Floats) -> Ints:
    """Return integers from 0 to below 2**32 in the order of float32 numbers."""
    bits = (score.astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return ordered.astype(np.int64)
