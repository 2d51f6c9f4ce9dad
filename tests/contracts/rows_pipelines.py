"""Rows of contracts for kinds of window and emit modes."""

from dataclasses import dataclass, field
from typing import Any

from contracts.declared import HOLDS, Contract, Row

Scored = list[tuple[int, list[float] | None, int]]
"""What rowwise.score says: the index of a row, its value or None, its step (0: skipped)."""


@dataclass(frozen=True)
class KindRow(Row):
    """window: what [window] says beside the kind, which changes the result. model: options of its
    recurrent layer. decoded: how many steps a decoder makes of its output; 0: there is none.

    config: the pipeline file takes its name. oracle: rows and values are those of rowwise.py, of
    windows of `steps` rows (None: of all of a stream), or what a function makes of them. cut:
    record batches, lanes, threads and commits change no bit of output or states. runs: nor does
    the place where one run ends and the next begins. apart: what a stream does changes no bit of
    another.
    """

    window: dict[str, int] = field(default_factory=dict)
    steps: tuple[int, int] | None = None
    model: dict[str, Any] = field(default_factory=dict)
    decoded: int = 0
    config: Contract = HOLDS
    oracle: Contract = HOLDS
    cut: Contract = HOLDS
    runs: Contract = HOLDS
    apart: Contract = HOLDS


def ends(scored: Scored, ids: list[Any]) -> Scored:
    """A value at the end of each sequence alone: where the stream's next step is a first one."""
    following: dict[Any, int] = {}
    found = []
    for index, value, step in reversed(scored):
        at_end = following.get(ids[index], 1) == 1
        found.append((index, value if at_end else None, step))
        following[ids[index]] = step or following.get(ids[index], 1)
    return found[::-1]


OF_KERAS = "Keras is its oracle, in tests/jobs/pipeline/test_output_steps_oracle.py."
ONE_RUN = "A stream is one sequence, so that one run has to see all of it."

KINDS = {
    "carry": KindRow(),
    "independent": KindRow({"steps": 6, "stride": 4}, (6, 4)),
    "independent/gaps": KindRow({"steps": 2, "stride": 5}, (2, 5)),
    "independent/decoder": KindRow({"steps": 6, "stride": 4}, (6, 4), decoded=3, oracle=OF_KERAS),
    "whole": KindRow(model={"return_sequences": True}, runs=ONE_RUN),
    "whole/ends": KindRow(oracle=ends, runs=ONE_RUN),
    "whole/decoder": KindRow(decoded=3, oracle=OF_KERAS, runs=ONE_RUN),
}


@dataclass(frozen=True)
class EmitRow(Row):
    """output: what [output] says beside emit. last_of: whether it has that key, and its value.

    oracle(scored, ids, last_of): the rows that come out, of all that rowwise.py has scored, with
    the stream of each. config, cut, runs, apart: as for kinds.
    """

    oracle: Contract
    last_of: int | None = None
    config: Contract = HOLDS
    cut: Contract = HOLDS
    runs: Contract = HOLDS
    apart: Contract = HOLDS


def every(scored: Scored, ids: list[Any], last_of: int | None) -> Scored:
    return scored


def last(scored: Scored, ids: list[Any], last_of: int | None) -> Scored:
    """Every last_of-th step of a stream, with or without a value; else the ends of windows."""
    if last_of is None:
        return [each for each in scored if each[1] is not None]
    return [each for each in scored if each[2] and each[2] % last_of == 0]


def final(scored: Scored, ids: list[Any], last_of: int | None) -> Scored:
    """The last row of each stream that has a value, else its last row, in the order of the log."""
    found: dict[Any, tuple[int, list[float] | None, int]] = {}
    for each in scored:
        if each[1] is not None or found.get(ids[each[0]], each)[1] is None:
            found[ids[each[0]]] = each
    return sorted(found.values(), key=lambda each: each[0])


EMITS = {
    "every": EmitRow(every),
    "last": EmitRow(last, last_of=3),
    "final": EmitRow(final, runs="Each run gives the final rows of what it has read."),
}
