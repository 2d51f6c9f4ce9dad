"""Scores and labels are matched by stream and time, in order, wherever they are cut."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamrnn.base.arrays import Ints
from streamrnn.jobs.evaluation import matching
from streamrnn.jobs.evaluation.matching import LabelledRows, Matcher, ScoreRows

STREAMS = st.lists(
    st.lists(st.integers(0, 2), max_size=8).map(lambda steps: np.cumsum(steps).tolist()),
    min_size=1,
    max_size=4,
)


def score_rows(rows: list[tuple[int, int, int]]) -> ScoreRows:
    slot, time, number = (np.array(c, np.int64) for c in (*zip(*rows, strict=True),))
    return ScoreRows(slot, time, number[:, None].astype(np.float32), np.zeros_like(slot))


def labelled(rows: list[tuple[int, int, int]]) -> LabelledRows:
    slot, time, number = (np.array(c, np.int64) for c in (*zip(*rows, strict=True),))
    value = number[:, None].astype(np.float64)
    return LabelledRows(slot, time, value, value, value, np.ones(len(rows)))


@settings(max_examples=300, deadline=None)
@given(streams=STREAMS, data=st.data())
def test_each_score_meets_the_row_that_it_was_made_of(
    streams: list[list[int]], data: st.DataObject
) -> None:
    """Of any order of streams on both sides, cut anywhere, with rows that have no score, and rows
    of streams or before a time that are in one of the two only. Equal times are taken in order."""
    source = [(s, t, 100 * s + i) for s, times in enumerate(streams) for i, t in enumerate(times)]
    begin = data.draw(st.integers(0, 3), "the scores begin at this time")
    gone = data.draw(st.integers(0, 3), "the source begins at this time")
    scored = [row for row in source if row[1] >= begin]
    expected = {n: n for s, t, n in scored if t >= gone}
    source = [row for row in source if row[1] >= gone]
    sides = []
    for rows in (scored, source):
        order = data.draw(st.permutations([row[0] for row in rows]), "the order of streams")
        queues = defaultdict(list)
        for row in rows:
            queues[row[0]].append(row)
        sides.append([queues[slot].pop(0) for slot in order])
    scored, source = sides
    matcher, found = Matcher(), {}
    while scored or source:
        left = data.draw(st.booleans(), "scores next") if scored and source else bool(scored)
        size = data.draw(st.integers(1, 5), "rows")
        if left:
            matcher.add_scores(score_rows(scored[:size]))
            del scored[:size]
        else:
            matcher.add_labels(labelled(source[:size]))
            del source[:size]
        pairs = matcher.match(scores_ended=not scored, labels_ended=not source)
        if pairs is not None:
            scores, labels = pairs
            assert (scores.slot == labels.slot).all()
            assert (scores.time == labels.time).all()
            numbers = zip(scores.score[:, 0].tolist(), labels.label[:, 0].tolist(), strict=True)
            found |= {int(a): int(b) for a, b in numbers}
    assert found == expected
    assert matcher.missing == sum(len(t) for t in streams) - _before(streams, begin) - len(expected)
    assert matcher.waiting_scores == matcher.waiting_labels == 0


def _before(streams: list[list[int]], time: int) -> int:
    return sum(t < time for times in streams for t in times)


def test_nothing_waits_if_both_come_in_one_order() -> None:
    """But for what one side is ahead."""
    matcher = Matcher()
    rows = [(i % 7, i // 7, i) for i in range(7000)]
    for first in range(0, 7000, 100):
        matcher.add_scores(score_rows(rows[first : first + 100]))
        if first >= 200:
            matcher.add_labels(labelled(rows[first - 200 : first - 100]))
            matcher.match(scores_ended=False, labels_ended=False)
            assert matcher.waiting_scores == 200
            assert matcher.waiting_labels == 0


def test_rows_in_another_order_are_not_sorted_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of shards: all rows of stream 0 first."""
    sorted_rows = 0
    pairs = matching._pairs

    def counted(scores: ScoreRows, labels: LabelledRows) -> tuple[Ints, Ints]:
        nonlocal sorted_rows
        sorted_rows += len(scores.slot) + len(labels.slot)
        return pairs(scores, labels)

    monkeypatch.setattr(matching, "_pairs", counted)
    matcher, found = Matcher(), 0
    rows = [(i % 7, i // 7, i) for i in range(7000)]
    scored = sorted(rows)
    for first in range(0, 7000, 50):
        matcher.add_scores(score_rows(scored[first : first + 50]))
        matcher.add_labels(labelled(rows[first : first + 50]))
        ended = first == 6950
        matched = matcher.match(scores_ended=ended, labels_ended=ended)
        found += 0 if matched is None else len(matched[0].slot)
    assert found == 7000
    assert sorted_rows < 8 * 7000


def test_rows_of_a_source_without_scores_do_not_wait_behind_a_match() -> None:
    """One of five is scored, as with emit = "last"."""
    matcher = Matcher()
    for first in range(0, 5000, 50):
        rows = [(0, i, i) for i in range(first, first + 50)]
        matcher.add_labels(labelled(rows))
        matcher.add_scores(score_rows(rows[4::5]))
        pairs = matcher.match(scores_ended=False, labels_ended=False)
        assert pairs is not None
        assert len(pairs[0].slot) == 10
        assert matcher.waiting_labels == matcher.waiting_scores == 0
    assert matcher.missing == 0
