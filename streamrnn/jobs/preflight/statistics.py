"""The features of a pipeline: what footers record, and what the model expects."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamrnn.base.display import count
from streamrnn.nn.models.runners import input_scaling
from streamrnn.stream.scoring.bind import LoadedPipeline
from streamrnn.stream.sources import ColumnStatistics, Feature, FileSource

FAR = 6.0
"""Number of deviations from the mean of a `Normalization` beyond which a value is reported."""


@dataclass(frozen=True)
class FeatureFacts:
    """One feature: nulls, minimum and maximum in all files, and the model's normalization.

    `rows` counts the rows whose statistics are recorded; `nulls` is None if their number is not
    recorded. `mean` and `deviation` are None if no `Normalization` reads the feature.
    """

    name: str
    type: str
    rows: int = 0
    nulls: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    deviation: float | None = None


def features_of(loaded: LoadedPipeline, source: FileSource | None) -> list[FeatureFacts]:
    """Return the facts about each feature; without a source of files, only the model's."""
    features, scaling = loaded.contract.features, scaling_of(loaded)
    recorded = source.statistics([f.name for f in features]) if source is not None else {}
    facts = []
    for feature in features:
        of = recorded.get(feature.name, ColumnStatistics())
        rows = of.rows - of.unrecorded
        nulls = of.nulls if rows or of.nulls else None
        ends, moments = (of.minimum, of.maximum), scaling.get(feature.name, (None, None))
        facts.append(FeatureFacts(feature.name, feature.kind, rows, nulls, *ends, *moments))
    return facts


def scaling_of(loaded: LoadedPipeline) -> dict[str, tuple[float, float]]:
    """Return mean and deviation by feature.

    An input is left out if all its means are 0 and all its deviations are 1, as before a fit.
    """
    by_feature = {}
    for name, (means, deviations) in input_scaling(loaded.model).items():
        if not means.any() and (deviations == 1).all():
            continue
        columns = loaded.input_columns[name]
        for i, column in enumerate(columns):
            at = i if len(means) == len(columns) else 0
            by_feature[column] = float(means[at]), float(deviations[at])
    return by_feature


def warnings_of(loaded: LoadedPipeline, facts: Sequence[FeatureFacts]) -> list[str]:
    """Return warnings of nulls that a run refuses, and of values that the model does not expect."""
    rejects = loaded.config.source.bad == "reject"
    messages = []
    for feature, item in zip(loaded.contract.features, facts, strict=True):
        if item.nulls and feature.nulls == "error":
            messages.append(_on_nulls(item, rejects))
        messages += _on_valid(feature, item)
        messages += _on_scale(feature, item)
    return messages


def refusals_of(loaded: LoadedPipeline, facts: Sequence[FeatureFacts]) -> list[str]:
    """Return a message for each feature with values that stop a run, unless rows are rejected."""
    messages = []
    for feature, item in zip(loaded.contract.features, facts, strict=True):
        if feature.nulls == "error":
            messages += [_on_nulls(item, rejects=False)] if item.nulls else _on_valid(feature, item)
    return messages


def _on_nulls(item: FeatureFacts, rejects: bool) -> str:
    outcome = "their rows are rejected" if rejects else "a run stops at the first"
    return (
        f"feature {item.name!r}: {count(item.nulls or 0, 'null')} in {count(item.rows, 'row')}, "
        f'and nulls = "error": {outcome}. Set nulls to "previous", "skip" or a number'
    )


def _on_valid(feature: Feature, item: FeatureFacts) -> list[str]:
    if feature.valid is None:
        return []
    low, high = feature.valid
    with np.errstate(over="ignore"):  # a run compares float32 numbers
        ends = [
            f"{name} {value:g}"
            for name, value in (("minimum", item.minimum), ("maximum", item.maximum))
            if value is not None and not np.float32(low) <= np.float32(value) <= np.float32(high)
        ]
    if not ends:
        return []
    return [
        f"feature {item.name!r}: {' and '.join(ends)} outside valid = [{low:g}, {high:g}]: such "
        f'values are treated as null, and nulls = "{feature.nulls}"'
    ]


def _on_scale(feature: Feature, item: FeatureFacts) -> list[str]:
    if item.mean is None or not item.deviation:
        return []
    limits = [pair for pair in (feature.valid, feature.clip) if pair is not None]
    far = [
        (value, abs(value - item.mean) / item.deviation)
        for value in (item.minimum, item.maximum)
        if value is not None and all(low <= value <= high for low, high in limits)
    ]
    value, deviations = max(far, key=lambda pair: pair[1], default=(0.0, 0.0))
    if deviations <= FAR:
        return []
    return [
        f"feature {item.name!r}: {value:g} is {deviations:,.0f} deviations from the mean of the "
        f"model's Normalization ({item.mean:g}, deviation {item.deviation:g}). Check the unit of "
        "the column, or limit it with valid or clip"
    ]
