"""A guess of the columns that feed each input of a model, from names, types, width and scaling."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamrnn.base.arrays import Floats
from streamrnn.stream.config import TODO
from streamrnn.stream.sources.casts import is_real, is_text

_InputSpec = tuple[str, tuple[int | None, ...], str]

_WAVE = ("hour_sin", "hour_cos")
_FAR = 0.75
"""Limit of a distance: difference of means, in deviations, plus ratio of deviations minus 1."""


@dataclass
class GuessedFeatures:
    """The features of each input, time features, and notes on how they were guessed."""

    inputs: dict[str, list[str]] = field(default_factory=dict)
    vocabularies: list[str] = field(default_factory=list)
    """Columns of text that an input of numbers reads."""
    time_features: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """All columns, each once, without time features."""
        names = [name for names in self.inputs.values() for name in names]
        return [name for name in dict.fromkeys(names) if name not in _WAVE]


def named_columns(specs: Sequence[_InputSpec], sample: pa.Table) -> dict[str, str]:
    """Return the column with a similar name, if any, for each input that reads one column."""
    named: dict[str, str] = {}
    for name, shape, dtype in specs:
        if _width(shape, dtype) == 1:
            fitting = [f.name for f in sample.schema if fits(f.type, dtype)]
            column = _by_name(name, [n for n in fitting if n not in named.values()])
            if column is not None:
                named[name] = column
    return named


def guess_features(
    specs: Sequence[_InputSpec],
    sample: pa.Table,
    taken: Sequence[str],
    scaling: Mapping[str, tuple[Floats, Floats]],
    *,
    has_times: bool,
) -> GuessedFeatures:
    """Guess the features of each input, except `taken` columns (key, time, partitions)."""
    named = {i: c for i, c in named_columns(specs, sample).items() if c not in taken}
    guess = GuessedFeatures()
    for name, shape, dtype in specs:
        used = {*taken, *named.values(), *(c for cs in guess.inputs.values() for c in cs)}
        free = [f.name for f in sample.schema if f.name not in used and fits(f.type, dtype)]
        if name in named:
            guess.inputs[name] = [named[name]]
            guess.notes.append(f"input {name!r}: the column with the same or a similar name")
        elif dtype != "float32":
            unused = sample.select([name for name in sample.column_names if name not in used])
            _only_column(guess, name, dtype, free, unused)
        else:
            ends = scaling.get(name)
            _float_columns(guess, name, _width(shape, dtype), free, sample, ends, has_times)
    return guess


def _width(shape: tuple[int | None, ...], dtype: str) -> int | None:
    return 1 if dtype != "float32" or len(shape) == 1 else shape[-1]


def fits(kind: pa.DataType, dtype: str) -> bool:
    """Return whether an input of this dtype can read a column of this type."""
    if dtype == "string":
        return is_text(kind)
    if dtype == "int64":
        return bool(pa.types.is_integer(kind))
    return is_real(kind) or bool(pa.types.is_decimal(kind))


def _by_name(name: str, columns: Sequence[str]) -> str | None:
    """Return the column of this name, else the only one whose name extends or begins it."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    wanted = plain(name)
    if exact := [column for column in columns if plain(column) == wanted]:
        return exact[0]
    alike = [
        column
        for column in columns
        if min(len(wanted), len(plain(column))) > 2
        and (plain(column).startswith(wanted) or wanted.startswith(plain(column)))
    ]
    return alike[0] if len(alike) == 1 else None


def _only_column(
    guess: GuessedFeatures, name: str, dtype: str, free: list[str], unused: pa.Table
) -> None:
    kind = {"int64": "integers", "string": "text"}[dtype]
    if len(free) == 1:
        guess.inputs[name] = free
        guess.notes.append(f"input {name!r}: the only column of {kind} that is left")
        return
    text = [f.name for f in unused.schema if fits(f.type, "string")]
    words = _by_name(name, text) or (text[0] if len(text) == 1 and not free else None)
    if dtype == "int64" and words is not None:
        guess.inputs[name] = [words]
        guess.vocabularies.append(words)
        guess.notes.append(
            f"{TODO}: input {name!r} reads ids of the text in {words!r}: name its vocabulary, a "
            "list or a file of the values in the order of training"
        )
        return
    guess.inputs[name] = [TODO]
    left = ", ".join(f"{f.name} ({f.type})" for f in unused.schema) or "none"
    among = ", ".join(free) if free else f"none has {kind}; left are {left}"
    guess.notes.append(f"{TODO}: input {name!r} reads one column of {kind}: {among}")


def _float_columns(
    guess: GuessedFeatures,
    name: str,
    width: int | None,
    free: list[str],
    sample: pa.Table,
    scaling: tuple[Floats, Floats] | None,
    has_times: bool,
) -> None:
    floats = [n for n in free if pa.types.is_floating(sample.schema.field(n).type)]
    if scaling is not None and width is not None and len(scaling[0]) == width > 1:
        matched = _by_scaling(free, sample, *scaling, has_times=has_times)
        if matched is not None:
            guess.inputs[name] = matched
            guess.notes.append(
                f"input {name!r}: the columns whose mean and deviation are nearest to those that "
                "the model's Normalization holds"
            )
            if _WAVE[0] in matched:
                guess.time_features = ("hour",)
                guess.notes.append(
                    "time features: the model has a sine and a cosine; hour is a guess: they may "
                    "also be of day_of_week or day_of_year"
                )
            return
    for columns, what in ((free, "numeric columns"), (floats, "columns of floats")):
        if columns and width in (None, len(columns)):
            guess.inputs[name] = columns
            guess.notes.append(
                f"input {name!r}: all {what} that are left, in the order of the file; check the "
                "order"
            )
            return
    guess.inputs[name] = [TODO]
    guess.notes.append(
        f"{TODO}: input {name!r} reads {width} features, in the order of training; numeric "
        f"columns: {', '.join(free) or 'none'}"
    )


def _by_scaling(
    columns: Sequence[str], sample: pa.Table, means: Floats, deviations: Floats, *, has_times: bool
) -> list[str] | None:
    """Return a column for each mean and deviation, nearest pairs first; None if one has no match.

    If the last two have mean 0 and variance 1/2, they are a sine and a cosine of the time.
    """
    waves = 0
    tail = np.abs(means[-2:]) < 0.05, np.abs(deviations[-2:] - np.sqrt(0.5)) < 0.05
    if has_times and len(means) > 2 and all(part.all() for part in tail):
        waves = 2
    slots = len(means) - waves
    moments = {n: m for n in columns if (m := _moments(sample[n])) is not None}
    pairs = sorted(
        (_distance(moments[column], (float(means[i]), float(deviations[i]))), i, column)
        for i in range(slots)
        for column in moments
    )
    chosen: dict[int, str] = {}
    for distance, slot, column in pairs:
        if distance < _FAR and slot not in chosen and column not in chosen.values():
            chosen[slot] = column
    if len(chosen) < slots:
        return None
    return [*(chosen[i] for i in range(slots)), *_WAVE[:waves]]


def _moments(column: pa.ChunkedArray) -> tuple[float, float] | None:
    values = column.cast(pa.float64(), safe=False).drop_null()
    if len(values) < 2:
        return None
    mean, deviation = pc.mean(values).as_py(), pc.stddev(values).as_py()
    return (mean, deviation) if np.isfinite(mean) and deviation > 0 else None


def _distance(column: tuple[float, float], model: tuple[float, float]) -> float:
    if not model[1] > 0:
        return np.inf
    ratio = column[1] / model[1]
    return abs(column[0] - model[0]) / model[1] + max(ratio, 1 / ratio) - 1
