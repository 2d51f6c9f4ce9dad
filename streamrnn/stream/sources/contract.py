"""The contract of rows (key, time, features, reset), and the rows that violate it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Bools, Floats, Ints
from streamrnn.errors import DTypeError
from streamrnn.nn.kernels.rows import PlainColumns
from streamrnn.stream.sources.casts import has_equality, is_number, is_text, named_values, nulls_of
from streamrnn.stream.sources.columns import (
    Faults,
    PlainFloats,
    check_ids,
    float32_limits,
    limit,
    to_float32,
    to_identifiers,
)
from streamrnn.stream.sources.position import Origin
from streamrnn.stream.sources.times import MOST_TICKS, sine_and_cosine, ticks, with_clock
from streamrnn.stream.sources.vocabulary import UNKNOWN_IN, LookedUp, Vocabulary

_TIMES = {pa.int32(): 4, pa.date32(): 4, pa.int64(): 8, pa.date64(): 8}
_FLOATS = {pa.float32(): 4, pa.float64(): 8}
_OFFSETS = {pa.string(): -4, pa.binary(): -4, pa.large_string(): -8, pa.large_binary(): -8}
_FINITE = np.finfo(np.float32)
READ_AS_IDS = (
    ". To read text as ids, list its values in a file, one per line: "
    '{{ name = {0!r}, vocabulary = "values.txt" }}'
)
"""Advice on a column of text, whose name is to be filled in."""
_CAST_IDS = (
    ". The model reads it as ids. pandas turns integers beside a null into double: cast the column "
    'to integers in the file, in pandas with astype("Int64"); whole numbers lose nothing'
)


@dataclass(frozen=True)
class Feature:
    """One input column of a model.

    `kind` is "float32", or "int64" or "string" for a column that an Embedding or a lookup reads
    unchanged. `nulls` is "error", "previous", "skip" or the number (or text) that replaces null;
    `nan` is "error" or "null". With a `vocabulary`, the model reads ids. `ids`: the integers are
    ids below this number, a layer's limit; None: no limit.
    """

    name: str
    kind: str = "float32"
    valid: tuple[float, float] | None = None
    clip: tuple[float, float] | None = None
    nulls: str | float = "error"
    nan: str = "error"
    vocabulary: Vocabulary | None = None
    ids: int | None = None


@dataclass
class Rows:
    """A record batch as arrays, which do not depend on earlier batches.

    `features` (N, F) float32 has NaN for null, and no NaN if `complete`; `identifiers`: feature of
    kind int64 or string -> its values, and which are present. `time` is in ticks. `looked_up` has
    the columns with a vocabulary. What `counts` omits is 0.
    """

    batch: pa.RecordBatch
    origin: Origin
    time: Ints | None
    features: Floats
    complete: bool
    identifiers: dict[str, tuple[npt.NDArray[np.generic], Bools]]
    reset: Bools | None
    faults: Faults
    counts: dict[str, int]
    looked_up: dict[str, LookedUp]
    key_names: Sequence[str]
    time_name: str | None

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    @property
    def keys(self) -> list[pa.Array]:
        """The key columns."""
        return [self.batch.column(name) for name in self.key_names]

    def place(self, row: int) -> str:
        """Return the location of a row, for a message."""
        return f"{self.origin.place(row)}: stream {named_values(self.key_names, self.keys, row)}"

    def number(self, row: int) -> int | None:
        """Return the number of a row in the input, if the origin of the rows records it."""
        return None if self.origin.number_N is None else int(self.origin.number_N[row])


@dataclass(frozen=True)
class Contract:
    """The columns of a source and how their values are read (see `[source]`)."""

    key: tuple[str, ...]
    time: str | None
    features: tuple[Feature, ...]
    time_features: tuple[str, ...] = ()
    reset: str | None = None
    time_zone: str = ""
    added: tuple[str, ...] = ()

    def columns(self, carried: Sequence[str] = ()) -> list[str]:
        """Return the names of all columns in use, each once."""
        used = *self.key, self.time, *(f.name for f in self.features), self.reset
        names = [*used, *self.added, *carried]
        return list(dict.fromkeys(n for n in names if n is not None))

    def features_alone(self, carried: Sequence[str] | None) -> dict[str, Feature]:
        """Return the columns that are only features; none if all are carried (`carried` is None).

        As they become float32, int64 or text, files may have them in any type that can be read.
        """
        if carried is None:
            return {}
        other = {*self.key, self.time, self.reset, *self.added, *carried}
        return {f.name: f for f in self.features if f.name not in other}

    @cached_property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """The vocabularies, by feature."""
        return {f.name: f.vocabulary for f in self.features if f.vocabulary is not None}

    @cached_property
    def limited(self) -> tuple[Feature, ...]:
        """The features with a maximum id, except those with a vocabulary, which never exceed it."""
        return tuple(f for f in self.features if f.ids is not None and f.vocabulary is None)

    @cached_property
    def _plain(self) -> PlainFloats:
        return PlainFloats(self.floats)

    @cached_property
    def floats(self) -> tuple[Feature, ...]:
        """The features that are read as float32."""
        return tuple(f for f in self.features if f.kind == "float32")

    def feature_names(self) -> list[str]:
        """Return the names of the float32 columns of `Rows.features`, in order."""
        return [f.name for f in self.floats] + [
            part for name in self.time_features for part in (f"{name}_sin", f"{name}_cos")
        ]

    def check(self, schema: pa.Schema, path: str) -> None:
        """Raise DTypeError if a column has a type that cannot be used."""
        for name in self.key:
            kind = schema.field(name).type
            stored = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
            if not has_equality(stored):
                raise DTypeError(
                    f"{path}: [source] key: column {name!r}: expected a type that a key can have "
                    f"(string, integer, boolean, date, timestamp, decimal, binary), received {kind}"
                )
        if self.time is not None:
            _check_time(schema.field(self.time), bool(self.time_features), self.time_zone, path)
        if self.reset is not None and not pa.types.is_boolean(schema.field(self.reset).type):
            raise DTypeError(
                f"{path}: [source] reset: column {self.reset!r}: expected boolean, "
                f"received {schema.field(self.reset).type}"
            )
        for feature in self.features:
            check_feature(schema.field(feature.name).type, feature, path)

    def read(self, batch: pa.RecordBatch, origin: Origin) -> Rows:
        """Convert a record batch of N rows to arrays; `faults` has the invalid rows."""
        faults = Faults.of_rows(batch.num_rows)
        counts = {"filled": 0, "nan": 0, "clipped": 0, "out_of_range": 0}
        looked_up: dict[str, LookedUp] = {}

        def ids_of(name: str) -> pa.Array:
            array = batch.column(name)
            if name not in self.vocabularies:
                return array
            ids, seen = self.vocabularies[name].look_up(array, name, faults)
            looked_up[name] = seen
            if seen.unknown:
                counts["unknown"] = counts.get("unknown", 0) + seen.unknown
                counts[f"{UNKNOWN_IN}{name}"] = seen.unknown
            return ids

        column = ids_of if self.vocabularies else batch.column
        for name in self.key:
            array = batch.column(name)
            if array.null_count:
                faults.add(nulls_of(array), f"column {name!r}: key is null")
        time = self._time(batch, faults)
        features, complete = self._floats(batch, column, faults, counts)
        identifiers = {
            f.name: to_identifiers(column(f.name), f, faults, counts)
            for f in self.features
            if f.kind != "float32"
        }
        for f in self.limited:
            check_ids(identifiers[f.name][0], f, faults)
        if unfit := origin.unfit_rows():
            faults.replace(unfit)
        return Rows(
            batch=batch,
            origin=origin,
            time=time,
            features=features,
            complete=complete,
            identifiers=identifiers,
            reset=self._reset(batch, faults),
            faults=faults,
            counts=counts,
            looked_up=looked_up,
            key_names=self.key,
            time_name=self.time,
        )

    def _time(self, batch: pa.RecordBatch, faults: Faults) -> Ints | None:
        if self.time is None:
            return None
        array = batch.column(self.time)
        if array.null_count:
            faults.add(nulls_of(array), f"column {self.time!r}: time is null")
        values = ticks(array)
        if self.time_features:
            kind = array.type
            most = MOST_TICKS["day" if pa.types.is_date32(kind) else getattr(kind, "unit", "ms")]
            beyond = (values > most) | (values < -most)
            if b"\1" in beyond.tobytes():  # any() runs Python code: too slow for few rows
                reason = f"column {self.time!r}: time is more than 28,500 years from 1970"
                faults.add(beyond, reason)
        return values

    def _reset(self, batch: pa.RecordBatch, faults: Faults) -> Bools | None:
        if self.reset is None:
            return None
        array = batch.column(self.reset)
        if array.null_count:
            reason = f"column {self.reset!r}: expected true or false, received null"
            faults.add(nulls_of(array), reason)
        values: Bools = array.fill_null(False).to_numpy(zero_copy_only=False)
        return values

    def _floats(
        self,
        batch: pa.RecordBatch,
        column: Callable[[str], pa.Array],
        faults: Faults,
        counts: dict[str, int],
    ) -> tuple[Floats, bool]:
        """Return the features, and whether it is certain that no value is null."""
        out, plain = self._plain.read(batch)
        complete = plain is self._plain.no_nulls and not self._plain.bounded
        for index, f in enumerate(() if complete else self.floats):
            if (nulls := plain.get(index)) is None:
                out[:, index] = to_float32(column(f.name), f, faults, counts)
            elif nulls or f.valid is not None or f.clip is not None:
                out[:, index] = limit(out[:, index].copy(), f, faults, counts)
        return self.with_time(out, batch), complete

    def plain_columns(self, schema: pa.Schema, stored: pa.Schema) -> PlainColumns | None:
        """Return how to read columns in place (see `kernels.rows`); None if no row can be plain.

        Rows cannot be plain with several key columns, a reset column, a vocabulary, a feature that
        is not read as float32, or a type that needs conversion. `stored` has the types in which
        keys are compared.
        """
        if len(self.key) > 1 or self.reset or len(self.floats) < len(self.features):
            return None
        key, *features = map(schema.get_field_index, (*self.key, *(f.name for f in self.floats)))
        time = -1 if self.time is None else schema.get_field_index(self.time)
        widths = [_FLOATS.get(schema.field(place).type) for place in features]
        kind = schema.field(key).type
        key_width = _key_width(kind) if kind == stored.field(self.key[0]).type else None
        time_width: int | None = 0
        if time >= 0:
            of_time = schema.field(time).type
            time_width = 8 if pa.types.is_timestamp(of_time) else _TIMES.get(of_time)
        if not key_width or time_width is None or None in widths or self.vocabularies:
            return None
        low, high = np.array([_limits(f) for f in self.floats], np.float32).reshape(-1, 2).T
        low, high = np.ascontiguousarray(low), np.ascontiguousarray(high)
        places, sizes = np.array(features, np.int64), np.array(widths, np.int64)
        return PlainColumns(key, key_width, time, time_width, places, sizes, low, high)

    def with_time(self, features_NF: Floats, batch: pa.RecordBatch) -> Floats:
        """Return the features with two columns appended for each time feature."""
        if not self.time_features:
            return features_NF
        rows, i = features_NF.shape
        out = np.empty((rows, i + 2 * len(self.time_features)), np.float32)
        out[:, :i] = features_NF
        for name in self.time_features:
            times = with_clock(batch.column(self.time), self.time_zone)
            angles = sine_and_cosine(name, times)
            out[:, i] = angles[:, 0]  # both at once takes 20 times as long
            out[:, i + 1] = angles[:, 1]
            i += 2
        return out


def _key_width(kind: pa.DataType) -> int | None:
    """Return the size of a key in bytes, or minus the size of its offsets; None without either."""
    types = pa.types
    if types.is_decimal(kind) or types.is_fixed_size_binary(kind) or types.is_primitive(kind):
        return None if types.is_boolean(kind) else kind.bit_width // 8
    return _OFFSETS.get(kind)


def _limits(feature: Feature) -> tuple[np.float32, np.float32]:
    """Return the limits between which a number is not changed."""
    pairs = [float32_limits(pair) for pair in (feature.valid, feature.clip) if pair is not None]
    low, high = zip((_FINITE.min, _FINITE.max), *pairs, strict=True)
    return max(low), min(high)


def _check_time(field: pa.Field, calendar: bool, zone: str, path: str) -> None:
    kind, types = field.type, pa.types
    place = f"column {field.name!r}: expected"
    integer = types.is_integer(kind) and kind != pa.uint64() and not calendar
    if not (types.is_timestamp(kind) or types.is_date(kind) or integer):
        expected = (
            "timestamp or date" if calendar else "timestamp, date or integer other than uint64"
        )
        why = " (time_features require calendar dates)" if calendar else ""
        raise DTypeError(f"{path}: [source] time: {place} {expected}{why}, received {kind}")
    if not types.is_timestamp(kind):
        if not zone:
            return
        raise DTypeError(
            f"{path}: [source] time_zone: {place} a timestamp, received {kind}, which is the same "
            "in all zones. Remove time_zone"
        )
    try:
        pc.hour(pa.scalar(0, kind))
    except pa.ArrowInvalid as error:
        raise DTypeError(
            f"{path}: [source] time: {place} a time zone in the time zone database of this "
            f"machine, received {kind}: {error}"
        ) from error


def check_feature(kind: pa.DataType, feature: Feature, path: str) -> None:
    """Raise DTypeError if a column of this type cannot be read as the feature."""
    if feature.vocabulary is not None:
        feature.vocabulary.check(kind, feature.name, path)
        return
    types = pa.types
    text, number = is_text(kind), is_number(kind)
    if feature.kind == "string":
        fits, expected = text, "string"
    elif feature.kind == "int64":
        fits, expected = types.is_integer(kind), "integer"
    else:
        fits, expected = number, "number or boolean"
    if not fits and not types.is_null(kind):  # a column without values fits any type
        advice = _CAST_IDS if feature.kind == "int64" and number else ""
        if text:
            advice = READ_AS_IDS.format(feature.name)
        raise DTypeError(
            f"{path}: [source] features: column {feature.name!r}: expected {expected}, "
            f"received {kind}{advice}"
        )
