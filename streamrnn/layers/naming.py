"""Automatic names, counted as in Keras: lstm, lstm_1, lstm_2, but input_1, input_2."""

import re
from collections import Counter

_used: Counter[str] = Counter()


def snake_case(class_name: str) -> str:
    """Return Keras's name for a class: SimpleRNN -> simple_rnn, Conv1D -> conv1d."""
    split = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", class_name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", split).lower()


def unique(prefix: str, *, first: int = 0) -> str:
    """Return the next free name of this prefix; the one numbered 0 has no number."""
    number = _used[prefix] + first
    _used[prefix] += 1
    return f"{prefix}_{number}" if number else prefix


def clear_session() -> None:
    """Reset the counters of automatic names. Existing layers and models keep theirs."""
    _used.clear()
