"""StringLookup and IntegerLookup, which turn the tokens of a vocabulary into ids or vectors.

Ids are as in Keras: 0 is the mask token, if there is one and output_mode is "int"; then come the
ids for unknown tokens, then the vocabulary's tokens in their order.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY
from decimal import Context, Decimal
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from streamrnn.base.arrays import Array, Floats
from streamrnn.errors import ArgumentError, DataError, MissingFileError, UnsupportedError
from streamrnn.nn.layers.arguments import first_outside
from streamrnn.nn.layers.context import CallContext
from streamrnn.nn.layers.declared import Accepted, Argument, declared
from streamrnn.nn.layers.embedding import Encoder, encode_ids
from streamrnn.nn.layers.registry import ConfigDict, builtin_layer
from streamrnn.nn.layers.symbol import symbols_in

Token = str | int

_EXACT = Context(prec=40)
_MODES = ("int", "one_hot", "multi_hot", "count", "tf_idf")


@declared
class _Lookup(Encoder):
    """The arguments of both layers.

    vocabulary: a list of tokens, or the path of a text file with one token per line; None: `adapt`
    learns it. output_mode: int for ids; one_hot, multi_hot or count for vectors as in
    CategoryEncoding; tf_idf for counts times `idf_weights`. max_tokens: the largest number of ids
    that `adapt` makes; with pad_to_max_tokens, also the size of vectors. invert: turn ids into
    tokens; works on arrays, not in a model.
    """

    stepwise = True
    default_oov: ClassVar[Token]

    _: KW_ONLY
    max_tokens: int | None = None
    num_oov_indices: int = 1
    mask_token: Token | None = None
    oov_token: Token | None = None
    vocabulary: Argument[Sequence[Token] | str | None, list[Token]] = Argument(default=None)
    idf_weights: Argument[Sequence[float] | None, list[float] | None] = Argument(default=None)
    invert: bool = False
    output_mode: str = "int"
    pad_to_max_tokens: bool = False
    oov_method: Accepted = Accepted("floormod")
    salt: Accepted = Accepted(None)

    def complete(self) -> None:
        super().complete()
        if self.oov_token is None:
            self.oov_token = self.default_oov
        if self.output_mode not in _MODES:
            raise ArgumentError(
                f"{self}: output_mode must be one of {', '.join(_MODES)}, received "
                f"{self.output_mode!r}"
            )
        if self.invert and self.output_mode != "int":
            raise ArgumentError(f'{self}: invert=True needs output_mode="int"')
        if self.max_tokens is not None and self.max_tokens < 2:
            raise ArgumentError(f"{self}: max_tokens must be 2 or more, received {self.max_tokens}")
        if self.pad_to_max_tokens and self.max_tokens is None:
            raise ArgumentError(f"{self}: pad_to_max_tokens=True needs max_tokens")
        if self.num_oov_indices < 0:
            raise ArgumentError(
                f"{self}: num_oov_indices must be 0 or more, received {self.num_oov_indices}"
            )
        if self.oov_method != "floormod" or self.salt is not None:
            raise ArgumentError(
                f"{self}: oov_method={self.oov_method!r}, salt={self.salt!r}: TensorFlow's hashes "
                "are not reproduced here; leave both arguments out"
            )
        if self.invert:
            self.input_dtype = "int64"
        vocabulary: Any = self.vocabulary
        idf_weights, self.idf_weights = self.idf_weights, None
        self._adapts, self.vocabulary = True, []
        if vocabulary is not None:
            self.set_vocabulary(vocabulary, idf_weights)

    # ---- the vocabulary

    @property
    def _first_oov(self) -> int:
        return 0 if self.mask_token is None or self.output_mode != "int" else 1

    @property
    def _first_token(self) -> int:
        return self._first_oov + self.num_oov_indices

    def set_vocabulary(
        self, vocabulary: Sequence[Token] | str, idf_weights: Sequence[float] | None = None
    ) -> None:
        """Replace the vocabulary, and for output_mode="tf_idf" the weights of its tokens."""
        words = _read_vocabulary(self, vocabulary) if isinstance(vocabulary, str) else vocabulary
        tokens = self._tokens(words)
        if (idf_weights is None) != (self.output_mode != "tf_idf"):
            raise ArgumentError(
                f'{self}: output_mode="tf_idf" needs idf_weights, and no other mode takes them, '
                f"received output_mode={self.output_mode!r}, idf_weights={idf_weights!r:.60}"
            )
        if idf_weights is not None:
            self.idf_weights = self._padded_weights(list(idf_weights), len(words), tokens)
        self._install(tokens)
        self._adapts = False

    def _padded_weights(
        self, idf_weights: list[float], count: int, tokens: list[Token]
    ) -> list[float]:
        """Return a weight for each id: special tokens without a weight get the mean weight."""
        if len(idf_weights) != count:
            raise ArgumentError(
                f"{self}: expected {count} idf_weights, one for each token of the vocabulary, "
                f"received {len(idf_weights)}"
            )
        weights = [float(weight) for weight in idf_weights]
        front = self._first_token + len(tokens) - count
        return [sum(weights) / len(weights)] * front + weights if weights else []

    def _install(self, tokens: list[Token]) -> None:
        self.vocabulary = tokens
        first = self._first_token
        self._index = {token: first + i for i, token in enumerate(tokens)}
        if self.mask_token is not None:
            self._index[self.mask_token] = 0 if self.output_mode == "int" else _NO_NUMBER

    def _tokens(self, vocabulary: object) -> list[Token]:
        """Return the vocabulary without the special tokens that may precede it."""
        if not isinstance(vocabulary, list | tuple | np.ndarray):
            raise ArgumentError(
                f"{self}: expected vocabulary=, a list of tokens, received {vocabulary!r:.80}"
            )
        tokens = [self._token(token) for token in vocabulary]
        special = [self.mask_token] * self._first_oov + [self.oov_token] * self.num_oov_indices
        if special and tokens[: len(special)] == special:
            tokens = tokens[len(special) :]
        if len(set(tokens)) < len(tokens):
            twice = next(token for i, token in enumerate(tokens) if token in tokens[:i])
            raise ArgumentError(f"{self}: {twice!r} is in the vocabulary more than once")
        for token in (self.mask_token, self.oov_token):
            if token in tokens:
                raise ArgumentError(
                    f"{self}: the special token {token!r} is in the vocabulary; remove it, or put "
                    "all special tokens first"
                )
        return tokens

    def _token(self, token: Any) -> Token:
        raise NotImplementedError

    def adapt(self, data: Any, steps: int | None = None) -> None:
        """Learn the vocabulary: the most frequent tokens, at most max_tokens with special tokens.

        data: an array or list of tokens, a list of lists, or an iterable of such batches, of which
        the first `steps` are read (None: all). Each call starts over. Raises ArgumentError if a
        vocabulary was passed.
        """
        if not self._adapts:
            raise ArgumentError(
                f"{self}: its vocabulary was passed; make the layer without one to adapt it"
            )
        counts: Counter[Token] = Counter()
        rows_with: Counter[Token] = Counter()
        rows = 0
        for row in _rows(data, steps):
            rows += 1
            tokens = [self._token(value) for value in row]
            counts.update(tokens)
            rows_with.update(set(tokens))
        special = {self.mask_token, self.oov_token}
        # The most frequent first; equally frequent ones from the greatest down.
        ranked = sorted((n, token) for token, n in counts.items() if token not in special)[::-1]
        learned = [token for _, token in ranked]
        if self.max_tokens is not None:
            learned = learned[: max(self.max_tokens - self._first_token, 0)]
        # log(1 + rows / (1 + rows with the token)), equal on any machine
        if self.output_mode == "tf_idf":
            shares = [_EXACT.divide(Decimal(rows), 1 + rows_with[token]) for token in learned]
            weights = [float(_EXACT.ln(1 + share)) for share in shares]
            self.idf_weights = self._padded_weights(weights, len(learned), learned)
        self._install(learned)

    def get_vocabulary(self, include_special_tokens: bool = True) -> list[Token]:
        """Return the tokens in the order of their ids, with or without the special tokens."""
        special = [self.mask_token] * self._first_oov + [self.oov_token] * self.num_oov_indices
        return [*(special if include_special_tokens else ()), *self.vocabulary]

    def vocabulary_size(self) -> int:
        """Return the number of ids, special tokens included: an Embedding's input_dim."""
        return self._first_token + len(self.vocabulary)

    # ---- the call

    def _size(self) -> int:
        self._require_vocabulary()
        size = self.vocabulary_size()
        return max(size, self.max_tokens or 0) if self.pad_to_max_tokens else size

    def _require_vocabulary(self) -> None:
        if not self.vocabulary:
            raise ArgumentError(f"{self}: it has no vocabulary; call adapt(data) first")

    def connect(self, inputs: Any, **kwargs: Any) -> Any:
        if self.invert:
            raise ArgumentError(f"{self}: invert=True returns tokens; call the layer on arrays")
        return super().connect(inputs, **kwargs)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Look up tokens; see Layer. For vectors, the input may be one sample without a batch."""
        symbolic = bool(symbols_in(inputs))
        if symbolic or (not self.invert and (np.ndim(inputs) > 1 or not self._joins)):
            return super().__call__(inputs, *args, **kwargs)
        values = self._cast(inputs)
        if self.invert:
            return self._tokens_of(values)
        return self._vectors(self._numbers(np.atleast_1d(values), CallContext()), joins=True)

    def apply(self, inputs: Array, context: CallContext) -> Array:
        if self.invert:
            return self._tokens_of(inputs)
        numbers = self._numbers(inputs, context)
        return numbers if self.output_mode == "int" else self._vectors(numbers, joins=self._joins)

    def _numbers(self, inputs: Array, context: CallContext) -> Array:
        self._require_vocabulary()
        index, tokens = self._index, inputs.reshape(-1).tolist()
        numbers = np.array([index.get(token, _UNKNOWN) for token in tokens], np.int64)
        numbers = numbers.reshape(inputs.shape)
        unknown = numbers == _UNKNOWN
        if self.num_oov_indices == 0:
            if (place := first_outside(unknown, 1, context.lengths)) is not None:
                raise DataError(
                    f"{self}: {inputs.item(place)!r} is not in the vocabulary, and "
                    "num_oov_indices=0 leaves no id for it"
                )
            numbers[unknown] = 0  # past the end of their rows
        elif self.num_oov_indices == 1:
            numbers[unknown] = self._first_oov
        else:  # only with integers
            integers = inputs[unknown].astype(np.int64)
            numbers[unknown] = self._first_oov + integers % self.num_oov_indices
        return numbers

    def _vectors(self, numbers: Array, *, joins: bool) -> Floats:
        mode = "count" if self.output_mode == "tf_idf" else self.output_mode
        encoded = encode_ids(numbers, self._size(), mode, joins=joins)
        if self.idf_weights is None:
            return encoded
        return encoded * self.weights_by_number(self.idf_weights)

    def weights_by_number(self, idf_weights: list[float]) -> Floats:
        """Return the weights as an array with the size of vectors."""
        weights = np.zeros(self._size(), np.float32)
        weights[: len(idf_weights)] = idf_weights
        return weights

    def _tokens_of(self, numbers: Array) -> Array:
        self._require_vocabulary()
        names, flat = self.get_vocabulary(), numbers.reshape(-1).tolist()
        tokens = [names[i] if 0 <= i < len(names) else self.oov_token for i in flat]
        return np.array(tokens).reshape(numbers.shape)

    # ---- config

    def get_config(self) -> ConfigDict:
        config = super().get_config()
        weighted = self.idf_weights is not None  # with a weight for each special token
        config["vocabulary"] = self.get_vocabulary() if weighted else self.vocabulary or None
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        if isinstance(config.get("vocabulary"), str):
            raise UnsupportedError(
                f"layer {config.get('name')!r} ({cls.__name__}): its config names the vocabulary "
                f"file {config['vocabulary']!r}, and no file is read for a config; put the tokens "
                "into the config"
            )
        return super().from_config(config)


_UNKNOWN, _NO_NUMBER = -2, -1


@builtin_layer
class StringLookup(_Lookup):
    """Strings -> int64 ids of the same shape, or vectors.

    All strings outside the vocabulary get the same id; with num_oov_indices=0, they raise
    DataError. num_oov_indices > 1, with which Keras spreads unknown strings by a hash, is refused.
    """

    input_dtype = "string"
    default_oov = "[UNK]"

    _: KW_ONLY
    oov_token: Token | None = "[UNK]"
    encoding: Accepted = Accepted("utf-8")
    after: ClassVar = {"encoding": "pad_to_max_tokens"}

    def complete(self) -> None:
        super().complete()
        if self.num_oov_indices > 1:
            raise ArgumentError(
                f"{self}: num_oov_indices={self.num_oov_indices} spreads unknown strings by "
                "TensorFlow's hash, which is not reproduced here; use 1 or 0"
            )

    def _token(self, token: Any) -> str:
        return token.decode() if isinstance(token, bytes) else str(token)

    def _cast(self, x: object) -> Array:
        array = super()._cast(x)
        return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array


@builtin_layer
class IntegerLookup(_Lookup):
    """Integers -> int64 ids of the same shape, or vectors.

    An integer outside the vocabulary gets one of the num_oov_indices ids for unknown integers,
    chosen by the integer modulo num_oov_indices; with num_oov_indices=0, it raises DataError.
    """

    input_dtype = "int64"
    default_oov = -1

    _: KW_ONLY
    oov_token: Token | None = -1
    vocabulary_dtype: Accepted = Accepted("int64")
    after: ClassVar = {"vocabulary_dtype": "vocabulary"}

    def complete(self) -> None:
        super().complete()
        if self.vocabulary_dtype != "int64":
            raise ArgumentError(
                f"{self}: vocabulary_dtype must be 'int64', received {self.vocabulary_dtype!r}"
            )

    def _token(self, token: Any) -> int:
        return int(token)


# ---- vocabularies: read from a file, or learned from data as Keras learns them


def _read_vocabulary(owner: object, path: str) -> list[str]:
    """Return the lines of a text file. Raises MissingFileError, ArgumentError."""
    file = Path(path)
    if not file.is_file():
        raise MissingFileError(
            f"{owner}: the vocabulary file {path!r} does not exist; give a list of tokens"
        )
    try:
        lines = file.read_text("utf-8").split("\n")
    except UnicodeDecodeError:
        raise ArgumentError(
            f"{owner}: the vocabulary file {path!r} is not UTF-8 text; save it as UTF-8"
        ) from None
    return lines[:-1] if lines and not lines[-1] else lines


def _rows(data: Any, steps: int | None) -> Iterator[list[Any]]:
    """Yield the rows that `adapt` reads from one array or list, or from the first `steps` batches.

    Each value of a flat array or list is a row; a flat batch is one row. Raises ArgumentError for
    other data.
    """
    batches: Iterable[Any]
    rows: Iterable[Array]
    if isinstance(data, list | tuple) and data and isinstance(data[0], list | tuple):
        batches = [data]
    elif isinstance(data, np.ndarray | list | tuple):
        array = np.asarray(data)
        batches = [array.reshape(-1, 1) if array.ndim == 1 else array]
    elif isinstance(data, Iterable) and not isinstance(data, str | bytes):
        batches = islice(data, steps)
    else:
        raise ArgumentError(
            f"adapt: expected an array of tokens, or batches of them, received {data!r:.80}"
        )
    for batch in batches:
        if isinstance(batch, list | tuple) and batch and isinstance(batch[0], list | tuple):
            rows = [np.asarray(row, dtype=object) for row in batch]  # of different lengths
        else:
            array = np.asarray(batch)
            rows = array if array.ndim > 1 else array.reshape(1, -1)
        for row in rows:
            yield row.reshape(-1).tolist()
