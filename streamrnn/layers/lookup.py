"""StringLookup and IntegerLookup: the number of a token in a vocabulary.

Numbers as in Keras: 0 is the mask token, if there is one; next are the numbers of tokens out of the
vocabulary, then those of the vocabulary in its order.
"""

from collections.abc import Sequence
from typing import ClassVar, Unpack

import numpy as np

from streamrnn.arrays import Array
from streamrnn.errors import ArgumentError, DataError, DTypeError
from streamrnn.layers.arguments import LayerOptions
from streamrnn.layers.casts import cast_ids
from streamrnn.layers.context import CallContext
from streamrnn.layers.layer import Layer
from streamrnn.layers.registry import ConfigDict, builtin_layer

Token = str | int


class _Lookup(Layer):
    stepwise = True
    supports_masking = False
    default_oov: ClassVar[Token]

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: Token | None = None,
        oov_token: Token | None = None,
        vocabulary: Sequence[Token] | None = None,
        invert: bool = False,
        output_mode: str = "int",
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(**kwargs)
        if output_mode != "int":
            raise ArgumentError(
                f'{self}: only output_mode="int" is supported, received {output_mode!r}; put a '
                "CategoryEncoding after it"
            )
        if invert:
            raise ArgumentError(f"{self}: invert=True is not supported: outputs are numbers")
        self.max_tokens = max_tokens
        self.num_oov_indices = num_oov_indices
        self.mask_token = mask_token
        self.oov_token = self.default_oov if oov_token is None else oov_token
        self.vocabulary = self._tokens(vocabulary)
        first = self._first_oov + num_oov_indices
        self._index = {token: first + i for i, token in enumerate(self.vocabulary)}
        if mask_token is not None:
            self._index[mask_token] = 0

    @property
    def _first_oov(self) -> int:
        return 0 if self.mask_token is None else 1

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
            raise ArgumentError(f"{self}: {twice!r} is in the vocabulary twice")
        for token in (self.mask_token, self.oov_token):
            if token in tokens:
                raise ArgumentError(f"{self}: the special token {token!r} is in the vocabulary")
        return tokens

    def _token(self, token: Token | bytes) -> Token:
        raise NotImplementedError

    def _out_of_vocabulary(self, token: Token) -> int:
        raise NotImplementedError

    def apply(self, inputs: Array, context: CallContext) -> Array:
        tokens = inputs.reshape(-1).tolist()
        found = np.array([self._index.get(token, -1) for token in tokens], np.int64)
        unknown = np.flatnonzero(found < 0)
        if self.num_oov_indices == 0 and len(unknown):
            self._refuse(tokens, unknown, inputs.shape, context)
            found[unknown] = 0  # past the end of their rows
        else:
            for i in unknown.tolist():
                found[i] = self._first_oov + self._out_of_vocabulary(tokens[i])
        return found.reshape(inputs.shape)

    def _refuse(
        self, tokens: list[Token], unknown: Array, shape: tuple[int, ...], context: CallContext
    ) -> None:
        if context.lengths is not None:
            row, step = np.divmod(unknown, shape[1])
            unknown = unknown[step < context.lengths[row]]
        if len(unknown):
            raise DataError(
                f"{self}: {tokens[int(unknown[0])]!r} is not in the vocabulary, and "
                "num_oov_indices=0 leaves no number for it"
            )

    def vocabulary_size(self) -> int:
        """Return how many numbers there are, special ones included: an Embedding's input_dim."""
        return self._first_oov + self.num_oov_indices + len(self.vocabulary)

    def get_config(self) -> ConfigDict:
        return {
            **super().get_config(),
            "max_tokens": self.max_tokens,
            "num_oov_indices": self.num_oov_indices,
            "mask_token": self.mask_token,
            "oov_token": self.oov_token,
            "vocabulary": self.vocabulary,
        }


@builtin_layer
class StringLookup(_Lookup):
    """Strings -> int64 numbers of the same shape.

    All strings out of the vocabulary get one number. num_oov_indices > 1, with which Keras spreads
    them by a hash, is refused. Raises DataError for them with num_oov_indices=0.
    """

    input_dtype = "string"
    default_oov = "[UNK]"

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: str | None = None,
        oov_token: str | None = "[UNK]",
        vocabulary: Sequence[str] | None = None,
        invert: bool = False,
        output_mode: str = "int",
        encoding: str = "utf-8",
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            max_tokens,
            num_oov_indices,
            mask_token,
            oov_token,
            vocabulary,
            invert,
            output_mode,
            **kwargs,
        )
        if self.num_oov_indices > 1:
            raise ArgumentError(
                f"{self}: num_oov_indices={self.num_oov_indices} spreads unknown strings by "
                "TensorFlow's hash, which is not reproduced here; use 1 or 0"
            )
        self.encoding = encoding

    def _token(self, token: Token | bytes) -> str:
        return token.decode() if isinstance(token, bytes) else str(token)

    def _out_of_vocabulary(self, token: Token) -> int:
        return 0

    def _cast(self, x: object) -> Array:
        array = np.asarray(x)
        if array.dtype.kind not in "USOT":
            raise DTypeError(f"{self}: expected strings, received {array.dtype}")
        return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array


@builtin_layer
class IntegerLookup(_Lookup):
    """Integers -> int64 numbers of the same shape.

    An integer out of the vocabulary gets number (integer modulo num_oov_indices) among those.
    Raises DataError for it with num_oov_indices=0.
    """

    input_dtype = "int64"
    default_oov = -1

    def __init__(
        self,
        max_tokens: int | None = None,
        num_oov_indices: int = 1,
        mask_token: int | None = None,
        oov_token: int | None = -1,
        vocabulary: Sequence[int] | None = None,
        invert: bool = False,
        output_mode: str = "int",
        vocabulary_dtype: str = "int64",
        **kwargs: Unpack[LayerOptions],
    ) -> None:
        super().__init__(
            max_tokens,
            num_oov_indices,
            mask_token,
            oov_token,
            vocabulary,
            invert,
            output_mode,
            **kwargs,
        )
        self.vocabulary_dtype = vocabulary_dtype

    def _token(self, token: Token | bytes) -> int:
        return int(token)

    def _out_of_vocabulary(self, token: Token) -> int:
        return int(token) % self.num_oov_indices

    def _cast(self, x: object) -> Array:
        return cast_ids(str(self), x)
