"""Automatic names, counted as in Keras: lstm, lstm_1, lstm_2, but input_1, input_2."""

import re
from collections import Counter
from contextlib import AbstractContextManager
from contextvars import ContextVar

from streamrnn.nn.layers.context import set_inside

_session: Counter[str] = Counter()
_inside: ContextVar[Counter[str] | None] = ContextVar("names_inside", default=None)


def snake_case(class_name: str) -> str:
    """Return Keras's name for a class: SimpleRNN -> simple_rnn, Conv1D -> conv1d."""
    split = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", class_name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", split).lower()


def unique(prefix: str, *, first: int = 0) -> str:
    """Return the next free name with this prefix, numbered from `first`; 0 is not shown."""
    inside = _inside.get()
    used = _session if inside is None else inside
    number = used[prefix] + first
    used[prefix] += 1
    return f"{prefix}_{number}" if number else prefix


def clear_session() -> None:
    """Reset the counters of automatic names. Existing layers and models keep their names."""
    _session.clear()


def counted_from_the_start() -> AbstractContextManager[None]:
    """Count automatic names in this block from the start, as a new process does.

    Names are part of a model's fingerprint, so in a model that a file describes they must not
    depend on earlier layers of the process.
    """
    return set_inside(_inside, Counter())
