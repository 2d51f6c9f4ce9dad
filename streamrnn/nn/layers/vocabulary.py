"""The vocabulary of a lookup: read from a file, or learned from data as Keras learns it."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import numpy as np

from streamrnn.errors import ArgumentError, MissingFileError

Token = str | int

_EXACT = Context(prec=40)


def read_vocabulary(owner: object, path: str) -> list[str]:
    """Return the lines of a text file. Raises MissingFileError, ArgumentError."""
    file = Path(path)
    if not file.is_file():
        raise MissingFileError(f"{owner}: no vocabulary file {path!r}; give a list of tokens")
    try:
        lines = file.read_text("utf-8").split("\n")
    except UnicodeDecodeError:
        raise ArgumentError(f"{owner}: the vocabulary file {path!r} is not UTF-8 text") from None
    return lines[:-1] if lines and not lines[-1] else lines


class Counts:
    """How often each token occurs, and in how many rows (documents)."""

    def __init__(self) -> None:
        self.tokens: Counter[Token] = Counter()
        self.documents: Counter[Token] = Counter()
        self.rows = 0

    def add(self, batch: Any, token: Callable[[Any], Token]) -> None:
        """Count a batch: an array, or nested lists whose rows may differ in length."""
        for row in _rows(batch):
            tokens = [token(value) for value in row]
            self.tokens.update(tokens)
            self.documents.update(set(tokens))
            self.rows += 1

    def learned(self, without: Iterable[Token | None], most: int | None) -> list[Token]:
        """Return the tokens, most frequent first; equally frequent ones from the greatest down."""
        left = {token: n for token, n in self.tokens.items() if token not in set(without)}
        tokens = sorted(left, key=lambda token: (left[token], token), reverse=True)
        return tokens if most is None else tokens[: max(most, 0)]

    def weights(self, tokens: Sequence[Token]) -> list[float]:
        """Return log(1 + rows / (1 + rows with the token)) of each token, equal on any machine."""
        return [
            float(_EXACT.ln(1 + _EXACT.divide(Decimal(self.rows), 1 + self.documents[token])))
            for token in tokens
        ]


def _rows(batch: Any) -> list[list[Any]]:
    if isinstance(batch, list | tuple) and batch and isinstance(batch[0], list | tuple):
        return [np.asarray(row, dtype=object).reshape(-1).tolist() for row in batch]
    array = np.asarray(batch)
    if array.ndim < 2:
        array = array.reshape(1, -1)
    return [row.reshape(-1).tolist() for row in array]


def token_batches(data: Any, steps: int | None) -> Iterable[Any]:
    """Yield what `adapt` reads: one array or list (if flat, each value is a row), or batches.

    Raises ArgumentError for other data.
    """
    if isinstance(data, list | tuple) and data and isinstance(data[0], list | tuple):
        yield data
    elif isinstance(data, np.ndarray | list | tuple):
        array = np.asarray(data)
        yield array.reshape(-1, 1) if array.ndim == 1 else array
    elif isinstance(data, Iterable) and not isinstance(data, str | bytes):
        for number, batch in enumerate(data):
            if steps is not None and number >= steps:
                return
            yield batch
    else:
        raise ArgumentError(f"adapt: expected arrays of tokens, or batches, received {data!r:.80}")
