"""The labels of a source that was scored, for a comparison with its scores."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from streamrnn.base.arrays import Ints
from streamrnn.stream.scoring.scorer import Scorer
from streamrnn.stream.scoring.targets import BoundTarget, LabelReader
from streamrnn.stream.sources import SourceBatch
from streamrnn.stream.windows import Labels, SeasonalLabels, with_seasons


class SourceLabels:
    """The labels of successive rows of a source; rows that get no score are left out.

    `scorer` sorts the rows, and computes nothing.
    """

    def __init__(self, scorer: Scorer, batches: Iterator[SourceBatch], target: BoundTarget) -> None:
        self._scorer = scorer
        self._batches = batches
        self._reader = LabelReader(target)
        self._season = target.season

    def __iter__(self) -> Iterator[SeasonalLabels]:
        return with_seasons(self._labels(), self._season)

    def _labels(self) -> Iterator[Labels]:
        contract = self._scorer.bound.loaded.contract
        for batch in self._batches:
            rows = contract.read(batch.batch, batch.origin)
            yield self._reader.add(rows, self._scorer.sort(rows))
        if (rest := self._reader.finish()) is not None:
            yield rest

    def find(self, keys: Sequence[pa.Array]) -> Ints:
        """Return the slot (N,) of each of N keys; new ones are added."""
        return self._scorer.table.find(keys, room=False)

    def key_arrays(self) -> list[pa.Array]:
        """Return the key columns, one value per slot."""
        return self._scorer.table.key_arrays()
